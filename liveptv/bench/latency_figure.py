"""Figure of `liveptv bench latency`: the times of a frame through the loop, and how many frames that takes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liveptv.bench.latency import Latency

BAR = "#1f6fb2"
MARK = "#ff5a36"
MOST_FRAMES = 12
WAY = ("camera -> detections", "detections -> tracks", "tracks -> command", "command -> executed")
ADDED = ("command -> executed", "heartbeat -> acknowledged", "command -> acknowledged")


def latency_figure(latency: Latency) -> Figure:
    """Three panels: the median way of a frame, what the loop adds to a command, frames until it shows."""
    figure = Figure(figsize=(9.0, 6.4), dpi=130, layout="constrained")
    way, added, frames = figure.subplots(3, 1, height_ratios=(1.5, 1.2, 1.0))
    _way(way, latency)
    _added(added, latency)
    counts = np.bincount(np.minimum(latency.frames, MOST_FRAMES))
    bars = frames.bar(np.arange(len(counts)), 100.0 * counts / counts.sum(), color=BAR, width=0.7)
    frames.bar_label(bars, [f"{100 * c / counts.sum():.1f}" if c else "" for c in counts], fontsize=8)
    frames.set(
        xlabel="first frame that shows a command, frames after the one it was decided on",
        ylabel="commands (%)",
        xticks=np.arange(len(counts)),
        xticklabels=[f">= {n}" if n == MOST_FRAMES else str(n) for n in range(len(counts))],
        ylim=(0, 115),
    )
    size = f"{latency.shape[0]} x {latency.shape[1]} at {latency.rate_hz:g} frames/s"
    title = f"{size}, {len(latency.frames)} commands, {latency.lost} frames lost"
    figure.suptitle(title, fontsize=11)
    return figure


def _way(plot: Axes, latency: Latency) -> None:
    period_ms = 1e3 / latency.rate_hz
    shown_ms = 3.1 * period_ms
    begun = 0.0
    for row, stage in enumerate(WAY):
        values = latency.stages_ms[stage]
        p50, p99 = np.percentile(values, (50, 99))
        plot.barh(row, p50, left=begun, color=BAR, height=0.6)
        plot.plot([begun + p50, begun + p99], [row, row], color=BAR, lw=1.5)
        label = f"{p50:.2f} (p99 {p99:.2f}) ms"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        end = begun + p99 + 0.4
        place, side = (end, "left") if end < 0.7 * shown_ms else (0.995 * shown_ms, "right")
        plot.text(place, row, label, va="center", ha=side, fontsize=8, bbox=box)
        begun += p50
    for frame in range(1, 4):
        plot.axvline(frame * period_ms, color=MARK, lw=0.8, ls="--")
        plot.annotate(f"frame n + {frame}", (frame * period_ms, -0.75), fontsize=8, color=MARK, ha="right")
    plot.set(
        yticks=range(len(WAY)), yticklabels=WAY, xlabel="ms since the core got frame n (median; line: to p99)",
        xlim=(0, shown_ms), ylim=(len(WAY) - 0.4, -1.0),
    )  # fmt: skip


def _added(plot: Axes, latency: Latency) -> None:
    for stage in ADDED:
        values = np.sort(latency.stages_ms[stage])
        share = np.arange(1, len(values) + 1) / len(values)
        plot.step(np.maximum(values, 1e-2), 100 * share, where="post", label=stage)
    plot.axvline(5.0, color=MARK, lw=0.8, ls="--")
    plot.set(xscale="log", xlabel="ms since the command was sent", ylabel="commands within (%)")
    plot.legend(frameon=False, fontsize=8)
    plot.grid(visible=True, alpha=0.25)
