"""Figures of what changes over the field of view, and of particles that the model had not seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure, SubFigure

from calibration.field.summary import stated_sigmas
from calibration.result import Calibration
from liveptv.reports.look import INK, ONE, TWO, plain_log_ticks

FloatArray = npt.NDArray[np.float64]

GREY = "#8a8a8a"
AXES = (("x", ONE), ("y", TWO), ("z", INK))
BINS = 16
FEWEST = 8  # images in a bin of depth that is drawn
PLACES = (0.08, 0.5, 0.92)  # of the field, at which images are shown
SHOWN_DEPTH = 0.6  # of the way from the mid-plane to the farthest depth
CLIPPED_PERCENT = 99.0
GRID = 60


def field_figure(found: Calibration) -> Figure | None:
    """The focal surface, and the PSF model at nine places of the field; None where one image serves all of it."""
    field = found.model.field
    if field is None:
        return None
    figure = Figure(figsize=(10.2, 3.9), dpi=130, layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=[1.15, 1]), dtype=object)
    _surface(left.subplots(), left, found)
    depth_um = SHOWN_DEPTH * found.model.z_max_um
    height, width = found.shape
    grid = right.subplots(3, 3)
    images = [[found.model.at(a * width, b * height).images(depth_um)[0] for a in PLACES] for b in PLACES]
    top = max(float(image.max()) for row in images for image in row)
    for axes, image in zip(grid.ravel(), (image for row in images for image in row), strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=top)
        axes.set(xticks=[], yticks=[])
    right.suptitle(f"PSF model over the field, at local depth {depth_um:+.0f} µm", fontsize=9)
    return figure


def _surface(axes: Axes, figure: SubFigure, found: Calibration) -> None:
    field, pixel = found.model.field, found.model.pixel_size_um
    assert field is not None
    height, width = found.shape
    x, y = np.meshgrid(np.linspace(0, width - 1, GRID), np.linspace(0, height - 1, GRID))
    surface = field.surface_at(x.ravel(), y.ravel()).reshape(x.shape)
    extent = (0.0, (width - 1) * pixel, (height - 1) * pixel, 0.0)
    reach = max(float(np.abs(surface).max()), 0.1)
    drawn = axes.imshow(surface, extent=extent, cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -reach, reach))
    used = found.particles.used
    axes.plot(found.particles.x_um[used], found.particles.y_um[used], "o", ms=2.5, color=INK, mfc="none")
    axes.set(xlabel="x (µm)", ylabel="y (µm)", title="focal surface, and the particles used")
    figure.colorbar(drawn, ax=axes, label="height over the middle of the field (µm)", shrink=0.9)


def validation_figure(found: Calibration) -> Figure | None:
    """Errors of left-out particles over depth and over the field; None in files without a cross-validation."""
    rows = found.validation
    if rows is None or not len(rows):
        return None
    figure = Figure(figsize=(10.2, 3.7), dpi=130, layout="constrained")
    first, second, third = figure.subplots(1, 3)
    right = np.isfinite(rows.error_z_um) & rows.right_side(found.model.z_max_um - found.model.z_min_um)
    _depth_errors(first, found, right)
    _scatter(second, found, right)
    _over_field(third, figure, found, right)
    for axes in (first, second):
        axes.grid(visible=True, alpha=0.25)
    return figure


def _bins(found: Calibration, some: npt.NDArray[np.bool_]) -> list[tuple[float, npt.NDArray[np.bool_]]]:
    rows = found.validation
    assert rows is not None
    edges = np.linspace(found.model.z_min_um, found.model.z_max_um, BINS + 1)
    every = [
        ((low + high) / 2, some & (rows.z_um >= low) & (rows.z_um < high)) for low, high in pairwise(edges)
    ]
    return [(middle, here) for middle, here in every if here.sum() >= FEWEST]


def _depth_errors(axes: Axes, found: Calibration, right: npt.NDArray[np.bool_]) -> None:
    rows = found.validation
    assert rows is not None
    error = rows.error_z_um
    reach = float(np.percentile(np.abs(error[right]), CLIPPED_PERCENT)) if right.any() else 1.0
    axes.plot(rows.z_um[right], error[right], ".", ms=1.5, color=GREY, alpha=0.6)
    bins = _bins(found, right)
    depth = np.array([middle for middle, _ in bins])
    stated = stated_sigmas(rows, found.model)[:, 2]
    band = np.array([np.sqrt(np.mean(stated[here] ** 2)) for _, here in bins])
    axes.plot(depth, [error[here].mean() for _, here in bins], color=INK, label="bias")
    axes.plot(depth, band, color=ONE, label="stated standard error")
    axes.plot(depth, -band, color=ONE)
    axes.set(ylim=(-1.3 * reach, 1.5 * reach), xlabel="local depth (µm)", ylabel="error in depth (µm)")
    axes.set_title("left-out particles")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")


def _scatter(axes: Axes, found: Calibration, right: npt.NDArray[np.bool_]) -> None:
    rows = found.validation
    assert rows is not None
    stated, bins = stated_sigmas(rows, found.model), _bins(found, right)
    depth = [middle for middle, _ in bins]
    for axis, (name, colour) in enumerate(AXES):
        errors, noise = rows.errors()[:, axis], rows.sigmas()[:, axis]
        rms = [np.sqrt(np.mean(errors[here] ** 2)) for _, here in bins]
        axes.plot(depth, rms, color=colour, label=name)
        axes.plot(depth, [np.sqrt(np.mean(stated[here, axis] ** 2)) for _, here in bins], "--", color=colour)
        axes.plot(depth, [np.sqrt(np.mean(noise[here] ** 2)) for _, here in bins], ":", color=colour)
    axes.set_yscale("log")
    plain_log_ticks(axes.yaxis)
    axes.set(xlabel="local depth (µm)", ylabel="rms (µm)")
    axes.set_title("errors; dashed stated, dotted from noise")
    axes.legend(frameon=False, fontsize=8, ncols=3)


def _over_field(axes: Axes, figure: Figure, found: Calibration, right: npt.NDArray[np.bool_]) -> None:
    rows, pixel = found.validation, found.model.pixel_size_um
    assert rows is not None
    stated = stated_sigmas(rows, found.model)[:, 2]
    particles = np.unique(rows.particle[right])
    ratio = [
        np.sqrt(np.mean((rows.error_z_um / stated)[right & (rows.particle == one)] ** 2)) for one in particles
    ]
    table = found.particles
    drawn = axes.scatter(
        table.x_um[particles],
        table.y_um[particles],
        c=ratio,
        cmap="viridis",
        vmin=0,
        vmax=2,
        s=30,
        clip_on=False,
    )
    height, width = found.shape
    axes.set_aspect("equal")
    axes.set(xlabel="x (µm)", ylabel="y (µm)", xlim=(0, width * pixel), ylim=(height * pixel, 0))
    axes.set_title("depth error over stated, by particle")
    figure.colorbar(drawn, ax=axes, shrink=0.8, extend="max")
