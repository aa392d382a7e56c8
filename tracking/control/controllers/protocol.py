"""What a controller is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from stream.messages import Command, Tracks


@dataclass(frozen=True, slots=True)
class Happening:
    """Something a controller wants on record: `kind`, a line of text, and JSON-able facts."""

    kind: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Controller(Protocol):
    """Gets the tracks of every frame and answers with commands, most of the time none.

    It runs in its own process; what it does not finish within a frame's time is made up for by skipping frames,
    so it must look at `tracks.info`, not count calls. Methods that it may have, too:

    - `acknowledged(ack: CommandReply) -> None`, called with the microscope's answer to each of its commands.
    - `measured() -> dict[str, float]`: what it has measured and wants, kept with every command.
    - `happenings() -> list[Happening]`: what else is to be recorded, asked for after every update.
    - `released() -> None`: the hardware was made safe, and it was not asked meanwhile; go on from what is now.
    - `retarget(value: float)` and `restart()`: a protocol has another set-point for it, or has moved the focus.
    """

    @property
    def name(self) -> str:
        """What it is called in the log."""
        ...

    def update(self, tracks: Tracks) -> list[Command]:
        """Look at one frame's tracks; return what the microscope should do."""
        ...
