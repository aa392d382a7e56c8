"""Shows a recorded run to another controller and lists the commands that it would have sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream.messages import Command
from tracking.control.controllers import Controller
from tracking.trajectories.playback import play
from tracking.trajectories.reader import TrajectoryFile

if TYPE_CHECKING:
    from tracking.physics.live.follower import FlowFollower


@dataclass(frozen=True, slots=True)
class Decision:
    """A command that a controller would have sent, and what it had measured then."""

    frame: int
    time_s: float
    command: Command
    measured: dict[str, float]
    focus_um: float
    flow_ul_s: float

    def row(self) -> dict[str, Any]:
        """The decision as a row of a table; `focus_um` and `flow_ul_s` are those of the recorded run."""
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


def reconsider(
    file: TrajectoryFile, controller: Controller, flow: FlowFollower | None = None
) -> Iterator[Decision]:
    """Show every frame of a recorded run to a controller; yields each command that it would have sent.

    `flow` (not in a thread) fits the flow for it. The recorded run does not respond: commands are not executed and
    not acknowledged. What the controller raises is not caught.
    """
    measured = getattr(controller, "measured", None)
    fitted = getattr(controller, "flow_fitted", None)
    for tracks in play(file):
        if flow is not None and fitted is not None:
            flow.take_in(tracks)
            if (found := flow.poll()) is not None:
                fitted(found)
        for command in controller.update(tracks):
            info = tracks.info
            values = measured() if measured is not None else {}
            yield Decision(info.frame, info.time_s, command, values, info.focus_um, info.flow_ul_s)
