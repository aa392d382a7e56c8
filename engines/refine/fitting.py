"""All detections of a frame fitted: starts, the order of the steps, and which fits are accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engines.refine.alternatives import FAINT_SIGMAS
from engines.refine.arguments import BoolArray, Float32Array, FloatArray, Noise, Particles, Prior
from engines.refine.clipped import refit_clipped
from engines.refine.depth_search import LARGEST_MOVE_PX
from engines.refine.frame import UNTRIED, begin_frame, fit_frame, take_back, vary
from engines.refine.joint_fit import CONVERGED
from engines.refine.limits import ends_of
from engines.refine.other_side import other_depths
from engines.refine.particle_count import Marks, settle_frame
from engines.refine.psf import FitModel
from engines.refine.rendering import A, X, Y, Z
from engines.refine.typical import Sample, sample_of, typical_of
from engines.refine.uneven_light import LEAST_MULTIPLIED_RANGE, LEAST_RANGE, lay_light, light_of
from engines.refine.uneven_rest import in_standard_deviations, is_alike_after_half_a_turn, widened_by

FitFrame = Callable[..., None]
"""`refine.frame.fit_frame`, or what does the same elsewhere."""

SEARCH_SIGMAS = 3.0
"""Standard errors of a detector's depth over which the fit searches. With 3 of them 0.84 % are missed, with 1.5
1.00 % and with 6 0.94 % (3,200 particles, half of them overlapped, as in all measurements of this folder)."""
LEAST_SEARCH_UM = 30.0
"""um over which it searches at least, for depths from the widths of images, whose standard errors are rough."""
SEARCH_STEP_UM = 7.5
"""um between the depths that are tried; a fit finds its way over less than one step. With 4 or 15 um 0.9 to 1.0 %
are missed in place of 0.84 %, and lone ones are measured alike."""
LARGEST_MOVE_UM, LARGEST_MOVE_SIGMAS = 60.0, 6.0
"""A fit may move a depth by so much, in um or in standard errors of the detector's, whichever is more, unless its
chi-square is typical: farther away it is likely to be another particle. Also the longest search. With 30 um
0.88 % are missed in place of 0.84 %."""
LEAST_BRIGHTNESS_SIGMAS = 3.0
"""Standard errors of the brightness below which a particle is not told from noise. With 1.5 or 6 the results hardly
differ: missed 0.84 %, false 0.53 and 0.50 %."""
WORST_FIT = 4.0
"""Reduced chi-square, over the typical one, from which an image is not that of a calibrated particle. With 2 or 8
the results are the same within 0.02 um of depth. Real particles differ: on a real scan one fit in thirty is beyond,
nearly all of them at the right depth, where the network alone has three in four on the wrong side of focus. So with
a calibration that knows of misfit such a particle is kept, with standard errors that are wider by the root."""
SAME_PX, SAME_UM = 0.5, 5.0
"""Two particles nearer than this in all directions are one that was fitted twice: a few standard errors."""
CHANCE_SIGMAS = 3.0
"""Standard deviations of a reduced chi-square, sqrt(2 / pixels), above 1 from which standard errors are widened by
its root, where the calibration does not say how far real particles are off (`misfit`). With 1 or 6 the ratios of
errors to standard errors change by 0.01."""
BRIGHT_SIGMAS, BRIGHT_SPREADS = 3.0, 3.0
"""SDs of the brightness above the typical one from which a particle may be two, and below it from which it may be
none. Lower tries more alternatives, which costs time; higher leaves pairs at one place undetected."""


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """What the fit found: the detections (N,) that it was given, and after them those that it added, M in all.

    `theta` (M, 4): x, y in px, z in um, brightness relative to the model's particle; `sigma` (M, 4) their
    standard errors; `chi_square` (M,) reduced, NaN where nothing was fitted; `accepted` (M,) says where the
    fit is to be believed, elsewhere the detector is. `present` (M,) is False where there is no particle after all.
    `sample` (M) is what later frames may need to know of them. `other` (M, 2) is a second depth, um,
    that explains the image nearly as well, and its probability; NaN where there is none.
    """

    theta: FloatArray
    sigma: FloatArray
    chi_square: FloatArray
    accepted: BoolArray
    present: BoolArray
    sample: Sample
    other: FloatArray


def fit_particles(
    contrast: Float32Array,
    model: FitModel,
    start: FloatArray,
    sigma_z_um: FloatArray,
    noise: tuple[float, float],
    total: Float32Array | None = None,
    proposals: FloatArray | None = None,
    search_um: float = LEAST_SEARCH_UM,
    fit_all: FitFrame = fit_frame,
    drawn: BoolArray | None = None,
    known: Sample | None = None,
    light_gain: float = 0.0,
) -> Refined:
    """Fit particles that start at `start` (N, 3: x px, y px, z um; z may be NaN) to a frame.

    `contrast` (H, W) is positive where particles are, with any slowly varying background. `sigma_z_um` (N,) is the
    standard error of the start's depth; the search covers three of them, and at least `search_um`. `noise` is the
    variance of the contrast, (read, shot x relative brightness). `total`, a work image of the frame's size, comes
    back with the image of all fitted particles, and of uneven light. `proposals` (P, 3) are places where there may
    be more particles.
    `fit_all` fits the blocks: `refine.frame.fit_frame`, or what does the same elsewhere. Particles that are `drawn`
    (N,) are not fitted: their images, at their starts, are taken as known, but for the brightness. `known` are
    particles of earlier frames that count in what is typical. `light_gain` is `FitModel.light_gain`: where it is
    not 0, uneven light multiplies particles.

    The steps: brightness and depth of each particle alone; joint fits of those that overlap; what is typical on
    this frame; more, fewer and other particles where something is not typical; joint fits of what has changed.
    """
    n = len(start)
    more = np.empty((0, 3)) if proposals is None else proposals
    room = 2 * n + len(more)
    theta = np.zeros((room, 4))
    theta[:n, :3] = start
    blind = np.zeros(room, np.bool_)
    blind[:n] = ~np.isfinite(theta[:n, Z])
    theta[blind, Z] = 0.5 * (model.z_min_um + model.z_max_um)
    span = np.maximum(SEARCH_SIGMAS * np.where(np.isfinite(sigma_z_um), sigma_z_um, 0.0), search_um)
    span = np.minimum(span, LARGEST_MOVE_UM)
    span[blind[:n]] = 0.5 * (model.z_max_um - model.z_min_um)
    if drawn is not None:
        span[drawn] = 0.0
    theta[:n, Z] = np.clip(theta[:n, Z], model.z_min_um, model.z_max_um)
    height, width = contrast.shape
    usable = np.zeros(room, np.bool_)
    usable[:n] = np.isfinite(theta[:n]).all(axis=1) & within(theta[:n], height, width)
    given = usable.copy()
    covariance, fit = np.full((room, 4, 4), np.nan), np.full((room, 2), np.nan)
    particles = Particles(theta, covariance, fit, np.full(room, UNTRIED), usable)
    if total is None:
        total = np.empty_like(contrast)
    least_range = LEAST_MULTIPLIED_RANGE if light_gain else LEAST_RANGE
    is_uneven = lay_light(contrast, model.coefficients.shape[1], total, least_range)
    read, shot = map(float, noise)
    variance = Noise(read, shot, -1.0 if model.polarity == "dark" else 1.0)
    psf = model.for_kernels(contrast.shape)
    if is_uneven and light_gain:
        psf = psf._replace(light=light_of(total, light_gain, variance.sign), light_origin=psf.origin.copy())
        fit_all = fit_frame  # that of a GPU knows no such light
    begin_frame(contrast, total, theta[:n], span, SEARCH_STEP_UM, psf, variance, usable[:n])
    if drawn is not None:
        known_places = usable.copy()
        known_places[:n] &= drawn
        vary(total, particles, known_places, psf)
        usable[:n] &= ~drawn
        given[:n] &= ~drawn
    alone = theta[:n].copy()
    fit_all(contrast, total, particles, psf, variance, Prior(0.0, 0.0), usable)
    settled_alone = np.zeros(room, np.bool_)
    if (
        model.quantity is not None and model.misfit is None
    ):  # else what is unlike it is known of all particles
        with np.errstate(invalid="ignore"):
            there = usable & (particles.state == CONVERGED)
            unlike = there & _worse_than_chance(fit)
        first = theta.copy()
        settled_alone = refit_clipped(
            contrast, total, particles, there, unlike, ends_of(contrast), psf, variance
        )
        settled_alone |= usable & (theta != first).any(axis=1) & ~_worse_than_chance(fit)
    other = np.full((room, 2), np.nan)
    # what reaches limits, or is partly hidden, stays as it is: the other steps know of neither
    free = particles._replace(usable=usable & ~settled_alone)
    crossed = other_depths(contrast, total, free, psf, variance, model.twins, other)
    if crossed.any():
        fit_all(contrast, total, free, psf, variance, Prior(0.0, 0.0), crossed)
    typical = typical_of(
        sample_of(theta, fit, covariance), usable & (particles.state == CONVERGED), model, known
    )
    thought = np.column_stack([more, np.full(len(more), typical.brightness)])
    thought = thought[np.isfinite(thought).all(axis=1) & within(thought, height, width)]
    thought[:, Z] = np.clip(thought[:, Z], model.z_min_um, model.z_max_um)
    bright = typical.spread * BRIGHT_SPREADS
    with np.errstate(invalid="ignore"):
        unsure = np.sqrt(typical.spread**2 + np.fmax(covariance[:, A, A], 0.0))
        noticed = usable & ~(theta[:, A] <= typical.brightness + BRIGHT_SIGMAS * unsure)
        noticed |= usable & ~(fit[:, 0] <= typical.worst_chi_square)
        faint = usable & ~(theta[:, A] > FAINT_SIGMAS * np.sqrt(covariance[:, A, A]))
        faint |= usable & ~(theta[:, A] > typical.brightness - bright)
    noticed |= take_back(total, theta, alone, usable, psf)
    marks = Marks(noticed, faint, np.zeros(room, np.bool_))
    settled = particles._replace(usable=usable & ~settled_alone)
    count = settle_frame(contrast, total, settled, n, thought, marks, psf, variance, typical)
    prior = Prior(typical.brightness, typical.spread**-2)
    fit_all(contrast, total, settled, psf, variance, prior, marks.changed & settled.usable)
    usable[:] = settled.usable | (usable & settled_alone)
    other[marks.changed] = np.nan
    theta, usable, fit, state = theta[:count], usable[:count], fit[:count], particles.state[:count]
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = standard_errors(covariance[:count], fit, model)
        unlike = fit[:, 0] / max(1.0, typical.chi_square)
        alike = unlike < WORST_FIT
        if model.misfit is not None or model.quantity is not None:
            # a particle of another size or shape than the calibrated ones: its place is worse known, but known
            sigma = sigma * np.sqrt(np.where(alike | ~np.isfinite(unlike), 1.0, unlike))[:, None]
            alike[:n] = True
        accepted = usable & (state == CONVERGED) & alike & np.isfinite(sigma).all(axis=1)
        accepted &= theta[:, A] > LEAST_BRIGHTNESS_SIGMAS * sigma[:, A]
    moved = np.hypot(theta[:n, X] - start[:, X], theta[:n, Y] - start[:, Y])
    accepted[:n] &= moved <= LARGEST_MOVE_PX
    allowed = np.fmax(LARGEST_MOVE_UM, LARGEST_MOVE_SIGMAS * sigma_z_um)
    near = np.abs(theta[:n, Z] - start[:, Z]) <= allowed
    accepted[:n] &= blind[:n] | near | (fit[:n, 0] <= typical.worst_chi_square)
    if model.quantity is None or model.quantity.is_depth:
        # beyond the range of depths there may be particles; beyond that of what they are there are none
        accepted &= (theta[:, Z] > model.z_min_um) & (theta[:, Z] < model.z_max_um)
    accepted &= ~on_another(theta, accepted)
    if model.quantity is not None and model.misfit is not None and is_alike_after_half_a_turn(model):
        # what both sides of an object have in common does not move it: what they have not, does
        rest = in_standard_deviations(contrast, total, variance)
        of_noise = np.sqrt(covariance[:count][accepted][:, (X, Y), (X, Y)])
        sigma[accepted, :2] = of_noise * widened_by(rest, theta[accepted], model)
    added = accepted & within(theta, height, width)
    present = np.where(np.arange(count) < n, usable | ~given[:count], added)
    return Refined(
        theta, sigma, fit[:, 0], accepted, present, sample_of(theta, fit, covariance[:count]), other[:count]
    )


def standard_errors(covariance: FloatArray, fit: FloatArray, model: FitModel) -> FloatArray:
    """Standard errors (N, 4) of fits with these covariances (N, 4, 4), and `fit` (N, 2) as in `Particles`.

    They are widened where a fit is worse than chance, if the calibration does not know how far particles are off,
    as it does from a scan.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma: FloatArray = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        if model.misfit is None or model.quantity is not None:
            sigma = sigma * np.sqrt(np.where(_worse_than_chance(fit), fit[:, 0], 1.0))[:, None]
    return sigma


def _worse_than_chance(fit: FloatArray) -> BoolArray:
    worse: BoolArray = fit[:, 0] > 1 + CHANCE_SIGMAS * np.sqrt(2 / fit[:, 1])
    return worse


def within(points: FloatArray, height: int, width: int) -> BoolArray:
    """Whether places (N, 2 or more: x px, y px) lie in an image of this size."""
    x, y = points[:, X], points[:, Y]
    inside: BoolArray = (np.abs(x - (width - 1) / 2) <= width / 2) & (
        np.abs(y - (height - 1) / 2) <= height / 2
    )
    return inside


def on_another(theta: FloatArray, accepted: BoolArray) -> BoolArray:
    """Whether a particle (N,) has come to lie on another one."""
    on_it = np.zeros(len(theta), np.bool_)
    index = np.flatnonzero(accepted)
    order = index[np.argsort(theta[index, X])]
    for p, i in enumerate(order):
        for j in order[p + 1 :]:
            if theta[j, X] - theta[i, X] > SAME_PX:
                break
            if abs(theta[j, Y] - theta[i, Y]) < SAME_PX and abs(theta[j, Z] - theta[i, Z]) < SAME_UM:
                on_it[[i, j]] = True
    return on_it
