"""Copies of frames and detections for viewers, so many that the run does not notice."""

from __future__ import annotations

from stream.messages import Detections, Frame
from stream.monitor import Publisher

PICTURE_BYTES_PER_S = 60e6
"""Bytes of images and volumes a second that viewers are sent at most: 11 volumes of 512 x 512 x 10. Copying that
takes a few per cent of a core (memory moves some GB/s); without a limit, two of the largest volumes a second would
take much of one."""


class ViewerCopies:
    """Gives `monitor` all detections, and at most `hz` images a second, fewer of large ones; None: nobody looks."""

    def __init__(self, monitor: Publisher | None, hz: float) -> None:
        self._monitor = monitor
        self._period_s = 1.0 / hz
        self._due_s = 0.0

    def publish(self, frame: Frame, detections: Detections, now_s: float) -> None:
        """Copies of a frame and what was found in it."""
        if self._monitor is None:
            return
        if now_s >= self._due_s:
            self._due_s = now_s + max(self._period_s, frame.image.nbytes / PICTURE_BYTES_PER_S)
            self._monitor.publish(frame)
        self._monitor.publish(detections)
