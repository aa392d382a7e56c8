"""The page of a trained model: how good it is, where it fails, and how it became so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from calibration.training.scoring import Scores
from engines.network.model_card import ModelCard
from liveptv.files import RunFiles
from liveptv.reports.look import INK, ONE, TWO, paper
from liveptv.reports.publishing import Picture, indented, publish

BLUE, RED, BLACK = ONE, TWO, INK
LINES = (("z", BLACK, "z", 1), ("x", BLUE, "x, 10 times", 10), ("y", RED, "y, 10 times", 10))


@paper()
def write_training_page(model: Path, card: ModelCard, course: list[dict[str, Any]], scores: Scores) -> Path:
    """Write the page and the pictures beside the model, replacing older ones; returns where the page is."""
    files = RunFiles.beside(model)
    found = scores.evaluation
    publish(
        files,
        "training.html.j2",
        [
            Picture("course", course_picture(course), "Scores on held-out images during the training."),
            Picture(
                "distance",
                distance_picture(scores),
                "By the distance of the nearest neighbour: how many were missed, and the errors of the others.",
            ),
        ],
        title=f"liveptv: {model.name}",
        subtitle=f"{card.size} network, made from {card.made_from}"[:200],
        problems=_problems(scores),
        facts=[
            {"name": "missed", "value": f"{100 * found.missed:.1f} %"},
            {"name": "false", "value": f"{100 * found.false:.1f} %"},
            {"name": "lone particles, rms x", "value": f"{scores.x_um:.2f} um"},
            {"name": "rms y", "value": f"{scores.y_um:.2f} um"},
            {"name": "rms z", "value": f"{scores.z_um:.2f} um"},
            {"name": "particles in the test", "value": f"{found.true_particles}"},
            {"name": "depths", "value": "{:.0f} to {:.0f} um".format(*card.z_range_um)},
        ],
        groups=[_row(group.from_um, group.to_um, group) for group in found.by_distance if group.particles],
        card=indented(card.model_dump(mode="json")),
    )
    return files.report


def _problems(scores: Scores) -> list[str]:
    if not scores.evaluation.matched:
        return ["The model found no particle where one is: it needs a longer training."]
    if scores.missed > 0.1 or scores.evaluation.false > 0.1:
        return ["More than a tenth is missed or false: a longer training will help."]
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


def course_picture(course: list[dict[str, Any]]) -> Figure:
    """Missed, false and the depth error over the time trained; `course` as the scores of `Course`."""
    figure = Figure(figsize=(10, 3.4), dpi=120, layout="constrained")
    parts, depth = figure.subplots(1, 2)
    minutes = [row["trained_s"] / 60 for row in course]

    def values(name: str, factor: float) -> list[float]:
        return [math.nan if row.get(name) is None else factor * row[name] for row in course]

    for name, colour in (("missed", BLUE), ("false", RED)):
        parts.plot(minutes, values(name, 100), "o-", ms=3, color=colour, label=name)
    for axis, colour, label, factor in LINES:
        depth.plot(minutes, values(f"{axis}_um", factor), "o-", ms=3, color=colour, label=label)
    parts.set(xlabel="minutes trained", ylabel="% of the particles", yscale="log")
    depth.set(xlabel="minutes trained", ylabel="rms error of lone particles (um)", ylim=(0, None))
    parts.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    parts.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    parts.yaxis.set_minor_formatter(NullFormatter())
    for axes in (parts, depth):
        axes.legend(frameon=False)
        axes.grid(visible=True, which="both", alpha=0.25)
    return figure


def distance_picture(scores: Scores) -> Figure:
    """Missed particles and errors in classes of the nearest neighbour's distance."""
    figure = Figure(figsize=(10, 3.4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    groups = [group for group in scores.evaluation.by_distance if group.particles]
    names = [f"{g.from_um:g}+" if math.isinf(g.to_um) else f"{g.from_um:g}-{g.to_um:g}" for g in groups]
    place = list(range(len(groups)))
    left.bar(place, [100 * group.missed for group in groups], color=BLUE)
    for n, group in enumerate(groups):
        left.annotate(f"{group.particles}", (n, 100 * group.missed), ha="center", va="bottom", fontsize=8)
    for axis, colour, label, factor in LINES:
        rms = [factor * g.errors[axis].rms_um if axis in g.errors else math.nan for g in groups]
        right.plot(place, rms, "o-", ms=4, color=colour, label=label)
    left.set(ylabel="missed (%); number: particles")
    right.set(ylabel="rms error (um)", ylim=(0, None))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xticks(place, names)
        axes.set_xlabel("distance of the nearest neighbour (um)")
        axes.grid(visible=True, axis="y", alpha=0.25)
    return figure
