"""A controller of your own: keeps the particles in focus. In the experiment file:

[controller]
file = "examples/controller.py"
options = { tolerance_um = 2.0 }
"""

import numpy as np

from stream.messages import Command, CommandKind, Tracks


class HoldFocus:
    """Moves the focus to the median height of the particles where it is off by more than `tolerance_um`."""

    def __init__(self, tolerance_um: float = 2.0, every_s: float = 1.0) -> None:
        self.tolerance_um, self.every_s = tolerance_um, every_s
        self.moved_s = -every_s

    def update(self, tracks: Tracks) -> list[Command]:
        if len(tracks) < 5 or tracks.info.time_s - self.moved_s < self.every_s:
            return []
        offset_um = float(np.median(tracks.z_um))
        if not abs(offset_um) > self.tolerance_um:
            return []
        self.moved_s = tracks.info.time_s
        return [Command(CommandKind.MOVE_FOCUS, tracks.info.focus_um + offset_um)]
