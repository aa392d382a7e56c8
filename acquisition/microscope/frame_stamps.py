"""Numbers, losses and times of live frames, from the metadata of the camera."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stream.errors import SourceError

IMAGE_NUMBER_KEY = "ImageNumber"
FRAME_NUMBER_KEY = "SimulatedCamera-FrameNumber"
TIME_KEY = "SimulatedCamera-Time-s"
ELAPSED_KEY = "ElapsedTime-ms"
NAN = math.nan


class CameraNumbers:
    """The camera's frame numbers; gaps in them are counted as `lost`.

    `resets` counts how often the camera's counter fell back by itself; what was lost then is unknown.
    """

    def __init__(self, key: str | None, first: int | None = None) -> None:
        """`first` is what `key` says of the first image after each start of the camera, where that is known."""
        self._wanted, self._first = key, first
        self._key: str | None = None
        self._next: int | None = None
        self._base = 0
        self._offset = 0
        self._highest = -1
        self.lost = 0
        self.resets = 0

    def restart(self) -> None:
        """The camera starts counting again; our numbers continue."""
        self._next = None
        self._offset = self._highest + 1

    @property
    def next_after_restart(self) -> int:
        """The number of the first frame after a restart now, where the camera counts from its start."""
        return self._highest + 1

    def take(self, metadata: Mapping[str, Any]) -> int:
        """The number of a frame; missing frames before it are counted.

        Raises `SourceError` if the metadata has no such number.
        """
        if self._key is None:
            self._key = self._choose(metadata)
        number = self._read(metadata)
        if self._next is None:
            # a camera may count from power-on; losses before the first frame are unknown
            self._base = 0 if self._key in {FRAME_NUMBER_KEY, IMAGE_NUMBER_KEY} else number
            if self._first is not None and self._wanted is not None:
                self._base = min(self._first, number)
            self._next = self._base
        if number < self._next:
            self.resets += 1
            self.restart()
            self._base = self._next = number
        self.lost += number - self._next
        self._next = number + 1
        self._highest = self._offset + number - self._base
        return self._highest

    def _choose(self, metadata: Mapping[str, Any]) -> str:
        if self._wanted is not None:
            if self._wanted not in metadata:
                raise SourceError(
                    f"the camera's frames have no {self._wanted!r}; set microscope.frame_number_key to one of "
                    f"{', '.join(metadata)}, or leave it out"
                )
            return self._wanted
        return next((key for key in (FRAME_NUMBER_KEY, IMAGE_NUMBER_KEY) if key in metadata), "")

    def _read(self, metadata: Mapping[str, Any]) -> int:
        if not self._key:
            return self._next or 0
        number = as_number(metadata.get(self._key))
        if not math.isfinite(number):
            raise SourceError(
                f"the camera's {self._key} is {metadata.get(self._key)!r}, not a number; "
                "set microscope.frame_number_key to its counter, or leave it out"
            )
        return int(number)


class CameraClock:
    """When frames were taken: on the camera's clock if it has one, else when they reached the core.

    `exposed_ns` is a lower bound of the start of the last frame's exposure. Without a clock in the camera it
    assumes that the frame reached the core within one period after its exposure.
    """

    def __init__(self, *, keeps_time: bool = True) -> None:
        """`keeps_time`: whether the camera's clock, if it has one, runs as fast as ours (not in simulated time)."""
        self._keeps_time = keeps_time
        self._started_ns = 0
        self._camera_first_s: float | None = None
        self._run_offset_s = 0.0
        self._elapsed_offset_ns = math.inf
        self._latest_offset_ns = math.inf
        self.exposed_ns = 0

    def restart(self, now_ns: int, began_ns: int) -> None:
        """Prepare for a start of the camera at `now_ns`; the run began at `began_ns`.

        A camera's clock that is not ours (in simulated time) goes on through its starts.
        """
        self._started_ns = now_ns
        if self._keeps_time or self._camera_first_s is None:
            self._camera_first_s = None
            self._run_offset_s = 1e-9 * (now_ns - began_ns)
        self._elapsed_offset_ns = self._latest_offset_ns = math.inf

    def arrival_ns(self, metadata: Mapping[str, Any], popped_ns: int) -> int:
        """When a frame reached the core: its time stamp, on our clock by the least delayed frame."""
        elapsed_ns = 1e6 * as_number(metadata.get(ELAPSED_KEY))
        if not math.isfinite(elapsed_ns):
            return popped_ns
        self._elapsed_offset_ns = min(self._elapsed_offset_ns, popped_ns - elapsed_ns)
        return min(popped_ns, round(self._elapsed_offset_ns + elapsed_ns))

    def take(
        self, metadata: Mapping[str, Any], arrived_ns: int, exposure_ns: float, period_ns: float
    ) -> float:
        """Take the times of a frame; returns the camera's time, s since the run began, or NaN.

        No frame was exposed before the camera was started, nor later than one exposure before it arrived: two
        bounds on the offset between the clocks, of which the lower one is used.
        """
        bound_ns = arrived_ns - exposure_ns - period_ns
        camera_s = as_number(metadata.get(TIME_KEY))
        if not math.isfinite(camera_s):
            self.exposed_ns = round(bound_ns)
            return NAN
        if self._camera_first_s is None:
            self._camera_first_s = camera_s
        since_s = camera_s - self._camera_first_s
        self._latest_offset_ns = min(self._latest_offset_ns, arrived_ns - exposure_ns - 1e9 * since_s)
        exposed_ns = min(self._started_ns, self._latest_offset_ns) + 1e9 * since_s
        self.exposed_ns = round(exposed_ns if self._keeps_time else max(exposed_ns, bound_ns))
        return self._run_offset_s + since_s


def as_number(value: object) -> float:
    """A metadata value as a number; NaN if it is not one."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return NAN
