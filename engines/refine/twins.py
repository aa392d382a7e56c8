"""For each depth of a PSF model the other one whose image is most alike: where a fit may have gone astray."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from engines.refine.arguments import Float32Array, FloatArray
from engines.refine.spline import SMOOTHING

FALLEN = 0.98
"""Part of the largest difference so far below which images are becoming alike again: what is nearer is the depth's
own surroundings, from where a fit finds back. At 1 the rounding of flat stretches would pass for twins."""


def twins_of(coefficients: Float32Array) -> FloatArray:
    """For each node (J, 2): its twin's node, and the squared difference of their images.

    The difference is that of a particle of brightness 1 from the twin's image with the brightness and the level of
    background that fit best, summed over pixels; infinite where no depth beyond a less similar one is alike.
    """
    images = coefficients.astype(np.float64)
    for axis in range(3):
        images = ndimage.convolve1d(images, SMOOTHING, axis=axis, mode="mirror")
    flat = images.reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    power, products = (flat**2).sum(axis=1), flat @ flat.T
    alike = np.maximum(products, 0.0) ** 2 / np.maximum(power[None, :], 1e-300)
    apart = np.maximum(power[:, None] - alike, 0.0)
    out = np.column_stack([np.arange(len(flat)), np.full(len(flat), np.inf)])
    for j, row in enumerate(apart):
        for sign in (1, -1):
            way = row[j:] if sign > 0 else row[j::-1]
            beyond = np.flatnonzero(way < FALLEN * np.maximum.accumulate(way))
            if beyond.size:
                at = beyond[0] + int(np.argmin(way[beyond[0] :]))
                if way[at] < out[j, 1]:
                    out[j] = j + sign * at, way[at]
    return out
