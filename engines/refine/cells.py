"""A PSF model that varies over the field, as the kernels take it: splines on an even grid of cells."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from engines.refine.arguments import Float32Array, FloatArray, IntArray
from engines.refine.field import FieldModel

CHANGE = 0.01
"""Part of an image's norm by which it may change from the middle of a cell to its corner. A bright particle has a
signal-to-noise ratio of 100 over all of its pixels, so that this is one standard deviation at most, spread over all
of its parameters. Half of it takes four times the memory."""
MOST_TABLE_BYTES = 96 << 20
"""Bytes of all tables: they are shared by the threads, and of each only the planes near a particle's depth are
read."""
ENERGY_LEFT_OUT = 0.001
"""Part of the squared contrast of an image that may lie beyond its extent on either axis. Less makes larger
rectangles, which take longer; more loses precision."""
LEAST_EXTENT_PX = 5
"""px from the centre that a fit looks at in any case: four parameters and a plane need some background around."""
SMOOTHING = np.array([1.0, 4.0, 1.0]) / 6.0
"""Cubic B-spline at the nodes -1, 0, 1: from coefficients to values on pixels."""


class Cells(NamedTuple):
    """Tables (C, J, P, P) of `rows` x `columns` cells, `cell_px` (2,) high and wide, and extents (J, 2) for all."""

    tables: Float32Array
    rows: int
    columns: int
    cell_px: FloatArray
    extent_px: IntArray


class FieldCells:
    """The cells of a PSF model, made once, when they are first asked for; shared by all threads."""

    def __init__(self, mean: Float32Array, extent_px: IntArray, field: FieldModel | None) -> None:
        self._mean, self._extent_px, self._field = mean, extent_px, field
        self._lock = threading.Lock()
        self._cells: Cells | None = None

    def get(self) -> Cells:
        """The cells: a single one, the mean spline itself, where nothing varies."""
        with self._lock:
            if self._cells is None:
                self._cells = self._made()
            return self._cells

    def _made(self) -> Cells:
        field = self._field
        if field is None or not len(field.modes):
            return Cells(self._mean[None], 1, 1, np.ones(2), self._extent_px)
        rows, columns = cells_for(self._mean, field)
        tables = field.tables(self._mean, rows, columns)
        extent = self._extent_px
        for table in tables:
            extent = np.maximum(extent, extents(table)[0])
        height, width = field.shape
        return Cells(tables, rows, columns, np.array([height / rows, width / columns]), extent)


def cells_for(mean: Float32Array, field: FieldModel) -> tuple[int, int]:
    """Rows and columns of the fewest cells within which images change by no more than `CHANGE`.

    Fewer where the tables would be larger than `MOST_TABLE_BYTES`.
    """
    most = max(1, MOST_TABLE_BYTES // mean.nbytes)
    power = np.einsum("jkl,jkl->j", mean, mean, dtype=np.float64)
    gram = np.einsum("mjkl,njkl->jmn", field.modes, field.modes, dtype=np.float64, optimize=True)
    bright = power > power.max() * 1e-6
    gram = gram[bright] / power[bright][:, None, None]
    found, across = (1, 1), 1
    while True:
        longest, shortest = max(field.shape), min(field.shape)
        along = max(1, -(-across * shortest // longest))
        rows, columns = (along, across) if field.shape[1] == longest else (across, along)
        if rows * columns > most:
            return found
        found = rows, columns
        if _largest_change(field, rows, columns, gram) <= CHANGE:
            return found
        across += 1


def _largest_change(field: FieldModel, rows: int, columns: int, gram: FloatArray) -> float:
    """Largest relative change from the middle of a cell to a corner; `gram` (J, M, M) of the modes, relative."""
    height, width = field.shape
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) * height / rows - 0.5,
        (np.arange(columns) + 0.5) * width / columns - 0.5,
        indexing="ij",
    )
    middle = field.weights_at(*field.place(x.ravel(), y.ravel()))
    most = 0.0
    for down, across in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
        corner = field.place((x + across * width / columns).ravel(), (y + down * height / rows).ravel())
        step = field.weights_at(*corner) - middle
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
