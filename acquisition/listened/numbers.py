"""Frame numbers of another program: gaps, repeats, frames out of order, and a sender that begins again."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from itertools import pairwise

LONGEST_GAP = 10_000_000
"""Frames; a longer jump is a new count, not a loss: 14 hours at 200 frames/s."""
AGAIN = 3
"""So many numbers in a row that were taken before are a new count: one or two are frames sent twice. Fewer would
take a program that repeats two frames for one that began again; with more, more frames are refused before."""
NEAR = 8
"""A number at most so far back is rather a frame sent twice than a new count from the start."""
GAPS_KEPT = 1000  # newest gaps, in which a late frame is recognised


class Verdict(StrEnum):
    """What a frame is, by its number."""

    NEXT = "next"
    REPEATED = "repeated"
    LATE = "late"
    RESTARTED = "restarted"


class FrameOrder:
    """Follows the numbers of one sender; only frames that are NEXT or RESTARTED are to be taken.

    `number` is that of the last frame taken: the sender's own until it begins again, then counted on from there, so
    that it always rises. `lost` counts those missing in gaps; a frame that comes after its successors is LATE and
    stays lost.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.restarts = 0
        self.number = -1
        self._numbered: bool | None = None
        self._begun = False
        self._first = self._last = -1
        self._offset = 0
        self._gaps: deque[tuple[int, int]] = deque(maxlen=GAPS_KEPT)
        self._back: deque[int] = deque(maxlen=AGAIN)

    @property
    def is_numbered(self) -> bool:
        """Whether the sender numbers its frames; known from the first one on."""
        return self._numbered is not False

    def fits(self, said: int | None) -> bool:
        """Whether a frame has a number if the first one had."""
        return self._numbered is None or self._numbered == (said is not None)

    def take(self, said: int | None, *, anew: bool = False, counts: bool = True) -> Verdict:
        """Judge a frame by its number. `anew`: it is the first of another connection or process.

        With `counts` False (the run is paused) the frame takes no number of ours, nor is a gap before it a loss.
        """
        if self._numbered is None:
            self._numbered = said is not None
        number = self._last + 1 if said is None else said
        if not self._begun:
            return self._begin(number, number if self.number < 0 else self.number + 1, counts=counts)
        if self._is_new_count(number, anew=anew):
            self.restarts += 1
            self._begin(number, self.number + 1, counts=counts)
            return Verdict.RESTARTED
        if number <= self._last:
            self._back.append(number)
            return Verdict.LATE if self._was_lost(number) else Verdict.REPEATED
        self._back.clear()
        gap = number - self._last - 1
        if counts:
            if gap:
                self._gaps.append((self._last + 1, number - 1))
            self.lost += gap
        else:
            self._offset -= gap + 1
        self._last = number
        self.number = number + self._offset
        return Verdict.NEXT

    def end(self, said: int | None) -> None:
        """The sender has ended; `said` is the number of its last frame, so that losses at the end are known."""
        if self._begun and self._numbered and said is not None and 0 < said - self._last <= LONGEST_GAP:
            self.lost += said - self._last
            self._last = said

    def _begin(self, number: int, ours: int, *, counts: bool) -> Verdict:
        self._begun = True
        self._first = self._last = number
        self._offset = ours - number if counts else ours - number - 1
        self.number = number + self._offset
        self._gaps.clear()
        self._back.clear()
        return Verdict.NEXT

    def _is_new_count(self, number: int, *, anew: bool) -> bool:
        last = self._last
        if number > last:
            return number - last > LONGEST_GAP
        if anew or (number <= self._first and last - number > NEAR):
            return True
        before = [*self._back, number][-AGAIN:]
        in_a_row = len(before) == AGAIN and all(b - a == 1 for a, b in pairwise(before))
        return in_a_row and not any(self._was_lost(one) for one in before)

    def _was_lost(self, number: int) -> bool:
        return any(first <= number <= last for first, last in reversed(self._gaps))
