"""The numbers of a report and of the summary at the end of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from liveptv.reports.profile import FlowProfile
from liveptv.session.frame_account import FrameAccount, account_of
from stream.messages import TrackFlag
from tracking.trajectories.file import Trajectories
from tracking.trajectories.schema import RecordArray

STAGE_ORDER = ("acquire", "detect", "track", "write", "control")


def facts(trajectories: Trajectories, profile: FlowProfile) -> list[dict[str, str]]:
    """The main results of a run, as `name` and `value`."""
    attributes = trajectories.attributes
    statistics = attributes.get("statistics", {})
    frames = trajectories.frames.size
    lengths = np.unique(trajectories.track, return_counts=True)[1]
    account = account_of(attributes, trajectories.frames)
    found = [
        ("frames", f"{frames}"),
        ("frames lost", _lost(account)),
        ("duration", f"{statistics.get('duration_s', float('nan')):.1f} s"),
        ("trajectories", f"{lengths.size}"),
        ("median length", f"{np.median(lengths) if lengths.size else 0:.0f} frames"),
        ("particles per frame", f"{len(trajectories) / max(frames, 1):.1f}"),
    ]
    reduced = np.count_nonzero(trajectories.flags & TrackFlag.REDUCED)
    if reduced:
        found.append(
            ("not fitted", f"{100 * reduced / len(trajectories):.1f} % of positions, the network's own")
        )
    if profile.theory is not None and np.isfinite(profile.deviation):
        found.append(
            ("largest deviation from laminar flow", f"{100 * profile.deviation:.1f} % of its maximum")
        )
    return [{"name": name, "value": value} for name, value in found]


def _lost(account: FrameAccount | None) -> str:
    if account is None:
        return "not known"
    return f"at least {account.total_lost}" if account.not_known else f"{account.total_lost}"


def problems(attributes: dict[str, Any], frames: RecordArray) -> list[str]:
    """Failures, lost frames, an unfinished file: to be known before the numbers are used."""
    lines = [str(line) for line in attributes.get("failures", [])]
    account = account_of(attributes, frames)
    if account is not None:
        lines += [
            f"{count} {'frame was' if count == 1 else 'frames were'} lost: {where}"
            for where, count in account.lost.items()
        ]
        lines += account.not_known
    if "end_reason" not in attributes:
        lines.append("the run has not ended, or its file was not finished; `liveptv recover` finishes it")
    return lines
