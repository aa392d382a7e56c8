"""Lines for the user about what another program sends: each kind is told at once, then rarely, and counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from stream.safe_text import one_line

TEN = 10  # the same is told again at the 10th, 100th, 1000th time: a flood must not fill the event log
LONGEST = 300  # characters of a line; it may quote another program
KEPT = 200  # lines that wait to be told


class ForeignNotes:
    """Counts by kind; a line is told the first time, and at every power of ten.

    `tell` may be called from another thread; the lines reach `say` in the thread that calls `flush`.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lines: deque[str] = deque(maxlen=KEPT)
        self.counts: dict[str, int] = {}

    def tell(self, kind: str, text: str, *, always: bool = False) -> None:
        """Count one more of `kind`, and tell it if it is the first, the tenth, the hundredth ..., or `always`."""
        count = self.counts.get(kind, 0) + 1
        self.counts[kind] = count
        if always or is_power_of_ten(count):
            times = "" if always or count == 1 else f" ({count} times so far)"
            self._lines.append(one_line(text, LONGEST) + times)

    def count(self, kind: str, by: int = 1) -> None:
        """Count without telling."""
        self.counts[kind] = self.counts.get(kind, 0) + by

    def flush(self) -> None:
        """Tell what has not been told yet."""
        while self._lines:
            self._say(self._lines.popleft())


def is_power_of_ten(number: int) -> bool:
    """Whether a number is 1, 10, 100 ..."""
    while number > 1 and number % TEN == 0:
        number //= TEN
    return number == 1
