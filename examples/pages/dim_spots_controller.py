"""A controller that keeps the camera's images once enough spots are in view, and then ends the run.

[controller]
file = "dim_spots_controller.py"
options = { spots = 11, for_s = 2.0 }

[record]
mode = "events"
before_s = 0.5
after_s = 0.5
"""

from __future__ import annotations

import numpy as np

from stream.messages import Command, CommandKind, TrackFlag, Tracks

NOT_SEEN = int(TrackFlag.PREDICTED | TrackFlag.TENTATIVE | TrackFlag.SECOND_DETECTION)


class KeepWhenFull:
    """Asks for `for_s` of images at the first frame that has `spots` confirmed tracks, and stops after them."""

    def __init__(self, spots: int = 11, for_s: float = 2.0) -> None:
        self.spots, self.for_s = spots, for_s
        self.in_view = 0
        self.asked_s: float | None = None

    def update(self, tracks: Tracks) -> list[Command]:
        """Called with the tracks of every frame."""
        self.in_view = int(np.count_nonzero((tracks.flags.astype(int) & NOT_SEEN) == 0))
        now_s = tracks.info.time_s
        if self.asked_s is None:
            if self.in_view < self.spots:
                return []
            self.asked_s = now_s
            return [Command(CommandKind.RECORD, self.for_s, property=f"{self.in_view} spots in view")]
        return [Command(CommandKind.STOP)] if now_s > self.asked_s + self.for_s + 0.2 else []

    def measured(self) -> dict[str, float]:
        """What the control record says beside each command."""
        return {"in_view": self.in_view}
