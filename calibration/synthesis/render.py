"""Drawing of particles with the PSF model, at any position and depth, onto a contrast image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from calibration.synthesis.reach import EDGE_PX, mask
from engines.refine.spline import weights

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]


NO_MODES = np.zeros((0, 1, 1, 1), np.float32)
NO_WEIGHTS = np.zeros((0, 0), np.float32)


class Spline(NamedTuple):
    """A PSF model's spline: coefficients (J, P, P), depth of the first node and step, um, reach (J, 2), px.

    `modes` (M, J, P, P) are added to it, each with a particle's own weight.
    """

    coefficients: Float32Array
    z_first_um: float
    z_step_um: float
    reach_px: FloatArray
    modes: Float32Array = NO_MODES


class Drawn(NamedTuple):
    """Particles (N,) to draw: place in px, depth in um, brightness relative to the model's, weights (N, M)."""

    x_px: FloatArray
    y_px: FloatArray
    z_um: FloatArray
    brightness: FloatArray
    weights: Float32Array = NO_WEIGHTS


@njit(cache=True, nogil=True, inline="always")
def _mirrored(node: int, nodes: int) -> int:
    node = abs(node)
    return node if node < nodes else 2 * (nodes - 1) - node


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def render(total: Float32Array, model: Spline, particles: Drawn) -> None:
    """Add particles to `total` (H, W), as `PsfModel.images` draws them, under their masks.

    Depths must lie within the model's; parts beyond the edge of the image are left out.
    """
    coefficients, z_first_um, z_step_um, reach, modes = model
    x_px, y_px, z_um, brightness, shares = particles
    height, width = total.shape
    depths, size = coefficients.shape[0], coefficients.shape[1]
    half = size // 2
    wz, wy, wx, slope = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    plane = np.empty(size, np.float32)
    rows = np.empty((size, size), np.float32)
    across = np.empty(size, np.float32)
    for n in range(x_px.size):
        node = (z_um[n] - z_first_um) / z_step_um
        base = min(max(int(node), 0), depths - 2)
        weights(node - base, wz, slope)
        reach_y = max(reach[base, 0], reach[base + 1, 0])
        reach_x = max(reach[base, 1], reach[base + 1, 1])
        top = max(int(np.ceil(y_px[n] - reach_y - EDGE_PX)), 0)
        bottom = min(int(np.floor(y_px[n] + reach_y + EDGE_PX)) + 1, height)
        left = max(int(np.ceil(x_px[n] - reach_x - EDGE_PX)), 0)
        right = min(int(np.floor(x_px[n] + reach_x + EDGE_PX)) + 1, width)
        if top >= bottom or left >= right:
            continue
        # pixel q of the image shows the model at q + shift, between its pixels q + first and q + first + 1
        first_y, first_x = int(np.floor(half - y_px[n])), int(np.floor(half - x_px[n]))
        weights(half - y_px[n] - first_y, wy, slope)
        weights(half - x_px[n] - first_x, wx, slope)
        for x in range(left, right):
            across[x - left] = mask(x - x_px[n], reach_x) * brightness[n]
        wx0, wx1, wx2, wx3 = np.float32(wx[0]), np.float32(wx[1]), np.float32(wx[2]), np.float32(wx[3])
        wy0, wy1, wy2, wy3 = np.float32(wy[0]), np.float32(wy[1]), np.float32(wy[2]), np.float32(wy[3])
        wz0, wz1, wz2, wz3 = np.float32(wz[0]), np.float32(wz[1]), np.float32(wz[2]), np.float32(wz[3])
        z0, z1 = _mirrored(base - 1, depths), _mirrored(base, depths)
        z2, z3 = _mirrored(base + 1, depths), _mirrored(base + 2, depths)
        wide = right - left
        start = left + first_x - 1
        for i in range(top + first_y - 1, bottom + first_y + 2):
            a, b = coefficients[z0, i, start:], coefficients[z1, i, start:]
            c, d = coefficients[z2, i, start:], coefficients[z3, i, start:]
            # in this order, one term at a time is added in one rounding: as many machines do it, so do all
            for j in range(wide + 3):
                plane[j] = wz1 * b[j] + wz0 * a[j] + wz2 * c[j] + wz3 * d[j]
            for m in range(modes.shape[0]):
                share, mode = shares[n, m], modes[m]
                p0, p1, p2, p3 = share * wz0, share * wz1, share * wz2, share * wz3
                a, b = mode[z0, i, start:], mode[z1, i, start:]
                c, d = mode[z2, i, start:], mode[z3, i, start:]
                for j in range(wide + 3):
                    plane[j] += p0 * a[j] + p1 * b[j] + p2 * c[j] + p3 * d[j]
            line = rows[i]
            for j in range(wide):
                line[j] = wx0 * plane[j] + wx1 * plane[j + 1] + wx2 * plane[j + 2] + wx3 * plane[j + 3]
        for y in range(top, bottom):
            weight_y = np.float32(mask(y - y_px[n], reach_y))
            i = y + first_y
            for j in range(wide):
                value = wy0 * rows[i - 1, j] + wy1 * rows[i, j] + wy2 * rows[i + 1, j] + wy3 * rows[i + 2, j]
                total[y, left + j] += weight_y * across[j] * value
