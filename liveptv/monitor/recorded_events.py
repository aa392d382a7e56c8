"""The events that a run has recorded, for the page: from the run's configuration and its event log."""

from __future__ import annotations

from typing import Any

SHOWN = 100
"""Newest events on the page; all of them are in the frame table. Each is some 150 bytes, sent twice a second."""
NAMES = ("event", "why", "sender", "frame", "time_s", "frames", "lost", "ended")
KIND = "event"


class RecordedEvents:
    """Follows the begin and the end of each event."""

    def __init__(self, configuration: dict[str, Any] | None = None) -> None:
        record = (configuration or {}).get("record") or {}
        self._mode = str(record.get("mode", "off"))
        self._before_s = float(record.get("before_s") or 0.0)
        self._after_s = float(record.get("after_s") or 0.0)
        self._events: dict[int, dict[str, Any]] = {}

    def happened(self, entry: dict[str, Any]) -> None:
        """Take an entry of kind `event` of the event log."""
        number = entry.get("event")
        if not isinstance(number, int):
            return
        self._events[number] = {name: entry.get(name) for name in NAMES}
        if len(self._events) > SHOWN:
            del self._events[min(self._events)]

    def facts(self) -> dict[str, Any] | None:
        """The mode, what an event keeps, and the events, newest first; None where nothing is recorded."""
        if self._mode == "off":
            return None
        events = [self._events[number] for number in sorted(self._events, reverse=True)]
        return {
            "mode": self._mode,
            "before_s": self._before_s,
            "after_s": self._after_s,
            "events": events,
        }
