"""The messages that pass between the stages: one frozen, slotted dataclass each, to import from one place.

Frames are in `stream.frames`, particles in `stream.particle_tables`. Every message about a frame carries that
frame's `FrameInfo`; nothing downstream has to look it up again.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from enum import StrEnum

from stream.frames import (
    LONGEST_AGE_MS,
    NAN,
    Decisions,
    FitDecision,
    Frame,
    FrameInfo,
    ImageArray,
)
from stream.particle_properties import NO_PROPERTIES, Properties
from stream.particle_tables import (
    FLAGS,
    Column,
    DetectionFlag,
    Detections,
    FloatArray,
    ParticleTable,
    Predictions,
    TrackFlag,
    Tracks,
)

__all__ = [
    "FLAGS",
    "LONGEST_AGE_MS",
    "MADE_SAFE",
    "NAN",
    "NO_EFFECT",
    "NO_PROPERTIES",
    "Column",
    "Command",
    "CommandKind",
    "CommandReply",
    "Decisions",
    "DetectionFlag",
    "Detections",
    "FitDecision",
    "FloatArray",
    "Frame",
    "FrameInfo",
    "ImageArray",
    "Message",
    "ParticleTable",
    "Predictions",
    "Properties",
    "StageState",
    "Status",
    "StreamEnd",
    "StreamStart",
    "TrackFlag",
    "Tracks",
]


class CommandKind(StrEnum):
    """The commands that are carried out between two frames."""

    SET_PROPERTY = "set_property"
    MOVE_FOCUS = "move_focus"
    SET_FLOW = "set_flow"
    SET_EXPOSURE = "set_exposure"
    SET_SHUTTER = "set_shutter"
    TRIGGER = "trigger"
    NEXT_SLICE = "next_slice"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    HEARTBEAT = "heartbeat"
    MAKE_SAFE = "make_safe"
    MARK = "mark"
    CONTROL = "control"
    RECORD = "record"


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Command:
    """A command for the microscope. `value` is in um for focus, uL/s for flow, ms for exposure.

    `decided_on_frame` is the frame whose tracks led to the command, -1 for a command from a person. With
    `at_time_s`, on the clock of `FrameInfo.time_s`, it is carried out at that time instead of at once. A
    `heartbeat` reports that a live result has been processed. `make_safe` brings the hardware into its safe state;
    its value is the reason. A `mark` is for the session, which writes its value into the event log. `control` is
    for the control stage and selects another controller (`tracking.control.switch`). A `record` is for the record
    stage, which keeps the frames around it: its value is why (text), or for how many seconds it keeps what follows
    (a number; `property` may then say why).
    """

    kind: CommandKind
    value: float | str | None = None
    device: str = ""
    property: str = ""
    decided_on_frame: int = -1
    sender: str = ""
    command_id: str = field(default_factory=_new_id)
    at_time_s: float = NAN


MADE_SAFE = (
    "the hardware was made safe"  # the refusal begins so while only a person's commands are carried out
)

NO_EFFECT = "without effect"
"""The refusal of a command begins so in a replay, which has no microscope."""


@dataclass(frozen=True, slots=True)
class CommandReply:
    """The answer to a command: the first frame taken after it took effect, or why it was refused.

    `monotonic_ns` is the time of the answer, `executed_ns` the time at which the device had taken the command (0:
    it did not).
    """

    command_id: str
    accepted: bool
    first_frame: int = -1
    reason: str = ""
    monotonic_ns: int = 0
    executed_ns: int = 0


class StageState(StrEnum):
    """State of a pipeline stage: starting -> running -> draining -> done; failed from any of them."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Status:
    """Report of a pipeline stage: counts are totals since its start, gauges are current values."""

    run_id: str
    stage: str
    state: StageState
    counts: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    text: str = ""
    monotonic_ns: int = 0


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Opens a stream: its sender and the name of the run."""

    run_id: str
    source: str


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """Closes a stream: messages offered, messages declared dropped, and why the stream ended."""

    run_id: str
    source: str
    offered: int
    dropped: int
    reason: str = "done"


Message = (
    Frame | Detections | Tracks | Predictions | Command | CommandReply | Status | StreamStart | StreamEnd
)
