"""Two spheres close to one another are first found as one, which explains much of the image but not all of it.

Where the image about a sphere deviates from the model by more than its noise, two spheres are fitted in its place,
from starts apart in five directions; they are kept if the image is so much more likely with them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from acquisition.physics.hologram import HologramModel
from calibration.holograms.fit import DARKEST, INDEX, RADIUS, FittedSpheres, X, Y, Z, fit_spheres

FloatArray = npt.NDArray[np.float64]

DEVIATES = 5.0
"""Standard deviations of chi-square about a sphere from which on it is looked at. An image has few spheres, so
noise does this once in a million of them; a lower limit costs time only."""
MORE_LIKELY = 40.0
"""Least gain of 2 log likelihood of two spheres over one: five numbers more gain 5 by chance, and 40 once in 1e7
images."""
MOST_TRIED = 3
"""Spheres of an image that are tried in one round, those that deviate most first."""
MOST_SPLIT = 4
"""Most spheres of an image that become two; each takes two to ten fits."""
STARTS_FITTED = 2
"""Of the five starts, those that explain most as they are."""
APART = 0.8
"""Distance of two starts, in diameters of the sphere that scatters half as much; the fit moves them."""
DIRECTIONS = np.array([[1.0, 0, 0], [0, 1, 0], [0.7, 0.7, 0], [0.7, -0.7, 0], [0, 0, 1]])
TOUCHING = 0.9
"""Two spheres whose centres are nearer than this part of the sum of their radii are one that was fitted twice."""


def split(
    model: HologramModel, image: npt.NDArray[np.floating], found: FittedSpheres, noise: float, index: float
) -> FittedSpheres:
    """What was `found` in an image (H, W), with two spheres in the place of one wherever the image says so.

    `index` is the refractive index to start from: that of one sphere fitted to two is often far off.
    """
    for _ in range(MOST_SPLIT):
        deviation = deviations(model, image, found, noise)
        worst = np.argsort(-deviation)[:MOST_TRIED]
        for one in worst[deviation[worst] > DEVIATES]:
            two = _as_two(model, image, found, int(one), noise, index)
            if two is not None:
                found = two
                break
        else:
            break
    return found


def deviations(
    model: HologramModel, image: npt.NDArray[np.floating], found: FittedSpheres, noise: float
) -> FloatArray:
    """By how many of its standard deviations chi-square exceeds its expectation about each sphere (N,).

    Pixels count by what the sphere scatters into them.
    """
    shape = (int(image.shape[0]), int(image.shape[1]))
    light = model.image(found.spheres, shape)
    excess = (image / found.background - light) ** 2 / (np.maximum(light, DARKEST) * noise**2) - 1.0
    deviation = np.zeros(len(found.spheres))
    for n, sphere in enumerate(found.spheres):
        weight = np.abs(model.wave(sphere, shape)) ** 2
        total = float((weight**2).sum())
        deviation[n] = float((weight * excess).sum()) / np.sqrt(2.0 * total) if total > 0 else 0.0
    return deviation


def _as_two(
    model: HologramModel,
    image: npt.NDArray[np.floating],
    found: FittedSpheres,
    one: int,
    noise: float,
    index: float,
) -> FittedSpheres | None:
    shape = (int(image.shape[0]), int(image.shape[1]))
    others = np.delete(found.spheres, one, axis=0)
    pairs = _starts(model, found.spheres[one], index)
    unexplained = [
        float(((image / found.background - model.image(np.concatenate([others, pair]), shape)) ** 2).sum())
        for pair in pairs
    ]
    for start in np.argsort(unexplained)[:STARTS_FITTED]:
        two = fit_spheres(model, image, np.concatenate([others, pairs[start]]), noise)
        gain = found.deviance - two.deviance
        if gain > MORE_LIKELY * two.misfit**2 and two.ended.all() and _are_two(model, two.spheres[-2:]):
            return two
    return None


def _are_two(model: HologramModel, pair: FloatArray) -> bool:
    apart = pair[0, :3] - pair[1, :3]
    apart[[X, Y]] *= model.optics.pixel_size_um
    return bool(np.linalg.norm(apart) > TOUCHING * pair[:, RADIUS].sum())


def _starts(model: HologramModel, sphere: FloatArray, index: float) -> FloatArray:
    """Pairs of spheres (5, 2, 5), each with half of the one's wave, which goes by volume and index."""
    medium = model.optics.medium_index
    volume = 0.5 * sphere[RADIUS] ** 3 * (sphere[INDEX] - medium) / (index - medium)
    radius = float(np.cbrt(max(volume, 1e-6)))
    aside = APART * radius * DIRECTIONS
    aside[:, [X, Y]] /= model.optics.pixel_size_um
    aside[:, Z] *= 2  # which changes the image less
    pairs = np.tile(sphere, (len(DIRECTIONS), 2, 1))
    pairs[:, 0, :3] += aside
    pairs[:, 1, :3] -= aside
    pairs[:, :, RADIUS], pairs[:, :, INDEX] = radius, index
    return pairs
