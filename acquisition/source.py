"""What a source of frames is: a microscope or a recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from stream.messages import Frame


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source's frames look like, known before the first one.

    `depth` is the number of planes of a volume, 1 for images; `dtype` is `uint8` or `uint16`;
    `frame_rate_hz` is NaN and `frames` None where they are not known. `description` says, for people, where
    the frames come from and what had to be assumed.
    """

    height: int
    width: int
    depth: int
    dtype: str
    pixel_size_um: float
    frame_rate_hz: float
    frames: int | None
    name: str
    description: str


@runtime_checkable
class Source(Protocol):
    """Delivers frames, one after the other. All methods belong to one thread."""

    @property
    def info(self) -> SourceInfo:
        """What the frames look like."""
        ...

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more; frames already taken are delivered first."""
        ...

    def start(self) -> None:
        """Begin: nothing is taken before. Raises `SourceError` if it cannot be done."""
        ...

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None if none came within `timeout_s`; its image is the caller's to keep.

        Raises `SourceError` if the source fails.
        """
        ...

    def stop(self) -> None:
        """Take no more frames; what was taken can still be read, then the source has ended. Idempotent."""
        ...

    def pause(self) -> None:
        """Take no frames until `resume`; what was taken can still be read."""
        ...

    def resume(self) -> None:
        """Go on after `pause`."""
        ...

    def counts(self) -> dict[str, int]:
        """Totals since the start: `received` frames, `lost_in_camera`, and what else the source counts, as
        `lost_in_recording`."""
        ...

    def gauges(self) -> dict[str, float]:
        """Momentary values, such as the frames that wait in the camera's `buffer`."""
        ...

    def close(self) -> None:
        """Stop and release everything. Idempotent."""
        ...
