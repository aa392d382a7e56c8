"""Controller of `liveptv bench latency`: sends a command every few frames and records its times."""

from __future__ import annotations

import time

from stream.messages import Command, CommandKind, Tracks


class LatencyProbe:
    """Changes the pump slightly up and down; `measured` has the times at which frame and tracks were available."""

    def __init__(self, flow_ul_s: float, every_frames: int = 6) -> None:
        self._flow_ul_s = flow_ul_s
        self._every = every_frames
        self._last = -every_frames
        self._up = False
        self._stamps: dict[str, float] = {}

    def measured(self) -> dict[str, float]:
        """`taken_ns`: the core got the frame; `tracks_ns`: its tracks were here; both `time.perf_counter_ns()`.

        `detector_ms`: for how long the detector worked on it.
        """
        return self._stamps

    def update(self, tracks: Tracks) -> list[Command]:
        """A command every few frames."""
        now_ns, info = time.perf_counter_ns(), tracks.info
        self._stamps = {
            "taken_ns": float(info.monotonic_ns),
            "tracks_ns": float(now_ns),
            "detector_ms": info.detector_ms,
        }
        if info.frame - self._last < self._every:
            return []
        self._last, self._up = info.frame, not self._up
        return [Command(CommandKind.SET_FLOW, self._flow_ul_s * (1.01 if self._up else 0.99))]
