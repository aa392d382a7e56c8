"""What a few frames say together of a track: the likelihood of a path of detections, and the states along it.

A path is what a track does in the last frames: the detection of each, `NONE` where it has none. Its likelihood is
that of the links (`tracking.switching.links`), multiplied up over the frames: e p L for a detection, 1 - e p where
there is none. A path that begins with a new particle has the density of new particles and goes on from there.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tracking.flow_field import Flow
from tracking.switching.links import UNSEEN, Chances, nearest_slice, time_at
from tracking.switching.merging import log_mixture
from tracking.switching.motion import (
    EXISTS,
    STATES,
    TIME,
    Motion,
    P,
    V,
    bear_one,
    correct_one,
    mean_of,
    predict_one,
    shift_one,
)

NONE = -1  # no detection


class Frames(NamedTuple):
    """The frames of the paths, oldest first, as the tracker was given them.

    `z` and `R` (frames, 3, M): positions, um, and variances, um^2, of the detections; `times` (frames, M): when
    each was imaged, s. `now` (frames,), s, and the focus `height` (frames,), um. `slices` (frames, 3, S): heights,
    times and whether they are missing (1); of how many slices each of these is known, `known` (frames, 3).
    """

    z: Any
    R: Any
    times: Any
    now: Any
    height: Any
    slices: Any
    known: Any


class Path(NamedTuple):
    """What tracks do in the frames (frames, N): their detections, and how far each was from the track with which it
    shared it, `apart` (frames, 3, N), um: 0 where it did not."""

    detection: Any
    apart: Any


class Slices(NamedTuple):
    """Heights and times of the slices of one volume, as `tracking.switching.links.Slices`."""

    z: Any
    time: Any


@njit(cache=True, nogil=True, error_model="numpy")
def follow(
    state: Any, into: Any, i: int, axes: int, path: Any, of: int, frames: Any, chances: Any, real: Any, motion: Any,
    flow: Any, work: Any,
) -> float:  # fmt: skip
    """ln of the likelihood that a track goes path `of` of `path`; the states after each frame get `into`.

    `state` (STATES, N) holds the track, column `i`, before the first frame; with `i` < 0 the path begins with a new
    particle, which `real` gives: probabilities that it is directed, and real. `into` is (frames, STATES).
    """
    one = np.zeros((STATES, 1))
    z, variance = np.zeros((3, 1)), np.zeros((3, 1))
    is_there = i >= 0
    if is_there:
        for row in range(STATES):
            one[row, 0] = state[row, i]
    total = 0.0
    for k in range(frames.now.size):
        j = path.detection[k, of]
        if not is_there and j < 0:
            continue
        if j >= 0:
            for a in range(axes):
                z[a, 0] = frames.z[k, a, j]
                # where it lies between two, this one is half their distance away, to either side
                variance[a, 0] = frames.R[k, a, j] + (0.5 * path.apart[k, a, of]) ** 2
        if not is_there:
            bear_one(one, 0, axes, z, variance, 0, real[0], real[1], motion, flow, work)
            one[TIME, 0] = frames.times[k, j]
            total += chances.new
            is_there = True
        else:
            total += _step(one, axes, j, k, z, variance, frames, chances, motion, flow, work)
        for row in range(STATES):
            into[k, row] = one[row, 0]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _step(
    one: Any, axes: int, j: int, k: int, z: Any, variance: Any, frames: Any, chances: Any, motion: Any, flow: Any,
    work: Any,
) -> float:  # fmt: skip
    """Predict a track to frame `k` and correct it by detection `j`, if that is one; ln of the likelihood."""
    now, height = frames.now[k], frames.height[k]
    time = now
    if axes == 3 and frames.known[k, 1] > 0:
        place = mean_of(one, 0, 2, P) + mean_of(one, 0, 2, V) * (now - one[TIME, 0])
        slices = Slices(frames.slices[k, 0, : frames.known[k, 0]], frames.slices[k, 1, : frames.known[k, 1]])
        time = now + time_at(slices, place - height)
    dt = max(time - one[TIME, 0], 1e-3 * motion.frame_s)
    predict_one(one, 0, axes, dt, motion, flow, work)
    one[TIME, 0] += dt
    exists = one[EXISTS, 0] * chances.survival ** (dt / motion.frame_s)
    seen = chances.detection
    if axes == 3 and frames.known[k, 2] > 0:
        slices = Slices(frames.slices[k, 0, : frames.known[k, 0]], frames.slices[k, 1, : frames.known[k, 1]])
        at = nearest_slice(slices, mean_of(one, 0, 2, P) - height)
        if at >= 0 and frames.slices[k, 2, at] > 0.0:
            seen *= UNSEEN
    hit = exists * seen
    if j < 0:
        one[EXISTS, 0] = (exists - hit) / (1.0 - hit)
        return math.log(1.0 - hit)
    shift = frames.times[k, j] - one[TIME, 0]
    if shift != 0.0:
        shift_one(one, 0, axes, shift, motion)
        one[TIME, 0] = frames.times[k, j]
    log = log_mixture(one, 0, axes, z, variance, 0, 0.0)
    correct_one(one, 0, axes, z, variance, 0, work[4])
    one[EXISTS, 0] = 1.0
    return math.log(hit) + log


@njit(cache=True, nogil=True, error_model="numpy")
def weigh(
    state: Any, heads: Any, columns: Any, axes: int, path: Any, frames: Any, chances: Any, real: Any, motion: Any,
    flow: Any, work: Any, logs: Any,
) -> None:  # fmt: skip
    """Fill `logs` (N,) with ln of the likelihood of path `columns` (N,) for the track `heads` (N,), -1: a new
    one."""
    path, frames, chances = Path(*path), Frames(*frames), Chances(*chances)
    motion, flow = Motion(*motion), Flow(*flow)
    into = np.zeros((frames.now.size, STATES))
    for pair in range(heads.size):
        logs[pair] = follow(
            state, into, heads[pair], axes, path, columns[pair], frames, chances, real, motion, flow, work
        )


@njit(cache=True, nogil=True, error_model="numpy")
def retrace(
    state: Any, heads: Any, columns: Any, axes: int, path: Any, frames: Any, chances: Any, real: Any, motion: Any,
    flow: Any, work: Any, into: Any,
) -> None:  # fmt: skip
    """Fill `into` (N, frames, STATES) with the states along path `columns` (N,) of the tracks `heads` (N,)."""
    path, frames, chances = Path(*path), Frames(*frames), Chances(*chances)
    motion, flow = Motion(*motion), Flow(*flow)
    for pair in range(heads.size):
        follow(
            state,
            into[pair],
            heads[pair],
            axes,
            path,
            columns[pair],
            frames,
            chances,
            real,
            motion,
            flow,
            work,
        )
