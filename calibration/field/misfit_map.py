"""The misfit of a model by depth and region, from its cross-validation.

The variance of the errors of left-out particles is that of the noise plus that of the misfit (bias included, as a
particle that the model has not seen has it too).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.field.cross_validation import Validation
from calibration.field.growth import Growth
from calibration.field.surface_choice import Surface
from calibration.psf_model import PsfModel
from engines.refine.field import FieldModel
from engines.refine.misfit import Misfit

FloatArray = npt.NDArray[np.float64]

DEPTHS = 24
"""Bins of depth at most: a misfit changes within a tenth of the range, as near the focal lines."""
IMAGES_A_BIN = 30
"""Images that a bin holds at least: their variance is then known to 25 %."""
PARTICLES_A_REGION = 12
"""Particles that a region of the field holds at least on average: errors of one particle are alike."""
MOST_ACROSS = 3
"""Regions along the field: what changes faster is in the modes."""
ACROSS = 9
"""Cells along each side of the field where a field model is: its errors grow towards the corners."""
SHRINK = 6.0
"""Particles that the whole field counts for in each region, so that few particles do not make a region."""
PLACES = 5
"""Places along a region at which the error of the focal surface is looked at: it grows with the fourth power."""
CLIPPED = 4.0
"""Robust standard deviations at which an error is clipped: a failed fit is no misfit."""


def misfit_of(
    validation: Validation,
    model: PsfModel,
    slide: Surface | None,
    shape: tuple[int, int],
    noise: tuple[float, float] | None = None,
) -> Misfit | None:
    """The misfit for images of `shape` (H, W); None for fewer than 30 measured images.

    Where particles lie on a `slide`, the error of the focal surface through them, and what they do not show of it,
    is part of the misfit. With the variance of the `noise` (read, shot) of the contrast of the images, it also
    holds what the images themselves have beyond it.
    """
    pixel_size_um = model.pixel_size_um
    good = np.isfinite(validation.errors()).all(axis=1) & validation.right_side(
        model.z_max_um - model.z_min_um
    )
    if good.sum() < IMAGES_A_BIN:
        return None
    z = validation.z_um[good]
    bins = int(np.clip(good.sum() // IMAGES_A_BIN, 1, DEPTHS))
    edges = np.linspace(z.min(), z.max(), bins + 1)
    place = np.clip(np.searchsorted(edges, z, side="right") - 1, 0, bins - 1)
    excess = _excess(validation, good, place, bins)
    by_depth = np.stack([_mean_by(excess[:, axis], place, bins) for axis in range(3)], axis=1)
    by_depth = np.maximum(
        ndimage.convolve1d(by_depth, np.array([0.25, 0.5, 0.25]), axis=0, mode="nearest"), 0.0
    )
    expected = by_depth[place]
    if model.field is None:
        factor = _by_region(validation, good, excess, expected, shape, pixel_size_um)
    else:
        factor = _over_field(validation.where(good), excess, expected, model.field, pixel_size_um)
    middles = (edges[1:] + edges[:-1]) / 2
    variance = factor[:, :, None, :] * by_depth
    if slide is not None:
        variance[..., 2] += _of_surface(slide, shape, len(factor))[..., None]
    image = None
    if noise is not None:
        image = sum(noise) * _of_images(
            validation.where(good), place, bins, shape, pixel_size_um, len(factor)
        )
    return Misfit(shape, middles, variance, image)


def _of_images(
    rows: Validation,
    place: npt.NDArray[np.intp],
    bins: int,
    shape: tuple[int, int],
    pixel_size_um: float,
    across: int,
) -> FloatArray:
    """Typical reduced chi-square less 1 (across, across, B): that of the region, times what depth makes of it."""
    chi = rows.chi_square
    row, column = (
        np.clip((at_um / pixel_size_um / size * across).astype(int), 0, across - 1)
        for at_um, size in ((rows.y_um, shape[0]), (rows.x_um, shape[1]))
    )
    everywhere = float(np.median(chi))
    region = np.empty((across, across))
    for i in range(across):
        for j in range(across):
            here = (row == i) & (column == j)
            count = np.unique(rows.particle[here]).size
            own = float(np.median(chi[here])) if count else everywhere
            region[i, j] = (count * own + SHRINK * everywhere) / (count + SHRINK)
    relative, known = chi / region[row, column], np.unique(place)
    by_depth = np.interp(np.arange(bins), known, [np.median(relative[place == b]) for b in known])
    by_depth = ndimage.convolve1d(by_depth, np.array([0.25, 0.5, 0.25]), mode="nearest")
    return np.maximum(region[..., None] * by_depth - 1, 0.0)


def _over_field(
    rows: Validation, excess: FloatArray, expected: FloatArray, field: FieldModel, pixel_size_um: float
) -> FloatArray:
    """Factor (ACROSS, ACROSS, 3) of the misfit in each cell: how it grows (`Growth`), and what regions have beside.

    A region counts by its particles, less where noise hides their misfit.
    """
    _, first, own = np.unique(rows.particle, return_index=True, return_inverse=True)
    x, y = rows.x_um / pixel_size_um, rows.y_um / pixel_size_um
    at = field.place(x[first], y[first])
    place = (np.arange(ACROSS) + 0.5) / ACROSS
    down, along = np.meshgrid(place * field.shape[0] - 0.5, place * field.shape[1] - 0.5, indexing="ij")
    cells = field.place(along.ravel(), down.ravel())
    growth = Growth.of(*at, field.degree)
    regions = int(np.clip(np.sqrt(len(first) / PARTICLES_A_REGION), 1, MOST_ACROSS))
    of_cell = np.arange(ACROSS) * regions // ACROSS
    row = np.clip((y / field.shape[0] * regions).astype(int), 0, regions - 1)
    region = row * regions + np.clip((x / field.shape[1] * regions).astype(int), 0, regions - 1)
    factor = np.empty((ACROSS, ACROSS, 3))
    for axis in range(3):
        noise = rows.sigmas()[:, axis] ** 2
        squares, unsure = _ratios(excess[:, axis], expected[:, axis], noise, own)
        grown = [growth.factors(squares, unsure, at, to) for to in (cells, at)]
        rest, unsure = _ratios(excess[:, axis], expected[:, axis] * grown[1][own], noise, region, regions**2)
        count = np.bincount(region[first], minlength=regions**2)
        says = count / (1.0 + count * unsure**2)
        rest = np.maximum((says * rest + SHRINK) / (says + SHRINK), 0.0).reshape(regions, regions)
        factor[..., axis] = grown[0].reshape(ACROSS, ACROSS) * rest[of_cell[:, None], of_cell]
    return factor


def _ratios(
    excess: FloatArray, expected: FloatArray, noise: FloatArray, group: npt.NDArray[np.intp], count: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Excess over what is expected, of each group of images (M,), by weighted least squares; and its standard error
    from noise."""
    expected = np.maximum(expected, 1e-12)
    weight = expected / (expected + noise) ** 2
    information = np.maximum(np.bincount(group, weight * expected, count), 1e-12)
    return np.bincount(group, weight * excess, count) / information, np.sqrt(2.0 / information)


def _of_surface(slide: Surface, shape: tuple[int, int], across: int) -> FloatArray:
    """Mean variance (rows, columns) of the focal surface in each region."""
    half, fine = max(shape) / 2, across * PLACES
    places = (np.arange(fine) + 0.5) / fine - 0.5
    v, u = np.meshgrid(places * shape[0] / half, places * shape[1] / half, indexing="ij")
    variance = slide.variance_at(u.ravel(), v.ravel()).reshape(across, PLACES, across, PLACES)
    return np.asarray(variance.mean(axis=(1, 3)), np.float64)


def _excess(
    validation: Validation, good: npt.NDArray[np.bool_], place: npt.NDArray[np.intp], bins: int
) -> FloatArray:
    """Squared errors (M, 3), clipped, less the variance of the noise."""
    error, sigma = validation.errors()[good], validation.sigmas()[good]
    out = np.empty_like(error)
    for axis in range(3):
        typical = ndimage.median(np.abs(error[:, axis]), place, np.arange(bins)) / 0.6745
        limit = CLIPPED * np.nan_to_num(typical)[place]
        out[:, axis] = np.minimum(np.abs(error[:, axis]), limit) ** 2 - sigma[:, axis] ** 2
    return out


def _mean_by(values: FloatArray, place: npt.NDArray[np.intp], bins: int) -> FloatArray:
    """Mean of each bin (bins,); empty ones take their neighbours'."""
    count = np.bincount(place, minlength=bins)
    total = np.bincount(place, values, minlength=bins)
    known = np.flatnonzero(count)
    return np.interp(np.arange(bins), known, total[known] / count[known])


def _by_region(
    validation: Validation,
    good: npt.NDArray[np.bool_],
    excess: FloatArray,
    expected: FloatArray,
    shape: tuple[int, int],
    pixel_size_um: float,
) -> FloatArray:
    """Factor (rows, columns, 3) of the misfit in each region."""
    particles = np.unique(validation.particle[good]).size
    across = int(np.clip(np.sqrt(particles / PARTICLES_A_REGION), 1, MOST_ACROSS))
    row = np.clip((validation.y_um[good] / pixel_size_um / shape[0] * across).astype(int), 0, across - 1)
    column = np.clip((validation.x_um[good] / pixel_size_um / shape[1] * across).astype(int), 0, across - 1)
    factor = np.ones((across, across, 3))
    a_particle = good.sum() / particles
    for i in range(across):
        for j in range(across):
            here = (row == i) & (column == j)
            weight = SHRINK * a_particle
            for axis in range(3):
                norm = np.maximum(expected[here, axis], 1e-12)
                own = float((excess[here, axis] / norm).clip(-3, 30).sum())
                factor[i, j, axis] = max(0.0, (own + weight) / (here.sum() + weight))
    return factor
