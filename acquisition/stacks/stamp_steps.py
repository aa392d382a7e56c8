"""Frame interval and clock resolution from monotonic time stamps."""

from __future__ import annotations

import numpy as np

from acquisition.stacks.stamp_order import FloatArray, IntArray

GAP = 1.5
"""A step of more than this many frame intervals is a gap: between one interval and the two of a dropped frame."""
REGULAR = 0.02
"""Steps that are multiples of one interval within this fraction of it are regular."""
ODD_JUMPS = 2
"""Up to this many longer steps among regular ones are dropped frames, not rounding of a longer interval."""
CLOCK_STEPS_S = (60.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Resolutions of the clocks of cameras and computers, s."""
TICK_S, ROUNDED_S = 1 / 64, 1.2e-3
"""The timer tick of Windows, s, and the largest deviation from it of stamps rounded to ms, s."""
TICK = 0.1
"""Steps of an unknown clock are multiples of its smallest step within this fraction of it."""
WITHIN = 1.25
"""Frames are evenly spaced if a line fits all stamps within this many steps of their clock: one for rounding, and a
quarter for jitter."""


def clock_step(stamp_s: FloatArray, is_coarse: bool) -> float:
    """The resolution of the clock of monotonic stamps, s; 0 if it is finer than any known.

    For stamps that repeat often (`is_coarse`) it may be any step that all others are multiples of.
    """
    rises_s = np.diff(stamp_s)
    rises_s = rises_s[rises_s > 0]
    least_s = float(rises_s.min(initial=np.inf))
    if is_coarse and _are_multiples(rises_s, least_s, TICK * least_s):
        return least_s
    if least_s + ROUNDED_S >= TICK_S and _are_multiples(rises_s, TICK_S, ROUNDED_S):
        return TICK_S
    for step_s in CLOCK_STEPS_S:
        if step_s <= (1 + REGULAR) * least_s and _are_multiples(stamp_s - stamp_s[0], step_s, 1e-3 * step_s):
            return step_s
    return 0.0


def _are_multiples(values_s: FloatArray, step_s: float, within_s: float) -> bool:
    return bool((np.abs(values_s - step_s * np.rint(values_s / step_s)) <= within_s).all())


def interval_of(frame: IntArray, stamp_s: FloatArray, clock_s: float) -> float:
    """The frame interval, s: the mean over all steps except gaps."""
    steps_s, frames = np.diff(stamp_s), np.diff(frame)
    jumps = jumps_of(frame, stamp_s)
    if 0 <= jumps <= ODD_JUMPS or (jumps > 0 and not is_even(frame, stamp_s, clock_s)):
        typical_s = float(np.median(steps_s / frames))
        return float(steps_s.sum() / np.rint(steps_s / typical_s).sum())
    slopes = steps_s / frames
    order = np.argsort(slopes)
    middle = np.searchsorted(np.cumsum(frames[order]), frames.sum() / 2)
    typical_s = float(slopes[order[middle]])
    whole = steps_s <= GAP * typical_s * frames + clock_s
    return float(steps_s[whole].sum() / frames[whole].sum())


def jumps_of(frame: IntArray, stamp_s: FloatArray) -> int:
    """Number of regular steps that are longer than the frames between; -1 if the steps are not regular."""
    steps_s, frames = np.diff(stamp_s), np.diff(frame)
    multiple = steps_s / np.median(steps_s / frames)
    whole = np.rint(multiple)
    is_regular = (np.abs(multiple - whole) < REGULAR).all() and (whole >= frames).all()
    return int(np.count_nonzero(whole > frames)) if is_regular else -1


def is_even(frame: IntArray, stamp_s: FloatArray, clock_s: float) -> bool:
    """Whether a line fits all stamps within a step of their clock."""
    centred = frame - frame.mean()
    off_s = stamp_s - centred * float((centred * stamp_s).sum() / (centred * centred).sum())
    return bool(np.ptp(off_s) <= WITHIN * clock_s)


def best_of_runs(index: IntArray, stamp_s: FloatArray, starts: IntArray, interval_s: float) -> IntArray:
    """For each run of repeated stamps, the place that fits best between the stamps before and after."""
    ends = np.append(starts[1:], index.size)
    best = starts.copy()
    for run in np.flatnonzero(ends - starts > 1):
        first, end = int(starts[run]), int(ends[run])
        off_s = np.full(end - first, np.inf)
        if run > 0:
            off_s = np.minimum(off_s, _off(index, stamp_s, first, end, int(best[run - 1]), interval_s))
        if end < index.size and ends[run + 1] == end + 1:  # one that does not repeat itself
            off_s = np.minimum(off_s, _off(index, stamp_s, first, end, end, interval_s))
        best[run] = first + int(np.argmin(np.round(off_s / interval_s, 6)))
    return best


def _off(
    index: IntArray, stamp_s: FloatArray, first: int, end: int, other: int, interval_s: float
) -> FloatArray:
    expected_s = stamp_s[other] + interval_s * (index[first:end] - index[other])
    off_s: FloatArray = np.abs(stamp_s[first:end] - expected_s)
    return off_s
