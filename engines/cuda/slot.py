"""One of the frames in flight on a GPU: its buffers on both sides and its recorded work.

While one slot's image is copied to the GPU, another's is processed and a third's result is copied back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.cuda.device import Device
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

    def bind(self, raw: Any, kept: Any, summary: Any, maps: Any) -> Enqueue:
        """What processes the bytes in the tensor `raw` and writes its result to the others, all on the device."""
        ...


class Slot:
    """Buffers and work for one frame at a time. `fill` and `answer` alternate; they may be in different threads."""

    def __init__(self, device: Device, runner: Runner) -> None:
        self.frame = frame = runner.frame
        sent, raw = (make(frame.raw_shape, np.uint8) for make in (device.on_host, device.on_device))
        self._kept, kept = (make(frame.kept_shape, np.float32) for make in (device.on_host, device.on_device))
        self._summary, summary = (
            make(frame.summary_shape, np.float32) for make in (device.on_host, device.on_device)
        )
        self._maps = device.on_device(frame.maps_shape, np.float32)
        enqueue = runner.bind(raw, kept, summary, self._maps)

        def work(stream: int) -> None:
            raw.copy_(sent, non_blocking=True)
            enqueue(stream)
            self._kept.copy_(kept, non_blocking=True)
            self._summary.copy_(summary, non_blocking=True)

        self._image: npt.NDArray[Any] = sent.numpy().view(f"<u{frame.bytes_per_pixel}")
        self._image = self._image.reshape(frame.height, frame.width)
        self._recorded = device.record(work)

    def fill(self, image: npt.NDArray[Any]) -> None:
        """Copy an image (H, W) and start its processing."""
        np.copyto(self._image, image, casting="no")
        self._recorded.start()

    def answer(self) -> Answer:
        """Wait for the result, whose arrays are valid until the next image. Raises `RuntimeError` on failure."""
        self._recorded.wait()
        return Answer(self._kept.numpy(), self._summary.numpy())

    def maps(self) -> npt.NDArray[np.float32]:
        """All maps (H/4, W/4, slots, values) of the last image; a slow copy."""
        maps: npt.NDArray[np.float32] = self._maps[0].cpu().numpy()
        return maps
