"""Figures of a calibration of volumes: sections, profiles, noise and the beads that were used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from calibration.volumes.result import VolumeCalibration
from liveptv.reports.look import BAD, INK, ONE, QUIET, TWO

FloatArray = npt.NDArray[np.float64]

GREY = "gray_r"
DIFFERENCE = "RdBu_r"
PART_OF_WIDTH = 0.3
"""A scale bar is about this part of its picture's width."""


def sections_figure(found: VolumeCalibration) -> Figure:
    """Sections across and along the axis: the beads' mean, the PSF, and what the PSF leaves over."""
    s = found.sections
    figure = Figure(figsize=(10.2, 6.2), dpi=130, layout="constrained")
    panels = figure.subplots(2, 3)
    for row, (name, beads, left) in enumerate(
        (("xy", s.beads_xy, s.residual_xy), ("xz", s.beads_xz, s.residual_xz))
    ):
        rows_um = s.step_um[1] if name == "xy" else s.step_um[0]
        extent = _extent(beads.shape, rows_um, s.step_um[2])
        model = _model(found, beads.shape, rows_um, s.step_um[2], along_z=name == "xz")
        limit = max(0.02, float(np.nanpercentile(np.abs(left), 99.5)) if np.isfinite(left).any() else 0.0)
        for axes, image, title, colours, low, high in (
            (panels[row, 0], beads, f"beads, {name}", GREY, 0.0, 1.0),
            (panels[row, 1], model, f"PSF, {name}", GREY, 0.0, 1.0),
            (panels[row, 2], left, f"beads minus PSF, {name}", DIFFERENCE, -limit, limit),
        ):
            shown = axes.imshow(
                image,
                cmap=colours,
                vmin=low,
                vmax=high,
                extent=extent,
                origin="lower",
                interpolation="nearest",
            )
            axes.set_title(title)
            _scale_bar(axes, extent)
            if axes is not panels[row, 0]:
                figure.colorbar(shown, ax=axes, shrink=0.8)
    return figure


def _model(
    found: VolumeCalibration, shape: tuple[int, ...], rows_um: float, columns_um: float, *, along_z: bool
) -> FloatArray:
    """A section of the PSF on the grid of the beads' sections."""
    rows = (np.arange(shape[0]) - (shape[0] - 1) / 2)[:, None] * rows_um
    columns = (np.arange(shape[1]) - (shape[1] - 1) / 2)[None, :] * columns_um
    return found.psf.value(rows if along_z else 0.0, 0.0 if along_z else rows, columns)


def _extent(shape: tuple[int, ...], rows_um: float, columns_um: float) -> tuple[float, float, float, float]:
    high, wide = shape[0] * rows_um / 2, shape[1] * columns_um / 2
    return -wide, wide, -high, high


def _scale_bar(axes: Axes, extent: tuple[float, float, float, float]) -> None:
    left, right, bottom, top = extent
    wanted = PART_OF_WIDTH * (right - left)
    power = 10.0 ** np.floor(np.log10(wanted))
    length = power * max(step for step in (1.0, 2.0, 5.0) if step * power <= wanted)
    x, y = left + 0.06 * (right - left), bottom + 0.06 * (top - bottom)
    axes.add_patch(Rectangle((x, y), length, 0.02 * (top - bottom), color=INK))
    axes.text(
        x + length / 2,
        y + 0.04 * (top - bottom),
        f"{length:g} µm",
        ha="center",
        va="bottom",
        color=INK,
        fontsize=8,
    )
    axes.set_xticks([])
    axes.set_yticks([])


def profiles_figure(found: VolumeCalibration) -> Figure:
    """The beads over the distance from their centre, in the plane and along the axis, with both PSFs."""
    s = found.sections
    figure = Figure(figsize=(10.2, 3.9), dpi=130, layout="constrained")
    first, second = figure.subplots(1, 2)
    for axes, place, seen, error, model, gaussian in (
        (first, s.radius_um, s.radial, s.radial_error, s.radial_psf, s.radial_gaussian),
        (second, s.depth_um, s.axial, s.axial_error, s.axial_psf, s.axial_gaussian),
    ):
        axes.plot(place, gaussian, color=TWO, ls="--", label="best Gaussian")
        axes.plot(place, model, color=ONE, label="PSF of this calibration")
        axes.errorbar(place, seen, error, fmt="o", ms=3, color=INK, lw=1, label="beads")
        axes.axhline(0, color=QUIET, lw=0.6)
        axes.grid(visible=True, alpha=0.25)
        axes.set_ylabel("relative to the peak")
        axes.legend(frameon=False, fontsize=8)
    first.set_xlabel("distance from the centre in the focal plane (µm)")
    second.set_xlabel("distance from the centre along z (µm)")
    return figure


def noise_figure(found: VolumeCalibration) -> Figure:
    """Variance over mean, of background and beads, with the noise that was fitted."""
    levels, noise = found.levels, found.noise
    figure = Figure(figsize=(5.4, 3.9), dpi=130, layout="constrained")
    axes = figure.subplots()
    for name, chosen, colour in (("background", ~levels.from_beads, ONE), ("beads", levels.from_beads, TWO)):
        if chosen.any():
            error = levels.variance[chosen] * np.sqrt(2 / levels.voxels[chosen])
            axes.errorbar(
                levels.mean[chosen], levels.variance[chosen], error, fmt="o", ms=4, color=colour, label=name
            )
    mean = np.linspace(min(noise.model.offset, float(levels.mean.min())), float(levels.mean.max()), 100)
    axes.plot(mean, noise.model.variance(mean), color=INK, lw=1.2, label="noise")
    axes.set_xlabel("mean (grey values)")
    axes.set_ylabel("variance (grey values²)")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    return figure


def beads_figure(found: VolumeCalibration) -> Figure:
    """Where the beads are, and their own widths over the depth."""
    beads, used = found.beads, found.beads.used
    figure = Figure(figsize=(10.2, 4.2), dpi=130, layout="constrained")
    first, second = figure.subplots(1, 2)
    first.plot(beads.x_um[~used], beads.y_um[~used], "x", color=BAD, ms=4, label="left out")
    first.plot(beads.x_um[used], beads.y_um[used], "o", color=ONE, ms=4, label="used")
    _, _, height, width = found.shape
    first.set_xlim(0, width * found.voxel_um[2])
    first.set_ylim(height * found.voxel_um[1], 0)
    first.set_aspect("equal")
    first.set_xlabel("x (µm)")
    first.set_ylabel("y (µm)")
    first.legend(frameon=False, fontsize=8, loc="upper right")
    for axis, colour, size in zip("xyz", (ONE, TWO, INK), found.gaussian_um[::-1], strict=True):
        width_um, error = (
            getattr(beads, f"width_{axis}_um")[used],
            getattr(beads, f"width_error_{axis}")[used],
        )
        second.errorbar(
            beads.z_um[used],
            width_um / size,
            width_um * error / size,
            fmt="o",
            ms=3,
            lw=0.8,
            color=colour,
            label=f"along {axis}",
        )
    second.axhline(1, color=QUIET, lw=0.8)
    second.set_xlabel("z (µm)")
    second.set_ylabel("width / common width")
    second.grid(visible=True, alpha=0.25)
    second.legend(frameon=False, fontsize=8)
    return figure
