"""A PSF model that varies over the field, as the kernels take it: modes, and their weights in small cells.

The spline of a place is the mean one plus the weighed modes. Tables of it for all places would not fit into memory
(1 to 2 MB each); a fit needs only the few planes near its particle's depth, which `rendering.plane_of` makes when
they are first asked for and keeps for a while, in one store for each thread.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from engines.refine.arguments import Float32Array, FloatArray, IntArray, ShortArray
from engines.refine.field import FieldModel
from engines.refine.spline import SMOOTHING
from engines.refine.twins import twins_of

CHANGE = 0.01
"""Part of an image's norm by which it may change from the middle of a cell to its corner. A bright particle has a
signal-to-noise ratio of 100 over all of its pixels, so that this is one standard deviation at most, spread over all
of its parameters. Half of it takes four times the cells, whose planes are made more often."""
MOST_ACROSS = 64
"""Cells along the longer side; what changes within 1/64 of the field is no aberration."""
MOST_LEVELS = 16
"""Levels of brightness; the fit is repeated where a particle turns out to be in another."""
PLANES = 512
"""Planes (P, P) of cells that a thread keeps, 26 to 50 kB each: a lone particle's fit needs about 8, one of six 50,
and a frame is gone over several times. Fewer make planes again that were just there."""
LEVELS = np.iinfo(np.int16).max
"""Steps from 0 to the largest value of a mode; model files have the same."""
EXTENT_PLACES = 5
"""Places along a side of the field at which the extent of images is looked at; it changes slowly."""
ENERGY_LEFT_OUT = 0.001
"""Part of the squared contrast of an image that may lie beyond its extent on either axis. Less makes larger
rectangles, which take longer; more loses precision."""
LEAST_EXTENT_PX = 5
"""px from the centre that a fit looks at in any case: four parameters and a plane need some background around."""


class Cells(NamedTuple):
    """The `modes` (M, J, P, P), and their `weights` (C, M) in `rows` x `columns` cells, `cell_px` (2,) high and
    wide.

    Cells are there for each of C / (rows x columns) levels of the logarithm of the brightness, over `bright` (2,).

    Modes are in whole steps of 1 / `LEVELS` of their largest value, by which the weights are multiplied: making a
    plane takes the time of reading them. `extent_px` (J, 2) holds for all cells. Without anything that varies there
    is one cell, and no mode."""

    modes: ShortArray
    weights: Float32Array
    rows: int
    columns: int
    cell_px: FloatArray
    bright: FloatArray
    extent_px: IntArray


class FieldCells:
    """The cells of a PSF model, made once, when they are first asked for; shared by all threads."""

    def __init__(self, mean: Float32Array, extent_px: IntArray, field: FieldModel | None) -> None:
        self._mean, self._extent_px, self._field = mean, extent_px, field
        self._lock = threading.Lock()
        self._cells: Cells | None = None
        self._kept = threading.local()
        self._twins: FloatArray | None = None

    def twins(self) -> FloatArray:
        """`twins.twins_of` the mean spline."""
        with self._lock:
            if self._twins is None:
                self._twins = twins_of(self._mean)
            return self._twins

    def get(self) -> Cells:
        """The cells."""
        with self._lock:
            if self._cells is None:
                self._cells = self._made()
            return self._cells

    def planes(self) -> tuple[Float32Array, IntArray]:
        """This thread's store of planes (S, P, P), and what they are (S, 3): key, rows and columns."""
        if not hasattr(self._kept, "store"):
            size, count = self._mean.shape[1], PLANES if len(self.get().modes) else 1
            self._kept.store = np.empty((count, size, size), np.float32), np.full((count, 3), -1, np.int64)
        store: tuple[Float32Array, IntArray] = self._kept.store
        return store

    def _made(self) -> Cells:
        field = self._field
        if field is None or not len(field.modes):
            none = np.empty((0, *self._mean.shape), np.int16)
            return Cells(none, np.empty((1, 0), np.float32), 1, 1, np.ones(2), np.zeros(2), self._extent_px)
        rows, columns = cells_for(self._mean, field)
        u, v = _middles(field, rows, columns)
        bright = np.array(field.brightness_range)
        weights = np.concatenate(
            [field.weights_at(u, v, b) for b in field.levels(levels_for(self._mean, field))]
        )
        extent = self._extent_px
        for b in bright:
            for u_of, v_of in zip(*_middles(field, EXTENT_PLACES, EXTENT_PLACES), strict=True):
                extent = np.maximum(extent, extents(field.local(self._mean, u_of, v_of, b))[0])
        height, width = field.shape
        size = np.array([height / rows, width / columns])
        step = np.maximum(np.abs(field.modes).max(axis=(1, 2, 3)), 1e-30) / LEVELS
        modes = np.rint(field.modes / step[:, None, None, None]).astype(np.int16)
        return Cells(
            modes, np.ascontiguousarray(weights * step, np.float32), rows, columns, size, bright, extent
        )


def cells_for(mean: Float32Array, field: FieldModel) -> tuple[int, int]:
    """Rows and columns of the fewest cells within which images change by no more than `CHANGE`."""
    gram = _gram(mean, field)
    longest, shortest = max(field.shape), min(field.shape)
    for across in range(1, MOST_ACROSS + 1):
        along = max(1, -(-across * shortest // longest))
        rows, columns = (along, across) if field.shape[1] == longest else (across, along)
        if _largest_change(field, rows, columns, gram) <= CHANGE:
            break
    return rows, columns


def levels_for(mean: Float32Array, field: FieldModel) -> int:
    """The fewest levels of brightness within which images change by no more than `CHANGE`."""
    low, high = field.brightness_range
    if field.brightness_degree == 0 or high <= low:
        return 1
    gram = _gram(mean, field)
    for count in range(1, MOST_LEVELS + 1):
        half = 0.5 * (high - low) / count
        levels = field.levels(count)
        step = field.weights_at(0.0 * levels, 0.0, levels + half) - field.weights_at(
            0.0 * levels, 0.0, levels - half
        )
        change = float(np.einsum("cm,jmn,cn->cj", step, gram, step, optimize=True).max())
        if np.sqrt(max(change, 0.0)) / 2 <= CHANGE:
            break
    return count


def _gram(mean: Float32Array, field: FieldModel) -> FloatArray:
    """Products (J, M, M) of the modes, over the squared norm of the mean image, where it is not dark."""
    power = np.einsum("jkl,jkl->j", mean, mean, dtype=np.float64)
    gram = np.einsum("mjkl,njkl->jmn", field.modes, field.modes, dtype=np.float64, optimize=True)
    bright = power > power.max() * 1e-6
    gram = gram[bright] / power[bright][:, None, None]
    return np.asarray(gram, np.float64)


def _middles(field: FieldModel, rows: int, columns: int) -> tuple[FloatArray, FloatArray]:
    """u, v (rows * columns,) of the middle of each cell."""
    height, width = field.shape
    y = (np.arange(rows) + 0.5) * height / rows - 0.5
    x = (np.arange(columns) + 0.5) * width / columns - 0.5
    across, down = np.meshgrid(x, y)
    return field.place(across.ravel(), down.ravel())


def _largest_change(field: FieldModel, rows: int, columns: int, gram: FloatArray) -> float:
    """Largest relative change from the middle of a cell to a corner; `gram` (J, M, M) of the modes, relative."""
    half = max(field.shape) / 2
    down, across = (size / cells / 2 / half for size, cells in zip(field.shape, (rows, columns), strict=True))
    u, v = _middles(field, rows, columns)
    middle, most = field.weights_at(u, v), 0.0
    for a, b in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        step = field.weights_at(u + a * across, v + b * down) - middle
        most = max(most, float(np.einsum("cm,jmn,cn->cj", step, gram, step, optimize=True).max()))
    return float(np.sqrt(max(most, 0.0)))


def extents(coefficients: Float32Array) -> tuple[IntArray, FloatArray]:
    """Pixels from the centre that count (J, 2), along y and x, and the greatest contrast (J,), of a spline."""
    half = coefficients.shape[1] // 2
    offset = np.abs(np.arange(-half, half + 1))
    images = ndimage.convolve1d(ndimage.convolve1d(coefficients, SMOOTHING, axis=1), SMOOTHING, axis=2)
    power = images.astype(np.float64) ** 2
    extent = np.empty((len(coefficients), 2), np.int64)
    for j, plane in enumerate(power):
        for axis in (0, 1):
            energy = np.bincount(offset, plane.sum(axis=1 - axis))
            beyond = 1.0 - np.cumsum(energy) / max(energy.sum(), 1e-300)
            extent[j, axis] = int(np.argmax(beyond <= ENERGY_LEFT_OUT)) + 1
    extent = ndimage.maximum_filter1d(extent, 3, axis=0)
    return np.clip(extent, LEAST_EXTENT_PX, half), images.max(axis=(1, 2)).astype(np.float64)
