"""A controller that keeps the camera's images of large spheres, and ends the run once it has enough of them.

[controller]
file = "holograms_controller.py"
options = { larger_um = 0.19, count = 2, frames = 8 }

[record]
mode = "events"
before_s = 2.0
after_s = 1.0
"""

from __future__ import annotations

import numpy as np

from stream.messages import Command, CommandKind, Tracks


class KeepLarge:
    """Asks for the images around each sphere that is larger than `larger_um`, by three standard errors at least.

    Once `count` of them have been followed for `frames`, the run ends.
    """

    def __init__(self, larger_um: float = 0.19, count: int = 2, frames: int = 8) -> None:
        self.larger_um, self.count, self.frames = larger_um, count, frames
        self.large: set[int] = set()
        self.followed: set[int] = set()

    def update(self, tracks: Tracks) -> list[Command]:
        """Called with the tracks of every frame."""
        if "radius_um" not in tracks.properties.names:
            return []
        radius, error = tracks.properties.value("radius_um"), tracks.properties.error("radius_um")
        large = np.flatnonzero((radius - 3 * error > self.larger_um) & (tracks.age_frames >= 2))
        commands = []
        for row in large:
            track = int(tracks.track[row])
            if track not in self.large:
                self.large.add(track)
                commands.append(Command(CommandKind.RECORD, f"track {track}: {1e3 * radius[row]:.0f} nm"))
            if tracks.age_frames[row] >= self.frames:
                self.followed.add(track)
        if len(self.followed) >= self.count:
            commands.append(Command(CommandKind.STOP, "enough large spheres"))
        return commands

    def measured(self) -> dict[str, float]:
        """What the control record says beside each command."""
        return {"large": len(self.large), "followed": len(self.followed)}
