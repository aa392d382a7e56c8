"""The report of a trained model: scores during the training, errors, and the model's card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.training.property_scores import PropertyScore
from calibration.training.scoring import Scores
from engines.network.model_card import ModelCard
from liveptv.files import RunFiles
from liveptv.reports.look import INK, ONE, TWO, paper, plain_log_ticks
from liveptv.reports.publishing import ReportFigure, indented, publish

BLUE, RED, BLACK = ONE, TWO, INK
LINES = (("z", BLACK), ("x", BLUE), ("y", RED))
PROPERTIES_CAPTION = (
    "Properties of the particles found, with the stated standard errors: the line is where found is true."
)
FIGURES_A_ROW = 3
MICRON_DIGITS_FROM = 0.1
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
            *_property_figures(scores),
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
            {"name": "rms error of x, lone particles", "value": f"{_length(scores.x_um)} µm"},
            {"name": "of y", "value": f"{_length(scores.y_um)} µm"},
            *_depth_facts(card, scores),
            *[
                {
                    "name": f"rms error of {each.name}",
                    "value": f"{each.rms:.3g}, {100 * each.of_range:.1f} % of its range; error over stated "
                    f"{each.calibration:.2f}",
                }
                for each in scores.properties
                if each.rms is not None
            ],
            {"name": "particles in the test", "value": f"{found.true_particles}"},
        ],
        groups=[_row(group.from_um, group.to_um, group) for group in found.by_distance if group.particles],
        card=indented(card.model_dump(mode="json")),
    )
    return files.report


def _length(value_um: float) -> str:
    """A length with two digits after the point, three figures where it is smaller."""
    return f"{value_um:.2f}" if not value_um < MICRON_DIGITS_FROM else f"{value_um:.3g}"


def _depth_facts(card: ModelCard, scores: Scores) -> list[dict[str, str]]:
    if not card.depth:
        return []
    low_um, high_um = card.z_range_um
    return [
        {"name": "of z", "value": f"{_length(scores.z_um)} µm"},
        {"name": "depth range", "value": f"{_range_end(low_um)} to {_range_end(high_um)} µm"},
    ]


def _range_end(value_um: float) -> str:
    return f"{value_um:.0f}" if abs(value_um) >= 10 else f"{value_um:.2g}"


def _property_figures(scores: Scores) -> list[ReportFigure]:
    if not any(each.particles for each in scores.properties):
        return []
    return [ReportFigure("properties", properties_figure(scores.properties), PROPERTIES_CAPTION)]


def properties_figure(properties: tuple[PropertyScore, ...]) -> Figure:
    """Found against true values of each property, with stated standard errors."""
    shown = [each for each in properties if each.particles]
    rows = -(-len(shown) // FIGURES_A_ROW)
    columns = min(len(shown), FIGURES_A_ROW)
    figure = Figure(figsize=(10, 3.4 * rows), dpi=120, layout="constrained")
    for axes, each in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        axes.errorbar(
            each.true,
            each.found,
            yerr=each.error,
            fmt="o",
            ms=2.5,
            lw=0,
            elinewidth=0.6,
            color=BLUE,
            alpha=0.5,
        )
        ends = [float(min(each.true.min(), each.found.min())), float(max(each.true.max(), each.found.max()))]
        axes.plot(ends, ends, color=INK, lw=0.8)
        axes.set(xlabel=f"true {each.name}", ylabel=f"found {each.name}")
        axes.set_title(f"error over stated {each.calibration:.2f}", fontsize=9)
        axes.grid(visible=True, alpha=0.25)
    for axes in list(figure.axes)[len(shown) :]:
        axes.set_axis_off()
    return figure


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
    draw_course(parts, course)
    for axis, colour in LINES:
        minutes, values = _over_minutes(course, f"{axis}_um")
        if axis == "z" and all(map(math.isnan, values)):
            continue
        errors.plot(minutes, values, "o-", ms=3, color=colour, label=axis)
    errors.set(ylabel="rms error of lone particles (µm)")
    _as_course(errors)
    return figure


def draw_course(axes: Axes, course: list[dict[str, Any]]) -> None:
    """Missed and false particles, %, over the training time."""
    for name, colour in (("missed", BLUE), ("false", RED)):
        axes.plot(*_over_minutes(course, name, 100.0), "o-", ms=3, color=colour, label=name)
    axes.set(ylabel="missed, false (%)")
    _as_course(axes)


def _over_minutes(
    course: list[dict[str, Any]], name: str, factor: float = 1.0
) -> tuple[list[float], list[float]]:
    values = [math.nan if row.get(name) is None else factor * row[name] for row in course]
    return [row["trained_s"] / 60 for row in course], values


def _as_course(axes: Axes) -> None:
    axes.set(xlabel="training time (min)", yscale="log")
    plain_log_ticks(axes.yaxis)
    axes.legend(frameon=False)
    axes.grid(visible=True, which="both", alpha=0.25)


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
        if axis == "z" and not scores.evaluation.depth:
            continue
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
