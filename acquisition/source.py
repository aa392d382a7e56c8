"""The protocol of a source of frames: a microscope or a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from stream.messages import Frame


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Properties of the frames of a source, known before the first one.

    `depth` is the number of planes of a volume, 1 for images; `dtype` is `uint8` or `uint16`;
    `frame_rate_hz` is NaN and `frames` None if unknown. `description` tells the user where the frames come from and
    what was assumed. `z_step_um` is the distance between two slices of a volume, NaN for images.
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
    z_step_um: float = math.nan


@runtime_checkable
class Source(Protocol):
    """Delivers frames one after the other. All methods must be called from one thread."""

    @property
    def info(self) -> SourceInfo:
        """Properties of the frames."""
        ...

    @property
    def ended(self) -> bool:
        """Whether all frames have been delivered and no more will come."""
        ...

    def start(self) -> None:
        """Start taking frames; none is taken before. Raises `SourceError` if that fails."""
        ...

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None if none came within `timeout_s`; the caller may keep its image.

        Raises `SourceError` if the source fails.
        """
        ...

    def stop(self) -> None:
        """Take no more frames; those already taken can still be read, then the source has ended. Idempotent."""
        ...

    def pause(self) -> None:
        """Take no frames until `resume`; those already taken can still be read."""
        ...

    def resume(self) -> None:
        """Continue after `pause`."""
        ...

    def counts(self) -> dict[str, int]:
        """Totals since the start: `received` frames, `lost_in_camera`, and others such as `lost_in_recording`."""
        ...

    def gauges(self) -> dict[str, float]:
        """Current values, such as the number of frames waiting in the `buffer` of the camera."""
        ...

    def close(self) -> None:
        """Stop and release everything. Idempotent."""
        ...
