"""What the supervisor knows of a stage, and what it says of a run at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from acquisition.safety.hardware_state import DeviceSafety
from liveptv.session.frame_account import DROPS, IN_CAMERA, IN_RECORDING
from liveptv.session.plan import Picture, StagePlan
from liveptv.session.processes import Worker
from liveptv.session.snapshots import Snapshot
from stream.messages import Status

Counts = dict[str, int]


@dataclass(slots=True)
class StageView:
    """One stage, over all its lives."""

    plan: StagePlan
    worker: Worker
    upstream: str | None
    status: Status | None = None
    heard_s: float = math.inf
    waits_for_peers: bool = False
    ready: bool = False
    over: bool = False
    failure: str = ""
    restarts: int = 0
    began_s: float = field(default_factory=time.monotonic)
    past_counts: Counts = field(default_factory=dict)

    @property
    def counts(self) -> Counts:
        """Totals over all lives of the stage."""
        current = self.status.counts if self.status else {}
        names = {*self.past_counts, *current}
        return {name: self.past_counts.get(name, 0) + current.get(name, 0) for name in sorted(names)}

    def gauge(self, name: str) -> float:
        """A momentary value, NaN where unknown."""
        return self.status.gauges.get(name, math.nan) if self.status else math.nan


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment, for whoever watches it; what is not known is NaN."""

    stage: str
    frames: int
    frames_expected: int | None
    frames_per_s: float
    queue: float
    lost: int
    particles: float
    tracks: float
    latency_ms: float
    running_s: float
    stopping: str
    late: str = ""


@dataclass(frozen=True, slots=True)
class SessionResult:
    """How a run ended.

    `started` tells whether the source was asked for its first frame; `failures` holds a line a stage that did
    not come to its regular end; `safety` is what is known of each device that has a safe state.
    """

    run_id: str
    started: bool
    reason: str
    failures: tuple[str, ...]
    counts: dict[str, Counts]
    picture: Picture | None
    snapshot: Snapshot | None
    duration_s: float
    safety: tuple[DeviceSafety, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every stage came to its regular end."""
        return not self.failures

    def count(self, stage: str, name: str) -> int:
        """A stage's total; 0 where it has none of that name."""
        return self.counts.get(stage, {}).get(name, 0)

    @property
    def lost(self) -> dict[str, int]:
        """Frames that were taken and are in no result, by where they were lost."""
        return lost_frames(self.counts)


def lost_frames(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Frames declared lost so far, by where: in camera or recording, before a stage, in a spoilt file.

    The account of a run that is over is `liveptv.session.frame_account`.
    """
    acquire = counts.get("acquire", {})
    found = {
        IN_CAMERA: acquire.get("lost_in_camera", 0),
        IN_RECORDING: acquire.get("lost_in_recording", 0),
    }
    return found | {where: counts.get(stage, {}).get(name, 0) for where, stage, name in DROPS}
