"""Which frames each piece of a long recording has."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

LONG_FRAMES = 5_000
"""Frames of the longest piece where pieces change no result. A piece costs about a second for its start: one
part in a hundred of 5,000 small frames (20 ms each), less of large ones. Longer pieces leave workers idle at
the end."""
WARM_FRAMES = 60
"""Frames before a piece from which its tracker learns what it predicts, where detection uses predictions: a
track is confirmed after 3, the random step is learnt within some tens (`tracking.process_noise`), velocities
are averaged over 20. More frames are detected twice, fewer predict less well in the first frames of a piece."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames `first` to `stop` (not included) of a recording; reading begins at `warm`."""

    warm: int
    first: int
    stop: int

    @property
    def frames(self) -> int:
        """Number of its frames."""
        return self.stop - self.first


def plan_pieces(frames: int, longest: int, warm_frames: int) -> list[Piece]:
    """Cut `frames` into pieces of at most `longest`, equal within one frame; each is read from `warm_frames`
    before.

    Every frame belongs to exactly one piece. Raises `ValueError` for numbers that make no sense.
    """
    if frames < 1 or longest < 1 or warm_frames < 0:
        raise ValueError(f"{frames} frames in pieces of {longest}, read {warm_frames} before")
    count = -(-frames // longest)
    bounds = [frames * number // count for number in range(count + 1)]
    return [Piece(max(0, first - warm_frames), first, stop) for first, stop in pairwise(bounds)]
