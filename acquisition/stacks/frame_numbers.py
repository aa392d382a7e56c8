"""Frame numbers of a recording; gaps in them are lost frames."""

from __future__ import annotations

LARGEST = 2**62
"""A larger frame number is damaged: no camera counts this far."""


class RecordedNumbers:
    """Numbers frames by the recording's own numbers; `lost` counts those missing in gaps."""

    def __init__(self, lost_before: int = 0) -> None:
        """`lost_before`: frames known to be lost before the first one."""
        self.lost = lost_before
        self._first: int | None = None
        self._last = -1

    def take(self, said: int | None) -> int:
        """The number of the next frame; if it is missing or does not rise, the previous one plus 1."""
        number = self._last + 1 if said is None or not self._last < said < LARGEST else said
        if self._first is None:
            self._first = number
        else:
            self.lost += number - self._last - 1
        self._last = number
        return number

    @property
    def first(self) -> int:
        """The number of the first frame; 0 before it."""
        return self._first or 0

    @property
    def since_first(self) -> int:
        """Number of the last frame minus that of the first; -1 before the first."""
        return -1 if self._first is None else self._last - self._first
