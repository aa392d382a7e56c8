"""When each frame of a recording was taken, from the time stamps that its file has.

Stamps come missing, repeated, in whole milliseconds or seconds, from a clock that was set back, and now and
then wrong. What is left once those are set aside says how far apart frames are; the others are put between
their neighbours. A real gap (a pause, frames that were dropped) is kept. Whatever was done is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from acquisition.stacks.scales import LEAST_S, MOST_S
from acquisition.stacks.stamp_order import FloatArray, IntArray, in_order
from acquisition.stacks.stamp_steps import (
    GAP,
    ODD_JUMPS,
    WITHIN,
    best_of_runs,
    clock_step,
    interval_of,
    jumps_of,
)

RARE = 0.1
"""Up to this part of the stamps, repeats are errors; more of them mean a clock that is coarser than a frame."""
COARSE = 0.02
"""Stamps in steps of more than this part of the frame interval are coarse, and frames are spread between them."""
LATEST_S = 1e12
"""No clock of a camera or a computer shows more."""
RISE = 1e-6
"""The least step from a frame to the next, as a part of the frame interval."""
DISAGREE = 0.1
"""A rate that differs from the one that the file states by more than this part is told."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameTimes:
    """Times of all frames (N,), s, from 0 at the first, strictly rising; None where no stamp can be used.

    `rate_hz` is the frame rate that they say, NaN without them; `remarks` are lines for the user.
    """

    time_s: FloatArray | None = None
    rate_hz: float = math.nan
    remarks: tuple[str, ...] = ()


def frame_times(stamps_s: npt.ArrayLike, stated_hz: float = math.nan) -> FrameTimes:
    """Times of frames from their stamps (N,), s, NaN where a frame has none.

    `stated_hz` is the rate that the file states beside them; the stamps take precedence over it.
    """
    stamps = np.array(stamps_s, np.float64).ravel()
    index = np.flatnonzero(np.abs(stamps) < LATEST_S).astype(np.int64)
    if index.size == 0 or stamps.size == 1:
        is_odd = stamps.size > 1 and not np.isnan(stamps).all()
        return FrameTimes(remarks=("the time stamps are not believed and not used",) if is_odd else ())
    if index.size == 1:
        text = f"only 1 of {stamps.size} frames has a time stamp ({stamps[index[0]]:g} s), which is not used"
        return FrameTimes(remarks=(text,))
    stamp_s = (
        stamps[index] - stamps[index[0]]
    )  # before anything else: an epoch leaves few digits behind the point
    if not stamp_s.any():
        return FrameTimes(
            remarks=(f"the time stamps are all the same ({stamps[index[0]]:g} s) and not used",)
        )
    ordered = in_order(index, stamp_s)
    if 2 * ordered.kept.size < index.size:
        return FrameTimes(remarks=("the time stamps rise and fall without order and are not used",))
    found = _Stamps.of(index[ordered.kept], ordered.stamp_s)
    if found is None:
        return FrameTimes(remarks=("too few time stamps differ to tell the frame rate: they are not used",))
    if not LEAST_S <= found.interval_s <= MOST_S:
        return FrameTimes(
            remarks=(f"time stamps {found.interval_s:g} s apart are not believed and not used",)
        )
    anchors, anchor_s, is_spread = found.anchors()
    time_s = fill(stamps.size, anchors, anchor_s, found.interval_s)
    time_s = rising(time_s - time_s[0], found.interval_s)
    steps_s = np.diff(time_s)
    if not (steps_s > 0).all():
        return FrameTimes(
            remarks=("the time stamps are too far apart to tell frames apart and are not used",)
        )
    interval_s = float(steps_s[steps_s <= GAP * found.interval_s].mean())
    rate_hz = 1 / interval_s
    remarks = (
        *_missing(stamps.size - index.size, stamps.size),
        *ordered.remarks(),
        *found.remarks(is_spread),
        *_gaps(time_s, interval_s),
        *_disagreement(rate_hz, stated_hz),
    )
    return FrameTimes(time_s, rate_hz, remarks)


@dataclass(frozen=True, slots=True, eq=False)
class _Stamps:
    """Stamps (K,), s, of the frames `index` (K,), never falling.

    `starts` are the places where a new value begins, `edges` those of them, or of its repeats, where the stamp
    holds; `clock_s` is what the stamps are whole multiples of, 0 if
    nothing; `is_coarse` where many repeat, so that a value says only when it began.
    """

    index: IntArray
    stamp_s: FloatArray
    starts: IntArray
    edges: IntArray
    clock_s: float
    is_coarse: bool
    interval_s: float

    @classmethod
    def of(cls, index: IntArray, stamp_s: FloatArray) -> _Stamps | None:
        """Look at the stamps; None where they do not tell how far apart frames are."""
        starts = np.concatenate([[0], np.flatnonzero(np.diff(stamp_s)) + 1])
        is_coarse = index.size - starts.size > max(1.0, RARE * index.size)
        edges = starts
        if is_coarse and starts.size > 1 and starts[1] > 1:
            edges = starts[1:]  # when the first value began is not known
        if edges.size < 2:
            return None
        clock_s = clock_step(stamp_s, is_coarse)
        interval_s = interval_of(index[edges], stamp_s[edges], clock_s)
        if not is_coarse and starts.size < index.size:
            edges = best_of_runs(index, stamp_s, starts, interval_s)
            interval_s = interval_of(index[edges], stamp_s[edges], clock_s)
        return cls(index, stamp_s, starts, edges, clock_s, is_coarse, interval_s)

    def anchors(self) -> tuple[IntArray, FloatArray, bool]:
        """Frames whose times are known, the times, s, and whether frames were spread between coarse stamps."""
        index, stamp_s, starts = self.index, self.stamp_s, self.starts
        if not self.is_coarse:
            index, stamp_s, starts = index[self.edges], stamp_s[self.edges], np.arange(self.edges.size)
            if self.clock_s <= COARSE * self.interval_s or 0 <= jumps_of(index, stamp_s) <= ODD_JUMPS:
                return index, stamp_s, False
        steps_s = np.diff(stamp_s[starts])
        is_gap = steps_s > GAP * self.interval_s * np.diff(index[starts]) + self.clock_s
        bounds = [0, *(starts[1:][is_gap]).tolist(), index.size]
        lines = [self._line(index[a:b], stamp_s[a:b]) for a, b in pairwise(bounds)]
        if all(line is not None for line in lines):
            time_s = np.concatenate([line for line in lines if line is not None])
            # from the first frame on, both: a common offset is not a change
            moved_s = (time_s - time_s[0]) - (stamp_s - stamp_s[0])
            return index, time_s, bool(np.ptp(moved_s) > COARSE * self.interval_s)
        if self.is_coarse:
            return index[self.edges], stamp_s[self.edges], True
        return index, stamp_s, False

    def _line(self, index: IntArray, stamp_s: FloatArray) -> FloatArray | None:
        """Evenly spaced times that meet all stamps of a stretch to a step of their clock, or None."""
        starts = np.concatenate([[0], np.flatnonzero(np.diff(stamp_s)) + 1])
        if self.is_coarse:
            starts = starts[1:]
        step_s = self.interval_s
        if starts.size > 2:
            frame, value = index[starts] - index[0], stamp_s[starts] - stamp_s[0]
            centred = frame - frame.mean()
            step_s = float((centred * value).sum() / (centred * centred).sum())
        off_s = stamp_s - step_s * (index - index[0])
        if step_s <= 0 or np.ptp(off_s) > WITHIN * self.clock_s + COARSE * self.interval_s:
            return None
        line: FloatArray = off_s.max() + step_s * (
            index - index[0]
        )  # a clock tells the last step that is over
        return line

    def remarks(self, is_spread: bool) -> Iterator[str]:
        """What was done, in lines."""
        repeats = self.index.size - self.starts.size
        if is_spread or self.is_coarse:
            yield (
                f"the time stamps rise in steps of {_short(self._step_s())}, a frame takes "
                f"{_short(self.interval_s)}: the times of frames are spread evenly between them"
            )
        elif repeats:
            which = (
                "time stamp repeats the one before it and was"
                if repeats == 1
                else "time stamps repeat and were"
            )
            yield f"{repeats} {which} interpolated"

    def _step_s(self) -> float:
        return self.clock_s or float(np.median(np.diff(self.stamp_s[self.starts])))


def fill(count: int, known: IntArray, known_s: FloatArray, interval_s: float) -> FloatArray:
    """Times of all `count` frames, s, where those of the frames `known` (K,) are known.

    The others lie evenly between their neighbours; before a gap, and at the ends, `interval_s` apart.
    """
    frame = np.arange(count)
    before = np.clip(np.searchsorted(known, frame, "right") - 1, 0, known.size - 1)
    after = np.minimum(before + 1, known.size - 1)
    apart = np.maximum(known[after] - known[before], 1)
    step_s = (known_s[after] - known_s[before]) / apart
    is_inside = (after > before) & (frame >= known[0])
    step_s = np.where(is_inside & (step_s <= GAP * interval_s), step_s, interval_s)
    time_s: FloatArray = known_s[before] + step_s * (frame - known[before])
    return time_s


def rising(time_s: FloatArray, interval_s: float) -> FloatArray:
    """The same times, each at least a little after the one before."""
    least_s = RISE * interval_s
    ramp_s = least_s * np.arange(time_s.size)
    raised: FloatArray = np.maximum.accumulate(time_s - ramp_s) + ramp_s
    return np.where(np.diff(time_s, prepend=-np.inf) >= least_s, np.maximum(time_s, raised), raised)


def _missing(missing: int, count: int) -> Iterator[str]:
    if missing:
        have = "has no time stamp; its time was" if missing == 1 else "have no time stamp; their times were"
        yield f"{missing} of {count} frames {have} interpolated"


def _gaps(time_s: FloatArray, interval_s: float) -> Iterator[str]:
    steps_s = np.diff(time_s)
    count = int(np.count_nonzero(steps_s > GAP * interval_s))
    if count:
        at = int(np.argmax(steps_s))
        are = "is a gap" if count == 1 else f"are {count} gaps"
        longest = "" if count == 1 else "the longest "
        yield f"there {are} in the times, {longest}of {_short(float(steps_s[at]))} before frame {at + 1}; kept"


def _disagreement(rate_hz: float, stated_hz: float) -> Iterator[str]:
    if stated_hz > 0 and abs(rate_hz / stated_hz - 1) > DISAGREE:
        stated = f"not the {stated_hz:.4g} that the file states"
        yield f"the time stamps say {rate_hz:.4g} frames/s, {stated}; they are used"


def _short(time_s: float) -> str:
    return f"{time_s:.4g} s" if time_s >= 1 else f"{1e3 * time_s:.4g} ms"
