"""The account of events: begins and ends them, and knows for each recent frame which of them it belongs to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from acquisition.recorder.events.book import Event, EventBook
from acquisition.recorder.events.held import Held, State
from acquisition.recorder.frame_table import EventBegan, EventEnded, Lost
from acquisition.recorder.keeper import NOT_IN_TIME, Keep
from acquisition.recorder.requests import Asked
from acquisition.safety.limits import CommandRefused
from stream.messages import FrameInfo

LATE_S = 10.0
"""How long ago the frame may have been that a request was decided on, s: longer than any result is waited for. It
only bounds a list with an entry a frame."""
MOST_WAITING = 64
"""Requests that wait for a frame that has not come yet: their number only bounds memory."""
OVERWRITTEN = "overwritten in memory before the event was asked for (record.memory_mb)"
KIND = "event"
"""The kind of an event's entries in the event log."""

Record = Callable[[str, str, dict[str, Any]], None]


class EventAccount:
    """Follows the frames by their own times (`FrameInfo.time_s`), and counts for each event what is stored of it.

    `notes` are entries for the frame table that have not been handed on. What begins and ends goes to `record`.
    """

    def __init__(
        self,
        book: EventBook,
        before_s: float,
        record: Record,
        *,
        wanted: Callable[[Event, list[Held]], None],
        first: int = 0,
    ) -> None:
        """`wanted` gets a new or prolonged event and its frames in the ring, in their order; `first` is the number
        of the first frame of the run.
        """
        self.book = book
        self.notes: list[Keep] = []
        self.newest: Held | None = None
        self._known_s = before_s + LATE_S
        self._record = record
        self._wanted = wanted
        self._next = first
        self._recent: deque[Held] = deque()
        self._waiting: list[Asked] = []
        self._ended: list[Event] = []
        self._counts = dict.fromkeys(("events", "prolonged", "refused", "duplicates"), 0)

    def came(self, info: FrameInfo) -> Held | None:
        """Take note of the next frame and of those missing before it; None if it came before."""
        if info.frame < self._next:
            self._counts["duplicates"] += 1
            return None
        before_s = self.newest.time_s if self.newest is not None else -math.inf
        time_s = info.time_s if math.isfinite(info.time_s) else max(before_s, 0.0)
        if info.frame > self._next:
            self.missed(info.frame - self._next, time_s)
        self._next = info.frame + 1
        held = Held(info.frame, time_s, time_s, info=info)
        held.events = self.book.all_of(time_s)
        self._recent.append(held)
        self.newest = held
        return held

    def missed(self, count: int, until_s: float) -> None:
        """Take note of frames that did not come; those of an event are declared lost."""
        after_s = self.newest.time_s if self.newest is not None else -math.inf
        gap = Held(self._next, after_s, until_s, count=count)
        self._next += count
        gap.events = self.book.between(after_s, until_s)
        self._recent.append(gap)
        if gap.events:
            self.lose(gap, NOT_IN_TIME)

    def forget(self) -> None:
        """Forget the frames that no request can be about any more."""
        newest_s = self.newest.time_s if self.newest is not None else 0.0
        while (
            self._recent and self._recent[0].until_s < newest_s - self._known_s and self._recent[0].slot < 0
        ):
            self._recent.popleft()

    def lose(self, held: Held, why: str) -> None:
        """Declare a frame of an event lost."""
        held.state = State.LOST
        for event in held.events:
            event.lost += held.count
        self.notes.append(Lost(held.number, held.number + held.count - 1, why))

    def written(self, held: Held, is_stored: bool) -> None:
        """The image of a frame that was handed on is stored, or could not be and was declared lost."""
        held.state = State.STORED if is_stored else State.LOST
        for event in held.events:
            event.on_their_way -= 1
            if is_stored:
                event.count(held.number)
            else:
                event.lost += 1

    def ask(self, asked: Asked) -> int:
        """Begin or prolong an event; its first frame, -1: not known yet. Raises `CommandRefused`."""
        newest = self.newest
        if newest is not None and (asked.frame <= newest.number or math.isfinite(asked.at_time_s)):
            return self._begin(asked, newest)
        if len(self._waiting) >= MOST_WAITING:
            self._counts["refused"] += 1
            raise CommandRefused(f"{MOST_WAITING} requests wait for frames that have not come yet")
        self._waiting.append(asked)
        return -1

    def ask_waiting(self) -> None:
        """Begin the events that waited for the frame that they were decided on."""
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            try:
                self.ask(asked)
            except CommandRefused as error:
                self._refuse(asked, str(error))

    def refuse_waiting(self) -> None:
        """The stream is over: the frames that requests wait for do not come."""
        for asked in self._waiting:
            self._refuse(asked, "the run ended before the frame that it was decided on")
        self._waiting.clear()

    def _refuse(self, asked: Asked, why: str) -> None:
        facts = {"why": asked.why, "sender": asked.sender, "accepted": False}
        self._record(KIND, f"no event ({asked.in_words()}): {why}", facts)

    def _begin(self, asked: Asked, newest: Held) -> int:
        try:
            frame, time_s = self._moment(asked, newest)
            event, is_new = self.book.ask(asked, frame, time_s, newest.time_s)
        except CommandRefused:
            self._counts["refused"] += 1
            raise
        self._counts["events" if is_new else "prolonged"] += 1
        if is_new:
            self.notes.append(EventBegan(event.number, event.why, event.sender, event.frame, event.time_s))
            text = f"{event.in_words()}: frames from {event.from_s:.3f} s to {event.to_s:.3f} s are kept"
            self._record(KIND, text, {**facts_of(event), "ended": False})
        return self._collect(event)

    def _moment(self, asked: Asked, newest: Held) -> tuple[int, float]:
        """The frame (-1: none) and the time that a request is about."""
        if math.isfinite(asked.at_time_s):
            return -1, asked.at_time_s
        if asked.frame < 0:
            return newest.number, newest.time_s
        if self._recent[0].number > asked.frame:
            raise CommandRefused(f"frame {asked.frame} was too long ago for an event")
        decided = newest
        for held in reversed(self._recent):
            if held.number < asked.frame:
                break
            decided = held if held.info is not None else decided
        return asked.frame, decided.time_s

    def _collect(self, event: Event) -> int:
        """Take the frames that have come for an event; the number of the first one, -1: none so far."""
        first, found = -1, []
        for held in self._recent:
            if not held.is_in(event):
                continue
            self._join(held, event)
            if held.state is State.IN_RING:
                found.append(held)
            if first < 0 and held.state is not State.LOST:
                first = held.number
        self._wanted(event, found)
        return first

    def _join(self, held: Held, event: Event) -> None:
        if event in held.events:
            return
        held.events.append(event)
        if held.state in {State.TO_WRITE, State.HANDED_ON}:
            event.on_their_way += 1
        elif held.state is State.STORED:
            event.count(held.number)
        elif held.state is State.LOST:
            event.lost += held.count
        elif held.state is State.GONE:
            self.lose(held, NOT_IN_TIME if held.info is None else OVERWRITTEN)

    def close_before(self, time_s: float) -> list[Event]:
        """Close the events that ended before this time and whose frames have all been handed on."""
        ended = self.book.close_before(time_s)
        self._ended += ended
        return ended

    def tell_ended(self) -> None:
        """Enter the events whose frames have all been written into frame table and event log."""
        for event in [event for event in self._ended if not event.on_their_way]:
            self._ended.remove(event)
            facts = facts_of(event)
            self.notes.append(
                EventEnded(
                    event.number,
                    event.from_s,
                    event.to_s,
                    event.first_frame,
                    event.last_frame,
                    event.frames,
                    event.lost,
                )
            )
            span = f", {event.first_frame} to {event.last_frame}" if event.frames else ""
            lost = f"; {event.lost} are lost" if event.lost else ""
            text = f"{event.in_words()} has ended: {event.frames} frames are kept{span}{lost}"
            self._record(KIND, text, {**facts, "ended": True})

    def taken_notes(self) -> list[Keep]:
        """The notes so far, for the last time."""
        notes, self.notes = self.notes, []
        return notes

    def counts(self) -> dict[str, int]:
        """`events` so far, how many requests `prolonged` one or were `refused`, and frames that came twice."""
        return dict(self._counts)


def facts_of(event: Event) -> dict[str, Any]:
    """An event for the event log."""
    return {
        "event": event.number,
        "why": event.why,
        "sender": event.sender,
        "frame": event.frame,
        "time_s": event.time_s,
        "from_s": event.from_s,
        "to_s": event.to_s,
        "first_frame": event.first_frame,
        "last_frame": event.last_frame,
        "frames": event.frames,
        "lost": event.lost,
    }
