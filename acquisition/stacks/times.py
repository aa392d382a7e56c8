"""The times of the frames of a recording, from the time stamps in its file.

Stamps may be missing, repeated, rounded to milliseconds or seconds, from a clock that was set back, or wrong. The
frame interval is determined from the good ones; the others are interpolated. A real gap (a pause, dropped frames)
is kept. Every change is reported.
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
"""Up to this fraction of repeated stamps they are errors; more of them mean a clock coarser than a frame."""
COARSE = 0.02
"""Stamps in steps above this fraction of the frame interval are coarse, and frames are spread evenly between them.
It limits the error of a velocity from two frames to 2 %."""
LATEST_S = 1e12
"""Largest time stamp, s: more than the clock of any camera or computer."""
RISE = 1e-6
"""Smallest step between frames as a fraction of the frame interval: only makes equal times distinct."""
DISAGREE = 0.1
"""A frame rate that differs from the stated one by more than this fraction is reported."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameTimes:
    """Times of all frames (N,), s, 0 for the first, strictly increasing; None if the stamps cannot be used.

    `rate_hz` is the resulting frame rate, NaN without times; `remarks` are lines for the user.
    """

    time_s: FloatArray | None = None
    rate_hz: float = math.nan
    remarks: tuple[str, ...] = ()


def frame_times(stamps_s: npt.ArrayLike, stated_hz: float = math.nan) -> FrameTimes:
    """Times of frames from their stamps (N,), s, NaN for missing ones.

    `stated_hz` is the frame rate stated in the file; the stamps take precedence.
    """
    stamps = np.array(stamps_s, np.float64).ravel()
    index = np.flatnonzero(np.abs(stamps) < LATEST_S).astype(np.int64)
    if index.size == 0 or stamps.size == 1:
        is_odd = stamps.size > 1 and not np.isnan(stamps).all()
        return FrameTimes(remarks=("the time stamps are implausible and not used",) if is_odd else ())
    if index.size == 1:
        text = f"only 1 of {stamps.size} frames has a time stamp ({stamps[index[0]]:g} s), which is not used"
        return FrameTimes(remarks=(text,))
    stamp_s = stamps[index] - stamps[index[0]]  # first of all: seconds since 1970 leave few decimals
    if not stamp_s.any():
        return FrameTimes(
            remarks=(f"the time stamps are all the same ({stamps[index[0]]:g} s) and not used",)
        )
    ordered = in_order(index, stamp_s)
    if 2 * ordered.kept.size < index.size:
        return FrameTimes(remarks=("the time stamps are in no order and not used",))
    found = _Stamps.of(index[ordered.kept], ordered.stamp_s)
    if found is None:
        return FrameTimes(
            remarks=("too few time stamps differ to determine the frame rate: they are not used",)
        )
    if not LEAST_S <= found.interval_s <= MOST_S:
        return FrameTimes(remarks=(f"time stamps {found.interval_s:g} s apart are implausible and not used",))
    anchors, anchor_s, is_spread = found.anchors()
    time_s = fill(stamps.size, anchors, anchor_s, found.interval_s)
    time_s = rising(time_s - time_s[0], found.interval_s)
    steps_s = np.diff(time_s)
    if not (steps_s > 0).all():
        return FrameTimes(remarks=("the time stamps are too coarse to separate frames and not used",))
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
    """Monotonic stamps (K,), s, of the frames `index` (K,).

    `starts` are the places where a new value begins; `edges` are those places, or repeats of the value, at which
    the stamp is right. `clock_s` is the resolution of the clock, 0 if unknown. `is_coarse`: many stamps repeat, so
    that a value is right only where it begins.
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
        """Analyse the stamps; None if they do not determine the frame interval."""
        starts = np.concatenate([[0], np.flatnonzero(np.diff(stamp_s)) + 1])
        is_coarse = index.size - starts.size > max(1.0, RARE * index.size)
        edges = starts
        if is_coarse and starts.size > 1 and starts[1] > 1:
            edges = starts[1:]  # the begin of the first value is unknown
        if edges.size < 2:
            return None
        clock_s = clock_step(stamp_s, is_coarse)
        interval_s = interval_of(index[edges], stamp_s[edges], clock_s)
        if not is_coarse and starts.size < index.size:
            edges = best_of_runs(index, stamp_s, starts, interval_s)
            interval_s = interval_of(index[edges], stamp_s[edges], clock_s)
        return cls(index, stamp_s, starts, edges, clock_s, is_coarse, interval_s)

    def anchors(self) -> tuple[IntArray, FloatArray, bool]:
        """Frames with known times, the times, s, and whether frames were spread between coarse stamps."""
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
            # both relative to the first frame: a common offset is not a change
            moved_s = (time_s - time_s[0]) - (stamp_s - stamp_s[0])
            return index, time_s, bool(np.ptp(moved_s) > COARSE * self.interval_s)
        if self.is_coarse:
            return index[self.edges], stamp_s[self.edges], True
        return index, stamp_s, False

    def _line(self, index: IntArray, stamp_s: FloatArray) -> FloatArray | None:
        """Evenly spaced times that fit all stamps of a section within a step of their clock, or None."""
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
        # a clock shows the last completed step, so the line lies above all stamps
        line: FloatArray = off_s.max() + step_s * (index - index[0])
        return line

    def remarks(self, is_spread: bool) -> Iterator[str]:
        """Remarks about the changes."""
        repeats = self.index.size - self.starts.size
        if is_spread or self.is_coarse:
            yield (
                f"the time stamps have steps of {_short(self._step_s())} at a frame interval of "
                f"{_short(self.interval_s)}: frames are spread evenly between them"
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
    """Times of all `count` frames, s, from those of the frames `known` (K,).

    The others lie evenly between their neighbours; before a gap and at the ends they are `interval_s` apart.
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
    """The same times, each at least `RISE` intervals after the previous one."""
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
        stated = f"not {stated_hz:.4g} as stated in the file"
        yield f"the time stamps give {rate_hz:.4g} frames/s, {stated}; the time stamps are used"


def _short(time_s: float) -> str:
    return f"{time_s:.4g} s" if time_s >= 1 else f"{1e3 * time_s:.4g} ms"
