"""Watches a property of a device beside the other readings, and tells when it becomes another number than 0."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from stream.errors import SourceError

SHARE = 0.02
"""Part of the time that looking may take at most: a device on a slow line is looked at less often, so that the
camera's buffer does not wait for it. At 1 ms, as over USB, 20 looks a second are just allowed."""


class PropertyWatch:
    """Looks at a property; `tell` gets the frame and the value when it is not 0 and was 0 before.

    What is no number counts as 0, except "On", "True" and "Open". A property that cannot be read is reported once
    and looked at again after a second.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], str | float],
        tell: Callable[[int, float], None],
        report: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`read` returns the value of the property `name`; it may raise `SourceError`."""
        self._name, self._read, self._tell, self._report = name, read, tell, report
        self._clock = clock
        self._due_s = -math.inf
        self._was = math.nan
        self._failed = False

    def look(self, frame: int) -> None:
        """Look at it now, if that is due, while frame number `frame` is read."""
        began_s = self._clock()
        if began_s < self._due_s:
            return
        try:
            value = as_number(self._read())
        except SourceError as error:
            self._due_s = began_s + 1.0
            if not self._failed:
                self._failed = True
                self._report(f"record.on.hardware cannot be read, and begins no event meanwhile: {error}")
            return
        now_s = self._clock()
        self._due_s = now_s + (now_s - began_s) * (1 / SHARE - 1)
        self._failed = False
        was, self._was = self._was, value
        if value != 0 and was == 0:
            self._tell(frame, value)


def as_number(value: str | float) -> float:
    """The value of a property as a number; words that mean on are 1, others 0."""
    try:
        number = float(value)
    except ValueError:
        return float(str(value).strip().lower() in {"on", "true", "open", "yes", "high"})
    return number if math.isfinite(number) else 0.0
