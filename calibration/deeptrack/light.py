"""Whether light multiplies a pipeline's objects or they add to it, and how much of its background is no light.

An object that absorbs or refracts changes a part of the light that falls on it: where there is twice as much light,
it changes twice as much. What shines by itself adds to the light. Images of objects on sloping light tell the two
apart: with b and g the level and the slope of the background around an object at p, of brightness A,

    d(r) = A f(r - p) (1 + c g (r - p) / b) + background + noise    (1)

where c is 0 if it adds and 1 if light multiplies it. Where the light of all images is flat, the optics say which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from calibration.deeptrack.image_noise import Noise
from calibration.deeptrack.image_regression import ImageSpline

KNOWN = 0.15
"""Standard error of c in (1) up to which images decide: 0 and 1 are then 3 of them from the middle."""
LEAST_LIGHT = 0.05
"""Of an image's median, from which the background around an object has light."""
LEAST_SLOPE = 0.05
"""Of that light, from the middle of an image to its edge, from which it counts as sloping: what an object leaves to
the plane beneath it is less."""
LEAST_DARK = 0.1
"""Part of the background from which it counts as a camera's offset: it is known to some 10 %, and overlooking less
changes what is taken for the slope of the light by less than 11 %."""


def is_brightfield(microscopes: Sequence[Any]) -> bool:
    """Whether the background of all microscopes is the light that falls on the objects."""
    from deeptrack.optical.optics import Brightfield, Darkfield

    optics = [each._objective for each in microscopes]
    return all(isinstance(each, Brightfield) and not isinstance(each, Darkfield) for each in optics)


def light_multiplies(spline: ImageSpline, sign: float, by_optics: bool) -> bool:
    """Whether light multiplies the objects of a solved spline, whose contrast over the light has this `sign`.

    `by_optics` is the answer where the images say nothing.
    """
    factor, error = light_factor(spline, sign)
    return factor > 0.5 if error < KNOWN else by_optics


def light_factor(spline: ImageSpline, sign: float) -> tuple[float, float]:
    """c of (1) and its standard error, infinite where the images say nothing of it."""
    images = spline.images()
    n, size = len(images), images.shape[1]
    half = max(size // 2, 1)
    v, u = (each.ravel() / half for each in np.indices((size, size)) - size // 2)
    x, y = spline.cutouts.off_px.T[..., None] / half
    level = 1 + sign * spline.ground[:, :1]
    slope = sign * spline.ground[:, 1:] / np.maximum(level, LEAST_LIGHT)
    sloping = (level > LEAST_LIGHT) & (np.hypot(*slope.T)[:, None] > LEAST_SLOPE)
    slope = np.where(sloping, slope, 0.0)
    own, weight = images.reshape(n, -1), spline.weight.reshape(n, -1)
    by_c = spline.amplitude[:, None] * own * (slope[:, :1] * (u - x) + slope[:, 1:] * (v - y))
    # the brightness and the plane were fitted without it, and hold what they can of it
    plane = np.broadcast_to(np.stack([np.ones_like(u), u, v]), (n, 3, u.size))
    terms = np.concatenate([plane, own[:, None]], axis=1)
    weighed = terms * weight[:, None]
    held = np.linalg.pinv(weighed @ terms.transpose(0, 2, 1), hermitian=True) @ (weighed @ by_c[..., None])
    left = by_c - (terms.transpose(0, 2, 1) @ held)[..., 0]
    information = (weight * left**2).sum(axis=1)
    found = (weight * left * spline.residual().reshape(n, -1)).sum(axis=1)
    total = float(information.sum())
    if not total > 0:
        return 0.0, np.inf
    factor = float(found.sum()) / total
    # objects are not quite like the model, each in its own way: their scatter is more than that of the noise
    scatter = float(((found - factor * information) ** 2).sum())
    return factor, float(np.sqrt(max(scatter, total))) / total


def dark_part(noise: Noise) -> float:
    """The part of the background that makes no noise: it is no light but a camera's offset."""
    part = -noise.read / noise.shot if noise.shot > 0 else 0.0
    return part if part > LEAST_DARK else 0.0
