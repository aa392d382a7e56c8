"""Two hypotheses for each track: its depth is the chosen one, or the one on the other side of focus.

As the true particle moves, the other depth moves as its mirror image about the focal plane: it does not keep its
height when the focus moves, it rises while particles sink, and it goes through another part of the flow. Each
track therefore carries two branches, Kalman filters of the same gain that begin without any knowledge of the
velocity, and the log-odds of the chosen branch:

- focus: the true branch keeps its height when the focus moves, the other one moves by twice as much. What the
  chosen branch does at each change of the focus's speed, as far as its filter has not followed, adds up (`FOCUS`);
- velocity: at a steady speed of the focus, the height of the other branch moves at twice this speed;
- images: the mean log-odds of single images, which count as few (`INDEPENDENT_IMAGES`), since images of one
  particle err alike;
- flow: `tracking.sides.evidence`.

The chosen branch is the one that the tracker links and reports. They change places when the odds are against it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from tracking import kalman
from tracking.flow_field import Flow, expect
from tracking.index_type import Index
from tracking.kalman import Measured
from tracking.sides.columns import (
    ABSENT_FRAMES,
    FOCUS,
    FOCUS_V,
    IMAGE,
    IMAGE_ODDS,
    IMAGES,
    IS_OPEN,
    NOT_CHOSEN,
    ODDS,
    OTHER_Z,
    OUT_DETECTION,
    OUT_SIGMA_SPEED,
    OUT_SPEED,
    OWN,
    PP,
    PP_XY,
    PV,
    PV_XY,
    REVISED,
    SEEN_FRAMES,
    SINCE,
    STEPS,
    VV,
    VV_XY,
    VXY,
    XY,
    V,
    Z,
)
from tracking.sides.evidence import flow_odds

MIRROR_GAIN = 2.0
"""Um by which the height of the wrong branch moves for each um of focus: 1 + the slope between both depths, which
is near 1. Off by a tenth, evidence is off by a fifth."""
LARGEST_STEP = 3.0
"""The most that one frame adds: a single bad position or wrong link does not decide. Larger decides faster after a
move of the focus, and more often wrongly."""
SUREST = 15.0
"""Bound of the sum of steps, so that a new motion overturns it within some frames (3 a frame)."""
INDEPENDENT_IMAGES = 1.0
"""As how many independent images all images of a track count. Images of one particle err alike: its size, its
neighbours and its place in the field stay. With 2, in a sheared flow 94 % instead of 97 % are right where all of a
particle's images err."""
FASTER_SIGMAS, LARGEST_VELOCITY = 3.0, 6.0
"""The mirrored velocity of a moving focus decides if it is so many standard errors of a velocity, and at most so
much: exp(-6) is 1 in 400. Particles do move with the focus by chance."""
IMAGE_MEMORY = 50.0
"""Frames of the mean over images."""
AGAINST = 1.0
"""Log-odds against the chosen branch at which the other is taken: 1 to 2.7. At 0 noise would make them change
places again and again; more only takes the better guess later."""
ABSENT = math.log(0.95 / 0.05)
"""Log-odds of an image that only one depth explains."""
CLOSED_AFTER = 5
"""Frames in a row with such images after which there is no question of sides any more."""
TOGETHER_SIGMAS = 3.0
"""Depths nearer to each other than that are one: which path is which may be mistaken there."""
CROSSING_SIGMAS = 5.0
"""Depths nearer to each other than that lie around the focus, where each may be off towards the other's side: then
half of their distance counts as an error more, so that a particle keeps its velocity through the focus and does not
turn back there: of particles that are seen 3 um too far from the focus there, 7 % do, without it 19 %."""
LARGEST_ODDS = 12.0


@njit(cache=True, nogil=True, error_model="numpy")
def begin(
    sides: Any, count: int, state: Any, label: Any, alive: int, rows: Any, measured: Any, detections: int,
    seconds: Any, flow: Any, unknown: Any, number: int, height: float,
) -> None:  # fmt: skip
    """Begin both branches of the tracks `count` to `alive` that have begun with a detection of this frame.

    The velocity to expect of such a track is a mixture of what the flow field expects at both depths.
    """
    measured, flow = Measured(*measured), Flow(*flow)
    place, error, mean, variance = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    j = Index(0)
    for i in range(count, alive):
        if label[kalman.HITS, i] != 1 or rows[OUT_DETECTION, i] < 0.0:
            continue
        while j < detections and measured.origin[j] < rows[OUT_DETECTION, i]:
            j += 1
        if j < detections and not np.isnan(seconds[OTHER_Z, j]):
            _open(
                sides, i, state, measured.z[2, j], seconds[OTHER_Z, j], measured, j, unknown, number, height
            )
            sides[IMAGE, i] = seconds[IMAGE_ODDS, j]
            sides[IMAGES, i] = 1.0
            sides[ODDS, i] = seconds[IMAGE_ODDS, j]
            share = 1.0 / (1.0 + math.exp(seconds[IMAGE_ODDS, j]))
            for a in range(3):
                place[a], error[a] = measured.z[a, j], measured.R[a, j]
            place[2] = seconds[OTHER_Z, j]
            if not expect(flow, place, error, mean, variance):
                continue
            for a in range(3):
                here, there = state[kalman.VELOCITY + a, i], mean[a]
                both = (1.0 - share) * here + share * there
                spread = (1.0 - share) * (state[kalman.VV + a, i] + (here - both) ** 2)
                spread += share * (variance[a] + (there - both) ** 2)
                state[kalman.VELOCITY + a, i] = both
                state[kalman.VV + a, i] = min(spread, unknown[a])
                rows[OUT_SPEED + a, i] = both
                rows[OUT_SIGMA_SPEED + a, i] = math.sqrt(state[kalman.VV + a, i])


@njit(cache=True, nogil=True, error_model="numpy")
def _open(
    sides: Any,
    i: int,
    state: Any,
    chosen: float,
    other: float,
    measured: Any,
    j: int,
    unknown: Any,
    number: int,
    height: float,
) -> None:
    """Begin two branches at two depths of detection `j`, without any knowledge of the velocity."""
    sides[IS_OPEN, i] = 1.0
    sides[SINCE, i] = number
    sides[FOCUS, i] = height
    sides[FOCUS_V, i] = 0.0
    sides[ABSENT_FRAMES, i] = 0.0
    sides[SEEN_FRAMES, i] = 1.0
    sides[Z, i] = chosen
    sides[Z + 1, i] = other
    sides[V, i] = state[kalman.VELOCITY + 2, i]
    sides[V + 1, i] = -state[kalman.VELOCITY + 2, i]
    sides[PP, i] = measured.R[2, j]
    sides[PV, i] = 0.0
    sides[VV, i] = unknown[2]
    for a in range(2):
        sides[XY + a, i] = measured.z[a, j]
        sides[VXY + a, i] = state[kalman.VELOCITY + a, i]
        sides[PP_XY + a, i] = measured.R[a, j]
        sides[PV_XY + a, i] = 0.0
        sides[VV_XY + a, i] = unknown[a]
    sides[STEPS, i] = 0.0
    sides[IMAGE, i] = 0.0
    sides[IMAGES, i] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def predict(sides: Any, count: int, dt: float, step: Any, wander: Any) -> None:
    """Predict both branches `dt` ahead; `step` and `wander` (3,) as in `tracking.kalman.predict`."""
    for i in range(count):
        if sides[IS_OPEN, i] == 0.0:
            continue
        sides[Z, i] += sides[V, i] * dt
        sides[Z + 1, i] += sides[V + 1, i] * dt
        sides[FOCUS, i] += sides[FOCUS_V, i] * dt
        sides[PP, i] += dt * (2.0 * sides[PV, i] + dt * sides[VV, i]) + step[2]
        sides[PV, i] += dt * sides[VV, i]
        sides[VV, i] += wander[2]
        for a in range(2):
            sides[XY + a, i] += sides[VXY + a, i] * dt
            sides[PP_XY + a, i] += dt * (2.0 * sides[PV_XY + a, i] + dt * sides[VV_XY + a, i]) + step[a]
            sides[PV_XY + a, i] += dt * sides[VV_XY + a, i]
            sides[VV_XY + a, i] += wander[a]


@njit(cache=True, nogil=True, error_model="numpy")
def resolve(
    sides: Any,
    state: Any,
    alive: int,
    links: Any,
    measured: Any,
    seconds: Any,
    flow: Any,
    unknown: Any,
    number: int,
    height: float,
    memory: int,
) -> None:
    """Choose the depth of each linked detection, weigh both branches, and exchange them where the odds say so.

    The chosen height is written into `measured.z`, the other one into `seconds`. `number` is the frame's, `height`
    the focus position; a track is revised by at most `memory` frames. `Measured` and `Flow` are plain tuples.
    """
    measured, flow = Measured(*measured), Flow(*flow)
    place, error, mean, variance = np.zeros(3), np.zeros(3), np.zeros((2, 3)), np.zeros((2, 3))
    before = np.zeros(7)
    for i in range(alive):
        sides[REVISED, i] = 0.0
        j = Index(links[i])
        if j < 0:
            continue
        first, second = measured.z[2, j], seconds[OTHER_Z, j]
        has_two = not np.isnan(second)
        if sides[IS_OPEN, i] == 0.0:
            if has_two:
                _open_later(sides, i, state, measured, j, seconds, unknown, number, height)
            continue
        together = has_two and (first - second) ** 2 < TOGETHER_SIGMAS**2 * measured.R[2, j]
        if has_two and (first - second) ** 2 < CROSSING_SIGMAS**2 * measured.R[2, j]:
            measured.R[2, j] += 0.25 * (first - second) ** 2
        S = sides[PP, i] + measured.R[2, j]
        for row in range(7):
            before[row] = sides[Z + row, i]
        if has_two:
            straight = (first - sides[Z, i]) ** 2 + (second - sides[Z + 1, i]) ** 2 <= (
                second - sides[Z, i]
            ) ** 2 + (first - sides[Z + 1, i]) ** 2
            chosen, other = (first, second) if straight else (second, first)
            nu, nu_other = chosen - sides[Z, i], other - sides[Z + 1, i]
            image = seconds[IMAGE_ODDS, j] if straight else -seconds[IMAGE_ODDS, j]
            expected = MIRROR_GAIN * (height - sides[FOCUS, i])
            gained = 0.5 * ((nu - expected) ** 2 - nu * nu) / S
            gained = min(max(gained, -LARGEST_STEP), LARGEST_STEP)
            sides[STEPS, i] = min(max(sides[STEPS, i] + gained, -SUREST), SUREST)
            sides[ABSENT_FRAMES, i] = 0.0
        else:
            straight = (first - sides[Z, i]) ** 2 <= (first - sides[Z + 1, i]) ** 2
            chosen, other = first, np.nan
            nu = first - sides[Z, i] if straight else 0.0
            nu_other = 0.0 if straight else first - sides[Z + 1, i]
            image = ABSENT if straight else -ABSENT
            sides[ABSENT_FRAMES, i] += 1.0
        sides[SEEN_FRAMES, i] += 1.0
        _correct(sides, i, nu, nu_other, height - sides[FOCUS, i], measured, j)
        sides[IMAGES, i] = min(sides[IMAGES, i] + 1.0, IMAGE_MEMORY)
        sides[IMAGE, i] += (image - sides[IMAGE, i]) / sides[IMAGES, i]
        odds = sides[STEPS, i] + sides[IMAGE, i] * min(sides[IMAGES, i], INDEPENDENT_IMAGES)
        odds += flow_odds(sides, i, flow, place, error, mean, variance) + _velocity_odds(sides, i)
        sides[ODDS, i] = min(max(odds, -LARGEST_ODDS), LARGEST_ODDS)
        is_wrong = sides[ODDS, i] < -AGAINST if has_two else not straight
        if is_wrong:
            _exchange(sides, i, state, before)
            if has_two:
                chosen, other = other, chosen
            sides[REVISED, i] = 0.0 if together else min(number - sides[SINCE, i], memory)
        measured.z[2, j] = chosen
        seconds[NOT_CHOSEN, j] = other
        if together:
            sides[SINCE, i] = number
            sides[IMAGES, i] = 0.0
            sides[STEPS, i] = min(max(sides[STEPS, i], -LARGEST_STEP), LARGEST_STEP)
        if sides[ABSENT_FRAMES, i] >= CLOSED_AFTER:
            sides[IS_OPEN, i] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _open_later(
    sides: Any,
    i: int,
    state: Any,
    measured: Any,
    j: int,
    seconds: Any,
    unknown: Any,
    number: int,
    height: float,
) -> None:
    """Begin two branches of a track whose depth was not in question; its prediction decides between them."""
    first, second = measured.z[2, j], seconds[OTHER_Z, j]
    S = state[kalman.PP + 2, i] + measured.R[2, j]
    at = state[kalman.POSITION + 2, i]
    steps = 0.5 * ((second - at) ** 2 - (first - at) ** 2) / S
    steps = min(max(steps, -LARGEST_ODDS), LARGEST_ODDS)
    image = seconds[IMAGE_ODDS, j]
    sign = 1.0 if steps + image >= 0.0 else -1.0
    if sign < 0.0:
        measured.z[2, j], seconds[NOT_CHOSEN, j] = second, first
    _open(sides, i, state, measured.z[2, j], seconds[NOT_CHOSEN, j], measured, j, unknown, number, height)
    sides[STEPS, i] = sign * steps
    sides[IMAGE, i] = sign * image
    sides[IMAGES, i] = 1.0
    sides[ODDS, i] = min(sign * (steps + image), LARGEST_ODDS)


@njit(cache=True, nogil=True, error_model="numpy")
def _correct(sides: Any, i: int, nu: float, nu_other: float, nu_focus: float, measured: Any, j: int) -> None:
    """Update both branches and the velocity in the plane by detection `j`."""
    R = measured.R[2, j]
    S = sides[PP, i] + R
    gain, slope = sides[PP, i] / S, sides[PV, i] / S
    sides[Z, i] += gain * nu
    sides[V, i] += slope * nu
    sides[Z + 1, i] += gain * nu_other
    sides[V + 1, i] += slope * nu_other
    sides[FOCUS, i] += gain * nu_focus
    sides[FOCUS_V, i] += slope * nu_focus
    sides[VV, i] = max(sides[VV, i] - slope * sides[PV, i], 0.0)
    sides[PV, i] = slope * R
    sides[PP, i] = gain * R
    for a in range(2):
        R = measured.R[a, j]
        S = sides[PP_XY + a, i] + R
        gain, slope = sides[PP_XY + a, i] / S, sides[PV_XY + a, i] / S
        off = measured.z[a, j] - sides[XY + a, i]
        sides[XY + a, i] += gain * off
        sides[VXY + a, i] += slope * off
        sides[VV_XY + a, i] = max(sides[VV_XY + a, i] - slope * sides[PV_XY + a, i], 0.0)
        sides[PV_XY + a, i] = slope * R
        sides[PP_XY + a, i] = gain * R


@njit(cache=True, nogil=True, error_model="numpy")
def _velocity_odds(sides: Any, i: int) -> float:
    """Log-odds of the chosen branch from its vertical velocity, while the focus moves steadily.

    The velocity of the wrong branch is known then; that of the true one may be anything up to about as much.
    """
    mirrored = MIRROR_GAIN * sides[FOCUS_V, i]
    variance = sides[VV, i]
    if mirrored * mirrored < FASTER_SIGMAS**2 * variance:
        return 0.0
    v = sides[V, i]
    broad = variance + mirrored * mirrored
    odds = 0.5 * ((v - mirrored) ** 2 / variance - v * v / broad + math.log(variance / broad))
    return float(min(max(odds, -LARGEST_VELOCITY), LARGEST_VELOCITY))


@njit(cache=True, nogil=True, error_model="numpy")
def _exchange(sides: Any, i: int, state: Any, before: Any) -> None:
    """Make the other branch the chosen one; the track's own filter goes on from its prediction (`before`)."""
    for row in (Z, V, OWN):
        chosen = sides[row, i]
        sides[row, i] = sides[row + 1, i]
        sides[row + 1, i] = chosen
    for row in (STEPS, IMAGE, ODDS):
        sides[row, i] = -sides[row, i]
    state[kalman.POSITION + 2, i] = before[1]
    state[kalman.VELOCITY + 2, i] = before[3]
    state[kalman.PP + 2, i] = before[4]
    state[kalman.PV + 2, i] = before[5]
    state[kalman.VV + 2, i] = before[6]
