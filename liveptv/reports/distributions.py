"""Histograms of the depths, displacements and velocities of a run's trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from liveptv.reports.profile import FlowProfile
from liveptv.reports.property_results import of_tracks
from tracking.trajectories.file import Trajectories
from tracking.trajectories.heights import heights_um

FloatArray = npt.NDArray[np.float64]

BINS = 40
FEWEST = 30  # values from which a histogram is drawn
SHOWN_PERCENT = (0.25, 99.75)  # so that a few outliers do not squeeze the others into one bin
AXES = ("x", "y", "z")


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts (M,) between edges (M + 1,); `title`, and what is counted over what, with units."""

    title: str
    edges: FloatArray
    counts: FloatArray
    across: str
    up: str


def distributions(trajectories: Trajectories, profile: FlowProfile) -> dict[str, list[Histogram]]:
    """`depth`, `displacement` (per frame, x, y and z), `velocity` and `property` (per trajectory).

    Quantities with fewer than 30 values are left out, properties of fewer than 5 trajectories.
    """
    deep = profile.over == "height"
    depths = [("depth z relative to the focal plane", trajectories.z_um, "z, µm")] if deep else []
    height = heights_um(trajectories) if deep else trajectories.z_um
    if deep and len(trajectories) and np.ptp(np.nan_to_num(trajectories.of_frame("focus_um"))) > 1.0:
        depths.append(("height over all slices", height, "height, µm"))
    moved = displacements_um(trajectories, height)
    speeds = profile.tracks.velocity_um_s
    dimensions = AXES if deep else AXES[:2]
    found = {
        "depth": [_histogram(name, values, across, "particles") for name, values, across in depths],
        "displacement": [
            _histogram(f"along {axis}", moved[i], f"Δ{axis} per frame, µm", "displacements")
            for i, axis in enumerate(dimensions)
        ],
        "velocity": [
            _histogram(f"along {axis}", speeds[i], f"v{axis}, µm/s", "trajectories")
            for i, axis in enumerate(dimensions)
        ],
    }
    drawn = {name: [made for made in kind if made is not None] for name, kind in found.items()}
    drawn["property"] = [
        Histogram(f"{one.name}: {one.in_words()}", one.edges, one.counts, one.name, "trajectories")
        for one in of_tracks(trajectories)
    ]
    return drawn


def displacements_um(trajectories: Trajectories, height_um: FloatArray) -> FloatArray:
    """Displacements (3, K) along x, y and height of a track from one frame to the next, um; gaps are left out."""
    order = np.lexsort((trajectories.frame, trajectories.track))
    next_one = (np.diff(trajectories.track[order]) == 0) & (np.diff(trajectories.frame[order]) == 1)
    positions = np.stack([trajectories.x_um, trajectories.y_um, height_um])[:, order]
    moved: FloatArray = np.diff(positions, axis=1)[:, next_one]
    return moved


def _histogram(title: str, values: FloatArray, across: str, up: str) -> Histogram | None:
    """The histogram of the inner 99.5 % of the values; None with too few of them."""
    values = values[np.isfinite(values)]
    if values.size < FEWEST:
        return None
    low = float(np.percentile(values, SHOWN_PERCENT[0], method="lower"))
    high = float(np.percentile(values, SHOWN_PERCENT[1], method="higher"))
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    return Histogram(title, edges, np.histogram(values, edges)[0].astype(np.float64), across, up)
