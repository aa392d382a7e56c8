"""The page of an evaluation: missed and false detections, errors, and whether standard errors are right."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from calibration.evaluation import DISTANCE_BINS_UM, FEWEST_IN_A_PART, Evaluation, GroupScore
from calibration.matching import AXES, Matched
from liveptv.reports.depth_figures import depth_figure, recall_figure
from liveptv.reports.look import paper
from liveptv.reports.neighbour_figures import distance_figure
from liveptv.reports.publishing import ReportFigure, publish_page
from liveptv.reports.standard_error_figures import standard_errors_figure
from liveptv.track_scores import TrajectoryScores

# A mean error above this part of the rms error is reported as an offset of the origin. Below it the offset adds at
# most 15 % to the rms; with 100 particles chance alone gives 0.1.
OFFSET, FEWEST_FOR_OFFSET = 0.5, 100


@paper()
def write_evaluation_page(
    page: Path,
    evaluation: Evaluation,
    matched: Matched,
    tracks: TrajectoryScores | None,
    *,
    truth: str,
    found: str,
) -> None:
    """Write one self-contained page; `truth` and `found` are the names of the files that it shows.

    `evaluation` is the score of `matched`. Raises `OutputError` if the page cannot be written.
    """
    publish_page(
        page,
        "evaluation.html.j2",
        _figures(evaluation, matched),
        title=f"liveptv: {found} against {truth}",
        subtitle=f"{evaluation.frames} frames, {evaluation.true_particles} true particles, "
        f"{evaluation.detections} detections; {_gates(evaluation)}",
        problems=problems(evaluation),
        facts=_facts(evaluation),
        axes=list(evaluation.errors),
        groups=[
            _row("all", _everyone(evaluation)),
            _row(f"lone: > {evaluation.lone.from_um:g}", evaluation.lone),
            *(
                _row(_range(group), group)
                for group in evaluation.by_distance
                if group.particles and group.from_um != evaluation.lone.from_um
            ),
        ],
        depths=[_row(_range(group), group) for group in evaluation.by_depth if group.particles],
        tracks=[] if tracks is None else _tracks(tracks),
    )


def problems(evaluation: Evaluation) -> list[str]:
    """Warnings to be read before the numbers."""
    if evaluation.true_particles and evaluation.detections and not evaluation.matched:
        return [
            "No detection is near a true particle of its frame. Both tables must be in µm, with frames counted "
            "from 0 and x and y measured from the centre of the first pixel."
        ]
    wrong: list[str] = []
    if evaluation.matched < FEWEST_FOR_OFFSET:
        return wrong
    for axis, errors in evaluation.errors.items():
        if abs(errors.bias_um) > OFFSET * errors.rms_um:
            wrong.append(
                f"{axis} is off by {errors.bias_um:+.2g} µm on average: truth and detections may have different "
                "origins."
            )
    return wrong


def _figures(evaluation: Evaluation, matched: Matched) -> list[ReportFigure]:
    figures = []
    if evaluation.depth and evaluation.matched:
        figures.append(
            ReportFigure(
                "depth",
                depth_figure(matched),
                "Left: depth found over true depth; the line is the ideal. Right: error of the depth.",
            )
        )
    figures.append(
        ReportFigure(
            "distance",
            distance_figure(matched, DISTANCE_BINS_UM),
            "By distance in the plane. Left: particles missed, with the 68 % confidence interval (Wilson) and the "
            "number of particles. Middle: errors of the particles found. Right: number of false detections.",
        )
    )
    if evaluation.by_depth:
        figures.append(
            ReportFigure(
                "recall",
                recall_figure(matched),
                f"Recall over the true depth. {coverage(evaluation)}",
            )
        )
    if any(math.isfinite(errors.calibration) for errors in evaluation.errors.values()):
        figures.append(
            ReportFigure(
                "stated",
                standard_errors_figure(matched, evaluation.errors),
                "Errors divided by their standard errors. Their spread is 1 if the standard errors are right: rms "
                "of all, and typical, from the median magnitude (times 1.4826), which ignores a few large errors. "
                "Values beyond ±5 are in the outermost bins, which may be cut off.",
            )
        )
    return figures


def coverage(evaluation: Evaluation) -> str:
    """The covered part of the depth range as a sentence."""
    low, high = evaluation.by_depth[0].from_um, evaluation.by_depth[-1].to_um
    return (
        f"{100 * evaluation.depth_covered:.0f} % of the depth range, {low:.0f} to {high:.0f} µm, is covered: "
        f"recall is at least half of its maximum. Of {len(evaluation.by_depth)} parts those with fewer "
        f"than {FEWEST_IN_A_PART} particles are left out."
    )


def _gates(evaluation: Evaluation) -> str:
    depth = "" if evaluation.gate_z_um is None else f" and {evaluation.gate_z_um:g} µm in depth"
    return f"matched within {evaluation.gate_xy_um:g} µm in the plane{depth}"


def _facts(evaluation: Evaluation) -> list[dict[str, str]]:
    lone = evaluation.lone
    shown = [
        ("missed (1 - recall)", _percent(evaluation.missed, 2)),
        ("false (1 - precision)", _percent(evaluation.false, 2)),
        ("lone particles missed", _percent(lone.missed, 2)),
        (
            f"rms error of lone particles in {', '.join(lone.errors)}",
            ", ".join(_number(errors.rms_um) for errors in lone.errors.values()) + " µm",
        ),
    ]
    if evaluation.by_depth:
        shown.append(("of the depth range covered", _percent(evaluation.depth_covered, 0)))
    stated = [errors.calibration_robust for errors in evaluation.errors.values()]
    if any(map(math.isfinite, stated)):
        names = ", ".join(evaluation.errors)
        shown.append(
            (f"typical error / standard error in {names}", ", ".join(f"{value:.2f}" for value in stated))
        )
    return [{"name": name, "value": value} for name, value in shown]


def _everyone(evaluation: Evaluation) -> GroupScore:
    return GroupScore(0.0, math.inf, evaluation.true_particles, evaluation.missed, evaluation.errors)


def _row(name: str, group: GroupScore) -> dict[str, Any]:
    errors = group.errors
    shown = [errors[axis] for axis in AXES if axis in errors]
    return {
        "name": name,
        "count": f"{group.particles}",
        "missed": _percent(group.missed, 1),
        "bias": [_number(one.bias_um, "+.3f") for one in shown],
        "rms": [_number(one.rms_um) for one in shown],
        "stated": [_number(one.calibration, ".2f") for one in shown],
        "typical": [_number(one.calibration_robust, ".2f") for one in shown],
    }


def _tracks(scores: TrajectoryScores) -> list[dict[str, str]]:
    tracks, links = scores.tracks, scores.links
    shown = [
        ("true trajectories", f"{tracks.true_tracks}"),
        ("found", f"{tracks.found_tracks}"),
        ("alpha (1: all positions exact)", _number(tracks.alpha, ".3f")),
        ("beta (alpha minus a penalty for false trajectories)", _number(tracks.beta, ".3f")),
        ("Jaccard similarity (JSC) of positions", _number(tracks.jsc, ".3f")),
        ("Jaccard similarity (JSC) of trajectories", _number(tracks.jsc_tracks, ".3f")),
        ("links between successive points", f"{links.found_links}"),
        ("precision of the links", _number(links.precision, ".4f")),
        ("recall of the links", _number(links.recall, ".4f")),
        ("fragments per trajectory", _number(links.fragments, ".2f")),
    ]
    return [{"name": name, "value": value} for name, value in shown]


def _range(group: GroupScore) -> str:
    if math.isinf(group.to_um):
        return f"> {group.from_um:g}"
    digits = "g" if group.from_um == int(group.from_um) and group.to_um == int(group.to_um) else ".0f"
    return f"{group.from_um:{digits}} to {group.to_um:{digits}}"


def _percent(value: float, digits: int) -> str:
    return "-" if not np.isfinite(value) else f"{100 * value:.{digits}f} %"


def _number(value: float, how: str = "#.3g") -> str:
    return format(value, how).rstrip(".") if math.isfinite(value) else "-"
