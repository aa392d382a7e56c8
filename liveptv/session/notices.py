"""What a run says while it is on: events for its log, lines for the user, and its progress for the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from liveptv.session.events import EventLog
from liveptv.session.plan import Recorded
from liveptv.session.run_status import Progress

SAME_S = 12.0
"""A safe state that is reported again within this time, in s, is not repeated to the user.

Long enough for a focus drive that travels to its safe position and is read back there. It only decides how often a
line is printed.
"""

ALSO_TOLD = frozenset(
    {"slice", "recording", "recalibration", "recorder"}
)  # kinds of records that a user should see at once


class Notices:
    """Writes to the event log and tells the user. A callback that fails (closed terminal) does not end a run."""

    def __init__(
        self,
        events: EventLog,
        on_update: Callable[[Progress], None] | None,
        on_note: Callable[[str], None] | None,
    ) -> None:
        self._events = events
        self._on_update = on_update
        self._on_note = on_note
        self._told_s: dict[str, float] = {}

    def note(self, kind: str, text: str, stage: str) -> None:
        """Log an event of a pipeline stage, and tell the user its first line."""
        self._events.write(kind, text, stage=stage)
        line = text.splitlines()[0]
        self._tell_once(line, line.removeprefix(f"{stage}: "))

    def safety(self, kind: str, text: str, facts: dict[str, Any]) -> None:
        """Log what is known of the hardware, and tell the user."""
        self._events.write(kind, text, **facts)
        self._tell_once(text, text)

    def record(self, entry: Recorded) -> None:
        """Log a record of a stage; some kinds are told as well."""
        self._events.write(entry.kind, entry.text, **entry.facts)
        if entry.kind in ALSO_TOLD:
            self._tell(entry.text)

    def show(self, progress: Callable[[], Progress]) -> None:
        """Show the progress of the run, if somebody watches."""
        if self._on_update is None:
            return
        try:
            self._on_update(progress())
        except Exception as error:  # noqa: BLE001 - whatever shows the run must not end it
            self._on_update = None
            self._events.write("note", f"the run is no longer shown: {type(error).__name__}: {error}")

    def _tell_once(self, line: str, what: str) -> None:
        """Tell a line; a safe state, reported by the acquisition's loop and by its safety lane, only once."""
        now_s = time.monotonic()
        is_safe = what.startswith("safe state")
        if not is_safe or now_s - self._told_s.get(what, -math.inf) > SAME_S:
            self._tell(line)
        if is_safe:
            self._told_s = {what: now_s}

    def _tell(self, line: str) -> None:
        if self._on_note is None:
            return
        try:
            self._on_note(line)
        except Exception as error:  # noqa: BLE001 - as for `show`
            self._on_note = None
            self._events.write("note", f"lines are no longer shown: {type(error).__name__}: {error}")
