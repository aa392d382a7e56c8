"""A recorded run shown to another controller: what it would have asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stream.messages import Command
from tracking.control.controllers import Controller
from tracking.trajectories.playback import play
from tracking.trajectories.reader import TrajectoryFile


@dataclass(frozen=True, slots=True)
class Decision:
    """What a controller would have asked for, and what it had measured then."""

    frame: int
    time_s: float
    command: Command
    measured: dict[str, float]
    focus_um: float
    flow_ul_s: float

    def row(self) -> dict[str, Any]:
        """As a row of a table; `focus_um` and `flow_ul_s` are those that the recorded run had then."""
        return {
            "frame": self.frame,
            "time_s": self.time_s,
            "command": str(self.command.kind),
            "value": self.command.value,
            "at_time_s": self.command.at_time_s,
            "focus_um": self.focus_um,
            "flow_ul_s": self.flow_ul_s,
            **self.measured,
        }


def reconsider(file: TrajectoryFile, controller: Controller) -> Iterator[Decision]:
    """Show a recorded run to a controller: what it would have asked for.

    The run does not answer: what was asked for is not carried out, and no command is acknowledged. Whatever the
    controller raises comes through.
    """
    measured = getattr(controller, "measured", None)
    for tracks in play(file):
        for command in controller.update(tracks):
            info = tracks.info
            values = measured() if measured is not None else {}
            yield Decision(info.frame, info.time_s, command, values, info.focus_um, info.flow_ul_s)
