"""Expected particles fitted to a frame from where they should be, and which of these fits are to be believed.

The prediction is where the fit starts, and nothing else: it has no weight in the likelihood. So a detection stays
an independent measurement, and the tracker, which made the prediction, does not count its own words twice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engines.prediction.expected import Expected
from engines.refine.arguments import (
    BoolArray,
    Float32Array,
    FloatArray,
    Noise,
    Particles,
    Prior,
    Psf,
    Typical,
)
from engines.refine.fitting import (
    LARGEST_MOVE_UM,
    LEAST_SEARCH_UM,
    SEARCH_SIGMAS,
    SEARCH_STEP_UM,
    FitFrame,
    on_another,
    standard_errors,
    within,
)
from engines.refine.frame import search_depths
from engines.refine.grouping import blocks_of, usable_boxes
from engines.refine.joint_fit import CONVERGED, NOT_CONVERGED
from engines.refine.other_side import other_depths
from engines.refine.presence import presence, put_all
from engines.refine.psf import FitModel
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, A, X, Y, Z
from engines.refine.typical import sample_of, typical_of

REACH_PX, REACH_UM = 2.5, 20.0
"""Standard deviations of a prediction, px in the plane and um of depth, up to which a fit finds the particle from
there: its image is a few px wide at its narrowest, and two of the depth search's steps are within the reach of a
fit (iterative particle reconstruction corrects up to 2 or 3 px, Jahn et al. 2021). Beyond, the surroundings are
searched; more fits in vain, less searches more."""
FROM_PLACE_SIGMAS, FLOOR_PX, FLOOR_UM = 5.0, 0.5, 4.0
"""A particle may be off its prediction by so many standard deviations of both, and by so much in any case, for what
a filter does not know of itself. Beyond, it may be another one, and its surroundings are searched, which takes time
and decides. With 3 or 8 in place of 5, 7 of 5,323 are missed and 7 false all the same (one simulated flow,
dense)."""
GHOST = 0.5
"""Part of its expected brightness below which a particle is not there: half way between there and not there."""
LEAST_SIGMAS = 5.0
"""Standard errors of the brightness below which the image of a particle is not told from noise: 3e-7 for one place;
the network and the fit of a found particle ask for less, and may find it again."""
UNLIKE = 3.0
"""Relative scatters of the brightness over the frame by which a particle's may have changed since it was predicted.
More misses second particles that have come to the same place, less searches more."""
SHOWN, WHOLLY_SHOWN = (0.6, 0.75), 0.95
"""Parts of an image within the frame between which its depth is searched in any case, and below which it counts as
cut. Of less than the first too little is left to choose by; the second is that of particles nearer to the edge
than half of their half width. In one flow (1,000 particles) a particle there had a wrong depth in 40 of 60 frames
without a search, in 6 with it."""
ASKED = 32
"""Particles that are looked at before any is fitted: of 32 whose absence has a probability of 3 %, more than a
quarter are absent in 3 of 10^7 frames, and if half have gone, this says so in 996 of 1,000 (binomial)."""


class Corrected(NamedTuple):
    """Expected particles (N) after their fit, `sigma` (N, 4) their standard errors and `other` (N, 2) as in
    `Refined`.

    `believed` (N,) are measured; of the others, `ghost` (N,) are not there, and the rest is to be searched for.
    `elsewhere` (N,) of these look as particles do, but are not where they were expected.
    `typical` is what is typical of the fits of this frame.
    """

    particles: Particles
    sigma: FloatArray
    other: FloatArray
    believed: BoolArray
    elsewhere: BoolArray
    ghost: BoolArray
    typical: Typical


def begin(expected: Expected, brightness: FloatArray) -> Particles:
    """The particles as the fit takes them, with their expected `brightness` (N,) relative to the model's.

    Only those of which the place is known well enough are usable.
    """
    n = len(brightness)
    theta = np.column_stack([expected.place, brightness])
    covariance, fit = np.full((n, 4, 4), np.nan), np.full((n, 2), np.nan)
    return Particles(theta, covariance, fit, np.full(n, NOT_CONVERGED), usable(expected) & (brightness > 0.0))


def usable(expected: Expected) -> BoolArray:
    """Which expected particles (N,) a fit may find from where they are expected."""
    near = (expected.sigma[:, :2] <= REACH_PX).all(axis=1)
    return np.asarray(near & (expected.sigma[:, 2] <= REACH_UM), np.bool_)


def part_absent(contrast: Float32Array, total: Float32Array, particles: Particles, psf: Psf) -> float:
    """Part of the usable particles, of `ASKED` at most, that are not where they should be."""
    usable = np.flatnonzero(particles.usable)
    asked = np.zeros(len(particles.usable), np.bool_)
    asked[usable[:: max(1, -(-len(usable) // ASKED))]] = True
    if not asked.any():
        return 1.0
    there = presence(contrast, total, particles.theta, asked, psf)[asked]
    return float((~(there >= GHOST)).mean())


def correct(
    contrast: Float32Array,
    total: Float32Array,
    particles: Particles,
    expected: Expected,
    model: FitModel,
    psf: Psf,
    noise: Noise,
    fit_all: FitFrame,
) -> Corrected:
    """Fit the usable `particles` from where they are, and judge the fits.

    Of overlapped ones that come out other than expected, light may have gone from one to the other: they are fitted
    once more with the brightness that is typical on this frame, as the search fits them, before they are judged.
    `contrast` (H, W); `total` (H, W) holds the image of all usable particles and afterwards that of the believed
    ones.
    """
    theta, covariance, fit, _, usable = particles
    start = theta.copy()
    _search_cut(contrast, total, particles, expected, psf, noise)
    begun = theta.copy()
    asked = usable.copy()
    other = np.full((len(theta), 2), np.nan)
    unknown = Prior(0.0, 0.0)
    fit_all(contrast, total, particles, psf, noise, unknown, usable)
    crossed = other_depths(contrast, total, particles, psf, noise, model.twins, other)
    if crossed.any():
        fit_all(contrast, total, particles, psf, noise, unknown, crossed)
    typical = typical_of(sample_of(theta, fit, covariance), _measured(particles, start, model), model)
    again = usable & _overlapped(particles, contrast.shape, psf)
    sigma = standard_errors(covariance, fit, model)
    again &= ~(_in_place(particles, sigma, other, start, expected) & _alike(particles, sigma, start, typical))
    if again.any():
        put_all(total, theta, again, -1.0, psf)
        theta[again], other[again] = begun[again], np.nan
        put_all(total, theta, again, 1.0, psf)
        fit_all(contrast, total, particles, psf, noise, Prior(typical.brightness, typical.spread**-2), again)
    sigma = standard_errors(covariance, fit, model)
    ghost = asked & ~_is_there(particles, sigma, start)
    if ghost.any():
        _leave_out(contrast, total, particles, ghost, psf, noise, fit_all)
        other[ghost] = np.nan
        sigma = standard_errors(covariance, fit, model)
        more = usable & ~_is_there(particles, sigma, start)
        put_all(total, theta, more, -1.0, psf)
        ghost |= more
        usable &= ~more
    good = usable & (particles.state == CONVERGED) & _alike(particles, sigma, start, typical)
    height, width = contrast.shape
    good &= within(theta, height, width) & (theta[:, Z] > model.z_min_um) & (theta[:, Z] < model.z_max_um)
    in_place = _in_place(particles, sigma, other, start, expected)
    believed = good & in_place
    believed &= ~on_another(theta, believed)
    put_all(total, theta, usable & ~believed, -1.0, psf)
    return Corrected(particles, sigma, other, believed, good & ~in_place, ghost, typical)


def _search_cut(
    contrast: Float32Array,
    total: Float32Array,
    particles: Particles,
    expected: Expected,
    psf: Psf,
    noise: Noise,
) -> None:
    """Search the depth of particles whose image the edge of the frame cuts, where it is not well predicted, and
    where much is cut off.

    Half an image may have a second depth that explains it nearly as well, from which a fit does not come back. Once
    the tracker believed it, each prediction would begin there.
    """
    boxes = usable_boxes(particles.theta, particles.usable, contrast.shape, psf)
    shown = np.ones(len(boxes))
    for axis, low, high in ((Y, TOP, BOTTOM), (X, LEFT, RIGHT)):
        at = particles.theta[:, axis]
        half = np.maximum(at - boxes[:, low], boxes[:, high] - 1 - at)
        shown *= np.minimum((boxes[:, high] - boxes[:, low]) / (2.0 * half + 1.0), 1.0)
    reach = SEARCH_SIGMAS * expected.sigma[:, 2]
    unsure = ((shown > SHOWN[0]) & (shown < SHOWN[1])) | ((shown < WHOLLY_SHOWN) & (reach > SEARCH_STEP_UM))
    unsure &= particles.usable
    if unsure.any():
        span = np.clip(reach, LEAST_SEARCH_UM, LARGEST_MOVE_UM)
        search_depths(contrast, total, particles.theta, span, SEARCH_STEP_UM, psf, noise, unsure)


def _measured(particles: Particles, start: FloatArray, model: FitModel) -> BoolArray:
    """Which particles (N,) count in what is typical of a frame."""
    sigma = standard_errors(particles.covariance, particles.fit, model)
    converged = particles.usable & (particles.state == CONVERGED)
    return np.asarray(converged & _is_there(particles, sigma, start), np.bool_)


def _overlapped(particles: Particles, shape: tuple[int, ...], psf: Psf) -> BoolArray:
    """Which particles (N,) are fitted together with others."""
    boxes = usable_boxes(particles.theta, particles.usable, (shape[0], shape[1]), psf)
    block, _ = blocks_of(boxes, particles.usable)
    size = np.bincount(block[particles.usable], minlength=len(block))
    return np.asarray(particles.usable & (size[block] > 1), np.bool_)


def _is_there(particles: Particles, sigma: FloatArray, start: FloatArray) -> BoolArray:
    """Whether each particle (N,) has a good part of its expected brightness; so have those that no fit could
    tell."""
    a, error = particles.theta[:, A], sigma[:, A]
    with np.errstate(invalid="ignore"):
        there: BoolArray = ~((a + error < GHOST * start[:, A]) | (a < LEAST_SIGMAS * error))
    return there


def _leave_out(
    contrast: Float32Array,
    total: Float32Array,
    particles: Particles,
    out: BoolArray,
    psf: Psf,
    noise: Noise,
    fit_all: FitFrame,
) -> None:
    """Take the particles `out` (N,) away, and fit those again whose images overlapped them."""
    theta, usable = particles.theta, particles.usable
    height, width = contrast.shape
    boxes = usable_boxes(theta, usable, (height, width), psf)
    put_all(total, theta, usable & out, -1.0, psf)
    usable &= ~out
    near = np.zeros(len(theta), np.bool_)
    for i in np.flatnonzero(out):
        near |= (
            (boxes[:, TOP] < boxes[i, BOTTOM])
            & (boxes[:, BOTTOM] > boxes[i, TOP])
            & (boxes[:, LEFT] < boxes[i, RIGHT])
            & (boxes[:, RIGHT] > boxes[i, LEFT])
        )
    near &= usable
    if near.any():
        fit_all(contrast, total, particles, psf, noise, Prior(0.0, 0.0), near)


def _in_place(
    particles: Particles, sigma: FloatArray, other: FloatArray, start: FloatArray, expected: Expected
) -> BoolArray:
    """Which particles (N,) are where they should be."""
    theta = particles.theta
    floor = np.array([FLOOR_PX, FLOOR_PX, FLOOR_UM])
    with np.errstate(invalid="ignore"):
        allowed = FROM_PLACE_SIGMAS * np.hypot(expected.sigma, sigma[:, :3]) + floor
        near = np.abs(theta[:, :2] - start[:, :2]) <= allowed[:, :2]
        deep = np.abs(theta[:, Z] - start[:, Z]) <= allowed[:, 2]
        deep |= np.abs(other[:, 0] - start[:, Z]) <= allowed[:, 2]
    good: BoolArray = near.all(axis=1) & deep
    return good


def _alike(particles: Particles, sigma: FloatArray, start: FloatArray, typical: Typical) -> BoolArray:
    """Which particles (N,) are as bright as expected, and look as particles do."""
    theta, covariance, fit, _, _ = particles
    with np.errstate(invalid="ignore"):
        scatter = np.hypot(typical.spread * start[:, A], np.sqrt(np.fmax(covariance[:, A, A], 0.0)))
        bright = np.abs(theta[:, A] - start[:, A]) <= UNLIKE * scatter
        alike = fit[:, 0] <= typical.worst_chi_square
    good: BoolArray = bright & alike & np.isfinite(sigma).all(axis=1)
    return good
