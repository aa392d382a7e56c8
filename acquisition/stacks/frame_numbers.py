"""The numbers of recorded frames, and what their gaps say was lost."""

from __future__ import annotations

LARGEST = 2**62
"""No camera has counted so far: such a number is damaged."""


class RecordedNumbers:
    """Numbers frames by what the recording says of them; `lost` are those that its gaps leave out."""

    def __init__(self, lost_before: int = 0) -> None:
        """`lost_before` frames are known to be lost before the first."""
        self.lost = lost_before
        self._first: int | None = None
        self._last = -1

    def take(self, said: int | None) -> int:
        """The number of the next frame. One that does not rise, or is not said, is the last one's successor."""
        number = self._last + 1 if said is None or not self._last < said < LARGEST else said
        if self._first is None:
            self._first = number
        else:
            self.lost += number - self._last - 1
        self._last = number
        return number

    @property
    def first(self) -> int:
        """The first frame's number; 0 before it."""
        return self._first or 0

    @property
    def since_first(self) -> int:
        """How many frames after the first the last one was taken; -1 before the first."""
        return -1 if self._first is None else self._last - self._first
