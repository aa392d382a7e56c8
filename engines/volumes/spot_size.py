"""The size of a spot from a volume itself, where nobody has given it: Gaussians fitted to bright lone spots."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from engines.volumes.proposal import Proposals
from engines.volumes.proposing.matched_filter import MatchedFilter
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.estimate import estimate_surroundings
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]

IN_PLANE = (0.9, 1.4, 2.2, 3.4, 5.2)
ALONG_Z = (0.7, 1.3, 2.4, 4.5)
"""Standard deviations, voxels, that are tried first; half a step from the right one a filter loses 5 %."""
CLEAR = 7.0
"""Strength from which a spot is certainly none of the noise, in any volume."""
STRONG = 50
"""Brightest spots by which the first sizes are compared."""
FITTED = 60
"""Brightest lone spots that are fitted: their median is known to a sixth of what one is known to."""
FEWEST = 3
"""Fewest spots that decide."""
LONE = 4.0
"""Standard deviations to the next spot from which one is lone."""
REACH = 3.0
"""Standard deviations around a spot that are fitted."""
LEAST, LARGEST = 0.35, 30.0
"""Bounds of a size, voxels."""
ROUNDS = 2


def estimate_spot_size(
    image: npt.NDArray[Any], missing: BoolArray, noise: Noise | None = None
) -> tuple[Triple, int] | None:
    """Standard deviations (z, y, x) of a spot in voxels, and from how many spots; None if there are too few.

    `image` is (Z, H, W). For clear, lone spots: each is fitted as a Gaussian with a size per axis, and the
    median is taken. A size along z needs at least three slices; with fewer it is that in the plane.
    """
    if bool(missing.all()) or min(image.shape[1:]) < 5:
        return None
    sigma = _first_size(image, missing, noise)
    if sigma is None:
        return None
    used = 0
    for _ in range(ROUNDS):
        background, found_noise = estimate_surroundings(image, missing, sigma[2], noise)
        places = MatchedFilter(sigma, CLEAR).propose(image, missing, background, found_noise)
        sizes = _fitted_sizes(image, missing, _lone(places, sigma), background, found_noise, sigma)
        if len(sizes) < FEWEST:
            return (sigma, len(places)) if len(places) >= FEWEST else None
        used = len(sizes)
        middle = np.exp(np.median(np.log(sizes), axis=0))
        sigma = (float(middle[0]), float(middle[1]), float(middle[2]))
    return sigma, used


def _first_size(image: npt.NDArray[Any], missing: BoolArray, noise: Noise | None) -> Triple | None:
    """The size of those tried whose matched filter answers best to the brightest spots."""
    best, chosen = 0.0, None
    deep = int((~missing).sum()) >= 3
    for plane, along in product(IN_PLANE, ALONG_Z if deep else (1.0,)):
        sigma = (along if deep else plane, plane, plane)
        background, found_noise = estimate_surroundings(image, missing, plane, noise)
        places = MatchedFilter(sigma, CLEAR).propose(image, missing, background, found_noise)
        if len(places) >= FEWEST:
            answer = float(np.median(places.strength[:STRONG]))
            if answer > best:
                best, chosen = answer, sigma
    return chosen


def _lone(places: Proposals, sigma: Triple) -> Proposals:
    """The brightest places without another one near, at most `FITTED`."""
    at = np.stack([places.z, places.y, places.x], axis=1) / np.array(sigma)
    kept: list[int] = []
    for index in range(len(places)):
        apart = ((at - at[index]) ** 2).sum(axis=1)
        apart[index] = np.inf
        if apart.min(initial=np.inf) > LONE**2:
            kept.append(index)
            if len(kept) == FITTED:
                break
    return places.take(np.array(kept, np.intp))


def _fitted_sizes(
    image: npt.NDArray[Any],
    missing: BoolArray,
    places: Proposals,
    background: Background,
    noise: Noise,
    sigma: Triple,
) -> list[FloatArray]:
    """Sizes (3,) of those places whose fit has an end inside the bounds."""
    ceiling = float(np.iinfo(image.dtype).max)
    sizes = []
    for x, y, z, amplitude in zip(places.x, places.y, places.z, places.amplitude, strict=True):
        bounds = [
            slice(max(0, round(c - REACH * s) - 1), min(n, round(c + REACH * s) + 2))
            for c, s, n in zip((z, y, x), sigma, image.shape, strict=True)
        ]
        box = image[tuple(bounds)].astype(np.float64)
        if box.max() >= ceiling:
            continue  # saturated
        seen = ~missing[bounds[0]]
        level = float(background.at(np.array([x]), np.array([y]), np.array([z]))[0])
        size = _size_of(box, seen, tuple(b.start for b in bounds), (z, y, x), amplitude, level, noise, sigma)
        if size is not None:
            sizes.append(size)
    return sizes


def _size_of(
    box: FloatArray,
    seen: BoolArray,
    corner: tuple[int, ...],
    centre: Triple,
    amplitude: float,
    level: float,
    noise: Noise,
    sigma: Triple,
) -> FloatArray | None:
    """Standard deviations (z, y, x) of the Gaussian that fits a box (D, H, W) best; None without a good end."""
    deep = int(seen.sum()) >= 3
    axes = [np.arange(n, dtype=np.float64) + start for n, start in zip(box.shape, corner, strict=True)]
    weight = np.where(seen[:, None, None], noise.variance(np.maximum(box, level)) ** -0.5, 0.0)
    start = np.array([*centre, amplitude, level, *np.log(sigma)])

    def misfit(p: FloatArray) -> FloatArray:
        z, y, x = (
            np.exp(-0.5 * ((axis - c) / s) ** 2)
            for axis, c, s in zip(axes, p[:3], np.exp(p[5:]), strict=True)
        )
        if not deep:
            z = np.ones_like(z)
        return np.asarray(((p[3] * z[:, None, None] * y[:, None] * x + p[4] - box) * weight).ravel())

    reach = np.array([*(2 * s for s in sigma), np.inf, np.inf, 1.2, 1.2, 1.2])
    found = least_squares(misfit, start, bounds=(start - reach, start + reach), max_nfev=30)
    size = np.exp(found.x[5:])
    if not deep:
        size[0] = np.sqrt(size[1] * size[2])
    off = np.abs(found.x - start)[5 + (not deep) :]
    good = found.success and found.x[3] > 0 and (off < 1.15).all()
    return size if good and (size > LEAST).all() and (size < LARGEST).all() else None
