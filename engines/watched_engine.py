"""Warnings of an engine: particles left out, pixels not searched, repeated frames; each once, then counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engines.engine import Engine
from engines.engine_around import EngineAround
from engines.repeated_images import RepeatedImages
from stream.messages import Detections, Frame, Predictions

REPEATED = "repeated_images"
"""The name under which repeated frames are counted."""
TOO_MANY, HIDDEN_PX = "too_many", "hidden_px"
NO_SIZE = "no_size"
"""The count of volumes that came before the size of a spot was known."""
FAILED, NO_POSITION, OUTSIDE = "failed_frames", "no_position", "outside"
"""What a detector of a user's own counts, and says itself when it begins."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Texts for a count {n}: `first` is the warning when it begins, `total` stands in the summary."""

    first: str
    total: str


REMARKS = {
    TOO_MANY: Remark(
        "{n} particles are left out up to frame {frame}, the faintest of each frame: detector.max_particles is "
        "{most}, raise it",
        "{n} particles over detector.max_particles left out",
    ),
    HIDDEN_PX: Remark(
        "objects much larger than particles (bubbles, dust) cover {n} pixels up to frame {frame}: particles "
        "there are not detected",
        "{n} pixels under large objects not searched",
    ),
    REPEATED: Remark(
        "frame {frame} repeats the image before it, pixel for pixel: particles seem to stand still, and velocities "
        "are wrong; check the camera, or remove repeated frames from the recording",
        "{n} images delivered twice",
    ),
    FAILED: Remark("", "{n} frames left out in which the detector failed"),
    NO_POSITION: Remark("", "{n} positions that are not finite left out"),
    NO_SIZE: Remark("", "{n} volumes not searched before the size of a spot was known"),
    OUTSIDE: Remark("", "{n} positions outside of the image left out"),
}


def summary_of(counts: Mapping[str, int]) -> str:
    """One line on what was outside the engine's limits, by its `counts`; "" where nothing was."""
    return "; ".join(
        remark.total.format(n=counts[name]) for name, remark in REMARKS.items() if counts.get(name)
    )


class WatchedEngine(EngineAround):
    """An `Engine` around another one, which does the work.

    `say` gets each of the `REMARKS` once, when the engine first counts it. `counts` has the engine's own counts and
    `repeated_images`.
    """

    def __init__(self, engine: Engine, max_particles: int, say: Callable[[str], None]) -> None:
        super().__init__(engine)
        self._max_particles = max_particles
        self._say = say
        self._said: set[str] = set()
        self._images = RepeatedImages()
        self._repeated = 0

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while the engine processes as many as it can hold."""
        self._engine.submit(frame, predicted)
        if self._images.is_repeated(frame.image):
            self._repeated += 1
            self._remark(REPEATED, 1, frame.info.frame)

    def results(self, timeout_s: float) -> list[Detections]:
        """Return the detections that are ready, in order, waiting for at most `timeout_s`."""
        ready = self._engine.results(timeout_s)
        if ready and not {TOO_MANY, HIDDEN_PX} <= self._said:
            counts = self._engine.counts()
            for name in (TOO_MANY, HIDDEN_PX):
                if counts.get(name):
                    self._remark(name, counts[name], ready[-1].info.frame)
        return ready

    def _remark(self, name: str, n: int, frame: int) -> None:
        if name not in self._said:
            self._said.add(name)
            self._say(REMARKS[name].first.format(n=n, frame=frame, most=self._max_particles))

    def counts(self) -> dict[str, int]:
        """Totals since the start: what was left out, by reason, and `repeated_images`."""
        repeated = {REPEATED: self._repeated} if self._repeated else {}
        return self._engine.counts() | repeated
