"""Images of the PSF model drawn into, and compared with, rectangles of a frame."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array, FloatArray, IntArray, Psf, ShortArray
from engines.refine.spline import TAPS, Window, base_of, evaluate_planes, evaluate_window, mirror

# Columns of a particle's parameters theta, and of its rectangle.
X, Y, Z, A = range(4)
TOP, BOTTOM, LEFT, RIGHT, CELL = range(5)
BOX = 5
"""Numbers of a particle's rectangle: its sides, and the cell of the field, and of brightness, that it is in."""

SPARE_UM = 12.0
"""um of depth by which a particle may move in a fit before its rectangle is too small for it: one longest step
(`block.LARGEST_STEP_UM`). More costs time in proportion to the pixels, less cuts off light of images that widen."""


SPARE_PX = 3
"""px by which a plane of a cell is made larger than was asked for: what a particle moves in its rectangle, and the
next depth needs."""


@njit(cache=True, nogil=True)
def cell_of(theta: FloatArray, psf: Psf) -> int:
    """The cell of the field, and of brightness, in which a particle `theta` (4,) is.

    It is found once, with the rectangle, so that the image of a particle that moves in a fit does not jump.
    """
    row = int((psf.origin[0] + theta[Y] + 0.5) / psf.cell_px[0])
    column = int((psf.origin[1] + theta[X] + 0.5) / psf.cell_px[1])
    row, column = min(max(row, 0), psf.rows - 1), min(max(column, 0), psf.columns - 1)
    levels = psf.weights.shape[0] // (psf.rows * psf.columns)
    level = 0
    if levels > 1:
        level = int((np.log(max(theta[A], 1e-6)) - psf.bright[0]) / (psf.bright[1] - psf.bright[0]) * levels)
    level = min(max(level, 0), levels - 1)
    return int((level * psf.rows + row) * psf.columns + column)


@njit(cache=True, nogil=True)
def set_box(theta: FloatArray, shape: tuple[int, int], psf: Psf, spare_um: float, box: IntArray) -> None:
    """Fill `box` (`BOX`,) with the rectangle that a particle at `theta` (4,) may cover within `spare_um` of its
    depth.

    Nothing of it lies beyond the frame of `shape` (H, W) or the spline.
    """
    half = psf.coefficients.shape[1] // 2
    last = psf.extent_px.shape[0] - 1
    low = min(max(int((theta[Z] - spare_um - psf.z_first_um) / psf.z_step_um), 0), last)
    high = min(max(int((theta[Z] + spare_um - psf.z_first_um) / psf.z_step_um) + 1, low), last)
    tall, wide = 0, 0
    for j in range(low, high + 1):
        tall = max(tall, psf.extent_px[j, 0])
        wide = max(wide, psf.extent_px[j, 1])
    y, x = int(np.rint(theta[Y])), int(np.rint(theta[X]))
    tall, wide = min(tall, half - 1), min(wide, half - 1)
    box[TOP], box[BOTTOM] = max(y - tall, 0), min(y + tall + 1, shape[0])
    box[LEFT], box[RIGHT] = max(x - wide, 0), min(x + wide + 1, shape[1])
    box[CELL] = 0
    if psf.modes.shape[0] > 0:
        box[CELL] = cell_of(theta, psf)


@njit(cache=True, nogil=True)
def boxes_of(theta: FloatArray, shape: tuple[int, int], psf: Psf) -> IntArray:
    """The rectangles (n, `BOX`) of particles (n, 4), with room for their depths to change."""
    boxes = np.empty((theta.shape[0], BOX), np.int64)
    for k in range(theta.shape[0]):
        set_box(theta[k], shape, psf, SPARE_UM, boxes[k])
    return boxes


@njit(cache=True, nogil=True)
def plane_of(psf: Psf, cell: int, node: int, tall: int, wide: int) -> int:
    """Which of `psf.planes` is that of a node of the spline in a cell; it is made where it is not there.

    It holds `tall` rows and `wide` columns on both sides of the middle. Planes of neighbouring nodes, four at
    least, never take each other's place."""
    key = cell * psf.coefficients.shape[0] + node
    slot = key % psf.kept.shape[0]
    kept = psf.kept[slot]
    if kept[0] != key or kept[1] < tall or kept[2] < wide:
        half = psf.coefficients.shape[1] // 2
        tall, wide = min(tall + SPARE_PX, half), min(wide + SPARE_PX, half)
        kept[0], kept[1], kept[2] = key, tall, wide
        rows, columns = slice(half - tall, half + tall + 1), slice(half - wide, half + wide + 1)
        out, count = psf.planes[slot][rows, columns], psf.modes.shape[0]
        below, m = psf.coefficients[node][rows, columns], 0
        while m < count:
            w = psf.weights[cell]
            first, second = (
                psf.modes[m, node][rows, columns],
                psf.modes[min(m + 1, count - 1), node][rows, columns],
            )
            third = psf.modes[min(m + 2, count - 1), node][rows, columns]
            if count - m == 1:
                _blend_one(out, below, first, w[m])
            elif count - m == 2:
                _blend_two(out, below, first, w[m], second, w[m + 1])
            else:
                _blend_three(out, below, first, w[m], second, w[m + 1], third, w[m + 2])
            below, m = out, m + 3
    return int(slot)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _blend_one(out: Float32Array, below: Float32Array, first: ShortArray, a: float) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = below[i, j] + a * np.float32(first[i, j])


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _blend_two(
    out: Float32Array, below: Float32Array, first: ShortArray, a: float, second: ShortArray, b: float
) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = below[i, j] + a * np.float32(first[i, j]) + b * np.float32(second[i, j])


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _blend_three(
    out: Float32Array,
    below: Float32Array,
    first: ShortArray,
    a: float,
    second: ShortArray,
    b: float,
    third: ShortArray,
    c: float,
) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = (
                below[i, j]
                + a * np.float32(first[i, j])
                + b * np.float32(second[i, j])
                + c * np.float32(third[i, j])
            )


@njit(cache=True, nogil=True)
def draw(theta: FloatArray, box: IntArray, psf: Psf, gradients: bool, out: Float32Array) -> None:
    """Fill `out` (4, H, W) with the image of a particle of brightness 1 in its rectangle `box` (4,).

    With `gradients` also with the derivatives by x, y (px) and z (um), as `spline.evaluate_window` gives them.
    """
    half = psf.coefficients.shape[1] // 2
    window = Window(
        (min(max(theta[Z], psf.z_min_um), psf.z_max_um) - psf.z_first_um) / psf.z_step_um,
        half + box[TOP] - theta[Y],
        half + box[LEFT] - theta[X],
        box[BOTTOM] - box[TOP],
        box[RIGHT] - box[LEFT],
    )
    if psf.modes.shape[0] == 0 or psf.plain[0] != 0:
        evaluate_window(psf.coefficients, window, 1.0 / psf.z_step_um, gradients, psf.space, out)
        return
    cell, depths = box[CELL], psf.coefficients.shape[0]
    base = base_of(window.node, depths)
    first_y, first_x = int(np.floor(window.start_y)), int(np.floor(window.start_x))
    tall = min(max(half - first_y + 1, first_y + window.height + TAPS - 2 - half), half)
    wide = min(max(half - first_x + 1, first_x + window.width + TAPS - 2 - half), half)
    d0 = plane_of(psf, cell, mirror(base - 1, depths), tall, wide)
    d1 = plane_of(psf, cell, base, tall, wide)
    d2 = plane_of(psf, cell, mirror(base + 1, depths), tall, wide)
    d3 = plane_of(psf, cell, mirror(base + 2, depths), tall, wide)
    planes = psf.planes
    evaluate_planes(
        planes[d0],
        planes[d1],
        planes[d2],
        planes[d3],
        window,
        window.node - base,
        1.0 / psf.z_step_um,
        gradients,
        psf.space,
        out,
    )


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def add(total: Float32Array, theta: FloatArray, box: IntArray, image: Float32Array, factor: float) -> None:
    """Add a particle's image, times its brightness and `factor`, to `total` (H, W)."""
    a = np.float32(theta[A] * factor)
    for i in range(box[BOTTOM] - box[TOP]):
        line = total[box[TOP] + i, box[LEFT] : box[RIGHT]]
        for j in range(box[RIGHT] - box[LEFT]):
            line[j] += a * image[0, i, j]


@njit(cache=True, nogil=True)
def put(total: Float32Array, theta: FloatArray, factor: float, psf: Psf) -> None:
    """Add `factor` times the image of a particle `theta` (4,), in its rectangle, to `total` (H, W)."""
    box = np.empty(BOX, np.int64)
    set_box(theta, total.shape, psf, SPARE_UM, box)
    draw(theta, box, psf, False, psf.drawn)
    add(total, theta, box, psf.drawn, factor)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def best_brightness(
    frame: Float32Array, total: Float32Array, box: IntArray, image: Float32Array
) -> tuple[float, float]:
    """Brightness that fits best beside a constant background, and how much of the sum of squares it explains.

    `frame` less `total` is what there is to explain: an unweighted linear regression on the `image` in `box`.
    """
    v1, d1, vv, vd = 0.0, 0.0, 0.0, 0.0
    for i in range(box[BOTTOM] - box[TOP]):
        seen = frame[box[TOP] + i, box[LEFT] : box[RIGHT]]
        drawn = total[box[TOP] + i, box[LEFT] : box[RIGHT]]
        for j in range(box[RIGHT] - box[LEFT]):
            v, d = image[0, i, j], seen[j] - drawn[j]
            v1 += v
            d1 += d
            vv += v * v
            vd += v * d
    n = (box[BOTTOM] - box[TOP]) * (box[RIGHT] - box[LEFT])
    if n < 2:
        return 0.0, 0.0
    spread, common = vv - v1 * v1 / n, vd - v1 * d1 / n
    if spread <= 0.0 or common <= 0.0:
        return 0.0, 0.0
    return common / spread, common * common / spread
