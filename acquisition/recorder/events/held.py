"""What is known of each recent frame: which events it belongs to, and where its image is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from acquisition.recorder.events.book import Event
from stream.messages import FrameInfo


class State(Enum):
    """Where an image is: only in the ring, waiting to be written, handed on, stored, lost (declared), or gone."""

    IN_RING = auto()
    TO_WRITE = auto()
    HANDED_ON = auto()
    STORED = auto()
    LOST = auto()
    GONE = auto()


@dataclass(slots=True, eq=False)
class Held:
    """A frame that came, or `count` frames that did not (no `info`), between `time_s` and `until_s`."""

    number: int
    time_s: float
    until_s: float
    state: State = State.GONE
    info: FrameInfo | None = None
    slot: int = -1
    count: int = 1
    events: list[Event] = field(default_factory=list)

    def is_in(self, event: Event) -> bool:
        """Whether it belongs to an event."""
        if self.info is not None:
            return event.holds(self.time_s)
        return event.from_s < self.until_s and self.time_s < event.to_s
