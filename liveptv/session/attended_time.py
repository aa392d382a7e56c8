"""The time that a session has attended to its stages: it does not pass while the session itself stands still."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_S = 0.5
"""Most that passes between two looks at the clock, s: ten turns of the session, which looks every 0.05 s. In longer
ones the session stood still: a computer that swaps or wakes up, a busy program, a slow disk. What its stages said
meanwhile still waits in the socket, so they have not been silent. Shorter makes waits longer on a busy computer;
longer ends runs whose computer stood still for `session.hang_s`."""


class AttendedTime:
    """A clock, s, for how long a stage has been silent and how long it gets to end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen_s = clock()
        self._passed_s = 0.0

    def now_s(self) -> float:
        """The time since the beginning without standstills; may be called from any thread."""
        seen_s = self._clock()
        passed_s, self._seen_s = seen_s - self._seen_s, seen_s
        self._passed_s += min(max(passed_s, 0.0), LONGEST_S)
        return self._passed_s
