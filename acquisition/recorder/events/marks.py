"""Mode `all`: every frame is kept, and an event is a mark in the frame table."""

from __future__ import annotations

import math
from collections.abc import Iterator

from acquisition.recorder.events.account import EventAccount, Record
from acquisition.recorder.events.book import Event, EventBook
from acquisition.recorder.events.held import Held, State
from acquisition.recorder.frame_table import Lost
from acquisition.recorder.keeper import EveryFrame, Keep, Kept
from acquisition.recorder.requests import Asked
from stream.messages import Frame


class MarkedFrames(EveryFrame):
    """Keeps every frame; a request only says in the frame table which of them are around its moment.

    A row names the first event that its frame belongs to if that had begun by then; rows from before have none. The
    end of the event has its span.
    """

    def __init__(self, book: EventBook, *, before_s: float, record: Record, first: int = 0) -> None:
        """`record` gets what begins and ends; `first` is the number of the first frame of the run."""
        super().__init__(first)
        self._account = EventAccount(book, before_s, record, wanted=_is_kept_anyway, first=first)
        self._has_ended = False

    def take(self, frame: Frame) -> Iterator[Keep]:
        """The frame, and before it what is missing."""
        held = self._account.came(frame.info)
        for keep in super().take(frame):
            if held is not None and isinstance(keep, Kept):
                yield self._followed(keep, held)
            else:
                yield keep
        self._account.ask_waiting()
        self._account.forget()

    def _followed(self, kept: Kept, held: Held) -> Kept:
        held.state = State.HANDED_ON
        for event in held.events:
            event.on_their_way += 1
        number = min((event.number for event in held.events), default=None)
        return Kept(kept.frame, number, lambda is_stored: self._account.written(held, is_stored))

    def trigger(self, asked: Asked) -> int:
        """Mark the frames around a moment; the first of them that is known, -1: it is still to come.

        Raises `CommandRefused`.
        """
        return self._account.ask(asked)

    def poll(self) -> list[Keep]:
        """Begins and ends of events."""
        newest_s = -math.inf if self._account.newest is None else self._account.newest.time_s
        self._account.close_before(math.inf if self._has_ended else newest_s)
        self._account.tell_ended()
        return [note for note in self._account.taken_notes() if not isinstance(note, Lost)]

    def end(self, missing: int) -> Iterator[Keep]:
        """What is missing after the last frame."""
        if missing > 0:
            self._account.missed(missing, math.inf)
        self._account.refuse_waiting()
        self._has_ended = True
        yield from super().end(missing)

    def counts(self) -> dict[str, int]:
        """`events` so far, how many requests `prolonged` one or were `refused`, and frames that came twice."""
        return self._account.counts()


def _is_kept_anyway(_event: Event, _found: list[Held]) -> None:
    """Every frame has been handed on."""
