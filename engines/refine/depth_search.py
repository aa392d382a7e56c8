"""The depth of a single particle found by trying many: whichever explains most of its image."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array, FloatArray, IntArray, Noise, Pixels, Prior, Psf
from engines.refine.joint_fit import fit_block, weigh_block
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
    render,
    set_box,
)

RIVAL = 0.6
"""A second depth is fitted as well where it explains this part of what the best one does. Lower fits more often in
vain; higher leaves more particles on the wrong side of a focal line."""
RIVAL_ITERATIONS = 5
"""Steps of these two fits: enough to tell which is better, the chosen one is fitted to its end later."""
LARGEST_MOVE_PX = 3.0
"""px in the plane. Detectors see lone particles within 0.5 px, so a fit that goes farther has found another one."""


@njit(cache=True, nogil=True)
def fit_brightness(
    frame: Float32Array, total: Float32Array, theta: FloatArray, box: IntArray, psf: Psf
) -> float:
    """Set the brightness of `theta` (4,) to what fits best; returns how much of the sum of squares it explains."""
    set_box(theta, frame.shape, psf, 0.0, box)
    render(theta, box, psf, False, psf.drawn)
    theta[A], gain = best_brightness(frame, total, box, psf.drawn)
    return gain


@njit(cache=True, nogil=True, inline="always")
def search_depth(
    frame: Float32Array,
    total: Float32Array,
    theta: FloatArray,
    psf: Psf,
    noise: Noise,
    span_um: float,
    step_um: float,
) -> None:
    """Move `theta` (4,) to the depth within `span_um` that explains most.

    Images before and behind a focal line are alike: where another depth explains nearly as much, the particle
    is fitted from both, alone, and the better fit stays. `frame` less `total` holds the particle.
    """
    box = np.empty(BOX, np.int64)
    steps = int(span_um / step_um)
    gains = np.zeros(2 * steps + 1)
    trial = theta.copy()
    for k in range(2 * steps + 1):
        trial[:] = theta
        trial[Z] += (k - steps) * step_um
        if k == steps or psf.z_min_um <= trial[Z] <= psf.z_max_um:
            gains[k] = fit_brightness(frame, total, trial, box, psf)
    best = int(np.argmax(gains))
    rival = -1
    for k in range(gains.size):
        peak = (k == 0 or gains[k] >= gains[k - 1]) and (k == gains.size - 1 or gains[k] >= gains[k + 1])
        near = abs(k - best) <= 1 or gains[k] <= RIVAL * gains[best]
        if peak and not near and (rival < 0 or gains[k] > gains[rival]):
            rival = k
    here = theta.copy()
    theta[Z] = here[Z] + (best - steps) * step_um
    fit_brightness(frame, total, theta, box, psf)
    if rival < 0:
        return
    boxes, covariance, fit = np.empty((2, BOX), np.int64), np.empty((1, 4, 4)), np.empty((1, 2))
    pair = np.empty((2, 4))
    for c in range(2):
        k = best if c == 0 else rival
        pair[c] = here
        pair[c, Z] += (k - steps) * step_um
        fit_brightness(frame, total, pair[c], boxes[c], psf)
        set_box(pair[c], frame.shape, psf, SPARE_UM, boxes[c])
    for side in (TOP, LEFT):
        boxes[:, side] = boxes[:, side].min()
    for side in (BOTTOM, RIGHT):
        boxes[:, side] = boxes[:, side].max()
    plain = psf.plain[0]
    psf.plain[0] = 0
    most = 0.0
    for c in range(2):
        one = pair[c : c + 1]
        corner, weight = weigh_block(total, one, boxes[c : c + 1], boxes[c : c + 1], psf, noise)
        pixels = Pixels(frame, total, weight, corner)
        # a constant would make numba compile a second `fit_block`, for this number; `int` makes it a variable
        fit_block(pixels, one, boxes[c : c + 1], Prior(0.0, 0.0), psf, int(RIVAL_ITERATIONS), covariance, fit)
        if max(abs(one[0, X] - here[X]), abs(one[0, Y] - here[Y])) > LARGEST_MOVE_PX:
            continue
        render(one[0], boxes[c], psf, False, psf.drawn)
        _, gain = best_brightness(frame, total, boxes[c], psf.drawn)
        if gain > most:
            most = gain
            theta[:] = one[0]
    psf.plain[0] = plain
