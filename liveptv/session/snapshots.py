"""Keeps one camera image of the run together with its detections, for the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from stream.messages import Detections, Frame
from stream.monitor import MonitorSubscriber
from stream.sockets import Security

MESSAGES_PER_POLL = (
    20  # the monitor sends a few messages a second; the limit keeps a flood from blocking the session
)
PERIOD_S = 5.0
"""Time between two pairs, s. Each costs a copy of the image in the detector and its way through a socket (10 ms of
processor time for a full frame); the report shows the last, which is at most so old at the end of the run."""
MOST_WAITING = 64  # images or detections that wait for their partner; only one in some frames has an image


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frame with its own detections."""

    frame: Frame
    detections: Detections


class SnapshotTaker:
    """Subscribes to the detector's monitor and pairs images with detections of the same frame number.

    After each pair it rests for `PERIOD_S`; while nobody else watches, the detector then copies no image.
    """

    def __init__(self, address: str, security: Security | None = None) -> None:
        self._monitor = MonitorSubscriber(address, security=security)
        self._frames: dict[int, Frame] = {}
        self._found: dict[int, Detections] = {}
        self._rests_until_s: float | None = None
        self.best: Snapshot | None = None

    def poll(self) -> None:
        """Take what has arrived, without waiting; the newest complete pair is `best`."""
        if self._rests_until_s is not None and time.monotonic() >= self._rests_until_s:
            self._rests_until_s = None
            self._monitor.resume()
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
                self._rest()

    def _rest(self) -> None:
        if self._rests_until_s is None:
            self._rests_until_s = time.monotonic() + PERIOD_S
            self._monitor.pause()
        self._frames.clear()
        self._found.clear()

    @staticmethod
    def _keep(store: dict[int, Any], number: int, message: Frame | Detections) -> None:
        store[number] = message
        while len(store) > MOST_WAITING:
            del store[next(iter(store))]

    def close(self) -> None:
        """Close the subscription."""
        self._monitor.close()
