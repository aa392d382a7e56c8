"""Figure of a volume with its detections: maximum projections along its three axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tracking.trajectories.snapshot import Snapshot

DEPTH_MAP = "viridis"
LEAST, MOST = 0.14, 0.5
"""Height of the projections along y and x, as a part of the width of the image, where a common scale gives less or
more: a thin stack would be a line, a thick one would leave no room for the image."""
LARGEST = 1024  # pixels of a side that the grey values' percentiles are taken from, at most
WIDE_IN, AROUND_IN = 6.8, 0.9  # the image, and the room for its axes, inches


def volume_figure(snapshot: Snapshot, pixel_size_um: float) -> Figure:
    """Projections along z, y (below) and x (right), with a circle around each detection, coloured by depth.

    Raises `ValueError` for a snapshot of an image.
    """
    if snapshot.sides is None:
        raise ValueError("the snapshot is one of an image, not of a volume")
    image, sides = np.asarray(snapshot.image), snapshot.sides
    height, width = image.shape
    w_um, h_um = width * pixel_size_um, height * pixel_size_um
    low_um, high_um = sides.z_um
    thick = min(max((high_um - low_um) / w_um, LEAST), MOST)
    stretch = thick * w_um / (high_um - low_um)
    tall, deep = WIDE_IN * h_um / w_um, WIDE_IN * thick
    figure = Figure(figsize=(WIDE_IN + deep + 2.6 * AROUND_IN, tall + deep + 1.6 * AROUND_IN), dpi=130)
    wide_in, tall_in = figure.get_size_inches()

    def axes_at(left: float, bottom: float, right: float, top: float) -> Any:
        return figure.add_axes((left / wide_in, bottom / tall_in, right / wide_in, top / tall_in))

    below = AROUND_IN * 0.7
    xy = axes_at(AROUND_IN, below + deep + 0.15, WIDE_IN, tall)
    xz = axes_at(AROUND_IN, below, WIDE_IN, deep)
    yz = axes_at(AROUND_IN + WIDE_IN + 0.15, below + deep + 0.15, deep, tall)
    step = max(1, max(image.shape) // LARGEST)
    low, high = np.percentile(image[::step, ::step].astype(np.float64), (0.1, 99.9))
    grey: dict[str, Any] = {
        "cmap": "gray",
        "vmin": low,
        "vmax": max(high, low + 1),
        "interpolation": "nearest",
    }
    half = pixel_size_um / 2
    across, down = (-half, w_um - half), (h_um - half, -half)
    xy.imshow(image, extent=(*across, *down), aspect="auto", **grey)
    xz.imshow(sides.xz, extent=(*across, low_um, high_um), aspect="auto", origin="lower", **grey)
    yz.imshow(sides.yz, extent=(low_um, high_um, *down), aspect="auto", **grey)
    found = snapshot.detections
    x, y, z = (found[name] for name in ("x_um", "y_um", "z_um"))
    colours = ScalarMappable(Normalize(low_um, high_um), DEPTH_MAP)
    style: dict[str, Any] = {"s": 60.0, "linewidths": 1.0, "facecolors": "none"}
    edges = list(map(tuple, colours.to_rgba(np.nan_to_num(z, nan=low_um))))
    for axes, first, second in ((xy, x, y), (xz, x, z), (yz, z, y)):
        axes.scatter(first, second, edgecolors=edges, **style)
    more = "" if abs(stretch - 1) < 0.05 else f" (z stretched {stretch:.2g} times)"
    xy.set(
        ylabel="y (µm)", xlim=across, ylim=down, title=f"volume {snapshot.frame}: {x.size} particles{more}"
    )
    xy.tick_params(labelbottom=False)
    xz.set(xlabel="x (µm)", ylabel="z (µm)", xlim=across, ylim=sides.z_um)
    yz.set(xlabel="z (µm)", xlim=sides.z_um, ylim=down)
    yz.tick_params(labelleft=False)
    return figure
