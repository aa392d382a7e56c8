"""The size of a spot from a volume itself, where nobody has given it: Gaussians fitted to bright lone spots."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from engines.volumes.cropping import liveliest_part
from engines.volumes.proposal import Proposals
from engines.volumes.proposing.matched_filter import MatchedFilter
from engines.volumes.proposing.sef3d import LaplacianOfGaussian
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.crowding import is_crowded
from engines.volumes.surroundings.estimate import estimate_surroundings
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]

IN_PLANE = (0.9, 1.4, 2.2, 3.4, 5.2)
ALONG_Z = (0.7, 1.3, 2.4, 4.5)
"""Standard deviations, voxels, that are tried first; half a step from the right one a filter loses 5 %."""
FIRST_ALONG = 1
"""Which of `ALONG_Z` goes with the first round over `IN_PLANE`."""
FALLS = 2
"""Sizes in the plane that answer less than a smaller one after which no larger one is tried."""
LOG_SIGMAS, CROWDED_SIGMAS = 1.53, 0.82
"""Standard deviation of the Laplacian of Gaussian that answers most to a Gaussian spot, over the spot's: in units
of white noise its answer goes with s^3.5 / (s^2 + sigma^2)^2.5, and as a height, with s^2 / (s^2 + sigma^2)^2.5
(Lindeberg 1998, International Journal of Computer Vision 30, 79). The first is used where spots are lone; in
crowded volumes, where larger filters see more of the neighbours and of the gaps between them, the second."""
CROWDED_PROBE = 2.2
"""Size, px, with which it is seen whether a volume is crowded."""
LOOKED_AT = (32, 192, 192)
"""Voxels (z, y, x) of the part where the first sizes are compared; the whole volume, where it shows too little."""
CLEAR = 7.0
"""Strength from which a spot is certainly none of the noise, in any volume."""
STRONG = 50
"""Brightest spots by which the first sizes are compared."""
FITTED = (20, 60)
"""Brightest lone spots that are fitted in each round: the last median is known to a sixth of what one is known
to."""
FEWEST = 3
"""Fewest spots that decide."""
LONE = 4.0
"""Standard deviations to the next spot from which one is lone."""
REACH = 3.0
"""Standard deviations around a spot that are fitted."""
LEAST, LARGEST = 0.35, 30.0
"""Bounds of a size, voxels."""
MOST_CHANGE, MOST_MOVED = 1.15, 2.0
"""How far the logarithm of a size may be from the first one, and a spot from its place in standard deviations: what
fits farther away is another thing."""
STEPS = 30
"""Most steps of a fit of one spot."""


def estimate_spot_size(
    image: npt.NDArray[Any], missing: BoolArray, *, even_noise: bool = False
) -> tuple[Triple, int] | None:
    """Standard deviations (z, y, x) of a spot in voxels, and from how many spots; None if there are too few.

    `image` is (Z, H, W). For clear, lone spots: each is fitted as a Gaussian with a size per axis, and the
    median is taken. A size along z needs at least three slices; with fewer it is that in the plane. Where spots
    leave hardly any background none is lone, and the size is the first, rough one. `even_noise` is that of
    `estimate_surroundings`.
    """
    if bool(missing.all()) or min(image.shape[1:]) < 5:
        return None
    sigma = first_size(image, missing, even_noise=even_noise)[0]
    if sigma is None:
        return None
    used = 0
    for most in FITTED:
        background, noise = estimate_surroundings(image, missing, sigma[2], even_noise=even_noise)
        places = MatchedFilter(sigma, CLEAR).propose(image, missing, background, noise)
        if background.crowded:
            return (sigma, len(places)) if len(places) >= FEWEST else None
        sizes = _fitted_sizes(image, missing, _lone(places, sigma, most), background, noise, sigma)
        if len(sizes) < FEWEST:
            return (sigma, len(places)) if len(places) >= FEWEST else None
        used = len(sizes)
        middle = np.exp(np.median(np.log(sizes), axis=0))
        sigma = (float(middle[0]), float(middle[1]), float(middle[2]))
    return sigma, used


def first_size(
    image: npt.NDArray[Any],
    missing: BoolArray,
    given: Triple | None = None,
    *,
    even_noise: bool = False,
    fewest: int = FEWEST,
) -> tuple[Triple | None, float]:
    """The size of those tried to which the brightest spots answer best, and their median height, grey values; None
    with less than the `fewest` spots. A size that is `given` is the only one tried."""
    part = liveliest_part(image, missing, LOOKED_AT)
    found = _best_size(image[part], missing[part[0]], given, even_noise, fewest)
    if found[0] is None and image[part].shape != image.shape:
        found = _best_size(image, missing, given, even_noise, fewest)
    return found


def _best_size(
    image: npt.NDArray[Any], missing: BoolArray, given: Triple | None, even_noise: bool, fewest: int
) -> tuple[Triple | None, float]:
    """The best size in the plane, then along z, then in the plane beside it."""
    crowded = is_crowded(image, missing, CROWDED_PROBE)
    part = CROWDED_SIGMAS if crowded else LOG_SIGMAS
    if given is not None:
        height = _answer(image, missing, given, part, even_noise, fewest)[1]
        return given if height > 0 else None, height
    deep = int((~missing).sum()) >= 3
    answers: dict[tuple[int, int], tuple[float, float]] = {}

    def answer(plane: int, along: int) -> float:
        if (plane, along) not in answers:
            answers[plane, along] = _answer(
                image, missing, _sizes(plane, along, deep), part, even_noise, fewest
            )
        return answers[plane, along][crowded]

    planes, alongs = range(len(IN_PLANE)), range(len(ALONG_Z) if deep else 1)
    along, plane = FIRST_ALONG if deep else 0, 0
    for tried in planes:  # the widest filters take longest
        if answer(tried, along) >= answer(plane, along):
            plane = tried
        elif tried - plane >= FALLS:
            break
    along = max(alongs, key=lambda k: answer(plane, k))
    plane = max(planes[max(0, plane - 1) : plane + 2], key=lambda p: answer(p, along))
    best = max(answers, key=lambda pair: answers[pair][crowded])
    return (_sizes(*best, deep), answers[best][1]) if answers[best][1] > 0 else (None, 0.0)


def _sizes(plane: int, along: int, deep: bool) -> Triple:
    across = IN_PLANE[plane]
    return (ALONG_Z[along] if deep else across, across, across)


def _answer(
    image: npt.NDArray[Any], missing: BoolArray, sigma: Triple, part: float, even_noise: bool, fewest: int
) -> tuple[float, float]:
    """Median strength and height of the brightest spots in the filter for this size, `part` times as large; 0 where
    there are too few."""
    background, noise = estimate_surroundings(image, missing, sigma[2], even_noise=even_noise)
    z, y, x = (part * s for s in sigma)
    places = LaplacianOfGaussian((z, y, x), CLEAR).propose(image, missing, background, noise)
    if len(places) < fewest:
        return 0.0, 0.0
    return float(np.median(places.strength[:STRONG])), float(np.median(places.amplitude[:STRONG]))


def _lone(places: Proposals, sigma: Triple, most: int) -> Proposals:
    """The brightest places without another one near, at most so many."""
    at = np.stack([places.z, places.y, places.x], axis=1) / np.array(sigma)
    kept: list[int] = []
    for index in range(len(places)):
        apart = ((at - at[index]) ** 2).sum(axis=1)
        apart[index] = np.inf
        if apart.min(initial=np.inf) > LONE**2:
            kept.append(index)
            if len(kept) == most:
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

    def profiles(p: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
        """The factors of the three axes, and the distances in standard deviations."""
        sizes = np.exp(np.clip(p[5:], start[5:] - MOST_CHANGE, start[5:] + MOST_CHANGE))
        away = [(axis - c) / s for axis, c, s in zip(axes, p[:3], sizes, strict=True)]
        if not deep:
            away[0] = np.zeros_like(away[0])
        return [np.exp(-0.5 * u**2) for u in away], away

    def misfit(p: FloatArray) -> FloatArray:
        (z, y, x), _ = profiles(p)
        return np.asarray(((p[3] * z[:, None, None] * y[:, None] * x + p[4] - box) * weight).ravel())

    def slopes(p: FloatArray) -> FloatArray:
        (z, y, x), (uz, uy, ux) = profiles(p)
        spot = z[:, None, None] * y[:, None] * x * weight
        light = p[3] * spot
        along = (uz[:, None, None], uy[:, None], ux)
        moved = [light * u / s for u, s in zip(along, np.exp(p[5:]), strict=True)]
        return np.stack(
            [*moved, spot, weight * np.ones_like(spot), *(light * u**2 for u in along)]
        ).reshape(8, -1).T  # fmt: skip

    found = least_squares(misfit, start, slopes, method="lm", max_nfev=STEPS)
    size = np.exp(found.x[5:])
    if not deep:
        size[0] = np.sqrt(size[1] * size[2])
    change = np.abs(found.x - start)[5 + (not deep) :]
    moved = np.abs(found.x - start)[:3] / np.array(sigma)
    good = found.success and found.x[3] > 0 and (change < MOST_CHANGE).all() and (moved < MOST_MOVED).all()
    return size if good and (size > LEAST).all() and (size < LARGEST).all() else None
