"""The numbers of a report and of the summary at the end of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from liveptv.reports.profile import FlowProfile
from liveptv.session.views import lost_frames
from tracking.trajectory_file import Trajectories

STAGE_ORDER = ("acquire", "detect", "track", "write", "control")


def facts(trajectories: Trajectories, profile: FlowProfile) -> list[dict[str, str]]:
    """The few numbers that everybody asks for first, as `name` and `value`."""
    attributes = trajectories.attributes
    statistics = attributes.get("statistics", {})
    frames = trajectories.frames.size
    lengths = np.unique(trajectories.track, return_counts=True)[1]
    lost = sum(lost_frames(attributes.get("accounts", {})).values())
    found = [
        ("frames", f"{frames}"),
        ("frames lost", f"{lost}"),
        ("duration", f"{statistics.get('duration_s', float('nan')):.1f} s"),
        ("trajectories", f"{lengths.size}"),
        ("median length", f"{np.median(lengths) if lengths.size else 0:.0f} frames"),
        ("particles a frame", f"{len(trajectories) / max(frames, 1):.1f}"),
    ]
    if profile.theory is not None and np.isfinite(profile.deviation):
        found.append(("largest deviation from laminar flow", f"{100 * profile.deviation:.1f} % of maximum"))
        found.append(("trajectories left out of the profile", f"{profile.left_out}"))
    return [{"name": name, "value": value} for name, value in found]


def problems(attributes: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the numbers: failures, losses, an unfinished file."""
    lines = [str(line) for line in attributes.get("failures", [])]
    lost = lost_frames(attributes.get("accounts", {}))
    lines += [f"{count} frames were lost {where}" for where, count in lost.items() if count]
    if "end_reason" not in attributes:
        lines.append("the run has not ended, or its file was not finished; `liveptv recover` finishes it")
    return lines
