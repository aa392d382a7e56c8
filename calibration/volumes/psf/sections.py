"""What the beads show beside the PSF: sections through their mean image and their residuals, and profiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.volumes.psf.fitting import AMPLITUDE, BACKGROUND, BeadFits
from calibration.volumes.psf.shapes import GaussianShape, Shape
from calibration.volumes.windows import Windows, background_terms

FloatArray = npt.NDArray[np.float64]

FINENESS = 2
"""Cells of a section per voxel."""
NEAR = 0.75
"""A voxel belongs to a section or profile if it is no farther from it, voxels."""


@dataclass(frozen=True, slots=True, eq=False)
class Sections:
    """Sections `beads_xy`, `beads_xz` (mean of the beads, peak about 1) and `residual_xy`, `residual_xz` (beads
    minus PSF); rows are y or z, `step_um` (z, y, x) the size of their cells, NaN where no voxel fell.

    Profiles: `radius_um` with the beads' mean and its standard error in the focal plane, and `depth_um` likewise
    along the axis.
    """

    beads_xy: FloatArray
    beads_xz: FloatArray
    residual_xy: FloatArray
    residual_xz: FloatArray
    step_um: FloatArray
    radius_um: FloatArray
    radial: FloatArray
    radial_error: FloatArray
    radial_psf: FloatArray
    radial_gaussian: FloatArray
    depth_um: FloatArray
    axial: FloatArray
    axial_error: FloatArray
    axial_psf: FloatArray
    axial_gaussian: FloatArray


def sections_of(
    windows: Windows,
    fits: BeadFits,
    shape: Shape,
    gaussian: GaussianShape,
    voxel_um: FloatArray,
    peak: float,
) -> Sections:
    """Sections and profiles of fitted beads; `peak` is the shape's greatest value."""
    half, p = windows.half, fits.parameters
    ground = np.tensordot(p[:, BACKGROUND : BACKGROUND + 4], background_terms(half), axes=1)
    amplitude = p[:, AMPLITUDE, None, None, None] * peak
    seen = (windows.values - ground) / amplitude
    left = seen - shape.image(fits.offset, half) / peak
    grids = np.meshgrid(*(np.arange(-h, h + 1.0) for h in half), indexing="ij")
    z, y, x = (grid[None] - p[:, axis, None, None, None] for axis, grid in enumerate(grids))
    weight = np.broadcast_to(np.where(windows.counts, amplitude**2, 0.0), seen.shape)
    in_focus, on_axis = (np.abs(z) < NEAR) & windows.counts, (np.abs(y) < NEAR) & windows.counts
    xy = [_section(y, x, value, weight, in_focus, half[1], half[2]) for value in (seen, left)]
    xz = [_section(z, x, value, weight, on_axis, half[0], half[2]) for value in (seen, left)]
    radius = np.hypot(y * voxel_um[1], x * voxel_um[2])
    centre = (radius < NEAR * voxel_um[2]) & windows.counts
    fine = voxel_um / FINENESS
    values = np.stack([seen, shape.image(fits.offset, half) / peak, gaussian.image(fits.offset, half)])
    radial = _profile(
        radius, values, weight, in_focus, _edges(float(fine[2]), (half[2] + 0.5) * voxel_um[2], signed=False)
    )
    axial = _profile(
        z * voxel_um[0],
        values,
        weight,
        centre,
        _edges(float(fine[0]), (half[0] + 0.5) * voxel_um[0], signed=True),
    )
    return Sections(xy[0], xz[0], xy[1], xz[1], fine, *radial, *axial)


def _edges(step: float, limit: float, *, signed: bool) -> FloatArray:
    count = max(2, int(limit / step))
    return np.arange(-count - 0.5, count + 1) * step if signed else np.arange(count + 1.0) * step


def _section(
    rows: FloatArray,
    columns: FloatArray,
    value: FloatArray,
    weight: FloatArray,
    chosen: npt.NDArray[np.bool_],
    half_rows: int,
    half_columns: int,
) -> FloatArray:
    """Weighted mean of the values in cells around the beads."""
    edges = [np.arange(-(h * FINENESS) - 0.5, h * FINENESS + 1) / FINENESS for h in (half_rows, half_columns)]
    down, across = (np.broadcast_to(part, value.shape)[chosen] for part in (rows, columns))
    total, _, _ = np.histogram2d(down, across, bins=edges, weights=(weight * value)[chosen])
    number, _, _ = np.histogram2d(down, across, bins=edges, weights=weight[chosen])
    return np.where(number > 0, total / np.maximum(number, 1e-30), np.nan)


def _profile(
    distance: FloatArray,
    values: FloatArray,
    weight: FloatArray,
    chosen: npt.NDArray[np.bool_],
    edges: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Mean distance, mean of the first of the `values`, its standard error and the means of the others, in bins."""
    d, w = (np.broadcast_to(part, chosen.shape)[chosen] for part in (distance, weight))
    v = values[:, chosen]
    place = np.digitize(d, edges) - 1
    rows = []
    for index in range(len(edges) - 1):
        mine = place == index
        total = float(w[mine].sum())
        if mine.sum() < 3 or total <= 0:
            continue
        means = (w[mine] * v[:, mine]).sum(axis=1) / total
        spread = float(np.sqrt((w[mine] ** 2 * (v[0, mine] - v[1, mine]) ** 2).sum()) / total)
        rows.append((float((w * d)[mine].sum() / total), means[0], spread, *means[1:]))
    columns = np.array(rows).reshape(-1, 5).T
    return columns[0], columns[1], columns[2], columns[3], columns[4]
