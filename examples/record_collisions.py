"""A controller that keeps the camera images around each moment at which two particles meet. In the experiment file:

[controller]
file = "examples/record_collisions.py"
options = { distance_um = 6.0 }

[record]
mode = "events"
before_s = 2
after_s = 2
"""

import numpy as np

from stream.messages import Command, CommandKind, CommandReply, TrackFlag, Tracks

NOT_SEEN = int(TrackFlag.PREDICTED | TrackFlag.TENTATIVE | TrackFlag.SECOND_DETECTION)


class RecordCollisions:
    """Asks for the frames around the first one in which two tracks are closer than `distance_um`, once a pair."""

    def __init__(self, distance_um: float = 6.0) -> None:
        self.distance_um = distance_um
        self.met: set[tuple[int, int]] = set()
        self.recorded = 0

    def update(self, tracks: Tracks) -> list[Command]:
        seen = np.flatnonzero((tracks.flags.astype(int) & NOT_SEEN) == 0)
        place = np.stack([tracks.x_um[seen], tracks.y_um[seen], np.nan_to_num(tracks.z_um[seen])])
        apart_um = np.linalg.norm(place[:, :, None] - place[:, None, :], axis=0)
        close = np.argwhere(np.triu(apart_um < self.distance_um, k=1))
        track = tracks.track[seen].astype(int)
        pairs = {(int(track[a]), int(track[b])) for a, b in close} - self.met
        self.met |= pairs
        return [Command(CommandKind.RECORD, "two particles meet")] if pairs else []

    def acknowledged(self, reply: CommandReply) -> None:
        self.recorded += reply.accepted and reply.first_frame >= 0

    def measured(self) -> dict[str, float]:
        return {"pairs": len(self.met), "recorded": self.recorded}
