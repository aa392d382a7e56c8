"""The shape of a spot from a volume itself: a Gaussian, or the blurred ball that particles larger than the PSF are.

All particles of a part of the volume are fitted jointly with a first shape; what is left over then tells how the
sizes and the roundness, which all share, must change (one Gauss-Newton step), and so on. So particles that touch
need not be told apart first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.volumes.blurred_ball import blurred_ball
from engines.volumes.cropping import liveliest_part
from engines.volumes.fit.drawing import light_of
from engines.volumes.fit.spots import fit_spots
from engines.volumes.proposing.matched_filter import MatchedFilter
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.estimate import estimate_surroundings
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]

LEAST_SIGMA = 1.5
"""Standard deviation in the plane, voxels, from which the shape is looked at: a ball of less is hardly more than
three voxels across and cannot be told from a Gaussian."""
LOOKED_AT_SIGMAS, LEAST_LOOKED_AT = 16.0, 32
"""Edge of the part of the volume that is fitted, in standard deviations and in voxels: 60 balls that touch."""
ROUNDNESS = (0.0, 0.5, 0.75, 0.9)
"""Shapes that are tried: parts of the least variance that a ball's are. Between two of them the largest difference
is 3 % of the peak."""
ROUNDS = 4
SETTLED = 0.02
"""Change of a size from which it is fitted again."""
MOST_STEP = 0.5
CLEAR = 10.0
"""Strength of particles that are used."""
NARROWER = 0.7
"""Width of the filter that proposes particles in crowded volumes, over theirs: the answers to two that touch are
then apart."""
SURE = 30.0
"""Loss of chi-square over its own scatter from which a particle is a ball and no Gaussian."""
MOST_MISFIT = 0.5
DRAWN = 0.02
"""Part of a typical peak from which a voxel shows a particle."""


@dataclass(frozen=True, slots=True, eq=False)
class SpotShape:
    """The image `psf` of particles with the standard deviations `sigma_um` (z, y, x), and the `roundness` of it."""

    psf: VolumePsf
    sigma_um: Triple
    roundness: float

    @classmethod
    def of(cls, sigma_um: Triple, roundness: float, voxel_um: Triple, misfit: float = 0.0) -> SpotShape:
        """The shape of these numbers, see `blurred_ball`."""
        psf = replace(blurred_ball(sigma_um, roundness, voxel_um), misfit=misfit)
        return cls(psf, sigma_um, roundness)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The part of a volume (D, H, W) that is fitted."""

    image: npt.NDArray[Any]
    missing: BoolArray
    voxel_um: Triple
    background: Background
    noise: Noise


def shape_of(
    image: npt.NDArray[Any],
    missing: BoolArray,
    sigma_voxels: Triple,
    voxel_um: Triple,
    *,
    even_noise: bool = False,
    fixed: bool = False,
) -> SpotShape:
    """The shape of the particles of a volume (Z, H, W), from a first size (z, y, x).

    With `fixed` sizes only their roundness is found. A Gaussian of the first size where spots are small, or where
    too few show more.
    """
    sigma = np.asarray(sigma_voxels, np.float64)
    plain = SpotShape.of(_um(sigma, voxel_um), 0.0, voxel_um)
    if float(sigma[1:].min()) < LEAST_SIGMA or int((~missing).sum()) < 3:
        return plain
    most = [max(LEAST_LOOKED_AT, round(LOOKED_AT_SIGMAS * s)) for s in sigma]
    where = liveliest_part(image, missing, (most[0], most[1], most[2]))
    seen, gone = np.ascontiguousarray(image[where]), missing[where[0]]
    seen.flags.writeable = False
    if int((~gone).sum()) < 3:
        return plain
    roundness = misfit = 0.0
    for _ in range(ROUNDS):
        background, noise = estimate_surroundings(seen, gone, float(sigma[1:].max()), even_noise=even_noise)
        part = _Part(seen, gone, voxel_um, background, noise)
        theta = _places(part, sigma, roundness)
        if not len(theta):
            return plain
        free_size = background.crowded and not fixed
        roundness, change, misfit = _step(part, theta, sigma, roundness, free_size)
        sigma = sigma * np.exp(change)
        if np.abs(change).max() < SETTLED:
            break
    return SpotShape.of(_um(sigma, voxel_um), roundness, voxel_um, misfit)


def _um(sigma: FloatArray, voxel_um: Triple) -> Triple:
    z, y, x = (float(s * v) for s, v in zip(sigma, voxel_um, strict=True))
    return z, y, x


def _places(part: _Part, sigma: FloatArray, roundness: float) -> FloatArray:
    """The fitted particles (N, 4): z, y, x, amplitude."""
    z, y, x = (NARROWER if part.background.crowded else 1.0) * sigma
    filter_ = MatchedFilter((float(z), float(y), float(x)), CLEAR)
    places = filter_.propose(part.image, part.missing, part.background, part.noise)
    if not len(places):
        return np.empty((0, 4))
    psf = blurred_ball(_um(sigma, part.voxel_um), roundness, part.voxel_um)
    fitted = fit_spots(
        part.image, part.missing, places, psf, part.noise, part.background,
        background_sd=part.background.sd, more=False,
    )  # fmt: skip
    return np.stack([fitted.z, fitted.y, fitted.x, np.maximum(fitted.amplitude, 0.0)], axis=1)


def _step(
    part: _Part, theta: FloatArray, sigma: FloatArray, roundness: float, free_size: bool
) -> tuple[float, FloatArray, float]:
    """The roundness that fits best, the change of the logarithms of the sizes (z, y, x), and what part of the light
    is left over."""
    ground = part.background.field(*part.image.shape[1:]).astype(np.float64)
    data = part.image.astype(np.float64) - ground

    def light(sizes: FloatArray, ball: float) -> FloatArray:
        psf = blurred_ball(_um(sizes, part.voxel_um), ball, part.voxel_um)
        return light_of(theta, psf, part.image.shape).astype(np.float64)

    now = light(sigma, roundness)
    shown = now > DRAWN * float(np.median(theta[:, 3]))
    shown[part.missing] = False
    if np.count_nonzero(shown) < 100:
        return roundness, np.zeros(3), 0.0
    root = part.noise.variance(ground[shown] + now[shown]) ** -0.5
    wanted = data[shown] * root

    def solved(columns: list[FloatArray]) -> tuple[float, FloatArray]:
        table = np.stack([*(c[shown] * root for c in columns), root], axis=1)
        found = np.linalg.lstsq(table, wanted, rcond=None)[0]
        return float(((wanted - table @ found) ** 2).sum()), np.asarray(found, np.float64)

    losses = {ball: solved([light(sigma, ball)])[0] for ball in ROUNDNESS}
    best = min(losses, key=lambda ball: losses[ball])
    scatter = max(losses[best] / wanted.size, 1.0)
    if losses[0.0] - losses[best] < SURE * scatter:
        best = 0.0
    energy = max(float(((now[shown] * root) ** 2).sum()), 1e-30)
    misfit = min(np.sqrt(max(losses[best] - wanted.size, 0.0) / energy), MOST_MISFIT)
    if not free_size:
        return best, np.zeros(3), float(misfit)
    step = 0.05
    columns = [light(sigma, best)]
    for axes in ((0,), (1, 2)):
        wider = sigma.copy()
        wider[list(axes)] *= np.exp(step)
        columns.append((light(wider, best) - columns[0]) / step)
    height, along, across, _ = solved(columns)[1]
    change = np.array([along, across, across]) / max(float(height), 1e-9)
    return best, np.clip(change, -MOST_STEP, MOST_STEP), float(misfit)
