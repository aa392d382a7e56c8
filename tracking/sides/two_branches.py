"""Two hypotheses for each track: its depth is the chosen one, or the one on the other side of focus.

As the true particle moves, the other depth moves as its mirror image about the focal plane: away from the height that
the particle keeps when the focus moves, upwards when it sinks, and through another part of the flow. Each track
therefore carries two branches, a Kalman filter of the same gain for each, which begin without any knowledge of the
velocity, and the log-odds of the chosen branch:

- steps: the innovations nu of both (Bar-Shalom, Li & Kirubarajan 2001, chapter 5.4), the sum of
  (nu_other^2 - nu_chosen^2) / 2 S;
- images: the mean log-odds of single images, which count as few (`INDEPENDENT_IMAGES`), since images of one particle
  err alike;
- flow: the velocity of each branch against what the flow field expects there, and how many particles it has seen there.
  A track's own share of the field is taken out.

The chosen branch is the one that the tracker links and reports. They change places when the odds are against it.

All tracks are columns of `sides` (SIDES, capacity), in the order of the tracks. Lengths are um, times s.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stream.messages import Detections, Tracks
from tracking import kalman
from tracking.flow_field import ENOUGH, MEMORY_FRAMES, Flow, cell_at, expect
from tracking.index_type import Index
from tracking.kalman import FARTHEST_UM, Measured

ID, IS_OPEN, SINCE, ABSENT_FRAMES, SEEN_FRAMES = 0, 1, 2, 3, 4
Z, V, PP, PV, VV = 5, 7, 9, 10, 11  # Z and V: of the chosen branch, then of the other
XY, VXY, PP_XY, PV_XY, VV_XY = 12, 14, 16, 18, 20
STEPS, IMAGE, IMAGES, ODDS, REVISED, GATE_Z = 22, 23, 24, 25, 26, 27
SIDES = 28
OTHER_Z, IMAGE_ODDS, NOT_CHOSEN = 0, 1, 2
SECONDS = 3

LARGEST_STEP = 3.0
"""The most that one frame's innovations add: a single bad position or wrong link does not decide. Larger decides
faster after a move of the focus, and more often wrongly."""
SUREST = 15.0
"""Bound of the sum of steps, so that a new motion overturns it within some frames (3 a frame)."""
INDEPENDENT_IMAGES = 1.0
"""As how many independent images all images of a track count. One particle's images err alike: size, neighbours and
place in the field stay. 1 leaves single images nearly out, many let them outvote the motion."""
IMAGE_MEMORY = 50.0
"""Frames of the mean over images."""
LARGEST_FLOW, LARGEST_DENSITY = 6.0, 3.0
"""Bounds of what the flow adds: velocities have tails (exp(-6) is 1 in 400), and density changes from place to place."""
OWN_SHARE = 0.5
"""Share of the field that may be the track's own before the field says nothing about it."""
ONE_PARTICLE = MEMORY_FRAMES
"""Samples that a particle leaves in the field if it stays in its place: what was seen of the field is divided by this, so
that a few particles are not taken for many. Both densities get one more, since an empty place is not impossible."""
FEW_PARTICLES = 3.0
"""Particles that the scatter of velocities in the whole volume counts as, beside those seen in the place itself."""
AGAINST = 1.0
"""Log-odds against the chosen branch at which the other is taken: 1 to 2.7. At 0 noise would make them change places
again and again; more only takes the better guess later."""
ABSENT = math.log(0.95 / 0.05)
"""Log-odds of an image that only one depth explains."""
CLOSED_AFTER = 5
"""Frames in a row with such images after which there is no question of sides any more."""
TOGETHER_SIGMAS = 3.0
"""Depths nearer to each other than that are one: which path is which may be mistaken there."""
LARGEST_ODDS = 12.0
SMALLEST_P = 1e-3  # of a single image: what it says of itself cannot be surer than a share of bad images
Z_OTHER, P_OTHER = Detections.COLUMNS.index("z_other_um"), Detections.COLUMNS.index("p_other")
OUT_DETECTION, OUT_Z_OTHER, OUT_P_SIDE, OUT_REVISED, OUT_SPEED, OUT_SIGMA_SPEED = (
    Tracks.COLUMNS.index(name)
    for name in ("detection", "z_other_um", "p_side", "revised", "vx_um_s", "sigma_vx_um_s")
)


class Frame(NamedTuple):
    """Number of the frame, focus `height`, um, and frames back that a decision may revise."""

    number: int
    height: float
    memory: int


@njit(cache=True, nogil=True, error_model="numpy")
def take_seconds(measured: Any, count: int, height: float, seconds: Any) -> None:
    """The second depths of `count` usable detections, as heights, and the log-odds of the first ones.

    `seconds` (3, M): height, log-odds, and the depth that is not chosen (the second, until a track chooses it).
    """
    measured = Measured(*measured)
    origin, table = measured.origin, measured.table
    for j in range(count):
        z = table[Z_OTHER, origin[j]]
        p = table[P_OTHER, origin[j]]
        if not (p >= 0.0 and p <= 1.0):
            p = 0.5
        p = min(max(p, SMALLEST_P), 1.0 - SMALLEST_P)
        seconds[OTHER_Z, j] = z + height if abs(z) < FARTHEST_UM else np.nan
        seconds[IMAGE_ODDS, j] = math.log((1.0 - p) / p)
        seconds[NOT_CHOSEN, j] = seconds[OTHER_Z, j]


@njit(cache=True, nogil=True, error_model="numpy")
def align(sides: Any, count: int, label: Any, alive: int) -> int:
    """Keep the columns of the tracks that are alive, in their order; returns how many there are.

    Tracks are in order of their numbers in both, and new ones come last: they have no column yet.
    """
    at = Index(0)
    kept = Index(0)
    for i in range(alive):
        while at < count and sides[ID, at] < label[kalman.ID, i]:
            at += 1
        if at == count or sides[ID, at] != label[kalman.ID, i]:
            break
        if at != kept:
            for row in range(SIDES):
                sides[row, kept] = sides[row, at]
        kept += 1
        at += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def extend(sides: Any, count: int, label: Any, alive: int) -> None:
    """Add columns without branches for the tracks `count` to `alive`."""
    for i in range(count, alive):
        for row in range(SIDES):
            sides[row, i] = 0.0
        sides[ID, i] = label[kalman.ID, i]


@njit(cache=True, nogil=True, error_model="numpy")
def begin(
    sides: Any, count: int, state: Any, label: Any, alive: int, rows: Any, measured: Any, detections: int,
    seconds: Any, flow: Any, unknown: Any, number: int,
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
            _open(sides, i, state, measured.z[2, j], seconds[OTHER_Z, j], measured, j, unknown, number)
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
    sides: Any, i: int, state: Any, chosen: float, other: float, measured: Any, j: int, unknown: Any, number: int
) -> None:
    """Begin two branches at two depths of detection `j`, without any knowledge of the velocity."""
    sides[IS_OPEN, i] = 1.0
    sides[SINCE, i] = number
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
    sides: Any, state: Any, alive: int, links: Any, measured: Any, seconds: Any, flow: Any, unknown: Any, frame: Any
) -> None:
    """Choose the depth of each linked detection, weigh both branches, and exchange them where the odds say so.

    The chosen height is written into `measured.z`, the other one into `seconds`.
    """
    measured, flow, frame = Measured(*measured), Flow(*flow), Frame(*frame)
    place, error, mean, variance = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
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
                _open_later(sides, i, state, measured, j, seconds, unknown, frame.number)
            continue
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
            gained = 0.5 * (nu_other * nu_other - nu * nu) / S
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
        _correct(sides, i, nu, nu_other, measured, j)
        sides[IMAGES, i] = min(sides[IMAGES, i] + 1.0, IMAGE_MEMORY)
        sides[IMAGE, i] += (image - sides[IMAGE, i]) / sides[IMAGES, i]
        odds = sides[STEPS, i] + sides[IMAGE, i] * min(sides[IMAGES, i], INDEPENDENT_IMAGES)
        odds += _flow_odds(sides, i, flow, place, error, mean, variance)
        sides[ODDS, i] = min(max(odds, -LARGEST_ODDS), LARGEST_ODDS)
        is_wrong = sides[ODDS, i] < -AGAINST if has_two else not straight
        if is_wrong:
            _exchange(sides, i, state, before)
            if has_two:
                chosen, other = other, chosen
            sides[REVISED, i] = min(frame.number - sides[SINCE, i], frame.memory)
        measured.z[2, j] = chosen
        seconds[NOT_CHOSEN, j] = other
        if has_two and (first - second) ** 2 < TOGETHER_SIGMAS**2 * measured.R[2, j]:
            sides[SINCE, i] = frame.number
            sides[IMAGES, i] = 0.0
            sides[STEPS, i] = min(max(sides[STEPS, i], -LARGEST_STEP), LARGEST_STEP)
        if sides[ABSENT_FRAMES, i] >= CLOSED_AFTER:
            sides[IS_OPEN, i] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _open_later(
    sides: Any, i: int, state: Any, measured: Any, j: int, seconds: Any, unknown: Any, number: int
) -> None:
    """Begin two branches of a track whose depth was not in question: it decides between the two by its prediction."""
    first, second = measured.z[2, j], seconds[OTHER_Z, j]
    S = state[kalman.PP + 2, i] + measured.R[2, j]
    at = state[kalman.POSITION + 2, i]
    steps = 0.5 * ((second - at) ** 2 - (first - at) ** 2) / S
    steps = min(max(steps, -LARGEST_ODDS), LARGEST_ODDS)
    image = seconds[IMAGE_ODDS, j]
    sign = 1.0 if steps + image >= 0.0 else -1.0
    if sign < 0.0:
        measured.z[2, j], seconds[NOT_CHOSEN, j] = second, first
    _open(sides, i, state, measured.z[2, j], seconds[NOT_CHOSEN, j], measured, j, unknown, number)
    sides[STEPS, i] = sign * steps
    sides[IMAGE, i] = sign * image
    sides[IMAGES, i] = 1.0
    sides[ODDS, i] = min(sign * (steps + image), LARGEST_ODDS)


@njit(cache=True, nogil=True, error_model="numpy")
def _correct(sides: Any, i: int, nu: float, nu_other: float, measured: Any, j: int) -> None:
    """Update both branches and the velocity in the plane by detection `j`."""
    R = measured.R[2, j]
    S = sides[PP, i] + R
    gain, slope = sides[PP, i] / S, sides[PV, i] / S
    sides[Z, i] += gain * nu
    sides[V, i] += slope * nu
    sides[Z + 1, i] += gain * nu_other
    sides[V + 1, i] += slope * nu_other
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
def _flow_odds(sides: Any, i: int, flow: Any, place: Any, error: Any, mean: Any, variance: Any) -> float:
    """Log-odds of the chosen branch from the flow field: its velocity, and how many particles were seen there."""
    own = min(sides[SEEN_FRAMES, i], MEMORY_FRAMES)
    whole = flow.fits[flow.fits.shape[0] - 1]
    velocities = 0.0
    density = 0.0
    for a in range(2):
        place[a] = sides[XY + a, i]
        error[a] = sides[PP_XY + a, i]
    error[2] = sides[PP, i]
    for branch in range(2):
        sign = 1.0 if branch == 0 else -1.0
        place[2] = sides[Z + branch, i]
        row = cell_at(flow.box, flow.shape, place[0], place[1], place[2])
        local = flow.fits[row, 0]
        weight = local if local >= ENOUGH else whole[0]
        share = own / max(weight, 1e-9) if branch == 0 else 0.0
        if share > OWN_SHARE or not expect(flow, place, error, mean, variance):
            return 0.0
        local = max(local - (own if branch == 0 else 0.0), 0.0)
        others = local / ONE_PARTICLE
        for a in range(3):
            v = sides[VXY + a, i] if a < 2 else sides[V + branch, i]
            spread = (others * variance[a] + FEW_PARTICLES * whole[16 + a]) / (others + FEW_PARTICLES)
            spread += sides[VV_XY + a, i] if a < 2 else sides[VV, i]
            off = (v - mean[a]) / (1.0 - share)
            velocities -= sign * 0.5 * (off * off / spread + math.log(spread))
        density += sign * math.log(others + 1.0)
    velocities = min(max(velocities, -LARGEST_FLOW), LARGEST_FLOW)
    return velocities + min(max(density, -LARGEST_DENSITY), LARGEST_DENSITY)


@njit(cache=True, nogil=True, error_model="numpy")
def _exchange(sides: Any, i: int, state: Any, before: Any) -> None:
    """Make the other branch the chosen one; the track's own filter goes on from the other's prediction (`before`)."""
    for row in (Z, V):
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


@njit(cache=True, nogil=True, error_model="numpy")
def write(sides: Any, alive: int, rows: Any, measured: Any, detections: int, seconds: Any, height: float) -> int:
    """Write the other depth, the probability of the chosen one, and revisions into the rows of `Tracks`.

    Returns how many tracks are revised; `seconds` is used up.
    """
    measured = Measured(*measured)
    revised = 0
    for j in range(detections):  # by the detection's row from here on
        seconds[OTHER_Z, measured.origin[j]] = seconds[NOT_CHOSEN, j]
    for i in range(alive):
        if sides[IS_OPEN, i] == 0.0:
            continue
        other = sides[Z + 1, i]
        if rows[OUT_DETECTION, i] >= 0.0:
            other = seconds[OTHER_Z, Index(rows[OUT_DETECTION, i])]
        if np.isnan(other):
            continue
        rows[OUT_Z_OTHER, i] = other - height
        rows[OUT_P_SIDE, i] = 1.0 / (1.0 + math.exp(-sides[ODDS, i]))
        if sides[REVISED, i] > 0.0:
            rows[OUT_REVISED, i] = sides[REVISED, i]
            revised += 1
    return revised
