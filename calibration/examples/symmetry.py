"""An object averaged over the symmetries that its noise allows, and without what has none."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from engines.matched.symmetry import turned

FloatArray = npt.NDArray[np.float64]

AGREE_SDS, AGREE_PART = 3.0, 0.12
"""Difference of two partners, in standard deviations of their noise and over the object's contrast, up to which
they are alike."""
MISFIT, ALIKE = 1.3, 0.01
"""Square difference from a symmetric image over what noise explains, and what may be beyond, over the image's own,
up to which it counts as symmetric. Ellipses with axes 1 to 1.1 differ by 0.01 from round ones."""
ROUND_AVERAGES = 8.0
"""Pixels averaged around the centre of a round object, at least, over most of its area."""


def one_sided(image: FloatArray, noise_sd: float) -> tuple[FloatArray, float]:
    """An object without what has no partner after half a turn, and the part of its energy that this was.

    The image (P, P) is centred. Pairs of pixels that agree within their noise are averaged; of others the fainter
    one stands for both, as a neighbour or dirt adds to one of them.
    """
    other = turned(image)
    fainter = np.where(np.abs(image) <= np.abs(other), image, other)
    least = max(AGREE_SDS * math.sqrt(2) * noise_sd, AGREE_PART * float(np.abs(image).max()))
    agree = np.abs(image - other) <= least
    both = np.where(agree, 0.5 * (image + other), fainter)
    removed = float(((image - both)[~agree] ** 2).sum()) / max(float((image**2).sum()), 1e-12)
    return both, removed


class Averaged(NamedTuple):
    """An image over its symmetries, the part of the noise's variance that is left, and the symmetry's name."""

    image: FloatArray
    noise_part: float
    symmetry: str


def averaged(image: FloatArray, outline: FloatArray, noise_variance: float, already: float) -> Averaged:
    """Average an object (P, P), P odd, that is alike after half a turn, over the further symmetries that it has.

    Tried in turn: round, alike in four quarters. One is used if the image differs from the average, under the
    `outline`, by no more than its noise, of which averaging has left a part `already`, and `ALIKE` of its energy:
    so faint objects, where noise matters, lose most of it.
    """
    quarters = np.mean([image, image[::-1], image[:, ::-1], image[::-1, ::-1]], axis=0)
    energy, pixels = float((outline * image**2).sum()), float(outline.sum())
    for symmetric, part, name in (
        (_round(image), 1 / ROUND_AVERAGES, "round"),
        (quarters, 0.25, "four quarters"),
    ):
        misfit = float((outline * (image - symmetric) ** 2).sum())
        if misfit <= MISFIT * noise_variance * (already - part) * pixels + ALIKE * energy:
            return Averaged(symmetric, part, name)
    return Averaged(image, already, "half a turn")


def _round(image: FloatArray) -> FloatArray:
    """The mean over all directions (P, P), by the distance from the middle pixel."""
    half = image.shape[0] // 2
    y, x = np.indices(image.shape) - half
    distance = np.hypot(y, x)
    radii = np.arange(math.ceil(distance.max()) + 1)
    profile = np.empty(radii.size)
    for radius in radii:
        angle = np.linspace(0, 2 * math.pi, max(4, 8 * int(radius)), endpoint=False)
        at = half + radius * np.sin(angle), half + radius * np.cos(angle)
        profile[radius] = ndimage.map_coordinates(image, at, order=3, mode="nearest").mean()
    found: FloatArray = np.interp(distance, radii, profile)
    return found
