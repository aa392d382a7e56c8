"""The state of a run: what the supervisor knows of each stage, the run's progress, and its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from acquisition.safety.hardware_state import DeviceSafety
from liveptv.session.compilation import COMPILING
from liveptv.session.frame_account import DROPS, lost_before_the_run
from liveptv.session.plan import ImageFormat, StagePlan
from liveptv.session.processes import Worker
from liveptv.session.snapshots import Snapshot
from liveptv.volumes.account import FRAME, VOLUME
from stream.messages import Status

Counts = dict[str, int]
NAMES = {
    "acquire": "camera",
    "detect": "detector",
    "track": "tracker",
    "write": "writer",
    "control": "controller",
    "record": "recorder",
}
"""What a user calls each pipeline stage, or what it waits for while it starts."""


@dataclass(slots=True)
class StageView:
    """One pipeline stage, together with earlier worker processes of it that were lost (`past_counts`)."""

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
    began_s: float = math.inf
    past_counts: Counts = field(default_factory=dict)

    @property
    def counts(self) -> Counts:
        """Totals of the stage, those of its earlier worker processes included."""
        current = self.status.counts if self.status else {}
        if not self.past_counts:
            return current
        names = {*self.past_counts, *current}
        return {name: self.past_counts.get(name, 0) + current.get(name, 0) for name in sorted(names)}

    def gauge(self, name: str) -> float:
        """A momentary value, NaN where unknown."""
        return self.status.gauges.get(name, math.nan) if self.status else math.nan


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment, for the terminal; unknown numbers are NaN."""

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
    paused: bool = False
    unit: str = FRAME


@dataclass(frozen=True, slots=True)
class SessionResult:
    """How a run ended.

    `started`: whether the source was told to deliver frames. `failures`: a line for each stage that did not end as
    it should. `safety`: what is known of each device that has a safe state. `checks`: what the self-check measured
    last, as `self_check.checks_of` has it. `recalibration`: facts of the last look and of the last proposal.
    """

    run_id: str
    started: bool
    reason: str
    failures: tuple[str, ...]
    counts: dict[str, Counts]
    image_format: ImageFormat | None
    snapshot: Snapshot | None
    duration_s: float
    safety: tuple[DeviceSafety, ...] = ()
    checks: dict[str, float] = field(default_factory=dict)
    recalibration: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every stage ended as it should."""
        return not self.failures

    def count(self, stage: str, name: str) -> int:
        """A stage's total; 0 where it has none of that name."""
        return self.counts.get(stage, {}).get(name, 0)

    @property
    def lost(self) -> dict[str, int]:
        """Frames that were exposed and are in no result, by where they were lost."""
        return lost_frames(self.counts)


def lost_frames(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Frames declared lost so far, by where: before the run, before a stage, in a spoilt file.

    For the final account of a run see `liveptv.session.frame_account`.
    """
    acquire = counts.get("acquire", {})
    return lost_before_the_run(acquire) | {
        where: counts.get(stage, {}).get(name, 0) for where, stage, name in DROPS
    }


def progress_of(
    stages: Mapping[str, StageView],
    *,
    frames_asked_for: int | None,
    image_format: ImageFormat | None,
    starting_s: float,
    running_s: float | None,
    stopping: str,
    late: str,
) -> Progress:
    """The progress of a run from what its stages have reported; `running_s` is None before the first frame."""
    counts = {name: view.counts for name, view in stages.items()}
    in_source = None if image_format is None else image_format.frames
    expected = [count for count in (frames_asked_for, in_source) if count is not None]
    return Progress(
        stage=_starting(stages, image_format is not None, starting_s) if running_s is None else "running",
        frames=counts.get("write", {}).get("sent", 0),
        frames_expected=min(expected, default=None),
        frames_per_s=stages["acquire"].gauge("frames_per_s"),
        queue=stages["acquire"].gauge("queue_detect"),
        lost=sum(lost_frames(counts).values()),
        particles=stages["detect"].gauge("particles"),
        tracks=stages["track"].gauge("tracks"),
        latency_ms=stages["track"].gauge("latency_ms"),
        running_s=0.0 if running_s is None else running_s,
        stopping=stopping,
        late=late,
        paused=stages["acquire"].gauge("paused") == 1.0,
        unit=VOLUME if image_format is not None and image_format.is_volume else FRAME,
    )


def _starting(stages: Mapping[str, StageView], is_open: bool, starting_s: float) -> str:
    """What is being waited for, and for how long, s. Only what stands in brackets changes while the same is done.

    `is_open`: whether the source is open; its stage is ready only once all others are.
    """
    waiting = {
        name: view for name, view in stages.items() if not (is_open if name == "acquire" else view.ready)
    }
    compiling = [NAMES.get(name, name) for name, view in waiting.items() if view.gauge(COMPILING) == 1.0]
    what = "waiting for the first frame"
    if compiling:
        what = f"compiling for this computer, once per installation: {', '.join(compiling)}"
    elif waiting:
        experiment = stages["acquire"].plan.experiment
        if experiment.source is not None and "acquire" in waiting:
            return f"waiting for frames from {experiment.source.in_words()} ({starting_s:.0f} s)"
        replays = experiment.recording is not None
        names = [NAMES.get(name, name) for name in waiting]
        what = f"starting {', '.join(names)}".replace("camera", "recording" if replays else "camera")
    return f"{what} ({starting_s:.0f} s)"
