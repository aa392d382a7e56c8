"""The other side of focus, or of a focal line: a second depth that explains a lone particle nearly as well.

With chi-square chi2_1 of a fit and chi2_2 of another that started at the twin depth, to the same pixels with the
same weights, the odds of the second are

    p_2 = 1 / (1 + exp((chi2_2 - chi2_1) / (2 c))),  c = max(1, 1 + E / DIRECTIONS)    (1)

where E is the excess of chi2_1 over its number of pixels. Noise alone has c = 1. An image that is unlike the model
by a pattern of squared norm E (in units of the noise), spread evenly over k directions in which images differ,
moves the difference of the two chi-squares by sqrt(E / k) times as much as noise does; its variance grows by 1 + E
/ k, by which a likelihood ratio has to be divided.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import BoolArray, Float32Array, FloatArray, Noise, Particles, Pixels, Prior, Psf
from engines.refine.grouping import blocks_of, usable_boxes
from engines.refine.joint_fit import CONVERGED, ITERATIONS, fit_block, weigh_block
from engines.refine.rendering import (
    BOTTOM,
    BOX,
    LEFT,
    RIGHT,
    SPARE_UM,
    TOP,
    A,
    X,
    Y,
    Z,
    best_brightness,
    put,
    render,
    set_box,
)

DIRECTIONS = 20.0
"""k in (1): in how many directions images of real particles differ from their model. Measured, see docs/network.md;
half or twice changes the odds, never which depth is the best guess."""
MOST_DISTANCE = 40.0
"""Expected difference of chi-square up to which a twin is tried in any case: odds of e^-20."""
OF_ANY_EXCESS, OF_EXCESS, CHANCE_SIGMAS = 2.0, 15.0, 3.0
"""A twin is also tried where the expected difference is at most twice the fit's excess of chi-square, or 15 times
what of it is beyond three standard deviations from noise: a fit that ended on the wrong side has about that excess.
With 3 times, 96.1 % of the real beads of docs/network.md are on the right side in place of 98.3 %; more tries more
in vain."""
LEAST_ODDS = 1e-3
"""Probability below which a second depth is not reported."""
LARGEST_MOVE_PX = 2.0
"""px between the two fits in the plane, beyond which the second is not of the same particle."""


@njit(cache=True, nogil=True)
def other_depths(
    frame: Float32Array,
    total: Float32Array,
    particles: Particles,
    psf: Psf,
    noise: Noise,
    twins: FloatArray,
    other: FloatArray,
) -> BoolArray:
    """Fit `particles` from their twin depths as well, each by itself; the better fit stays. Returns which moved
    (N,).

    `frame` (H, W) is the contrast, `total` (H, W) stays the image of all particles. `twins` (J, 2) is that of
    `twins.twins_of`. Fills `other` (N, 2) with the depth of the worse fit, um, and its probability by (1); NaN
    where there is none that counts, and for particles that are fitted together with others."""
    theta, covariance, fit, state, usable = particles
    other[:] = np.nan
    crossed = np.zeros(theta.shape[0], np.bool_)
    boxes = usable_boxes(theta, usable, frame.shape, psf)
    block, _ = blocks_of(boxes, usable)
    size = np.zeros(theta.shape[0], np.int64)
    for i in range(theta.shape[0]):
        if usable[i]:
            size[block[i]] += 1
    own, two = np.empty((2, BOX), np.int64), np.empty((2, 4))
    errors, good = np.empty((2, 4, 4)), np.empty((2, 2))
    for i in range(theta.shape[0]):
        if not usable[i] or state[i] != CONVERGED or not fit[i, 1] > 0.0:
            continue
        node = int(np.rint((theta[i, Z] - psf.z_first_um) / psf.z_step_um))
        node = min(max(node, 0), twins.shape[0] - 1)
        light = noise.read + noise.shot
        excess = (fit[i, 0] - 1.0) * fit[i, 1]
        beyond = excess - CHANCE_SIGMAS * np.sqrt(2.0 * fit[i, 1])
        most = max(MOST_DISTANCE, OF_ANY_EXCESS * excess, OF_EXCESS * beyond)
        if not theta[i, A] ** 2 * twins[node, 1] / light < most:
            continue
        put(total, theta[i], -1.0, psf)
        two[:] = theta[i]
        twin_um = psf.z_first_um + psf.z_step_um * twins[node, 0]
        two[1, Z] = min(max(twin_um, psf.z_min_um), psf.z_max_um)
        for c in range(2):
            set_box(two[c], frame.shape, psf, SPARE_UM, own[c])
        for side in (TOP, LEFT):
            own[:, side] = own[:, side].min()
        for side in (BOTTOM, RIGHT):
            own[:, side] = own[:, side].max()
        corner, weight = weigh_block(total, two[:1], own[:1], own[:1], psf, noise)
        pixels = Pixels(frame, total, weight, corner)
        render(two[1], own[1], psf, False, psf.drawn)
        two[1, A], _ = best_brightness(frame, total, own[1], psf.drawn)
        ended = CONVERGED
        chi = np.empty(2)
        for c in range(2):
            how, chi[c] = fit_block(
                pixels,
                two[c : c + 1],
                own[c : c + 1],
                Prior(0.0, 0.0),
                psf,
                int(ITERATIONS),
                errors[c : c + 1],
                good[c : c + 1],
            )
            ended = how if how != CONVERGED else ended
        moved = max(abs(two[1, X] - two[0, X]), abs(two[1, Y] - two[0, Y]))
        same = abs(two[1, Z] - two[0, Z]) < 0.5 * abs(twin_um - theta[i, Z])
        if ended == CONVERGED and two[1, A] > 0.0 and moved <= LARGEST_MOVE_PX and not same:
            best = 0 if chi[0] <= chi[1] else 1
            scale = max(1.0, 1.0 + (good[best, 0] - 1.0) * good[best, 1] / DIRECTIONS)
            odds = 1.0 / (1.0 + np.exp(min(0.5 * abs(chi[1] - chi[0]) / scale, 700.0)))
            if odds >= LEAST_ODDS and size[block[i]] == 1:
                other[i, 0], other[i, 1] = two[1 - best, Z], odds
            if best == 1:
                theta[i], covariance[i], fit[i] = two[1], errors[1], good[1]
                crossed[i] = size[block[i]] > 1
        put(total, theta[i], 1.0, psf)
    return crossed
