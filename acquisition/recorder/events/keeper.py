"""Keeps the frames around events: a ring in memory of the last seconds, and what follows when somebody asks."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from acquisition.recorder.events.account import EventAccount, Record
from acquisition.recorder.events.book import Event, EventBook
from acquisition.recorder.events.held import Held, State
from acquisition.recorder.events.ring import FrameRing
from acquisition.recorder.keeper import NOT_IN_TIME, Keep, Kept
from acquisition.recorder.requests import Asked
from stream.messages import Frame

HOLD_S = 0.5
"""Time between a new event and the first of its frames on the disk, s, in which a request that was decided on an
older frame may still put earlier frames before it: a live result is at most 0.1 to 0.3 s old. Less and such frames
are declared lost, as images are only appended; more takes as much longer of the ring."""
AT_ONCE = 4
"""Frames handed on at once. The writer gets more when it has begun with these; the ring holds the rest."""
TOO_LATE = "asked for after later frames had been stored"


class EventKeeper:
    """Copies every frame into the ring, and hands on those that belong to an event: each once, in their order.

    The ring is also what bridges a disk that is slower than the camera: frames wait in it until they are written.
    When it is full of those, further frames cannot be kept, and those of an event are declared lost; so are frames
    of an event that were overwritten before it was asked for. Times are the frames' own (`FrameInfo.time_s`).
    `trigger` never waits.
    """

    def __init__(
        self,
        ring: FrameRing,
        book: EventBook,
        *,
        before_s: float,
        record: Record,
        first: int = 0,
        waits: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`record` gets what begins and ends; `first` is the number of the first frame of the run.

        `waits`: the run waits for the disk, so that frames come only while there is room (`has_room`).
        """
        self._ring, self._clock = ring, clock
        self._waits = waits
        self._account = EventAccount(book, before_s, record, wanted=self._wanted, first=first)
        self._history: deque[Held] = deque()
        self._to_write: deque[Held] = deque()
        self._ready_s: dict[int, float] = {}
        self._handed = -1
        self._has_ended = False

    def take(self, frame: Frame) -> list[Keep]:
        """Copy a frame into the ring. Nothing is handed on, so that the link gets it back at once: see `poll`."""
        held = self._account.came(frame.info)
        if held is None:
            return []
        if not self._ring.free and self._history:
            oldest = self._history.popleft()
            oldest.state = State.GONE
            self._give_back(oldest)
        if self._ring.free:
            held.slot = self._ring.put(frame.image)
            held.state = State.IN_RING
            self._history.append(held)
            if held.events:
                self._put_to_write([held])
        elif held.events:
            self._account.lose(held, NOT_IN_TIME)
        self._account.ask_waiting()
        self._account.forget()
        return []

    @property
    def has_room(self) -> bool:
        """Whether a frame can be taken without losing one of an event; always where the run does not wait."""
        return not self._waits or bool(self._ring.free or self._history)

    def _give_back(self, held: Held) -> None:
        slot, held.slot = held.slot, -1
        self._ring.give_back(slot)

    def trigger(self, asked: Asked) -> int:
        """Keep the frames around a moment; the first of them that is known, -1: it is still to come.

        Raises `CommandRefused`.
        """
        return self._account.ask(asked)

    def _wanted(self, event: Event, found: list[Held]) -> None:
        self._ready_s.setdefault(event.number, self._clock() + HOLD_S)
        for held in found:
            if held.number < self._handed:
                self._give_back(held)
                self._account.lose(held, TOO_LATE)
        self._put_to_write([held for held in found if held.state is State.IN_RING])

    def _put_to_write(self, found: list[Held]) -> None:
        """Have frames of the ring written, in the order of their numbers."""
        if not found:
            return
        for held in found:
            held.state = State.TO_WRITE
            for event in held.events:
                event.on_their_way += 1
        in_order = not self._to_write or self._to_write[-1].number < found[0].number
        self._to_write.extend(found)
        if not in_order:
            self._to_write = deque(sorted(self._to_write, key=lambda held: held.number))
        if len(found) == 1 and self._history[-1] is found[0]:
            self._history.pop()
        else:
            self._history = deque(held for held in self._history if held.state is State.IN_RING)

    def poll(self) -> list[Keep]:
        """What is to be written now: entries for the frame table, and at most `AT_ONCE` frames."""
        keeps = self._account.taken_notes()
        at_once = self._has_ended or 2 * len(self._to_write) > self._ring.slots
        for _ in range(AT_ONCE):
            if not self._to_write or not (at_once or self._is_ready(self._to_write[0])):
                break
            keeps.append(self._hand_on())
        self._close()
        return keeps + self._account.taken_notes()

    def _is_ready(self, held: Held) -> bool:
        now_s = self._clock()
        return all(self._ready_s.get(event.number, -math.inf) <= now_s for event in held.events)

    def _hand_on(self) -> Kept:
        held = self._to_write.popleft()
        held.state = State.HANDED_ON
        self._handed = held.number
        assert held.info is not None
        number = min(event.number for event in held.events)
        frame = Frame(held.info, self._ring.image(held.slot))
        return Kept(frame, number, lambda is_stored: self._release(held, is_stored))

    def _release(self, held: Held, is_stored: bool) -> None:
        self._account.written(held, is_stored)
        self._give_back(held)

    def _close(self) -> None:
        """Close the events whose frames have all come and been handed on."""
        newest = self._account.newest
        time_s = math.inf if self._has_ended else -math.inf if newest is None else newest.time_s
        if self._to_write:
            time_s = min(time_s, self._to_write[0].time_s)
        for event in self._account.close_before(time_s):
            self._ready_s.pop(event.number, None)
        self._account.tell_ended()

    def end(self, missing: int) -> list[Keep]:
        """The stream is over, and `missing` frames did not come; `poll` hands on what is left."""
        if missing > 0:
            self._account.missed(missing, math.inf)
        self._account.refuse_waiting()
        self._has_ended = True
        return []

    def counts(self) -> dict[str, int]:
        """`events` so far, how many requests `prolonged` one or were `refused`, and frames that came twice."""
        return self._account.counts()

    def gauges(self) -> dict[str, float]:
        """`memory_s`: from the oldest frame in memory to the newest, s; `to_write`: frames that wait for that."""
        newest, oldest = self._account.newest, next(iter(self._to_write or self._history), None)
        span_s = 0.0 if oldest is None or newest is None else newest.time_s - oldest.time_s
        return {"memory_s": span_s, "to_write": float(len(self._to_write))}
