"""Figure of the PSF model over depth beside camera images from the same depths (Franchini & Krevor, Fig. 2)."""

from __future__ import annotations

import h5py
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.result import Calibration

FloatArray = npt.NDArray[np.float64]

MOST_COLUMNS = 11  # depths shown, so that an image is still 2 cm wide on the page
NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
SIMILAR_BRIGHTNESS = (0.8, 1.25)  # relative to the median: a typical particle is shown, not a faint one
MOST_SEEN = (
    0.8  # the particle shown has images at this part at least of the depths that the best covered one has
)
NOISE_SHOWN = 3.0  # standard deviations of noise above the background that are black (or white)
BAR = "#ff5a36"


def round_depths(low_um: float, high_um: float) -> FloatArray:
    """At most eleven evenly spaced round depths within a range, 0 among them where it is inside."""
    span = high_um - low_um
    power = 10.0 ** np.floor(np.log10(span / MOST_COLUMNS))
    step = next(
        power * nice
        for nice in (*NICE, 20.0)
        if np.floor(high_um / (power * nice)) - np.ceil(low_um / (power * nice)) < MOST_COLUMNS
    )
    depths: FloatArray = step * np.arange(np.ceil(low_um / step), np.floor(high_um / step) + 1)
    return depths


def read_raw_images(traces: h5py.Group, found: Calibration, depths_um: FloatArray) -> FloatArray | None:
    """The first repeat nearest to each depth (M,), as contrast (M, P, P); None if the file has no images.

    They are of one particle of typical brightness and far from others, where it has images; else of others.
    """
    table, near_um = found.particles, 0.51 * float(np.median(np.abs(np.diff(found.focus_um))))
    particle, z_um = traces["particle"][:], traces["z_um"][:]
    if not z_um.size:
        return None
    low, high = (limit * np.median(table.brightness[table.used]) for limit in SIMILAR_BRIGHTNESS)
    typical = ((table.brightness > low) & (table.brightness < high))[particle] & traces["clean"][:].astype(
        bool
    )
    rows = np.flatnonzero(typical) if typical.any() else np.arange(z_um.size)
    there = np.abs(z_um[rows, None] - depths_um) < near_um
    seen = np.array([there[particle[rows] == index].any(axis=0).sum() for index in range(len(table))])
    chosen = int(np.argmax(np.where(seen >= MOST_SEEN * seen.max(), table.neighbour_px, -np.inf)))
    picked = []
    for depth in depths_um:
        away = np.abs(z_um[rows] - depth)
        own = particle[rows] == chosen
        if (away[own] < near_um).any():
            away[~own] = np.inf
        picked.append(int(rows[np.argmin(away)]))
    scale = float(traces["contrast"].attrs["scale"])
    return np.stack([traces["contrast"][row, 0] for row in picked]) * scale


def images_figure(found: Calibration, depths_um: FloatArray, raw: FloatArray | None) -> Figure:
    """A column for each depth (M,): the PSF model above, a camera image (M, P, P) below, on the same grey scale."""
    model, noise_sd = found.model, found.noise.contrast_sd
    average = model.images(depths_um).astype(np.float64)
    rows = [average] if raw is None else [average, raw]
    count = len(depths_um)
    side = 9.0 / count
    tall = side * len(rows) + 0.75
    figure = Figure(figsize=(9.6, tall), dpi=130)
    brightness = float(np.median(found.particles.brightness[found.particles.used]))
    for column in range(count):
        peak = float(average[column].max()) * max(brightness, 1.0)
        limits = (-NOISE_SHOWN * noise_sd, max(peak, NOISE_SHOWN * noise_sd) + NOISE_SHOWN / 2 * noise_sd)
        for row, stack in enumerate(rows):
            left = (0.55 + column * side) / 9.6
            bottom = (0.4 + (len(rows) - 1 - row) * side) / tall
            axes = figure.add_axes((left, bottom, 0.96 * side / 9.6, 0.96 * side / tall))
            _image(axes, stack[column], limits, model.polarity)
            if row == 0:
                axes.set_title(f"{depths_um[column]:+g}" if depths_um[column] else "0", fontsize=9, pad=3)
                if column == 0:
                    _scale_bar(axes, model.half_px, model.pixel_size_um)
            if column == 0:
                axes.set_ylabel(("PSF model", "camera")[row], fontsize=9)
        figure.text(
            (0.55 + (column + 0.48) * side) / 9.6,
            0.36 / tall,
            _percent(float(average[column].max())),
            ha="center",
            va="top",
            fontsize=9,
        )
    figure.text(0.5, 1 - 0.02 / tall, "depth z (µm)", ha="center", va="top", fontsize=9)
    what = "darker" if model.polarity == "dark" else "brighter"
    figure.text(
        0.5,
        0.02 / tall,
        f"peak contrast of the PSF model ({what} than the background)",
        ha="center",
        fontsize=9,
    )
    return figure


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %" if part < 0.1 else f"{100 * part:,.0f} %"


def _image(axes: Axes, contrast: FloatArray, limits: tuple[float, float], polarity: str) -> None:
    colours = "gray_r" if polarity == "dark" else "gray"
    axes.imshow(contrast, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_linewidth(0.3)


def _scale_bar(axes: Axes, half_px: int, pixel_size_um: float) -> None:
    width_um = (2 * half_px + 1) * pixel_size_um
    power = 10.0 ** np.floor(np.log10(width_um / 2))
    length_um = max(power * nice for nice in NICE if power * nice <= width_um / 2)
    first = 0.1 * half_px
    at = 1.86 * half_px
    axes.plot([first, first + length_um / pixel_size_um], [at, at], color=BAR, lw=2, solid_capstyle="butt")
    axes.text(first, at - 0.08 * half_px, f"{length_um:g} µm", color=BAR, fontsize=8, va="bottom")
