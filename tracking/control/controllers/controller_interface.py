"""The interface of a controller: `update` turns a frame's tracks into commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from stream.messages import Command, Tracks


@dataclass(frozen=True, slots=True)
class Happening:
    """An entry that a controller adds to the control record: `kind`, a line of text, and facts for JSON."""

    kind: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Controller(Protocol):
    """Receives the tracks of every frame and returns commands, most of the time none.

    It runs in its own process. While it is busy frames are skipped, so it must read times from `tracks.info`
    instead of counting calls. It may have further methods:

    - `acknowledged(ack: CommandReply) -> None`: called with the microscope's reply to each of its commands.
    - `measured() -> dict[str, float]`: measured values and targets, recorded with every command.
    - `happenings() -> list[Happening]`: further entries for the record; called after every update.
    - `flow_fitted(flow: LiveFlow) -> None`: called with each fit of the flow in the channel, about once a second,
      before `update`; with the newest one when the controller is switched on.
    - `released() -> None`: called when a safe state has ended, during which `update` was not called.
    - `retarget(value: float)` and `restart()`: called by a protocol with a new set-point or focus position.
    """

    @property
    def name(self) -> str:
        """Its name in the log."""
        ...

    def update(self, tracks: Tracks) -> list[Command]:
        """Process one frame's tracks; return the commands for the microscope."""
        ...
