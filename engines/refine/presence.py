"""Images of many particles at once, and whether particles are where they are thought to be."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import BoolArray, Float32Array, FloatArray, Psf
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, TOP, A, put, render, set_box
from engines.refine.spline import pitch_of


@njit(cache=True, nogil=True)
def put_all(total: Float32Array, theta: FloatArray, which: BoolArray, factor: float, psf: Psf) -> None:
    """Add `factor` times the images of `which` (N,) of the particles `theta` (N, 4) to `total` (H, W)."""
    for i in range(theta.shape[0]):
        if which[i]:
            put(total, theta[i], factor, psf)


@njit(cache=True, nogil=True)
def presence(
    frame: Float32Array, total: Float32Array, theta: FloatArray, asked: BoolArray, psf: Psf
) -> FloatArray:
    """Brightness (N,) over the expected one, of the particles that are `asked` (N,), at their places; else NaN.

    `frame` (H, W) is the contrast, `total` (H, W) the image of all particles `theta` (N, 4) as expected.
    """
    found = np.full(theta.shape[0], np.nan)
    box = np.empty(BOX, np.int64)
    for i in range(theta.shape[0]):
        if not asked[i]:
            continue
        set_box(theta[i], frame.shape, psf, 0.0, box)
        render(theta[i], box, psf, False, psf.drawn)
        pitch = pitch_of(box[RIGHT] - box[LEFT])
        v1, d1, vv, vd = 0.0, 0.0, 0.0, 0.0
        for r in range(box[BOTTOM] - box[TOP]):
            for c in range(box[RIGHT] - box[LEFT]):
                v = psf.drawn[0, r * pitch + c]
                d = frame[box[TOP] + r, box[LEFT] + c] - total[box[TOP] + r, box[LEFT] + c]
                v1 += v
                d1 += d
                vv += v * v
                vd += v * d
        n = (box[BOTTOM] - box[TOP]) * (box[RIGHT] - box[LEFT])
        spread = vv - v1 * v1 / max(n, 1)
        if spread > 0.0:
            found[i] = 1.0 + (vd - v1 * d1 / n) / spread / theta[i, A]
    return found
