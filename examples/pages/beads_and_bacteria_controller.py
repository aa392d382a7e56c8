"""A controller that keeps the camera's images of each bacterium that enters a region, and of no bead.

[controller]
file = "beads_and_bacteria_controller.py"
options = { min_x_um = 13, max_x_um = 25 }

[record]
mode = "events"
before_s = 0.5
after_s = 0.5
"""

from __future__ import annotations

from stream.messages import Command, CommandKind, TrackFlag, Tracks

BACTERIUM = 0
"""Classes are numbered in the order of their names: bacterium, bead."""
NOT_SEEN = int(TrackFlag.PREDICTED | TrackFlag.TENTATIVE | TrackFlag.SECOND_DETECTION)


class KeepBacteria:
    """Asks for the images around a track in the region, once, if it is a bacterium with `min_p` at least."""

    def __init__(self, min_x_um: float, max_x_um: float, min_p: float = 0.9) -> None:
        self.min_x_um, self.max_x_um, self.min_p = min_x_um, max_x_um, min_p
        self.kept: set[int] = set()

    def update(self, tracks: Tracks) -> list[Command]:
        """Called with the tracks of every frame."""
        seen = (tracks.flags.astype(int) & NOT_SEEN) == 0
        here = (tracks.x_um > self.min_x_um) & (tracks.x_um < self.max_x_um)
        bacterium = (tracks.kind == BACTERIUM) & (tracks.p_kind >= self.min_p)
        new = set(tracks.track[seen & here & bacterium].astype(int).tolist()) - self.kept
        self.kept |= new
        return [Command(CommandKind.RECORD, f"bacterium {track}") for track in sorted(new)]

    def measured(self) -> dict[str, float]:
        """What the control record says beside each command."""
        return {"bacteria": len(self.kept)}
