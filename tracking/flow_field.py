"""The flow field, learnt while tracking from the confirmed tracks: the velocity to expect of a new particle.

A coarse grid covers the volume seen so far. Each cell keeps exponentially forgotten sums of the velocities that
passed through it, enough for a weighted linear fit v(r) = mean + slope (r - centroid). A cell's fit also
includes its neighbours, with less weight (local linear regression: W. S. Cleveland, J. Am. Stat. Assoc. 74,
829, 1979). The slope is the local shear: it turns the uncertainty of a particle's depth into that of its
velocity.

Sums of a cell: 0 weight, 1:4 r, 4:10 r r' (xx, yy, zz, xy, xz, yz), 10:13 v, 13:22 v r' (row by component),
22:25 v^2. Fit of a cell: 0 weight, 1:4 centroid, 4:7 mean velocity, 7:16 slope (row by component), 16:19
variance about the fit. The last row of both belongs to the whole volume. Lengths are um, velocities um/s.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

FloatArray = npt.NDArray[np.float64]

SUMS = 25
FIT = 19
CELLS_3D, CELLS_2D = (5, 5, 8), (8, 8, 1)
"""Cells in x, y and z. Velocity varies most over depth, so there are most layers there; a channel's parabola is
linear within an eighth of its depth to 1/64 of the maximum."""
MEMORY_FRAMES = 60.0
"""Frames after which a sample counts 1/e: long against a track, short against changes of the pump."""
FIRST_SAMPLES = 500.0
"""At the start the memory is half of the frames so far, and at least so many samples: the first velocities come
from a few detections, and more of them from wrong links. More blurs the scatter for long, fewer learn late from
few."""
NEIGHBOUR_WEIGHT = 0.3
"""Weight of a neighbouring cell for each axis in which it differs: 0 fits cells alone (noisy), 1 blurs over
three."""
ENOUGH = 30.0
"""Samples from which a fit is used: the mean is then known to a fifth of the scatter. Fewer: earlier, noisier
fits."""
SAMPLES_PER_PARTICLE = 10.0
"""A particle contributes several correlated samples while it crosses a cell; so many count as one independent
one."""
RIDGE = 0.01
"""Ridge on the squared extent of a cell: keeps slopes finite where all samples lie in a plane, lowers others by
a tenth at most (samples spread evenly over one cell have a variance of 1/12)."""
SMALLEST_CELL_UM = 0.1
REACH_CELLS = 1.5  # how far from its centroid a cell's fit is extrapolated: to its neighbour's far edge
SMALLEST_SCATTER = (
    0.01  # of the variance of velocities in a cell, so that few samples do not claim an exact fit
)
MARGIN = 0.05
"""Margin around the volume seen so far, as a part of its size, so that the grid is not rebuilt for every new
extreme."""


class Flow(NamedTuple):
    """What is known of the flow: `fits` (cells + 1, 19), and the grid, `box` (3, 2) um and `shape` (3,)."""

    fits: Any
    box: Any
    shape: Any


class FlowField:
    """Velocity statistics on a grid. `axes` is 2 or 3; `memory_frames` is how long a sample counts.

    `cells` replaces the numbers of cells in x, y and z. At the start the memory is half of the frames so far, and
    at least `first_samples`.

    `errors` (3,), um^2/s^2, is the mean variance of the velocities that were learnt from.
    """

    def __init__(
        self,
        axes: int,
        memory_frames: float = MEMORY_FRAMES,
        cells: tuple[int, int, int] | None = None,
        first_samples: float = FIRST_SAMPLES,
    ) -> None:
        chosen = cells or (CELLS_3D if axes == 3 else CELLS_2D)
        self.shape: npt.NDArray[np.int64] = np.array(chosen, np.int64)
        rows = int(self.shape.prod()) + 1
        self.sums: FloatArray = np.zeros((rows, SUMS))
        self.fits: FloatArray = np.zeros((rows, FIT))
        self.box: FloatArray = np.array([[np.inf, -np.inf]] * 3)
        self.errors: FloatArray = np.zeros(3)
        self._memory_frames, self._first_samples = memory_frames, first_samples
        self._frames = 0
        self._next = 0

    @property
    def flow(self) -> Flow:
        """The fits and their grid, as kernels take them."""
        return Flow(self.fits, self.box, self.shape)

    @property
    def samples(self) -> float:
        """Weight of all that is remembered; 0 while nothing is known."""
        return float(self.fits[-1, 0])

    def cover(self, low: FloatArray, high: FloatArray) -> None:
        """Make the grid span at least `low` to `high` (3,), um; what was learnt moves to the new cells."""
        if np.all(low >= self.box[:, 0]) and np.all(high <= self.box[:, 1]):
            return
        known = np.isfinite(self.box[:, 0])
        low = np.where(known, np.minimum(low, self.box[:, 0]), low)
        high = np.where(known, np.maximum(high, self.box[:, 1]), high)
        margin = MARGIN * (high - low)
        self.box = np.ascontiguousarray(np.stack([low - margin, high + margin], axis=1))
        moved = np.zeros_like(self.sums)
        rebin(self.sums, moved, self.box, self.shape)
        self.sums = moved
        self._refresh(everything=True)

    def learn(
        self,
        positions: FloatArray,
        velocities: FloatArray,
        chosen: npt.NDArray[np.bool_],
        variances: FloatArray | None = None,
    ) -> None:
        """Take in one frame: `velocities` (3, >= N) of the `chosen` (N,) tracks at `positions` (3, >= N).

        `variances` (3, >= N) are those of the velocities.
        """
        self._frames += 1
        fresh = max(1.0 + 0.5 * self._frames, self._first_samples / max(int(np.count_nonzero(chosen)), 1))
        self.sums *= math.exp(-1.0 / min(fresh, self._memory_frames))
        before = self.sums[-1, 0]
        add_samples(self.sums, self.box, self.shape, positions, velocities, chosen)
        added = self.sums[-1, 0] - before
        if variances is not None and added > 0:
            now = variances[:, : chosen.size] @ chosen / added
            self.errors += added / (before + added) * (now - self.errors)
        self._refresh(everything=self.samples < 20 * ENOUGH)

    def forget(self) -> None:
        """Forget all velocities; the grid stays."""
        self.sums[:] = 0.0
        self.errors[:] = 0.0
        self._frames = 0
        self._refresh(everything=True)

    def multiply(self, factor: float, weight: float) -> None:
        """Let all velocities be `factor` times as large, and what is known of them count only `weight` as much."""
        self.sums[:, 10:22] *= factor
        self.sums[:, 22:] *= factor * factor
        self.sums *= weight
        self.errors *= factor * factor
        self._refresh(everything=True)

    def _refresh(self, *, everything: bool) -> None:
        cells = len(self.fits) - 1
        first = 0 if everything else self._next
        last = cells if everything else min(cells, first + (cells + 3) // 4)
        refresh_fits(self.sums, self.fits, self.box, self.shape, first, last)
        self._next = 0 if last == cells else last

    def at(self, positions: FloatArray, variances: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Velocity and its variance (3, N) at `positions` (3, N) known to `variances` (3, N).

        NaN where nothing has been learnt yet.
        """
        velocity = np.empty_like(positions)
        variance = np.empty_like(positions)
        for i in range(positions.shape[1]):
            if not expect(self.flow, positions[:, i], variances[:, i], velocity[:, i], variance[:, i]):
                velocity[:, i] = variance[:, i] = np.nan
        return velocity, variance


@njit(cache=True, nogil=True, error_model="numpy")
def _index(value: float, low: float, high: float, count: int) -> int:
    if not high > low:
        return 0
    at = (value - low) / (high - low) * count
    if not at > 0.0:
        return 0
    return min(int(min(at, 1e6)), count - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def cell_at(box: Any, shape: Any, x: float, y: float, z: float) -> Any:
    """Row of the cell that holds a place; places outside belong to the nearest cell."""
    ix = _index(x, box[0, 0], box[0, 1], shape[0])
    iy = _index(y, box[1, 0], box[1, 1], shape[1])
    iz = _index(z, box[2, 0], box[2, 1], shape[2])
    return (iz * shape[1] + iy) * shape[0] + ix


@njit(cache=True, nogil=True, error_model="numpy")
def rebin(old: Any, new: Any, box: Any, shape: Any) -> None:
    """Move the sums of each old cell to the new cell that holds its centroid."""
    last = old.shape[0] - 1
    for s in range(SUMS):
        new[last, s] = old[last, s]
    for c in range(last):
        weight = old[c, 0]
        if weight > 0.0:
            to = cell_at(box, shape, old[c, 1] / weight, old[c, 2] / weight, old[c, 3] / weight)
            for s in range(SUMS):
                new[to, s] += old[c, s]


@njit(cache=True, nogil=True, error_model="numpy")
def add_samples(sums: Any, box: Any, shape: Any, positions: Any, velocities: Any, chosen: Any) -> None:
    """Add one sample of weight 1 for each chosen track to its cell and to the whole."""
    whole = sums.shape[0] - 1
    sample = np.empty(SUMS)
    for i in range(chosen.size):
        if not chosen[i]:
            continue
        x = positions[0, i]
        y = positions[1, i]
        z = positions[2, i]
        sample[0] = 1.0
        sample[1] = x
        sample[2] = y
        sample[3] = z
        sample[4] = x * x
        sample[5] = y * y
        sample[6] = z * z
        sample[7] = x * y
        sample[8] = x * z
        sample[9] = y * z
        for a in range(3):
            v = velocities[a, i]
            sample[10 + a] = v
            sample[13 + 3 * a] = v * x
            sample[14 + 3 * a] = v * y
            sample[15 + 3 * a] = v * z
            sample[22 + a] = v * v
        cell = cell_at(box, shape, x, y, z)
        for s in range(SUMS):
            sums[cell, s] += sample[s]
            sums[whole, s] += sample[s]


@njit(cache=True, nogil=True, error_model="numpy")
def refresh_fits(sums: Any, fits: Any, box: Any, shape: Any, first: int, last: int) -> None:
    """Fit cells `first` to `last`, each with its neighbours, and the whole."""
    pooled = np.empty(SUMS)
    size = np.empty(3)
    for a in range(3):
        size[a] = max((box[a, 1] - box[a, 0]) / shape[a], SMALLEST_CELL_UM)
    for cell in range(first, last):
        ix = cell % shape[0]
        iy = (cell // shape[0]) % shape[1]
        iz = cell // (shape[0] * shape[1])
        pooled[:] = 0.0
        for jz in range(max(iz - 1, 0), min(iz + 2, shape[2])):
            for jy in range(max(iy - 1, 0), min(iy + 2, shape[1])):
                for jx in range(max(ix - 1, 0), min(ix + 2, shape[0])):
                    weight = 1.0
                    if jx != ix:
                        weight *= NEIGHBOUR_WEIGHT
                    if jy != iy:
                        weight *= NEIGHBOUR_WEIGHT
                    if jz != iz:
                        weight *= NEIGHBOUR_WEIGHT
                    other = (jz * shape[1] + jy) * shape[0] + jx
                    for s in range(SUMS):
                        pooled[s] += weight * sums[other, s]
        _fit(pooled, size, fits[cell])
    whole = sums.shape[0] - 1
    for a in range(3):
        size[a] *= shape[a]
    _fit(sums[whole], size, fits[whole])


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(s: Any, size: Any, fit: Any) -> None:
    """Weighted linear least squares from sums, with a ridge that keeps slopes finite in thin clouds."""
    n = s[0]
    fit[0] = n
    if n < ENOUGH:
        return
    mx = s[1] / n
    my = s[2] / n
    mz = s[3] / n
    fit[1] = mx
    fit[2] = my
    fit[3] = mz
    xx = s[4] / n - mx * mx + RIDGE * size[0] ** 2
    yy = s[5] / n - my * my + RIDGE * size[1] ** 2
    zz = s[6] / n - mz * mz + RIDGE * size[2] ** 2
    xy = s[7] / n - mx * my
    xz = s[8] / n - mx * mz
    yz = s[9] / n - my * mz
    cxx = yy * zz - yz * yz
    cxy = xz * yz - xy * zz
    cxz = xy * yz - xz * yy
    cyy = xx * zz - xz * xz
    cyz = xy * xz - xx * yz
    czz = xx * yy - xy * xy
    determinant = xx * cxx + xy * cxy + xz * cxz
    for a in range(3):
        mean = s[10 + a] / n
        bx = s[13 + 3 * a] / n - mean * mx
        by = s[14 + 3 * a] / n - mean * my
        bz = s[15 + 3 * a] / n - mean * mz
        gx = (cxx * bx + cxy * by + cxz * bz) / determinant
        gy = (cxy * bx + cyy * by + cyz * bz) / determinant
        gz = (cxz * bx + cyz * by + czz * bz) / determinant
        fit[4 + a] = mean
        fit[7 + 3 * a] = gx
        fit[8 + 3 * a] = gy
        fit[9 + 3 * a] = gz
        total = max(s[22 + a] / n - mean * mean, 0.0)
        fit[16 + a] = max(total - gx * bx - gy * by - gz * bz, SMALLEST_SCATTER * total)


@njit(cache=True, nogil=True, error_model="numpy")
def expect(flow: Any, position: Any, position_variance: Any, velocity: Any, variance: Any) -> bool:
    """Fill the velocity (3,) expected at a place and its variance (3,); False if nothing is known.

    variance = scatter about the fit (1 + 1 / particles) + sum over axes of (slope * position error)^2. Where
    the cell has too few samples the fit of the whole volume is used. Extrapolation ends one and a half cells
    from the centroid.
    """
    fits = flow.fits
    row = cell_at(flow.box, flow.shape, position[0], position[1], position[2])
    if fits[row, 0] < ENOUGH:
        row = fits.shape[0] - 1
        if fits[row, 0] < ENOUGH:
            return False
    expect_by(flow, row, position, position_variance, velocity, variance)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def expect_by(
    flow: Any, row: int, position: Any, position_variance: Any, velocity: Any, variance: Any
) -> None:
    """What the fit of one `row` expects at a place, as `expect`."""
    fits, box, shape = flow.fits, flow.box, flow.shape
    whole = fits.shape[0] - 1
    fit = fits[row]
    for a in range(3):
        velocity[a] = fit[4 + a]
        variance[a] = fit[16 + a] * (1.0 + SAMPLES_PER_PARTICLE / fit[0])
    for b in range(3):
        reach = box[b, 1] - box[b, 0]
        if row != whole:
            reach *= REACH_CELLS / shape[b]
        offset = min(max(position[b] - fit[1 + b], -reach), reach)
        for a in range(3):
            slope = fit[7 + 3 * a + b]
            velocity[a] += slope * offset
            variance[a] += slope * slope * position_variance[b]
