"""Images of the PSF model drawn into, and compared with, rectangles of a frame."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array, FloatArray, IntArray, Psf
from engines.refine.spline import TAPS, Window, base_of, evaluate_planes, mirror, pitch_of, unpack

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
        _blend(psf, cell, node, half - tall, half + tall + 1, half - wide, half + wide + 1, psf.planes[slot])
    return int(slot)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _blend(
    psf: Psf, cell: int, node: int, top: int, bottom: int, left: int, right: int, out: Float32Array
) -> None:
    """Fill a rectangle of `out` (P, P) with a node's mean plane and its modes, as they weigh in the cell.

    Three modes are added at a time, row by row: each value of `out` is then written seldom, and loops are over
    rows without gaps, which the compiler makes into vector instructions.
    """
    count = psf.modes.shape[0]
    for i in range(top, bottom):
        line, mean = out[i, left:right], psf.coefficients[node, i, left:right]
        for m in range(0, count, 3):
            second, third = min(m + 1, count - 1), min(m + 2, count - 1)
            a = psf.weights[cell, m]
            b = psf.weights[cell, second] if m + 1 < count else np.float32(0.0)
            c = psf.weights[cell, third] if m + 2 < count else np.float32(0.0)
            e = psf.modes[m, node, i, left:right]
            f = psf.modes[second, node, i, left:right]
            g = psf.modes[third, node, i, left:right]
            if m == 0:
                for j in range(right - left):
                    line[j] = mean[j] + (a * np.float32(e[j]) + b * np.float32(f[j]) + c * np.float32(g[j]))
            else:
                for j in range(right - left):
                    line[j] += a * np.float32(e[j]) + b * np.float32(f[j]) + c * np.float32(g[j])


@njit(cache=True, nogil=True)
def draw(theta: FloatArray, box: IntArray, psf: Psf, gradients: bool, out: Float32Array) -> None:
    """Fill `out` (4, H, W) with the image of a particle of brightness 1 in its rectangle `box` (`BOX`,).

    With `gradients` also with the derivatives by x, y (px) and z (um), as `spline.evaluate_window` gives them.
    """
    render(theta, box, psf, gradients, psf.drawn)
    unpack(psf.drawn, box[BOTTOM] - box[TOP], box[RIGHT] - box[LEFT], 4 if gradients else 1, out)


@njit(cache=True, nogil=True)
def render(theta: FloatArray, box: IntArray, psf: Psf, gradients: bool, out: Float32Array) -> None:
    """`draw` to `out` (4, S), in whose rows begin as `spline.evaluate_planes` has it."""
    half = psf.coefficients.shape[1] // 2
    window = Window(
        (min(max(theta[Z], psf.z_min_um), psf.z_max_um) - psf.z_first_um) / psf.z_step_um,
        half + box[TOP] - theta[Y],
        half + box[LEFT] - theta[X],
        box[BOTTOM] - box[TOP],
        box[RIGHT] - box[LEFT],
    )
    depths = psf.coefficients.shape[0]
    base = base_of(window.node, depths)
    n0, n2, n3 = mirror(base - 1, depths), mirror(base + 1, depths), mirror(base + 2, depths)
    planes, d0, d1, d2, d3 = psf.coefficients, n0, base, n2, n3
    if psf.modes.shape[0] > 0 and psf.plain[0] == 0:
        cell = box[CELL]
        first_y, first_x = int(np.floor(window.start_y)), int(np.floor(window.start_x))
        tall = min(max(half - first_y + 1, first_y + window.height + TAPS - 2 - half), half)
        wide = min(max(half - first_x + 1, first_x + window.width + TAPS - 2 - half), half)
        planes = psf.planes
        d0, d1 = plane_of(psf, cell, n0, tall, wide), plane_of(psf, cell, base, tall, wide)
        d2, d3 = plane_of(psf, cell, n2, tall, wide), plane_of(psf, cell, n3, tall, wide)
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
    if psf.light.shape[0] > 0:
        _light(psf, box, 4 if gradients else 1, out)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _light(psf: Psf, box: IntArray, parts: int, out: Float32Array) -> None:
    """Multiply the first `parts` of `out` (4, S), of `render`, by the light in the rectangle `box`."""
    first_y = int(np.rint(psf.origin[0] - psf.light_origin[0])) + box[TOP]
    first_x = int(np.rint(psf.origin[1] - psf.light_origin[1])) + box[LEFT]
    width = box[RIGHT] - box[LEFT]
    pitch = pitch_of(width)
    for i in range(box[BOTTOM] - box[TOP]):
        light = psf.light[first_y + i, first_x : first_x + width]
        for part in range(parts):
            line = out[part, i * pitch : i * pitch + width]
            for j in range(width):
                line[j] *= light[j]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def add(total: Float32Array, theta: FloatArray, box: IntArray, image: Float32Array, factor: float) -> None:
    """Add a particle's `image` (4, S), of `render`, times its brightness and `factor`, to `total` (H, W)."""
    a = np.float32(theta[A] * factor)
    width = box[RIGHT] - box[LEFT]
    pitch = pitch_of(width)
    for i in range(box[BOTTOM] - box[TOP]):
        line, drawn = total[box[TOP] + i, box[LEFT] : box[RIGHT]], image[0, i * pitch : i * pitch + width]
        for j in range(width):
            line[j] += a * drawn[j]


@njit(cache=True, nogil=True)
def put(total: Float32Array, theta: FloatArray, factor: float, psf: Psf) -> None:
    """Add `factor` times the image of a particle `theta` (4,), in its rectangle, to `total` (H, W)."""
    box = np.empty(BOX, np.int64)
    set_box(theta, total.shape, psf, SPARE_UM, box)
    render(theta, box, psf, False, psf.drawn)
    add(total, theta, box, psf.drawn, factor)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def best_brightness(
    frame: Float32Array, total: Float32Array, box: IntArray, image: Float32Array
) -> tuple[float, float]:
    """Brightness that fits best beside a constant background, and how much of the sum of squares it explains.

    `frame` less `total` is what there is to explain: an unweighted linear regression on the `image` (4, S) in
    `box`.
    """
    v1, d1, vv, vd = 0.0, 0.0, 0.0, 0.0
    nothing, width = np.float32(0.0), box[RIGHT] - box[LEFT]
    pitch = pitch_of(width)
    for i in range(box[BOTTOM] - box[TOP]):
        seen = frame[box[TOP] + i, box[LEFT] : box[RIGHT]]
        drawn = total[box[TOP] + i, box[LEFT] : box[RIGHT]]
        own = image[0, i * pitch : i * pitch + width]
        # a row in single precision, rows in double
        row_v1, row_d1, row_vv, row_vd = nothing, nothing, nothing, nothing
        for j in range(width):
            v, d = own[j], seen[j] - drawn[j]
            row_v1 += v
            row_d1 += d
            row_vv += v * v
            row_vd += v * d
        v1 += float(row_v1)
        d1 += float(row_d1)
        vv += float(row_vv)
        vd += float(row_vd)
    n = (box[BOTTOM] - box[TOP]) * (box[RIGHT] - box[LEFT])
    if n < 2:
        return 0.0, 0.0
    spread, common = vv - v1 * v1 / n, vd - v1 * d1 / n
    if spread <= 0.0 or common <= 0.0:
        return 0.0, 0.0
    return common / spread, common * common / spread
