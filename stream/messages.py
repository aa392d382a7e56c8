"""The messages that pass between the stages: one frozen, slotted dataclass each.

Inside, particles are a structure of arrays: one C-contiguous float64 array of shape (columns, N) whose rows
are named by `COLUMNS` and reachable as properties, so that a message is sent without a copy.
Every message about a frame carries that frame's `FrameInfo`; nothing downstream has to look it up again.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag, StrEnum
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from stream.volume_info import VolumeInfo

FloatArray = npt.NDArray[np.float64]
ImageArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
NAN = float("nan")
LONGEST_AGE_MS = 3.6e6  # an hour; a frame that seems older, or younger than 0, has another computer's clock
FLAGS = "flags"
"""The column of whole numbers that say what is special about a row; always the last."""


class FitDecision(IntEnum):
    """How much of the fit was done in a frame: all without a limit, as much as there was time for, none for want
    of time, none because the fit was still being compiled."""

    WHOLE = 0
    LIMITED = 1
    NO_TIME = 2
    NOT_COMPILED = 3


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the detector of a run decided about a frame by the clock, so that a replay can do the same.

    `opened` changes whenever the detector was opened anew (started again, another pixel size), and `replaced` says
    that ONNX Runtime had taken over from a back end that failed. `predicted_from` is the frame whose predictions
    the detector began from. Of the fit: `fit` says how much of it, `credit` is the cost (in lone particles) up to
    which groups of particles were fitted (infinite: all of them), `turns_from` the frame that says how long each
    particle has waited for its fit, `learnt_from` the last frame from whose fits errors and brightness were known.
    -1 stands for no frame.
    """

    opened: int = 0
    replaced: bool = False
    predicted_from: int = -1
    fit: FitDecision = FitDecision.WHOLE
    credit: float = math.inf
    turns_from: int = -1
    learnt_from: int = -1


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """Everything known about a frame except its pixels.

    `frame` is our own sequence number, counted from 0 at the source before anything can be dropped.
    `camera_frame` is the camera's image number; a gap in it is a frame lost in the camera or its driver.
    `time_s` is the exposure time in seconds since the run began, from the camera's clock where there is one,
    else from the host's. `monotonic_ns` is `time.perf_counter_ns()` of the host that took the frame.
    Focus and flow are NaN where the microscope has none. `flow_ul_s` is the pump's set-point. `detector_ms` is the
    time that the detector spent on the frame, waiting excluded; NaN before detection. `age_ms` is how old the
    result was when the tracker had it, since `monotonic_ns`; NaN before, and where frames
    have no clock's pace. `decisions` are the detector's: of a result, what it has done; of a frame, what it is to
    do, as in an earlier run. `volume` describes the slices of a volume, None for an image; `focus_um` is then the
    focus of the first slice, and `time_s` the time to which those of the slices refer.
    """

    run_id: str
    frame: int
    camera_frame: int
    time_s: float
    monotonic_ns: int
    wall_s: float
    camera_time_s: float = NAN
    focus_um: float = NAN
    focus_commanded_um: float = NAN
    flow_ul_s: float = NAN
    exposure_ms: float = NAN
    pixel_size_um: float = 1.0
    detector_ms: float = NAN
    age_ms: float = NAN
    decisions: Decisions | None = None
    volume: VolumeInfo | None = None

    def age_ms_at(self, now_ns: int) -> float:
        """Age of the frame, ms, at `now_ns` (`time.perf_counter_ns`); NaN on another computer than its camera's."""
        age_ms = (now_ns - self.monotonic_ns) / 1e6
        return age_ms if 0 <= age_ms < LONGEST_AGE_MS else NAN


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image, (H, W), or one volume, (Z, H, W), uint8 or uint16; a volume has an `info.volume`."""

    info: FrameInfo
    image: ImageArray


class Column:
    """A named row of a particle table, read as an attribute: an array of shape (N,), float64."""

    index: int

    def __get__(self, table: ParticleTable, owner: type[ParticleTable]) -> FloatArray:
        row: FloatArray = table.table[self.index]
        return row


class ParticleTable:
    """What `Detections` and `Tracks` share: named rows of one array."""

    __slots__ = ()
    COLUMNS: ClassVar[tuple[str, ...]] = ()
    MORE: ClassVar[tuple[str, ...]] = ()
    """The columns that are NaN where nothing is known, and that tables and files have only where something is."""
    info: FrameInfo
    table: FloatArray

    def __init_subclass__(cls) -> None:
        columns = {name: value for name, value in vars(cls).items() if isinstance(value, Column)}
        cls.COLUMNS = tuple(columns)
        for index, column in enumerate(columns.values()):
            column.index = index

    def __post_init__(self) -> None:
        if self.table.ndim != 2 or self.table.shape[0] != len(self.COLUMNS):
            raise ValueError(
                f"{type(self).__name__} needs a table of shape ({len(self.COLUMNS)}, N), "
                f"not {self.table.shape}"
            )

    def __len__(self) -> int:
        return int(self.table.shape[1])

    @classmethod
    def from_columns(cls, info: FrameInfo, **columns: npt.ArrayLike) -> Self:
        """Build a table from named columns of length N or single numbers; those left out are NaN, `flags` 0."""
        unknown = set(columns) - set(cls.COLUMNS)
        if unknown:
            raise ValueError(f"{cls.__name__} has no column {sorted(unknown)}")
        sizes = [np.size(np.asarray(c)) for c in columns.values() if np.ndim(c) > 0]
        count = sizes[0] if sizes else min(1, len(columns))
        table = np.full((len(cls.COLUMNS), count), NAN)
        for index, name in enumerate(cls.COLUMNS):
            if name in columns:
                table[index] = columns[name]
            elif name == FLAGS:
                table[index] = 0.0
        return cls(info, table)  # type: ignore[call-arg]

    @classmethod
    def empty(cls, info: FrameInfo) -> Self:
        """Build a table without rows."""
        return cls(info, np.empty((len(cls.COLUMNS), 0)))  # type: ignore[call-arg]


class DetectionFlag(IntFlag):
    """What is special about a row of `Detections`."""

    NONE = 0
    REDUCED = 1
    AT_END = 2


@dataclass(frozen=True, slots=True, eq=False)
class Detections(ParticleTable):
    """The particles found in one frame.

    x, y in um from the centre of the first pixel; z in um is the particle's height minus the focus position
    (NaN in 2D), in a volume the height above its first slice; `sigma_*_um` standard errors; `brightness` in grey
    values, positive for either polarity; `confidence` 0 to 1. `flags` are those of `DetectionFlag`: a row whose fit
    was left out for want of time is `REDUCED` and has the network's values and standard errors; a particle so near
    to the first or last slice of a volume that part of its image is missing is `AT_END`.

    What is not known is NaN: `z_other_um`, a second depth that explains the image nearly as well, and `p_other`,
    the probability that it is the true one; `chi_square` of the fit, reduced, in what noise alone gives; `kind`,
    the class of the particle (0, 1, ...), and `p_kind`, its probability; `time_offset_s`, in a volume, the time of
    the slices in which the particle is seen, minus the frame's `time_s`.
    """

    MORE: ClassVar[tuple[str, ...]] = (
        "z_other_um", "p_other", "chi_square", "kind", "p_kind", "time_offset_s",
    )  # fmt: skip
    info: FrameInfo
    table: FloatArray
    x_um = Column()
    y_um = Column()
    z_um = Column()
    sigma_x_um = Column()
    sigma_y_um = Column()
    sigma_z_um = Column()
    brightness = Column()
    confidence = Column()
    z_other_um = Column()
    p_other = Column()
    chi_square = Column()
    kind = Column()
    p_kind = Column()
    time_offset_s = Column()
    flags = Column()


class TrackFlag(IntFlag):
    """What is special about a row of `Tracks`; `REDUCED` rows have a detection that is `DetectionFlag.REDUCED`."""

    NONE = 0
    PREDICTED = 1
    SECOND_DETECTION = 2
    TENTATIVE = 4
    REDUCED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Tracks(ParticleTable):
    """The tracks that exist in one frame, one row each.

    Positions are as measured, not smoothed; a row without a detection holds the filter's prediction and is
    flagged `PREDICTED`. Velocities and their standard errors come from the filter, um/s. `age_frames` counts
    frames since the track's first detection; `detection` is the row in that frame's `Detections`, or -1.

    What is not known is NaN. `z_other_um` is the depth on the other side of focus, `p_side` the probability that
    `z_um` is on the right one. `revised` is the number of frames before this one whose rows of this track are on
    the wrong side, as is known now: there `z_um` and `z_other_um` are to be exchanged (0: none, NaN as well).
    `kind` is the class of the particle, from all of the track's detections, and `p_kind` its probability.
    `time_offset_s` is that of the row's detection.

    Where the row's detection has a second depth, `z_detected_um`, `sigma_z_detected_um`, `z_other_detected_um` and
    `p_other` are those of the detection; where it has a class, that is in `kind_detected` and `p_kind_detected`.

    `track_before` is the number under which this track's row of the frame before was sent, where that was another:
    the links of that frame were decided anew. All rows of that frame with such a number have changed at once, so
    that of two tracks which exchange theirs either says it (see `tracking.trajectories.relinking`).
    """

    MORE: ClassVar[tuple[str, ...]] = (
        "z_other_um", "p_side", "revised", "kind", "p_kind", "time_offset_s",
    )  # fmt: skip
    DETECTED: ClassVar[tuple[str, ...]] = (
        "z_detected_um", "sigma_z_detected_um", "z_other_detected_um", "p_other",
        "kind_detected", "p_kind_detected",
    )  # fmt: skip
    """What the row's own detection said, before the tracker decided; with the other columns it gives it back."""
    LINKED: ClassVar[tuple[str, ...]] = ("track_before",)
    info: FrameInfo
    table: FloatArray
    track = Column()
    x_um = Column()
    y_um = Column()
    z_um = Column()
    sigma_x_um = Column()
    sigma_y_um = Column()
    sigma_z_um = Column()
    vx_um_s = Column()
    vy_um_s = Column()
    vz_um_s = Column()
    sigma_vx_um_s = Column()
    sigma_vy_um_s = Column()
    sigma_vz_um_s = Column()
    brightness = Column()
    confidence = Column()
    age_frames = Column()
    detection = Column()
    z_other_um = Column()
    p_side = Column()
    revised = Column()
    kind = Column()
    p_kind = Column()
    time_offset_s = Column()
    z_detected_um = Column()
    sigma_z_detected_um = Column()
    z_other_detected_um = Column()
    p_other = Column()
    kind_detected = Column()
    p_kind_detected = Column()
    track_before = Column()
    flags = Column()


@dataclass(frozen=True, slots=True, eq=False)
class Predictions(ParticleTable):
    """What the tracker knows of its 3D tracks after a frame: a hint for the detector in a later frame.

    Tracks of two detections are flagged tentative until they are confirmed.

    `info` is the frame whose detections the tracker used last. Its `focus_um` is the focus that the tracker took
    for it (where the frame has no reading, the last one before, or 0), always finite. `height_um` is focus + z, so
    that a move of the focus is no motion. Positions are filtered, um; velocities in um/s. The state (p, v) of an
    axis has the covariance (pp, pv, vv), um^2, um^2/s and um^2/s^2; `q*_um2_s` is the variance of its random step
    per second. A time t later the position is p + v t with the variance pp + 2 t pv + t^2 vv + q t.

    `brightness`, grey values, is the mean of the last detections, `hits` the number of detections so far, `missed`
    the camera frames since the last one (0: detected in this frame). `kind` is the class of the particle, NaN where
    it is not known. `flags` are those of `TrackFlag`.
    """

    MORE: ClassVar[tuple[str, ...]] = ("kind",)
    info: FrameInfo
    table: FloatArray
    track = Column()
    x_um = Column()
    y_um = Column()
    height_um = Column()
    vx_um_s = Column()
    vy_um_s = Column()
    vz_um_s = Column()
    pp_x = Column()
    pp_y = Column()
    pp_z = Column()
    pv_x = Column()
    pv_y = Column()
    pv_z = Column()
    vv_x = Column()
    vv_y = Column()
    vv_z = Column()
    qx_um2_s = Column()
    qy_um2_s = Column()
    qz_um2_s = Column()
    brightness = Column()
    hits = Column()
    missed = Column()
    kind = Column()
    flags = Column()


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
