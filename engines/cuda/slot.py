"""One of the frames in flight on a GPU: its buffers on both sides and its recorded work.

While one slot's image is copied to the GPU, another's is processed and a third's result is copied back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.cuda.device import Device, DeviceBuffer
from engines.cuda.layout import FrameFormat
from engines.cuda.unpacking import Answer

SLOTS_IN_FLIGHT = 3
"""One each for copying there, processing and copying back; more would only add latency."""
Enqueue = Callable[[int], None]


class Runner(Protocol):
    """A network on a device, for frames of one format."""

    @property
    def frame(self) -> FrameFormat:
        """The frames that it is for."""
        ...

    def bind(
        self, raw: DeviceBuffer, kept: DeviceBuffer, summary: DeviceBuffer, maps: DeviceBuffer
    ) -> Enqueue:
        """What processes the bytes in `raw` and writes its result to the others, all on the device."""
        ...

    def close(self) -> None:
        """Let go of what it has on the device, after the slots that use it. Idempotent."""
        ...


class Slot:
    """Buffers and work for one frame at a time. `fill` and `answer` alternate; they may be in different threads."""

    def __init__(self, device: Device, runner: Runner) -> None:
        self.frame = frame = runner.frame
        self._device = device
        sent, raw = device.on_host(frame.raw_shape, np.uint8), device.on_device(frame.raw_shape, np.uint8)
        (kept_here, kept), (summary_here, summary) = (
            (device.on_host(shape, np.float32), device.on_device(shape, np.float32))
            for shape in (frame.kept_shape, frame.summary_shape)
        )
        self._maps: DeviceBuffer = device.on_device(frame.maps_shape, np.float32)
        enqueue = runner.bind(raw, kept, summary, self._maps)

        def work(stream: int) -> None:
            device.copy_in(raw, sent, stream)
            enqueue(stream)
            device.copy_out(kept_here, kept, stream)
            device.copy_out(summary_here, summary, stream)

        image = sent.array.view(f"<u{frame.bytes_per_pixel}")
        self._image: npt.NDArray[Any] = image.reshape(frame.height, frame.width)
        self._answer = Answer(kept_here.array, summary_here.array)
        self._recorded = device.record(work)

    def fill(self, image: npt.NDArray[Any]) -> None:
        """Copy an image (H, W) and start its processing."""
        np.copyto(self._image, image, casting="no")
        self._recorded.start()

    def answer(self) -> Answer:
        """Wait for the result, whose arrays are valid until the next image. Raises `RuntimeError` on failure."""
        self._recorded.wait()
        return self._answer

    def maps(self) -> npt.NDArray[np.float32]:
        """All maps (H/4, W/4, slots, values) of the last image; a slow copy."""
        maps: npt.NDArray[np.float32] = self._device.read(self._maps)[0]
        return maps

    def close(self) -> None:
        """Wait for what was started and let go of all memory on the device; the slot cannot be used after that."""
        self._recorded.close()
        del self._recorded, self._maps, self._image, self._answer
