"""Notices that the particles are not where their tracks predict them, all at once, and finds what they have in
common.

A pump that is set to another speed, or reversed, changes the velocities of all particles by one factor; a jump of
the picture or the focus moves all of them by one step. Either is r = t d for every particle, where r is how far
it is off its prediction and t is the same for all: d is its predicted displacement for a factor of 1 + t, and the
unit vector of an axis for a step. Each pair of a track and a detection that fits such a line votes for a range of
t, and most votes win (a Hough transform with one parameter; Duda & Hart, Commun. ACM 15, 11, 1972).

A track is astray where it misses, or is linked only because proven tracks have wide gates. A change is only looked
for after more are astray at once than can be by chance, and only taken where it puts most of them right. Factors
and steps in depth are followed; steps in the plane are only told from them (`STEP_X`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tracking.kalman import HITS, POSITION, PP, PV, SEEN, VELOCITY, VV

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FALSE_ALARM = 1e-9
"""Probability, by Chernoff's bound, of as many tracks astray in a frame as are an alarm: one in 300 days at 40
frames/s, if they are so independently of each other. 1e-6 or 1e-12 need one track fewer or more of ten."""
SURPLUS, LEAST_SHARE = 1.5, 0.03
"""Tracks are taken to go astray more often than they have lately, by this factor and this share: detectors lose
some particles together."""
MEMORY_FRAMES = 40.0  # of the typical share; it is known to a tenth of itself and follows a growing density
FEWEST_SHARE = 0.3
"""Share of the tracks that must be astray. Fewer are particles that behave oddly, not the flow."""
STILL_THERE = 0.5
"""Free detections for each track that is astray. With fewer the particles are not seen, as in a flash or a blur."""
RECOVERED = 0.5
"""Share of the tracks astray which a change must put right."""
LARGEST_FACTOR = 3.0  # of 1 + t: from -2 to 4 times the speed; beyond, tracks end and begin anew
LEAST_FACTOR = 0.25
"""Least part of the speed that a factor leaves: a flow that stands still could not be scaled back when it starts
again. Then the flow is forgotten and learnt anew, as where nothing is found."""
ALLOWANCE = 0.1
"""Part of the change by which single particles may deviate from it: profiles change their shape with speed, and
pumps take time. Larger votes become broad, with smaller ones a gradual change is found later."""
FACTOR, STEP_X, STEP_Z = 0, 1, 3
"""Directions: by a factor, and steps along x, y, z. Steps in the plane are not followed: a flow that starts again
after it stood still looks like one in each frame, and its particles would be taken for resting ones that jump."""


class Change(NamedTuple):
    """By a factor 1 + t of all velocities (`direction` 0) or a step t, um, in depth (3).

    `votes` of `pairs` are for it; each is for a part `width` of all t, in the mean.
    """

    direction: int
    t: float
    votes: int
    pairs: int
    width: float


class ChangeWatch:
    """Knows which share of the tracks typically is astray."""

    def __init__(self) -> None:
        self._share = 0.5  # high at first, so that nothing is noticed before something is known
        self._frames = 0

    def is_alarm(self, tracks: int, astray: int, free: int) -> bool:
        """Whether `astray` of the `tracks` that were detected in the last frame are too many to be chance.

        `free` detections are linked to no track or to one that is astray. Frames that are no alarm are learnt from.
        """
        if tracks == 0:
            return False
        share = astray / tracks
        typical = min(SURPLUS * self._share + LEAST_SHARE, 1.0)
        if share >= max(FEWEST_SHARE, typical) and free >= STILL_THERE * astray:
            surprise = tracks * _divergence(share, typical)
            if surprise > -math.log(FALSE_ALARM):
                return True
        self._frames += 1
        self._share += (share - self._share) / min(self._frames + 2.0, MEMORY_FRAMES)
        return False


def _divergence(share: float, typical: float) -> float:
    """Kullback-Leibler divergence of two coins."""
    if typical >= 1.0:
        return 0.0
    rest = (1.0 - share) * math.log((1.0 - share) / (1.0 - typical)) if share < 1.0 else 0.0
    return share * math.log(share / typical) + rest


def common_change(
    state: FloatArray,
    tracks: BoolArray,
    detections: tuple[FloatArray, FloatArray],
    axes: int,
    dt_s: float,
    gamma: float,
    reach_um: FloatArray,
) -> Change | None:
    """What most of the predicted `tracks` (N,) have in common with the detections, or None.

    `state` is that of `tracking.kalman`; `detections` are positions (axes, M), um, and their variances; `gamma` is
    the limit of d^2; steps are at most `reach_um` (3,).
    """
    best: Change | None = None
    for direction in range(axes + 1):
        largest = LARGEST_FACTOR if direction == FACTOR else float(reach_um[direction - STEP_X])
        change = Change(
            direction, *most_votes(state, tracks, *detections, axes, dt_s, gamma, largest, direction)
        )
        trials = detections[0].shape[1] * max(int(tracks.sum()), 1)
        if not _is_rare(change, trials):
            continue
        if best is None or change.votes > best.votes:
            best = change
    return best if best is not None and _is_followed(best) else None


def _is_followed(change: Change) -> bool:
    """Whether tracks can follow it and still be right about their velocities."""
    if change.direction == FACTOR:
        return abs(1.0 + change.t) > LEAST_FACTOR
    return change.direction == STEP_Z


def _is_rare(change: Change, trials: int) -> bool:
    """Whether so many votes are no chance peak among `trials`, by Chernoff's bound."""
    if change.votes == 0 or change.votes <= change.width * change.pairs:
        return False
    surprise = change.pairs * _divergence(change.votes / change.pairs, change.width)
    return surprise > math.log(trials / FALSE_ALARM)


@njit(cache=True, nogil=True, error_model="numpy")
def find_astray(
    state: Any, label: Any, links: Any, measured: Any, rules: Any, fresh: Any, astray: Any
) -> Any:
    """Mark the confirmed tracks that were detected in the last frame, `fresh` (N,), and which of them are `astray`.

    `links` (N,) is the detection of each track, -1 for none; `measured`: positions and variances (3, >= M);
    `rules`: axes, detections that confirm, the last frame's clock, the limit of d^2 of a link, M. Returns how many
    are fresh, how many astray, and how many detections are linked to none or to one that is astray.
    """
    z, R = measured
    axes, confirm, clock, gamma, detections = rules
    tracks = lost = 0
    free = detections
    for i in range(fresh.size):
        j = links[i]
        fresh[i] = label[HITS, i] >= confirm and label[SEEN, i] == clock
        astray[i] = j < 0
        if j >= 0:
            d2 = 0.0
            for a in range(axes):
                d2 += (z[a, j] - state[POSITION + a, i]) ** 2 / (state[PP + a, i] + R[a, j])
            astray[i] = d2 > gamma
            free -= not astray[i]
        astray[i] &= fresh[i]
        tracks += fresh[i]
        lost += astray[i]
    return tracks, lost, free


@njit(cache=True, nogil=True, error_model="numpy")
def most_votes(
    state: Any,
    tracks: Any,
    z: Any,
    variances: Any,
    axes: int,
    dt: float,
    gamma: float,
    largest: float,
    direction: int,
) -> Any:
    """The t of at most `largest` with most votes, how many of how many, and the mean part of all t that has one."""
    room = 1024
    begins, ends = np.empty(room), np.empty(room)
    count = 0
    covered = 0.0
    d = np.zeros(3)
    for i in range(tracks.size):
        if not tracks[i]:
            continue
        square = 1.0
        if direction == FACTOR:
            square = 0.0
            for a in range(axes):
                d[a] = state[VELOCITY + a, i] * dt
                square += d[a] * d[a]
        else:
            d[direction - STEP_X] = 1.0
        limit = 4.0 * largest * largest * square
        widest = 0.0
        for a in range(axes):
            widest = max(widest, state[PP + a, i] + variances[a].max())
        for j in range(z.shape[1]):
            dd = dr = far = 0.0
            for a in range(axes):
                r = z[a, j] - state[POSITION + a, i]
                S = state[PP + a, i] + variances[a, j]
                far += r * r
                dd += d[a] * d[a] / S
                dr += d[a] * r / S
            if far > limit + gamma * widest or not dd > 0.0 or abs(dr) > largest * dd:
                continue
            allowed = (ALLOWANCE * dr / dd) ** 2 * square
            dd = dr = rr = 0.0
            for a in range(axes):
                r = z[a, j] - state[POSITION + a, i]
                S = state[PP + a, i] + variances[a, j]
                if direction == FACTOR or a == direction - STEP_X:
                    S += allowed
                dd += d[a] * d[a] / S
                dr += d[a] * r / S
                rr += r * r / S
            t = dr / dd
            rest = rr - t * dr
            if rest > gamma:
                continue
            half = math.sqrt((gamma - rest) / dd)
            if half > 0.5 * largest:  # it fits whatever the change is
                continue
            if count == room:
                room *= 2
                more = np.empty(room)
                more[:count] = begins
                begins = more
                more = np.empty(room)
                more[:count] = ends
                ends = more
            begins[count], ends[count] = t - half, t + half
            covered += 2.0 * half
            count += 1
    begins, ends = np.sort(begins[:count]), np.sort(ends[:count])
    best = 0
    at = 0.0
    k = 0
    for n in range(count):
        while ends[k] < begins[n]:
            k += 1
        if n + 1 - k > best:
            best = n + 1 - k
            at = 0.5 * (begins[n] + ends[k])
    return at, best, count, covered / (2.0 * largest * max(count, 1))


@njit(cache=True, nogil=True, error_model="numpy")
def apply_factor(state: Any, count: int, axes: int, dt: float, t: float) -> None:
    """Let the velocities of `count` predicted tracks have been 1 + t times as large, about, for the last `dt` s."""
    for i in range(count):
        square = 0.0
        for a in range(axes):
            square += state[VELOCITY + a, i] ** 2
        doubt = (ALLOWANCE * t) ** 2 * square
        for a in range(axes):
            v = state[VELOCITY + a, i]
            vv = ((1.0 + t) ** 2 - 1.0) * (state[VV + a, i]) if abs(1.0 + t) > 1.0 else 0.0
            state[POSITION + a, i] += t * v * dt
            state[VELOCITY + a, i] += t * v
            state[PP + a, i] += (doubt + vv) * dt * dt
            state[PV + a, i] += (doubt + vv) * dt
            state[VV + a, i] += doubt + vv


def apply_step(state: FloatArray, count: int, axis: int, dt_s: float, t: float, *, goes_on: bool) -> None:
    """Let the `count` predicted tracks have moved by t, um, along an axis; with `goes_on` it is their velocity."""
    doubt = (ALLOWANCE * t) ** 2
    state[POSITION + axis, :count] += t
    state[PP + axis, :count] += doubt
    if goes_on:
        state[VELOCITY + axis, :count] += t / dt_s
        state[PV + axis, :count] += doubt / dt_s
        state[VV + axis, :count] += doubt / dt_s**2
