"""The events of a run: which span of time each of them keeps, and which frames are in it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acquisition.recorder.requests import FARTHEST_AHEAD_S, Asked
from acquisition.safety.limits import CommandRefused

MOST_OPEN = 64
"""Events that may be open at a time; more are refused. A person or a condition has a few; each costs a comparison a
frame, and a line in every list."""


@dataclass(slots=True)
class Event:
    """One event: why and by whom it was asked for, at which frame, and the span of `time_s` that it keeps, s.

    `frames` of them are stored so far, from `first_frame` to `last_frame` (-1: none yet), `lost` are not, and some
    are `on_their_way` to the disk. Frames of two events count for both.
    """

    number: int
    why: str
    sender: str
    frame: int
    time_s: float
    from_s: float
    to_s: float
    first_frame: int = -1
    last_frame: int = -1
    frames: int = 0
    lost: int = 0
    on_their_way: int = 0

    def holds(self, time_s: float) -> bool:
        """Whether a frame of this time belongs to it."""
        return self.from_s <= time_s <= self.to_s

    def count(self, frame: int) -> None:
        """Count a frame that is stored."""
        self.first_frame = frame if self.first_frame < 0 else min(self.first_frame, frame)
        self.last_frame = max(self.last_frame, frame)
        self.frames += 1

    def in_words(self) -> str:
        """Its number, who asked for it, and why."""
        return (
            f"event {self.number} ({', '.join(filter(None, (self.sender, self.why))) or 'no reason given'})"
        )


class EventBook:
    """Opens an event for each request, or prolongs the open one of the same sender and reason.

    An event keeps the frames from `before_s` before its moment until `after_s` after it. A request that is repeated
    while the event is open moves its end, at most to `most_s` after its moment; then it is refused until it has
    not been made for `after_s`, so that a condition that holds for ever ends.
    """

    def __init__(self, before_s: float, after_s: float, most_s: float = math.inf) -> None:
        self._before_s = before_s
        self._after_s = after_s
        self._most_s = most_s
        self._open: list[Event] = []
        self._full: dict[tuple[str, str], tuple[Event, float]] = {}
        self._number = 0

    @property
    def is_open(self) -> bool:
        """Whether frames still to come, or not yet written, may belong to an event."""
        return bool(self._open)

    def ask(self, asked: Asked, frame: int, time_s: float, newest_s: float) -> tuple[Event, bool]:
        """The event of a request whose moment is `time_s`, at `frame`, and whether it is a new one.

        `newest_s` is the time of the newest frame. Raises `CommandRefused`.
        """
        if time_s - newest_s > FARTHEST_AHEAD_S:
            raise CommandRefused(
                f"record is asked for {time_s - newest_s:.0f} s ahead; at most {FARTHEST_AHEAD_S:g} s are allowed"
            )
        after_s = self._after_s if math.isnan(asked.after_s) else asked.after_s
        if after_s > self._most_s:
            raise CommandRefused(
                f"record: an event lasts for at most {self._most_s:g} s (record.most_s), not {after_s:g} s"
            )
        self._refuse_full(asked, time_s, newest_s)
        from_s, to_s = time_s - self._before_s, time_s + after_s
        for event in self._open:
            is_same = (event.sender, event.why) == asked.who
            if is_same and from_s <= event.to_s and event.from_s <= to_s:
                self._prolong(event, asked, from_s, to_s, newest_s)
                return event, False
        if len(self._open) >= MOST_OPEN:
            raise CommandRefused(f"{MOST_OPEN} events are open; ask again when one has ended")
        self._number += 1
        event = Event(self._number, asked.why, asked.sender, frame, time_s, from_s, to_s)
        self._open.append(event)
        return event, True

    def _refuse_full(self, asked: Asked, time_s: float, newest_s: float) -> None:
        now_s = max(time_s, newest_s)
        self._full = {who: full for who, full in self._full.items() if now_s - full[1] <= self._after_s}
        if asked.who in self._full:
            event, _ = self._full[asked.who]
            self._full[asked.who] = event, now_s
            raise CommandRefused(
                f"{event.in_words()} has lasted for {self._most_s:g} s (record.most_s); it can be asked for "
                f"again once it has not been for {self._after_s:g} s"
            )

    def _prolong(self, event: Event, asked: Asked, from_s: float, to_s: float, newest_s: float) -> None:
        latest_s = event.time_s + self._most_s
        if to_s > latest_s:
            to_s = latest_s
            self._full[asked.who] = event, max(newest_s, event.time_s)
        event.from_s, event.to_s = min(event.from_s, from_s), max(event.to_s, to_s)

    def first_of(self, time_s: float) -> Event | None:
        """The first event that keeps a frame of this time; None: it is not kept."""
        return next((event for event in self._open if event.holds(time_s)), None)

    def all_of(self, time_s: float) -> list[Event]:
        """Every open event that keeps a frame of this time."""
        return [event for event in self._open if event.holds(time_s)]

    def between(self, from_s: float, to_s: float) -> list[Event]:
        """Every open event whose span has a time between these two."""
        return [event for event in self._open if event.from_s < to_s and from_s < event.to_s]

    def close_before(self, time_s: float) -> list[Event]:
        """Close the events that ended before this time, and return them."""
        ended = [event for event in self._open if event.to_s < time_s]
        self._open = [event for event in self._open if event.to_s >= time_s]
        return ended
