"""Makes time stamps monotonic: removes wrong ones and continues a clock that was set back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RESET_COST = 3
"""If more stamps than this would have to be wrong, the clock was set back instead. With 1, two swapped stamps
would count as a reset; with many, a reset would cost that many stamps."""
MISFIT = 0.25
"""If the stamps around removed ones disagree by more than this fraction of a frame interval, neither is kept."""
FAR_STEPS, FAR_SPANS, ENOUGH = 20.0, 3.0, 5
"""The first or last of at least `ENOUGH` stamps is wrong if it is more than `FAR_STEPS` frame intervals and
`FAR_SPANS` times the duration of all others away. A pause at an end that is longer is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """Monotonic stamps (K,), s, their places (K,) among the given ones, the frames of wrong stamps, and the frames
    where the clock was set back."""

    kept: IntArray
    stamp_s: FloatArray
    wrong: IntArray
    resets: tuple[int, ...]

    def remarks(self) -> Iterator[str]:
        """Remarks about the changes."""
        if self.wrong.size == 1:
            yield f"the time stamp of frame {self.wrong[0]} is far off and was interpolated"
        elif self.wrong.size:
            yield (
                f"{self.wrong.size} time stamps (frame {self.wrong[0]} is the first) are far off or out of order "
                "and were interpolated"
            )
        if self.resets:
            more = f" and {len(self.resets) - 1} more times" if len(self.resets) > 1 else ""
            yield (
                f"the clock of the time stamps goes back at frame {self.resets[0]}{more}: times continue from "
                "there at the frame rate"
            )


def in_order(index: IntArray, stamp_s: FloatArray) -> Ordered:
    """Make the stamps (N,), s, of the frames `index` (N,) monotonic with as few changes as possible."""
    step_s = _typical_step(index, stamp_s)
    times, kept = stamp_s.copy(), np.empty(index.size, np.int64)
    rising_s = np.empty(index.size)
    size, shift_s = 0, 0.0
    resets: list[int] = []
    falls = (np.flatnonzero(np.diff(stamp_s) < 0) + 1).tolist()
    for first, end in pairwise([0, *falls, index.size]):
        times[first:end] += shift_s
        begin, ahead = first, 0
        if size and times[first] < rising_s[size - 1]:
            last = int(kept[size - 1])
            ahead = size - int(np.searchsorted(rising_s[:size], times[first], "right"))
            behind = int(np.searchsorted(times[first:end], rising_s[size - 1]))
            before = int(kept[size - ahead - 1]) if ahead < size else -1
            after = first + behind if first + behind < end else -1
            ahead_off = _misfit(before, first, index, times, step_s)
            behind_off = _misfit(last, after, index, times, step_s)
            ahead_cost, behind_cost = _cost(ahead, ahead_off), _cost(behind, behind_off)
            if min(ahead_cost, behind_cost) > RESET_COST:
                change_s = rising_s[size - 1] + step_s * (index[first] - index[last]) - times[first]
                shift_s += change_s
                times[first:end] += change_s
                resets.append(int(index[first]))
                ahead = 0
            elif behind_cost == ahead_cost and min(ahead_off, behind_off) > MISFIT:
                begin = first + behind  # perhaps they were swapped: neither can be trusted
            elif (behind_cost, behind_off) < (ahead_cost, ahead_off):
                begin, ahead = first + behind, 0
        size -= ahead
        count = end - begin
        kept[size : size + count] = np.arange(begin, end)
        rising_s[size : size + count] = times[begin:end]
        size += count
    kept = _without_far_ends(kept[:size], times, step_s)
    is_wrong = np.ones(index.size, np.bool_)
    is_wrong[kept] = False
    return Ordered(kept, times[kept], index[is_wrong], tuple(resets))


def _misfit(before: int, after: int, index: IntArray, times: FloatArray, step_s: float) -> float:
    """Difference between stamps and frames at two places, in frame intervals; infinite at an end."""
    if before < 0 or after < 0 or step_s == 0:
        return math.inf
    return abs(float(times[after] - times[before]) / step_s - float(index[after] - index[before]))


def _cost(count: int, misfit: float) -> int:
    """The cost of removing `count` stamps; lower if the stamps around them then fit together."""
    return min(count, RESET_COST - 1) if misfit <= 0.5 * (count + 1) else count


def _typical_step(index: IntArray, stamp_s: FloatArray) -> float:
    """The median frame interval, s, over the steps where stamps rise."""
    changes = np.concatenate([[0], np.flatnonzero(np.diff(stamp_s)) + 1])
    slopes = np.diff(stamp_s[changes]) / np.diff(index[changes])
    slopes = slopes[slopes > 0]
    return float(np.median(slopes)) if slopes.size else 0.0


def _without_far_ends(kept: IntArray, times: FloatArray, step_s: float) -> IntArray:
    for _ in range(2):
        if kept.size >= ENOUGH:
            time_s = times[kept]
            if time_s[-1] - time_s[-2] > max(FAR_STEPS * step_s, FAR_SPANS * (time_s[-2] - time_s[0])):
                kept = kept[:-1]
            elif time_s[1] - time_s[0] > max(FAR_STEPS * step_s, FAR_SPANS * (time_s[-1] - time_s[1])):
                kept = kept[1:]
    return kept
