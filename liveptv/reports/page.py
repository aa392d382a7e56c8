"""The report of a run: one self-contained page and its figures, made from the trajectory file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from liveptv.files import RunFiles
from liveptv.flow_fit.channel_flow import FlowResult, flow_in
from liveptv.flow_fit.run_settings import channel_of
from liveptv.flow_fit.words import in_words as flow_in_words
from liveptv.reports.channel_figure import channel_figure
from liveptv.reports.diffusion_figure import diffusion_figure, diffusion_map_figure
from liveptv.reports.diffusion_results import DiffusionFindings, diffusion_findings
from liveptv.reports.drawings import drawings
from liveptv.reports.facts import facts, not_fitted_in_words, problems
from liveptv.reports.flow_figures import errors_figure, field_figure, neighbours_figure
from liveptv.reports.flow_results import LocationErrors, SectionField, location_errors, section_field
from liveptv.reports.look import paper, scripts
from liveptv.reports.profile import FlowProfile, flow_profile
from liveptv.reports.publishing import ReportFigure, embedded, indented, publish
from liveptv.reports.run_figures import frame_figure, profile_figure, trajectory_figure
from liveptv.reports.run_tables import (
    events_table,
    losses_in_words,
    main_settings,
    profile_table,
    run_events,
    stages_table,
    went_wrong,
)
from liveptv.reports.sides import sides_of
from liveptv.reports.volume_figure import volume_figure
from liveptv.session.self_check import in_words
from stream.errors import ConfigurationError
from stream.writer_lock import Claim
from tracking.physics.live.channel import moves
from tracking.trajectories.file import Trajectories, TrajectoryFile, read_trajectories
from tracking.trajectories.snapshot import Snapshot, read_snapshot

DRAWN_IN_PAGE = {"trajectories", "profile"}
log = logging.getLogger(__name__)

SCRIPTS = ("colours", "histogram", "plane", "profile", "space", "report")


@dataclass(frozen=True, slots=True)
class Report:
    """The files written, the profile that they show, and which positions were not fitted ("" if none)."""

    page: Path
    figures: tuple[Path, ...]
    profile: FlowProfile
    not_fitted: str = ""


def write_report(files: RunFiles) -> Report:
    """Make the page and the figures of `files.tracks`, replacing older ones.

    Raises `SourceError` if the trajectory file cannot be read, `OutputError` if the report cannot be written.
    """
    with TrajectoryFile(files.tracks) as file:
        file.check()
        events, finished = file.events(), file.finished
    trajectories = read_trajectories(files.tracks)
    snapshot = read_snapshot(files.tracks) if finished else None
    profile = flow_profile(trajectories)
    try:
        diffusion = diffusion_findings(trajectories)
    except (ArithmeticError, ValueError) as error:  # no reason to be without all the rest
        log.warning("the report of %s says nothing about diffusion: %s", files.tracks, error)
        diffusion = None
    flow = _flow(files, trajectories, profile)
    with paper():
        figures = _figures(trajectories, profile, snapshot, diffusion, flow)
        fields = _fields(files, trajectories, profile, events)
        fields["diffusion"] = [] if diffusion is None else diffusion.lines()
        fields["flow"] = [] if flow is None else list(flow_in_words(flow.found))
        with Claim(files.report, "report"):
            made = publish(files, "trajectories.html.j2", figures, **fields)
    return Report(files.report, made, profile, not_fitted_in_words(trajectories))


def _flow(files: RunFiles, trajectories: Trajectories, profile: FlowProfile) -> FlowResult | None:
    """The fit of the flow; None without a channel, depths, or enough trajectories."""
    if channel_of(trajectories.attributes) is None or profile.over != "height":
        return None
    try:
        found = flow_in(trajectories)
    except ConfigurationError as error:  # too few trajectories, mostly
        log.info("the report of %s has no fit of the flow: %s", files.tracks, error)
        return None
    except (ArithmeticError, ValueError) as error:  # no reason to be without all the rest
        log.warning("the report of %s has no fit of the flow: %s", files.tracks, error)
        return None
    return found if moves(found.fit) else None


def _figures(
    trajectories: Trajectories,
    profile: FlowProfile,
    snapshot: Snapshot | None,
    diffusion: DiffusionFindings | None,
    flow: FlowResult | None,
) -> list[ReportFigure]:
    drawn: dict[str, Figure | None] = {
        "frame": _frame_figure(snapshot, trajectories.attributes),
        "trajectories": trajectory_figure(trajectories, depth=profile.over == "height"),
        "profile": profile_figure(profile),
    }
    if diffusion is not None:
        drawn["diffusion"] = diffusion_figure(diffusion)
        if (over_image := diffusion.over_image()) is not None:
            drawn["diffusion-map"] = diffusion_map_figure(over_image)
    if flow is not None:
        drawn["flow"] = channel_figure(flow.fit)
    section, errors = section_field(trajectories, profile), location_errors(trajectories)
    if section is not None:
        drawn["field"] = field_figure(section)
    if errors is not None:
        drawn |= {"errors": errors_figure(errors), "neighbours": neighbours_figure(errors)}
    captions = {
        "frame": "One camera image of the run with its detections."
        if snapshot is None or snapshot.sides is None
        else "Maximum projections of one volume of the run along z, y and x, with its detections.",
        "trajectories": "The trajectories as measured.",
        "profile": _outliers(profile),
        "field": "Velocity along x over the cross-section of the channel; hatched: no data."
        + ("" if section is None else _agreement(section)),
        "errors": "" if errors is None else _errors_in_words(errors),
        "diffusion": "Left: D in bins, with standard errors. Right: D of single tracks of ten displacements and "
        "more; each of them is uncertain by itself.",
        "diffusion-map": "D over the image, of the axes that are used, and its standard error in each cell; "
        "framed: one of a hundred maps has such a cell by chance; hatched: too little is known.",
        "flow": "The fit, two standard errors, and trajectories near to where it is drawn. Right: mean "
        "differences in cells of the section; framed: one of a hundred maps has such a cell by chance; hatched: no "
        "data.",
        "neighbours": "The same errors over the position of the nearest neighbour in the image; hatched: no data.",
    }
    return [
        ReportFigure(name, figure, captions[name], in_page=name not in DRAWN_IN_PAGE)
        for name, figure in drawn.items()
        if figure is not None
    ]


def _outliers(profile: FlowProfile) -> str:
    if not profile.left_out:
        return ""
    return (
        f"Left out of the means: {profile.left_out} trajectories that are far from the others of their bin, mostly "
        "two particles tracked as one."
    )


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
        f"Error of one position, from the scatter of the displacements of {found.track.size} trajectories with at "
        f"least {errors.shortest} displacements; in a steady flow it shows random errors, not constant ones. "
        f"Measured error over standard error: {ratios or 'none stated'}."
    )


def _frame_figure(snapshot: Snapshot | None, attributes: dict[str, Any]) -> Figure | None:
    if snapshot is None:
        return None
    found = snapshot.detections
    if snapshot.sides is not None:
        return volume_figure(snapshot, float(attributes.get("pixel_size_um", 1.0)))
    return frame_figure(
        np.asarray(snapshot.image),
        found["x_um"],
        found["y_um"],
        found["z_um"],
        float(attributes.get("pixel_size_um", 1.0)),
        f"frame {snapshot.frame}: {found['x_um'].size} particles",
    )


def _fields(
    files: RunFiles, trajectories: Trajectories, profile: FlowProfile, in_file: list[dict[str, Any]]
) -> dict[str, Any]:
    attributes = trajectories.attributes
    began_s = float(trajectories.frames["wall_s"][0]) if trajectories.frames.size else 0.0
    events = run_events(files, in_file)
    shown = drawings(trajectories, profile)
    depth_um = shown["space"]["depth_um"]
    wrong = [*problems(attributes, trajectories.frames), *went_wrong(events)]
    return {
        "title": f"liveptv: {files.tracks.name}",
        "subtitle": f"run {attributes.get('run_id', '?')}, {attributes.get('created', '?')}, "
        f"from {attributes.get('source', '?')}",
        "problems": problems(attributes, trajectories.frames),
        "facts": facts(trajectories, profile),
        "profile_words": _profile_in_words(profile),
        "profile_over": profile.over,
        "has_theory": profile.theory is not None,
        "profile_rows": profile_table(profile),
        "histograms": shown["histograms"],
        "depth_range": None if depth_um is None else [f"{value:.0f}" for value in depth_um],
        "stages": stages_table(attributes),
        "losses": losses_in_words(attributes, trajectories.frames),
        "accounts": indented(attributes.get("accounts", {})),
        "events": events_table(events, began_s),
        "wrong": list(dict.fromkeys(wrong)),
        "settings": main_settings(attributes),
        "sides": "" if (sides := sides_of(trajectories)) is None else sides.in_words(),
        "recalibration": _recalibration_in_words(attributes.get("recalibration") or {}),
        "checks": in_words(attributes.get("self_check") or {}),
        "configuration": indented(attributes.get("configuration", {})),
        "provenance": indented(
            {key: attributes.get(key, "") for key in ("versions", "computer", "model", "created", "notes")}
        ),
        "drawings": embedded(shown),
        "scripts": scripts(SCRIPTS),
    }


def _recalibration_in_words(facts: dict[str, Any]) -> str:
    """What the looks for a recalibration gave; "" where there was none."""
    looks = facts.get("looks")
    if not looks:
        return ""
    times = "once" if looks == 1 else f"{looks} times"
    proposal = str(facts.get("proposal") or "")
    if proposal:
        return f"{proposal[0].upper()}{proposal[1:]}. (The run was looked at {times}.)"
    return f"The run was looked at {times}, and nothing was proposed. Last: {facts.get('last', '')}."


def _profile_in_words(profile: FlowProfile) -> str:
    words = f"{profile.tracks.track.size} trajectories"
    if profile.theory is not None and np.isfinite(profile.deviation):
        words += f", within {100 * profile.deviation:.1f} % of the laminar flow's maximum"
    return words
