"""Canvas of a training image: contrast and noise of the pasted cut-outs, and the noise added to reach the camera's.

A cut-out seen R times has a mean image and, in each repeat, a deviation from it; these are uncorrelated, with
variances v / R and v (1 - 1/R) where v is the sensor's. `mean + f x deviation` therefore has the variance
g v with g = 1/R + f^2 (1 - 1/R): every g from 1/R to 1 can be had, averaging repeats in fractions. Cut-outs
under masks m bring V = sum of m^2 v to a pixel. The pixel is given f such that g V is the variance T wanted
there, and white noise of variance T - g V where even g = 1 is too little. So n cut-outs on top of one another
are as noisy as none, for any n up to R (f = 0 at n = R); beyond, the variance is n / R times too large.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from calibration.synthesis.reach import EDGE_PX, mask

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Canvas(NamedTuple):
    """Sums over the particles, each (H, W): contrast, deviation of one repeat, variance of that repeat."""

    contrast: Float32Array
    deviation: Float32Array
    variance: Float32Array

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Canvas:
        """An empty canvas."""
        return cls(*(np.zeros(shape, np.float32) for _ in cls._fields))

    def clear(self) -> None:
        """Set all pixels to 0."""
        for plane in self:
            plane.fill(0)


class Light(NamedTuple):
    """The light of one image.

    `sign` is -1 where particles are dark, +1 where bright; `background` is relative to the reference; `read`
    and `shot` are the variances of the image's noise.
    """

    sign: float
    background: float
    read: float
    shot: float


class Stock(NamedTuple):
    """M cut-outs to paste from, each seen R times."""

    contrast: npt.NDArray[np.int16]
    """(M, R, P, P); times `scale` less `level` it is contrast."""
    scale: float
    level: FloatArray
    """(M,): the cut-out's own background, in contrast."""
    reach: FloatArray
    """(M, 2): how far the mask reaches from the particle's centre along y and x, px."""
    dx_px: FloatArray
    """(M,): the particle's centre from the middle pixel, px, and the same along y."""
    dy_px: FloatArray


class Pasted(NamedTuple):
    """N cut-outs on a canvas: which one of the stock, which repeat it shows, and where its middle pixel is.

    All contrasts are multiplied by `brightness`.
    """

    chosen: IntArray
    repeat: IntArray
    row: IntArray
    column: IntArray
    brightness: float = 1.0


class Scale(NamedTuple):
    """Pixel values are `factor` x relative brightness + `offset`, for grey values rounded, up to `largest`.

    `rounding` is the variance, of relative brightness, that the rounding adds; 0 for contrast.
    """

    factor: float
    offset: float
    largest: float
    rounding: float

    @classmethod
    def of(cls, dtype: np.dtype[Any], sign: float, grey: float) -> Scale:
        """Contrast for float32, grey values for whole numbers, with the reference at `grey`."""
        if dtype.kind == "f":
            return cls(sign, -sign, 0.0, 0.0)
        return cls(grey, 0.0, float(np.iinfo(dtype).max), 1 / (12 * grey**2))


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def paste(canvas: Canvas, stock: Stock, light: Light, placed: Pasted) -> None:
    """Add cut-outs of the `stock` to the canvas where `placed` says; parts beyond its edge are left out.

    `light` gives the sign of the contrast and the noise v of the cut-outs. Under its mask m, times the brightness,
    each cut-out adds the mean of its repeats to the canvas's `contrast`, one repeat's deviation from that to
    `deviation`, and m^2 v to `variance`.
    """
    total, deviation, variance = canvas
    contrast, scale, level, reach, dx_px, dy_px = stock
    sign, _, read, shot = light
    chosen, repeat, row, column, brightness_of_all = placed
    height, width = total.shape
    repeats, size = contrast.shape[1], contrast.shape[2]
    half = size // 2
    added = np.empty(size, np.float32)
    across = np.empty(size, np.float32)
    for n in range(chosen.size):
        images = contrast[chosen[n]]
        shown = images[repeat[n]]
        reach_y, reach_x = reach[chosen[n], 0], reach[chosen[n], 1]
        centre_y, centre_x = row[n] + dy_px[chosen[n]], column[n] + dx_px[chosen[n]]
        far_y = min(int(np.ceil(reach_y + EDGE_PX + 0.5)), half)
        far_x = min(int(np.ceil(reach_x + EDGE_PX + 0.5)), half)
        top, bottom = max(row[n] - far_y, 0), min(row[n] + far_y + 1, height)
        left, right = max(column[n] - far_x, 0), min(column[n] + far_x + 1, width)
        off_y, off_x = half - row[n], half - column[n]
        for x in range(left, right):
            across[x + off_x] = mask(x - centre_x, reach_x) * brightness_of_all
        unit = np.float32(scale)
        share = np.float32(scale / repeats)
        base = np.float32(level[chosen[n]])
        for y in range(top, bottom):
            weight_y = np.float32(mask(y - centre_y, reach_y))
            for j in range(left + off_x, right + off_x):
                added[j] = np.float32(0.0)
            for r in range(repeats):
                line = images[r, y + off_y]
                for j in range(left + off_x, right + off_x):
                    added[j] += np.float32(line[j])
            line = shown[y + off_y]
            for x in range(left, right):
                j = x + off_x
                weight = weight_y * across[j]
                average = added[j] * share
                mean = average - base
                total[y, x] += weight * mean
                deviation[y, x] += weight * (np.float32(line[j]) * unit - average)
                brightness = max(np.float32(1.0) + np.float32(sign) * mean, np.float32(0.0))
                variance[y, x] += weight * weight * (np.float32(read) + np.float32(shot) * brightness)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def develop(
    canvas: Canvas, light: Light, scale: Scale, repeats: int, white: Float32Array, out: npt.NDArray[Any]
) -> None:
    """Fill the image `out` (H, W) from a canvas and white noise of variance 1 (H, W).

    In the module's symbols `wanted` is T, `brought` V, `gain` g and `fraction` f.
    """
    total, deviation, variance = canvas
    sign, background, read, shot = light
    factor, offset, largest, rounding = scale
    one, zero = np.float32(1.0), np.float32(0.0)
    least = np.float32(1.0 / repeats)
    spare = np.float32(1.0 - 1.0 / repeats) if repeats > 1 else np.float32(1.0)
    sign32, ground = np.float32(sign), np.float32(background)
    steady, growing = np.float32(read - rounding), np.float32(shot)
    factor32, offset32 = np.float32(factor), np.float32(offset)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            brightness = ground * (one + sign32 * total[y, x])
            wanted = max(steady + growing * max(brightness, zero), zero)
            brought = ground * ground * variance[y, x]
            gain = one
            if brought > wanted:
                gain = max(wanted / brought, least)
            fraction = np.sqrt(max(gain - least, zero) / spare) if repeats > 1 else one
            added = np.sqrt(max(wanted - gain * brought, zero))
            noise = ground * sign32 * fraction * deviation[y, x] + added * white[y, x]
            value = factor32 * (brightness + noise) + offset32
            if largest > 0.0:
                value = min(max(np.floor(value + np.float32(0.5)), zero), np.float32(largest))
            out[y, x] = out.dtype.type(value)
