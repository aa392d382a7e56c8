"""A stage that moves straight sideways while it moves up, known by images that stay symmetric.

Such a walk is the same for all particles, so that it becomes a part of their mean image: a centre that walks with
depth. A slanted optical axis or coma does that too. But a stage moves images as they are, so they are symmetric
about a centre that walks, while an aberration makes them lopsided.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.stats import theilslopes

FloatArray = npt.NDArray[np.float64]

SYMMETRIC = 0.25
"""Part of the lopsidedness about a resting centre that may remain about a walking one. A stage that moves a
symmetric image leaves next to nothing; a lopsided image leaves most."""
LEAST_PX = 0.3
"""px over all depths below which a walk does not matter."""


def straight_walk(images: FloatArray, depth_um: FloatArray) -> FloatArray:
    """Walk (2,: x, y) of images (J, P, P) at depths (J,), px/um; 0 where it is small, or not a stage's."""
    centres = np.stack([_centre(image) for image in images])
    slope = np.array([float(theilslopes(centres[:, axis], depth_um)[0]) for axis in (0, 1)])
    slope[np.abs(slope) * np.ptp(depth_um) < LEAST_PX] = 0.0
    return slope if slope.any() and moves_as_a_whole(images, depth_um, slope) else np.zeros(2)


def moves_as_a_whole(images: FloatArray, depth_um: FloatArray, walk_px_um: FloatArray) -> bool:
    """Whether images (J, P, P) are symmetric about a centre that walks, and not about one that rests."""
    rest = _lopsided(images, np.zeros((len(images), 2)))
    return _lopsided(images, (depth_um - depth_um.mean())[:, None] * walk_px_um) < SYMMETRIC * rest


def _centre(image: FloatArray) -> tuple[float, float]:
    """Place (x, y), px from the middle, about which an image turned by 180 degrees is most like itself."""
    size = image.shape[-1]
    spectrum = fft.rfft2(image)
    middle = 2 * (size // 2) % size
    turned = np.roll(
        fft.irfft2(spectrum**2, s=image.shape), (size // 2 - middle, size // 2 - middle), axis=(0, 1)
    )
    inner = turned[size // 4 : size - size // 4, size // 4 : size - size // 4]
    row, column = (int(part) for part in np.unravel_index(int(np.argmax(inner)), inner.shape))
    row, column = (min(max(part, 1), len(inner) - 2) for part in (row, column))
    off = []
    for before, at, after, place in (
        (inner[row, column - 1], inner[row, column], inner[row, column + 1], column),
        (inner[row - 1, column], inner[row, column], inner[row + 1, column], row),
    ):
        curve = before - 2 * at + after
        vertex = 0.5 * (before - after) / curve if curve < 0 else 0.0
        off.append((place + size // 4 - size // 2 + float(np.clip(vertex, -1, 1))) / 2)
    return off[0], off[1]


def _lopsided(images: FloatArray, centre_px: FloatArray) -> float:
    """Mean part of the images' power that turning them by 180 degrees about their centres (J, 2: x, y) changes.

    The best common centre of all images is taken out first.
    """
    size = images.shape[-1]
    along, across = fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :]
    spectrum = fft.rfft2(images)
    turn = along * centre_px[:, 1, None, None] + across * centre_px[:, 0, None, None]
    spectrum = spectrum * np.exp(2j * np.pi * turn)
    moved = fft.irfft2(spectrum, s=(size, size))
    common = _centre(_like(moved))
    spectrum = spectrum * np.exp(2j * np.pi * (along * common[1] + across * common[0]))
    centred = fft.irfft2(spectrum, s=(size, size))
    power = (centred**2).sum(axis=(1, 2))
    change = ((centred - centred[:, ::-1, ::-1]) ** 2).sum(axis=(1, 2))
    return float(np.mean(change / np.maximum(power, 1e-300)))


def _like(images: FloatArray) -> FloatArray:
    """The mean of images, each divided by its norm."""
    norm = np.sqrt((images**2).sum(axis=(1, 2)))[:, None, None]
    mean: FloatArray = (images / np.maximum(norm, 1e-300)).mean(axis=0)
    return mean
