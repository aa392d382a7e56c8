"""The report of a trained network for volumes: its scores by signal-to-noise ratio, also during the training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from engines.volumes.network.model_card import VolumeCard
from liveptv.files import RunFiles
from liveptv.reports.look import INK, ONE, TWO, paper, plain_log_ticks
from liveptv.reports.publishing import ReportFigure, indented, publish

COLOURS = (ONE, TWO, INK, "0.55")
F1, RMSE = "f1_snr", "rmse_snr"


@paper()
def write_volume_training_page(
    model: Path, card: VolumeCard, course: list[dict[str, Any]], scores: dict[str, Any]
) -> Path:
    """Write the page and the figure beside the model, replacing older ones; returns where the page is.

    `course` are the scores during the training, `scores` those of the finished network on fresh volumes.
    """
    files = RunFiles.beside(model)
    rows = by_snr(scores)
    text = "Loss and scores on held-out volumes during the training."
    publish(
        files,
        "volume_training.html.j2",
        [ReportFigure("course", course_figure(course), text)],
        title=f"liveptv: {model.name}",
        subtitle=f"{card.size} network for volumes, made from {card.made_from}"[:200],
        problems=[] if any(f1 for _, f1, _ in rows) else ["It found none of the particles: train it longer."],
        facts=[{"name": f"F1 at SNR {snr:g}", "value": f"{f1:.3f}"} for snr, f1, _ in rows],
        rows=[
            {"snr": f"{snr:g}", "f1": f"{f1:.3f}", "rmse": "" if math.isnan(rmse) else f"{rmse:.2f}"}
            for snr, f1, rmse in rows
        ],
        card=indented(card.model_dump(mode="json")),
    )
    return files.report


def by_snr(scores: dict[str, Any]) -> list[tuple[float, float, float]]:
    """Signal-to-noise ratio, F1 and RMSE (voxels, NaN where nothing was found) of one set of scores."""
    ratios = sorted(float(name.removeprefix(F1)) for name in scores if name.startswith(F1))
    return [(r, float(scores[f"{F1}{r:g}"]), _number(scores.get(f"{RMSE}{r:g}"))) for r in ratios]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def course_figure(course: list[dict[str, Any]]) -> Figure:
    """Loss, F1 and RMSE over the training time, a colour for each signal-to-noise ratio."""
    figure = Figure(figsize=(10, 3.2), dpi=120, layout="constrained")
    loss, found, errors = figure.subplots(1, 3)
    minutes = [row["trained_s"] / 60 for row in course]
    for name, label, colour in (("loss", "training", ONE), ("held_out_loss", "held out", TWO)):
        loss.plot(minutes, [_number(row.get(name)) for row in course], "o-", ms=3, color=colour, label=label)
    ratios = [r for r, _, _ in by_snr(course[-1])] if course else []
    for ratio, colour in zip(ratios, COLOURS, strict=False):
        for axes, name in ((found, F1), (errors, RMSE)):
            values = [_number(row.get(f"{name}{ratio:g}")) for row in course]
            axes.plot(minutes, values, "o-", ms=3, color=colour, label=f"SNR {ratio:g}")
    loss.set_ylabel("loss")
    found.set(ylabel="F1", ylim=(0, 1.02))
    errors.set(ylabel="RMSE (voxels)", yscale="log")
    plain_log_ticks(errors.yaxis)
    for axes in (loss, found, errors):
        axes.set_xlabel("training time (min)")
        axes.grid(visible=True, which="both", alpha=0.25)
    loss.legend(frameon=False)
    if ratios:  # the colours of the errors are those of F1
        found.legend(frameon=False)
    return figure
