"""What a controller is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stream.messages import Command, Tracks


@runtime_checkable
class Controller(Protocol):
    """Gets the tracks of every frame and answers with commands, most of the time none.

    A controller may also have a method `acknowledged(ack: Ack) -> None`, called with the microscope's answer
    to each of its commands. It runs in its own process; what it does not finish within a frame's time is made
    up for by skipping frames, so it must look at `tracks.info`, not count calls.
    """

    @property
    def name(self) -> str:
        """What it is called in the log."""
        ...

    def update(self, tracks: Tracks) -> list[Command]:
        """Look at one frame's tracks; return what the microscope should do."""
        ...
