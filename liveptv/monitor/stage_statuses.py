"""The newest status of each pipeline stage: its counts, its momentary values, and whether it still reports."""

from __future__ import annotations

import math
import time
from typing import Any

from liveptv.session.run_status import lost_frames
from stream.messages import StageState, Status

STAGES = ("acquire", "detect", "track", "write", "control", "record")
# Seconds without a status after which momentary values are no longer shown. Stages report five times a second; a
# much shorter time makes numbers flicker on a loaded computer, a longer one shows old values as present.
FRESH_S = 2.0


class StageStatuses:
    """Keeps the newest `Status` of each stage by the stage's name."""

    def __init__(self) -> None:
        self._statuses: dict[str, Status] = {}
        self._heard_s: dict[str, float] = {}

    def heard(self, status: Status) -> None:
        """Take a status that has just arrived."""
        self._statuses[status.stage] = status
        self._heard_s[status.stage] = time.monotonic()

    def of(self, stage: str) -> Status | None:
        """The newest status of a stage; None before its first."""
        return self._statuses.get(stage)

    def gauge(self, stage: str, name: str) -> float:
        """A momentary value; NaN where unknown, and where the stage no longer reports."""
        status = self._statuses.get(stage)
        if status is None or time.monotonic() - self._heard_s[stage] > FRESH_S:
            return math.nan
        return status.gauges.get(name, math.nan)

    def losses(self) -> dict[str, int]:
        """Frames lost, by where."""
        return lost_frames({name: status.counts for name, status in self._statuses.items()})

    def state(self, *, over: bool, failed: bool, paused: bool) -> str:
        """One word for the run: waiting, starting, running, paused, ending, ended, failed."""
        states = {name: status.state for name, status in self._statuses.items()}
        if over:
            return "failed" if failed or StageState.FAILED in states.values() else "ended"
        if not states:
            return "waiting"
        if states.get("acquire") in {StageState.DRAINING, StageState.DONE}:
            return "ending"
        if states.get("acquire") is StageState.RUNNING:
            return "paused" if paused else "running"
        return "starting"

    def table(self) -> list[dict[str, Any]]:
        """A row for each stage that has reported, in the order of the pipeline, JSON-able."""
        return [
            {
                "name": name,
                "state": str(status.state),
                "received": status.counts.get("received", 0),
                "sent": status.counts.get("sent", status.counts.get("frames", 0)),
                "dropped": status.counts.get("dropped", 0),
                "queue": plain(status.gauges.get("queue", math.nan)),
                "ms": plain(status.gauges.get("detect_ms", status.gauges.get("step_ms", math.nan))),
            }
            for name in STAGES
            if (status := self._statuses.get(name)) is not None
        ]


def plain(value: float) -> float | None:
    """A number as JSON has it: NaN and infinity become None."""
    return round(float(value), 5) if math.isfinite(value) else None
