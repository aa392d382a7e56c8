"""Which frames a recorder keeps: the protocol, and the keeper that keeps every one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from acquisition.recorder.frame_table import EventBegan, EventEnded, Lost
from acquisition.recorder.requests import Asked
from acquisition.safety.limits import CommandRefused
from stream.messages import Frame

NOT_IN_TIME = "the disk, or the computer, was too slow for the camera"


def _nothing(_is_stored: bool) -> None:
    """No memory to give back."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A frame to be written now.

    `release` is called, in the order of the frames, once its image is not needed: with True if it is stored, with
    False if the disk did not take it and it was declared lost.
    """

    frame: Frame
    event: int | None = None
    release: Callable[[bool], None] = _nothing


Keep = Kept | Lost | EventBegan | EventEnded
"""What a keeper hands on: a frame to write, or an entry for the frame table."""


class Keeper(Protocol):
    """Chooses the frames that are written, in the order of their numbers, none twice.

    The image of a frame given to `take` is on loan: it is valid as long as the frame has not been handed on and
    written, and only if `take` hands it on itself. A keeper that wants it later (a ring) copies it.
    """

    def take(self, frame: Frame) -> Iterable[Keep]:
        """Take the next frame that the recorder got; what is to be written now."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether it can take a frame now. Where the run waits for the disk, none comes as long as it cannot."""
        ...

    def trigger(self, asked: Asked) -> int:
        """Somebody asks for the frames around a moment; the first frame kept, -1: not known yet.

        Raises `CommandRefused`.
        """
        ...

    def poll(self) -> Iterable[Keep]:
        """What is to be written now although no frame came (of a ring: at most a few frames at a time)."""
        ...

    def end(self, missing: int) -> Iterable[Keep]:
        """The stream is over, and `missing` frames after the last one were dropped before the recorder.

        What is left afterwards comes from `poll`, until that is empty and all is written.
        """
        ...

    def counts(self) -> dict[str, int]:
        """Totals for the status of the stage."""
        ...

    def gauges(self) -> dict[str, float]:
        """Current values for the status of the stage."""
        ...


class EveryFrame:
    """Keeps every frame; a gap in their numbers is a loss, which it declares."""

    def __init__(self, first: int = 0) -> None:
        """`first` is the number of the first frame of the run."""
        self._next = first
        self._duplicates = 0

    def take(self, frame: Frame) -> Iterator[Keep]:
        """The frame, and before it what is missing."""
        number = frame.info.frame
        if number < self._next:
            self._duplicates += 1
            return
        if number > self._next:
            yield Lost(self._next, number - 1, NOT_IN_TIME)
        self._next = number + 1
        yield Kept(frame)

    @property
    def has_room(self) -> bool:
        """Always: it holds no frame itself."""
        return True

    def trigger(self, asked: Asked) -> int:
        """Refused: nothing is left out that could be asked for."""
        del asked
        raise CommandRefused('every frame is recorded already (record.mode = "all")')

    def poll(self) -> Iterable[Keep]:
        """Nothing."""
        return ()

    def end(self, missing: int) -> Iterable[Keep]:
        """What is missing after the last frame."""
        if missing > 0:
            yield Lost(self._next, self._next + missing - 1, NOT_IN_TIME)

    def counts(self) -> dict[str, int]:
        """`duplicates`: frames that came twice, after a link was opened again."""
        return {"duplicates": self._duplicates}

    def gauges(self) -> dict[str, float]:
        """None."""
        return {}
