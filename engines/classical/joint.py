"""Joint fit of all particles in a frame: each is fitted in the image from which the others are subtracted.

Block coordinate descent on the sum of squares of the whole image. A particle is added back, fitted and subtracted
again, the most significant one first, in several sweeps. Overlapping images then hardly bias one another; overlaps
are common because an astigmatic image can be 70 pixels long. A particle is not fitted again while no neighbour
has changed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.classical.centre import (
    CONVERGED,
    FULL_ITERATIONS,
    NOT_CONVERGED,
    add_particle,
    amplitude_at,
    fit_gaussian,
)
from engines.classical.gaussian import AMPLITUDE, LN_SX, LN_SY, OFFSET, WINDOW_SIGMAS, X, Y

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# States of a candidate in addition to those of `fit_gaussian`.
UNTRIED, OFF_IMAGE, MERGED, EXPLAINED = 10, 11, 12, 13
MERGE_SIGMAS = 1.0
"""A fit within so many widths of a stronger one of about the same shape is the same particle: equal Gaussians
nearer than two widths have a single maximum."""
MERGE_LN_WIDTH = 0.5
"""Difference of ln width up to which two fits have the same shape, a factor of 1.6."""
SMALL_CHANGE = 0.02
"""Part of a width, or of the amplitude, by which an image may change without a new fit of its neighbours. Smaller
values take more fits for changes below the noise."""
RESIDUAL_FRACTION = 0.3
"""A candidate on a particle is a residual of that unless it has this part of its strength. Less finds false
particles beside bright ones, more loses faint neighbours."""
RESIDUAL_REACH_SIGMAS = 2.0
"""Widths over which this part falls off."""
RESIDUAL_END_SIGMAS = 6.0
"""Widths beyond which it is nothing."""
RESIDUAL_NEAR_SIGMAS = 4.0
"""Widths beyond which, and everywhere around an object wider than a particle, a residual of a strong particle
must be visible, or it would explain away too much: either as its footprint or as a ring."""
FOOTPRINT_PART = 0.15
"""Part of the object's amplitude by which the image is above the background in its footprint."""
RING_PLACES = 8
"""Places around the object at which a ring is looked for."""
RING_PART = 0.5
"""Part of the candidate's amplitude that counts as the same residual at another place."""


class Fits(NamedTuple):
    """N candidates and their fits; parameters in the order of `engines.classical.gaussian` (x, y in px)."""

    start: FloatArray
    """(N, 6): where each fit starts."""
    parameters: FloatArray
    """(N, 6): the fit."""
    covariance: FloatArray
    """(N, 6, 6): its covariance."""
    state: IntArray
    """(N,): CONVERGED, MERGED ..."""

    @classmethod
    def untried(cls, start: FloatArray) -> Fits:
        """Candidates (N, 6) that have not been fitted yet."""
        count = len(start)
        return cls(start, np.zeros((count, 6)), np.zeros((count, 6, 6)), np.full(count, UNTRIED))

    def take(self, index: npt.NDArray[np.intp]) -> Fits:
        """Those with these indices."""
        return Fits(self.start[index], self.parameters[index], self.covariance[index], self.state[index])

    def joined(self, other: Fits) -> Fits:
        """These, then the others."""
        return Fits(*(np.concatenate(columns) for columns in zip(self, other, strict=True)))


class Limits(NamedTuple):
    """What is fitted, and what counts as an object larger than a particle."""

    noise: float
    """Standard deviation of a pixel, in grey values."""
    circular: bool
    """Whether the widths along x and y are one parameter."""
    wide: float
    """Mean width, px, above which an object is no particle."""
    strong: float
    """Amplitude, in grey values, above which the residual of a fit must be visible to count as one."""


@njit(cache=True, nogil=True)
def fit_all(residual: Float32Array, fits: Fits, limits: Limits, sweeps: int) -> None:
    """Fit every particle in up to `sweeps` sweeps, and subtract the fitted ones from `residual`.

    Parameters
    ----------
    residual
        Image (H, W), bright on dark. Particles that are CONVERGED already have been subtracted from it.
    fits
        Filled in place. CONVERGED particles continue from their last fit, the others begin at `start`. If a
        second fit of a particle fails, the first one is kept; one that leaves the image keeps its last position.
    limits
        Noise and limits, see `Limits`.
    sweeps
        Largest number of sweeps over all particles.
    """
    start, parameters, covariance, state = fits
    noise, circular, wide, strong = limits
    height, width = residual.shape
    work = np.empty(start.shape[1])
    before = np.empty(start.shape[1])
    errors = np.empty((start.shape[1], start.shape[1]))
    # The sweep in which a particle last changed its image by more than a little.
    changed = np.full(start.shape[0], -2)
    for index in range(start.shape[0]):
        if state[index] == UNTRIED:
            changed[index] = -1
    for sweep in range(sweeps):
        for index in range(start.shape[0]):
            if state[index] in (MERGED, EXPLAINED, OFF_IMAGE):
                continue
            if state[index] == UNTRIED and _is_model_residual(residual, start[index], fits, wide, strong):
                state[index] = EXPLAINED
                continue
            if state[index] != UNTRIED and not _neighbour_changed(index, fits, changed, sweep - 1):
                continue
            was_fitted = state[index] == CONVERGED
            if was_fitted:
                before[:] = parameters[index]
                add_particle(residual, before, 1.0)
                work[:] = before
            else:
                work[:] = start[index]
            result = fit_gaussian(residual, work, noise, circular, FULL_ITERATIONS, errors)
            if result == CONVERGED and not (
                -0.5 <= work[X] <= width - 0.5 and -0.5 <= work[Y] <= height - 0.5
            ):
                result = OFF_IMAGE
                parameters[index] = work
            if result == NOT_CONVERGED and was_fitted:
                add_particle(residual, before, -1.0)
                continue
            if result == CONVERGED:
                if not was_fitted or _differs(work, before):
                    changed[index] = sweep
                parameters[index] = work
                covariance[index] = errors
                add_particle(residual, work, -1.0)
            elif was_fitted:
                changed[index] = sweep
            state[index] = result
        _merge_second_detections(residual, fits, changed, sweep)


@njit(cache=True, nogil=True)
def _is_model_residual(
    residual: Float32Array, candidate: FloatArray, fits: Fits, wide: float, strong: float
) -> bool:
    """Whether a candidate is the residual that an imperfect model leaves of the particles fitted around it.

    Strength is amplitude times the square root of the area: proportional to the significance in white noise.
    """
    parameters, state = fits.parameters, fits.state
    limit = 0.0
    for index in range(state.size):
        p = parameters[index]
        if (
            state[index] != CONVERGED
            or abs(candidate[X] - p[X]) > residual.shape[1] / 4
            or abs(candidate[Y] - p[Y]) > residual.shape[0] / 4
        ):
            continue
        dx = (candidate[X] - p[X]) / math.exp(p[LN_SX])
        dy = (candidate[Y] - p[Y]) / math.exp(p[LN_SY])
        squared = dx * dx + dy * dy
        if squared < RESIDUAL_END_SIGMAS * RESIDUAL_END_SIGMAS:
            if (
                p[AMPLITUDE] > strong
                and (squared > RESIDUAL_NEAR_SIGMAS**2 or mean_width(p) > wide)
                and not _shows_model_residual(residual, candidate, p, squared)
            ):
                continue
            strength = p[AMPLITUDE] * mean_width(p)
            limit += RESIDUAL_FRACTION * strength * math.exp(-0.5 * squared / RESIDUAL_REACH_SIGMAS**2)
    if limit == 0:
        return False
    left = amplitude_at(residual, candidate)[0] * mean_width(candidate)
    return bool(left < limit)


@njit(cache=True, nogil=True)
def mean_width(p: FloatArray) -> float:
    """Return the geometric mean of the widths along x and y, px."""
    return math.exp(0.5 * (p[LN_SX] + p[LN_SY]))


@njit(cache=True, nogil=True)
def _shows_model_residual(
    residual: Float32Array, candidate: FloatArray, p: FloatArray, squared: float
) -> bool:
    """Whether a candidate lies on the object `p`, or is part of a ring around it.

    `squared` is the distance in widths of `p`, squared.
    """
    own, background = amplitude_at(residual, candidate)
    if background - p[OFFSET] + p[AMPLITUDE] * math.exp(-0.5 * squared) > FOOTPRINT_PART * p[AMPLITUDE]:
        return True
    dx = candidate[X] - p[X]
    dy = (candidate[Y] - p[Y]) * math.exp(p[LN_SX] - p[LN_SY])
    elsewhere = candidate.copy()
    seen = 0
    alike = 0
    for place in range(1, RING_PLACES):
        angle = 2 * math.pi * place / RING_PLACES
        elsewhere[X] = p[X] + dx * math.cos(angle) - dy * math.sin(angle)
        turned = dx * math.sin(angle) + dy * math.cos(angle)
        elsewhere[Y] = p[Y] + turned * math.exp(p[LN_SY] - p[LN_SX])
        if 0 <= elsewhere[X] < residual.shape[1] and 0 <= elsewhere[Y] < residual.shape[0]:
            seen += 1
            alike += amplitude_at(residual, elsewhere)[0] > RING_PART * own
    return bool(2 * alike > seen)


@njit(cache=True, nogil=True)
def _differs(p: FloatArray, q: FloatArray) -> bool:
    return bool(
        abs(p[X] - q[X]) > SMALL_CHANGE * math.exp(p[LN_SX])
        or abs(p[Y] - q[Y]) > SMALL_CHANGE * math.exp(p[LN_SY])
        or abs(p[LN_SX] - q[LN_SX]) > SMALL_CHANGE
        or abs(p[LN_SY] - q[LN_SY]) > SMALL_CHANGE
        or abs(p[AMPLITUDE] - q[AMPLITUDE]) > SMALL_CHANGE * p[AMPLITUDE]
    )


@njit(cache=True, nogil=True)
def _neighbour_changed(index: int, fits: Fits, changed: IntArray, since: int) -> bool:
    """Whether another particle within the fit window of this one changed in sweep `since` or later."""
    start, parameters, state = fits.start, fits.parameters, fits.state
    own = parameters[index] if state[index] == CONVERGED else start[index]
    own_x = math.exp(own[LN_SX])
    own_y = math.exp(own[LN_SY])
    for other in range(state.size):
        if other == index or changed[other] < since:
            continue
        p = parameters[other] if state[other] in (CONVERGED, MERGED) else start[other]
        apart_x = abs(own[X] - p[X]) / WINDOW_SIGMAS - own_x
        apart_y = abs(own[Y] - p[Y]) / WINDOW_SIGMAS - own_y
        if (apart_x <= 0 or math.log(apart_x) < p[LN_SX]) and (apart_y <= 0 or math.log(apart_y) < p[LN_SY]):
            return True
    return False


@njit(cache=True, nogil=True)
def _merge_second_detections(residual: Float32Array, fits: Fits, changed: IntArray, sweep: int) -> None:
    """Add back the fainter of two fits of one particle image; the next sweep fits the other one alone."""
    parameters, state = fits.parameters, fits.state
    for a in range(state.size):
        if state[a] != CONVERGED:
            continue
        p = parameters[a]
        reach_x = MERGE_SIGMAS * math.exp(p[LN_SX])
        reach_y = MERGE_SIGMAS * math.exp(p[LN_SY])
        for b in range(state.size):
            q = parameters[b]
            dx = (p[X] - q[X]) / reach_x
            dy = (p[Y] - q[Y]) / reach_y
            if (
                dx * dx + dy * dy < 1
                and a != b
                and state[b] == CONVERGED
                and q[AMPLITUDE] <= p[AMPLITUDE]
                and abs(p[LN_SX] - q[LN_SX]) < MERGE_LN_WIDTH
                and abs(p[LN_SY] - q[LN_SY]) < MERGE_LN_WIDTH
            ):
                add_particle(residual, q, 1.0)
                state[b] = MERGED
                changed[b] = sweep
