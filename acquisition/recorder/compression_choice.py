"""How much an image is compressed: as much as processors are idle, so that the detector loses no time by it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Literal

import psutil

from acquisition.recorder.packing import Packed

LOOK_S = 0.5
"""Time over which idle processors are counted, s. The kernel counts in steps of 10 ms: 0.5 s give 1 % of two
processors; a longer time follows a detector that starts to need them more slowly."""
SHARE = 0.5
"""Part of the idle time that compression may take: the detector's own need jumps from frame to frame."""
LEAST_IDLE = 0.5
"""Idle processors that must be left beside it, in processors: an image takes up to 8 ms of one, and a thread of the
detector that wakes up meanwhile needs another. Less makes results late, more compresses less."""
FADE = 0.2  # weight of a new measurement of the time for one image, so that one odd image changes little


class CompressionChoice:
    """Chooses for each image. A fixed choice stays; `auto` follows the idle time and the queue of images."""

    def __init__(
        self,
        asked: Literal["auto", "none", "lz4", "zstd"],
        *,
        idle: Callable[[], float] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`idle` gives the idle processors since its last call (in processors)."""
        self._fixed = None if asked == "auto" else Packed(asked)
        self._idle = idle or IdleProcessors()
        self._now = now
        self._cost_s: dict[Packed, float] = {}
        self._used_s = 0.0
        self._images = 0
        self._since_s = now()
        self._level = Packed.NONE
        self._ratio = self._write_s = 0.0
        self.counts = dict.fromkeys(Packed, 0)

    def next(self, hurried: bool) -> Packed:
        """How to pack the next image; `hurried`: others wait behind it."""
        if self._fixed is not None:
            return self._fixed
        for level in (Packed.LZ4, Packed.ZSTD):
            if level not in self._cost_s and not hurried:
                return level  # the first images tell what each costs
        self._look()
        if not hurried or self._level is Packed.NONE:
            return self._level
        saved_s = self._write_s * (1 - self._ratio)
        return Packed.LZ4 if self._cost_s.get(Packed.LZ4, saved_s) < saved_s else Packed.NONE

    def wrote(self, ratio: float, seconds: float) -> None:
        """A packed image, `ratio` of its size, was written within `seconds`."""
        if ratio < 1:
            self._ratio += FADE * (ratio - self._ratio)
        self._write_s += FADE * (seconds / ratio - self._write_s)

    def took(self, level: Packed, cpu_s: float) -> None:
        """An image was packed in `cpu_s` of processor time."""
        self.counts[level] += 1
        self._images += 1
        if level is not Packed.NONE:
            self._used_s += cpu_s
            before = self._cost_s.get(level, cpu_s)
            self._cost_s[level] = before + FADE * (cpu_s - before)

    def _look(self) -> None:
        now_s = self._now()
        lasted_s = now_s - self._since_s
        if lasted_s < LOOK_S:
            return
        used, rate = self._used_s / lasted_s, self._images / lasted_s
        available = self._idle() + used
        self._since_s, self._used_s, self._images = now_s, 0.0, 0
        self._level = Packed.NONE
        for level, cost_s in self._cost_s.items():
            needed = cost_s * rate
            if needed <= SHARE * available and available - needed >= LEAST_IDLE:
                self._level = level


class IdleProcessors:
    """Idle processors of this computer since the last call."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def __call__(self) -> float:
        """In processors, such as 1.7 of 2."""
        now, before = psutil.cpu_times(), self._before
        self._before = now
        total = sum(now) - sum(before)
        return (os.cpu_count() or 1) * (now.idle - before.idle) / total if total > 0 else 0.0
