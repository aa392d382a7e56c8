"""The report of a trained model: scores during the training, errors, and the model's card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from calibration.training.scoring import Scores
from engines.network.model_card import ModelCard
from liveptv.files import RunFiles
from liveptv.reports.look import INK, ONE, TWO, paper, plain_log_ticks
from liveptv.reports.publishing import ReportFigure, indented, publish

BLUE, RED, BLACK = ONE, TWO, INK
LINES = (("z", BLACK), ("x", BLUE), ("y", RED))
HIGH = 0.1  # missed or false fraction above which longer training is advised


@paper()
def write_training_page(model: Path, card: ModelCard, course: list[dict[str, Any]], scores: Scores) -> Path:
    """Write the page and the figures beside the model, replacing older ones; returns where the page is."""
    files = RunFiles.beside(model)
    found = scores.evaluation
    publish(
        files,
        "training.html.j2",
        [
            ReportFigure(
                "course",
                course_figure(course),
                "Scores on held-out images during the training.",
            ),
            ReportFigure(
                "distance",
                distance_figure(scores),
                "By distance to the nearest neighbour: particles missed, and errors of the particles found.",
            ),
        ],
        title=f"liveptv: {model.name}",
        subtitle=f"{card.size} network, made from {card.made_from}"[:200],
        problems=_problems(scores),
        facts=[
            {"name": "missed (1 - recall)", "value": f"{100 * found.missed:.1f} %"},
            {"name": "false (1 - precision)", "value": f"{100 * found.false:.1f} %"},
            {"name": "rms error of x, lone particles", "value": f"{scores.x_um:.2f} µm"},
            {"name": "of y", "value": f"{scores.y_um:.2f} µm"},
            {"name": "of z", "value": f"{scores.z_um:.2f} µm"},
            {"name": "particles in the test", "value": f"{found.true_particles}"},
            {"name": "depth range", "value": "{:.0f} to {:.0f} µm".format(*card.z_range_um)},
        ],
        groups=[_row(group.from_um, group.to_um, group) for group in found.by_distance if group.particles],
        card=indented(card.model_dump(mode="json")),
    )
    return files.report


def _problems(scores: Scores) -> list[str]:
    if not scores.evaluation.matched:
        return ["The model found none of the particles: train it longer."]
    if scores.missed > HIGH or scores.evaluation.false > HIGH:
        return ["More than a tenth is missed or false: train it longer."]
    return []


def _row(from_um: float, to_um: float, group: Any) -> dict[str, str]:
    errors = group.errors
    rms = {axis: f"{errors[axis].rms_um:.2f}" if axis in errors else "" for axis in "xyz"}
    to = "" if math.isinf(to_um) else f" to {to_um:g}"
    missed = f"{100 * group.missed:.1f}"
    stated = f"{errors['z'].calibration:.2f}" if "z" in errors else ""
    return {
        "range": f"{from_um:g}{to}", "count": str(group.particles), "missed": missed, "stated": stated, **rms
    }  # fmt: skip


def course_figure(course: list[dict[str, Any]]) -> Figure:
    """Missed, false and errors over the training time; `course` are the scores of `Course`."""
    figure = Figure(figsize=(10, 3.4), dpi=120, layout="constrained")
    parts, errors = figure.subplots(1, 2)
    minutes = [row["trained_s"] / 60 for row in course]

    def values(name: str, factor: float = 1.0) -> list[float]:
        return [math.nan if row.get(name) is None else factor * row[name] for row in course]

    for name, colour in (("missed", BLUE), ("false", RED)):
        parts.plot(minutes, values(name, 100), "o-", ms=3, color=colour, label=name)
    for axis, colour in LINES:
        errors.plot(minutes, values(f"{axis}_um"), "o-", ms=3, color=colour, label=axis)
    parts.set(xlabel="training time (min)", ylabel="missed, false (%)", yscale="log")
    errors.set(xlabel="training time (min)", ylabel="rms error of lone particles (µm)", yscale="log")
    for axes in (parts, errors):
        plain_log_ticks(axes.yaxis)
        axes.legend(frameon=False)
        axes.grid(visible=True, which="both", alpha=0.25)
    return figure


def distance_figure(scores: Scores) -> Figure:
    """Missed particles and errors in classes of the distance to the nearest neighbour."""
    figure = Figure(figsize=(10, 3.4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    groups = [group for group in scores.evaluation.by_distance if group.particles]
    names = [f"> {g.from_um:g}" if math.isinf(g.to_um) else f"{g.from_um:g}-{g.to_um:g}" for g in groups]
    place = list(range(len(groups)))
    left.bar(place, [100 * group.missed for group in groups], color=BLUE)
    for n, group in enumerate(groups):
        left.annotate(f"of {group.particles}", (n, 100 * group.missed), ha="center", va="bottom", fontsize=8)
    for axis, colour in LINES:
        rms = [g.errors[axis].rms_um if axis in g.errors else math.nan for g in groups]
        right.plot(place, rms, "o-", ms=4, color=colour, label=axis)
    left.set(ylabel="missed (%)")
    right.set(ylabel="rms error (µm)", yscale="log")
    plain_log_ticks(right.yaxis)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xticks(place, names)
        axes.set_axisbelow(True)
        axes.set_xlabel("distance to nearest neighbour (µm)")
        axes.grid(visible=True, axis="y", alpha=0.25)
    return figure
