"""Keeps one camera image of the run together with its detections, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stream.messages import Detections, Frame
from stream.monitor import MonitorSubscriber
from stream.sockets import Security

MESSAGES_PER_POLL = (
    20  # the monitor sends a few messages a second; the limit keeps a flood from blocking the session
)
MOST_WAITING = 64  # images or detections that wait for their partner; only one in some frames has an image


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frame with its own detections."""

    frame: Frame
    detections: Detections


class SnapshotTaker:
    """Subscribes to the detector's monitor and pairs images with detections of the same frame number."""

    def __init__(self, address: str, security: Security | None = None) -> None:
        self._monitor = MonitorSubscriber(address, security=security)
        self._frames: dict[int, Frame] = {}
        self._found: dict[int, Detections] = {}
        self.best: Snapshot | None = None

    def poll(self) -> None:
        """Take what has arrived, without waiting; the newest complete pair is `best`."""
        for _ in range(MESSAGES_PER_POLL):
            message = self._monitor.receive(0.0)
            if message is None:
                return
            if isinstance(message, Frame):
                self._keep(self._frames, message.info.frame, message)
            elif isinstance(message, Detections):
                self._keep(self._found, message.info.frame, message)
            else:
                continue
            number = message.info.frame
            if number in self._frames and number in self._found:
                self.best = Snapshot(self._frames.pop(number), self._found.pop(number))

    @staticmethod
    def _keep(store: dict[int, Any], number: int, message: Frame | Detections) -> None:
        store[number] = message
        while len(store) > MOST_WAITING:
            del store[next(iter(store))]

    def close(self) -> None:
        """Close the subscription."""
        self._monitor.close()
