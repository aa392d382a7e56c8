"""The page of an evaluation: how well particles are found and measured, where not, and what is stated of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from calibration.evaluation import DISTANCE_BINS_UM, Evaluation, GroupScore
from calibration.matching import AXES, Matched
from liveptv.reports.detection_pictures import (
    depth_picture,
    distance_picture,
    recall_picture,
    stated_picture,
)
from liveptv.reports.look import paper
from liveptv.reports.publishing import Picture, publish_page
from liveptv.track_scores import TrajectoryScores

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
    """Write one page that needs nothing beside it; `truth` and `found` name the files in it.

    `evaluation` is the score of `matched`. Raises `OutputError` if the page cannot be written.
    """
    publish_page(
        page,
        "evaluation.html.j2",
        _pictures(evaluation, matched),
        title=f"liveptv: {found} against {truth}",
        subtitle=f"{evaluation.frames} frames, {evaluation.true_particles} true particles, "
        f"{evaluation.detections} detections; {_gates(evaluation)}",
        problems=problems(evaluation),
        facts=_facts(evaluation),
        axes=list(evaluation.errors),
        groups=[
            _row("all", _everyone(evaluation)),
            _row(f"lone: > {evaluation.lone.from_um:g}", evaluation.lone),
            *(_row(_range(group), group) for group in evaluation.by_distance if group.particles),
        ],
        depths=[_row(_range(group), group) for group in evaluation.by_depth if group.particles],
        tracks=[] if tracks is None else _tracks(tracks),
    )


def problems(evaluation: Evaluation) -> list[str]:
    """What a reader must know before believing the numbers."""
    if evaluation.true_particles and evaluation.detections and not evaluation.matched:
        return [
            "No detection is near a true particle of its frame. Both tables must be in um, with frames that count "
            "from 0 and x and y from the centre of the first pixel."
        ]
    wrong: list[str] = []
    if evaluation.matched < FEWEST_FOR_OFFSET:
        return wrong
    for axis, errors in evaluation.errors.items():
        if abs(errors.bias_um) > OFFSET * errors.rms_um:
            wrong.append(
                f"{axis} is off by {errors.bias_um:+.2g} um on the average: the truth and the detections may have "
                "another origin."
            )
    return wrong


def _pictures(evaluation: Evaluation, matched: Matched) -> list[Picture]:
    pictures = []
    if evaluation.depth and evaluation.matched:
        pictures.append(
            Picture("depth", depth_picture(matched), "Depth found and its error, over the true depth.")
        )
    pictures.append(
        Picture(
            "distance",
            distance_picture(matched, DISTANCE_BINS_UM),
            "By the distance in the plane to the nearest true particle. Left: how many are missed, with "
            "the 68 % interval (Wilson), and of how many. Middle: errors of those found. Right: where the false "
            "detections are.",
        )
    )
    if evaluation.by_depth:
        pictures.append(
            Picture(
                "recall",
                recall_picture(matched),
                f"Part of the particles that is found, over their true depth. {coverage(evaluation)}",
            )
        )
    if any(math.isfinite(errors.calibration) for errors in evaluation.errors.values()):
        pictures.append(
            Picture(
                "stated",
                stated_picture(matched),
                "Errors over their stated standard errors; 1 would be right. The usual one is 1.4826 times the "
                "median of the magnitude, which a few large errors do not change. What is beyond 5 is in the "
                "outermost bins, which may be higher than the picture.",
            )
        )
    return pictures


def coverage(evaluation: Evaluation) -> str:
    """How much of the depth range is covered, in words."""
    low, high = evaluation.by_depth[0].from_um, evaluation.by_depth[-1].to_um
    return (
        f"{100 * evaluation.depth_covered:.0f} % of the true depths, {low:.0f} to {high:.0f} um, are covered: at "
        f"least half of the largest recall, in {len(evaluation.by_depth)} parts."
    )


def _gates(evaluation: Evaluation) -> str:
    depth = "" if evaluation.gate_z_um is None else f" and {evaluation.gate_z_um:g} um in depth"
    return f"pairs lie within {evaluation.gate_xy_um:g} um in the plane{depth}"


def _facts(evaluation: Evaluation) -> list[dict[str, str]]:
    lone = evaluation.lone
    shown = [
        ("missed", _percent(evaluation.missed, 2)),
        ("false", _percent(evaluation.false, 2)),
        ("lone particles missed", _percent(lone.missed, 2)),
        (
            f"error of lone ones in {', '.join(lone.errors)}, rms",
            ", ".join(_number(errors.rms_um) for errors in lone.errors.values()) + " um",
        ),
    ]
    if evaluation.by_depth:
        shown.append(("of the depths covered", _percent(evaluation.depth_covered, 0)))
    stated = [errors.calibration_robust for errors in evaluation.errors.values()]
    if any(map(math.isfinite, stated)):
        names = ", ".join(evaluation.errors)
        shown.append((f"usual error / stated in {names}", ", ".join(f"{value:.2f}" for value in stated)))
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
        "usual": [_number(one.calibration_robust, ".2f") for one in shown],
    }


def _tracks(scores: TrajectoryScores) -> list[dict[str, str]]:
    tracks, links = scores.tracks, scores.links
    shown = [
        ("true trajectories", f"{tracks.true_tracks}"),
        ("found", f"{tracks.found_tracks}"),
        ("alpha, 1 where every position is exact", _number(tracks.alpha, ".3f")),
        ("beta, alpha less what false trajectories cost", _number(tracks.beta, ".3f")),
        ("similarity (JSC) of positions", _number(tracks.jsc, ".3f")),
        ("similarity (JSC) of trajectories", _number(tracks.jsc_tracks, ".3f")),
        ("links between successive points", f"{links.found_links}"),
        ("precision of the links", _number(links.precision, ".4f")),
        ("recall of the links", _number(links.recall, ".4f")),
        ("fragments a trajectory", _number(links.fragments, ".2f")),
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
