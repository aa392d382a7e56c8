"""The report of a trajectory file: some pictures and one page that needs nothing beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from liveptv.files import RunFiles
from liveptv.reports.facts import accounts_table, facts, problems
from liveptv.reports.flow_pictures import errors_picture, field_picture, neighbours_picture
from liveptv.reports.flow_results import LocationErrors, SectionField, location_errors, section_field
from liveptv.reports.pictures import frame_picture, profile_picture, trajectory_picture
from liveptv.reports.profile import FlowProfile, flow_profile
from liveptv.reports.publishing import Picture, indented, publish
from tracking.trajectory_file import Trajectories, TrajectoryFile, read_trajectories
from tracking.trajectory_snapshot import Snapshot, read_snapshot

EVENTS_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Report:
    """What was written, and the profile that it shows."""

    page: Path
    pictures: tuple[Path, ...]
    profile: FlowProfile


def write_report(files: RunFiles) -> Report:
    """Make the pictures and the page of `files.tracks`, replacing older ones.

    Raises `SourceError` if the trajectory file cannot be read, `OutputError` if the report cannot be written.
    """
    with TrajectoryFile(files.tracks) as file:
        events, finished = file.events(), file.finished
    trajectories = read_trajectories(files.tracks)
    snapshot = read_snapshot(files.tracks) if finished else None
    profile = flow_profile(trajectories)
    drawn = {
        "frame": _frame_figure(snapshot, trajectories.attributes),
        "trajectories": trajectory_picture(trajectories, depth=profile.over == "height"),
        "profile": profile_picture(profile),
    }
    section, errors = section_field(trajectories, profile), location_errors(trajectories)
    if section is not None:
        drawn["field"] = field_picture(section)
    if errors is not None:
        drawn |= {"errors": errors_picture(errors), "neighbours": neighbours_picture(errors)}
    captions = {
        "frame": "One camera image of the run with its detections.",
        "trajectories": "The trajectories, as measured.",
        "profile": f"Velocity along x, one point a trajectory and one a bin. {profile.left_out} trajectories are "
        "too far from the others of their bin to be in its mean: two particles taken for one, mostly.",
        "field": "The velocity over the channel's section, cell by cell."
        + ("" if section is None else _agreement(section)),
        "errors": "" if errors is None else _errors_in_words(errors),
        "neighbours": "The same errors by where in the picture the nearest other particle is.",
    }
    pictures = [Picture(name, figure, captions[name]) for name, figure in drawn.items() if figure is not None]
    fields = _fields(files.tracks.name, trajectories, profile, events)
    return Report(files.report, publish(files, "trajectories.html.j2", pictures, **fields), profile)


def _agreement(section: SectionField) -> str:
    if not np.isfinite(section.deviation_rms):
        return ""
    return f" It differs from the laminar flow by {100 * section.deviation_rms:.2f} % of its maximum (rms)."


def _errors_in_words(errors: LocationErrors) -> str:
    found = errors.residuals
    ratios = ", ".join(
        f"{axis} {ratio:.2f}" for axis, ratio in zip("xyz", found.ratio, strict=True) if np.isfinite(ratio)
    )
    return (
        f"Scatter of the displacements of {found.track.size} trajectories ({errors.shortest} displacements and "
        "more) about their medians, as the error of one position; it shows what changes from frame to frame, in a "
        f"steady flow. Measured over stated error: {ratios or 'none stated'}."
    )


def _frame_figure(snapshot: Snapshot | None, attributes: dict[str, Any]) -> Figure | None:
    if snapshot is None:
        return None
    found = snapshot.detections
    return frame_picture(
        np.asarray(snapshot.image),
        found["x_um"],
        found["y_um"],
        found["z_um"],
        float(attributes.get("pixel_size_um", 1.0)),
        f"frame {snapshot.frame}: {found['x_um'].size} particles",
    )


def _fields(
    name: str, trajectories: Trajectories, profile: FlowProfile, events: list[dict[str, Any]]
) -> dict[str, Any]:
    attributes = trajectories.attributes
    began_s = float(trajectories.frames["wall_s"][0]) if trajectories.frames.size else 0.0
    return {
        "title": f"liveptv: {name}",
        "subtitle": f"run {attributes.get('run_id', '?')}, {attributes.get('created', '?')}, "
        f"from {attributes.get('source', '?')}",
        "problems": problems(attributes),
        "facts": facts(trajectories, profile),
        "accounts": accounts_table(attributes),
        "events": [
            {"time": f"{event['wall_s'] - began_s:+.1f} s", "text": event["text"]}
            for event in events[:EVENTS_SHOWN]
        ],
        "configuration": indented(attributes.get("configuration", {})),
        "provenance": indented(
            {key: attributes.get(key, "") for key in ("versions", "computer", "model", "created", "notes")}
        ),
    }
