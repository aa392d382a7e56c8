"""The header of a message on the wire: its fields, and the checks before anything in it is used."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np

from stream.errors import WireError
from stream.messages import (
    FLAGS,
    Command,
    CommandKind,
    CommandReply,
    Detections,
    FitDecision,
    Frame,
    Message,
    Predictions,
    StageState,
    Status,
    StreamEnd,
    StreamStart,
    Tracks,
)
from stream.particle_properties import check_names, property_columns
from stream.particle_tables import RESERVED

SCHEMA = 1
MAX_HEADER_BYTES = 64 * 1024
ITEM_BYTES = {"uint8": 1, "uint16": 2, "float64": 8}
TABLES: dict[str, type[Detections] | type[Tracks] | type[Predictions]] = {
    "detections": Detections,
    "tracks": Tracks,
    "predictions": Predictions,
}
TIME_OFFSET = "time_offset_s"
"""The column that came with volumes."""
BEFORE = "track_before"
"""The column that came with links that are decided anew."""
EARLIER = {
    "detections": (
        tuple(name for name in Detections.COLUMNS if name not in {*Detections.MORE, FLAGS}),
        tuple(name for name in Detections.COLUMNS if name not in Detections.MORE),
        tuple(name for name in Detections.COLUMNS if name != TIME_OFFSET),
    ),
    "tracks": (
        tuple(name for name in Tracks.COLUMNS if name not in {*Tracks.MORE, *Tracks.DETECTED, BEFORE}),
        tuple(name for name in Tracks.COLUMNS if name not in {*Tracks.DETECTED, TIME_OFFSET, BEFORE}),
        tuple(name for name in Tracks.COLUMNS if name not in {TIME_OFFSET, BEFORE}),
        tuple(name for name in Tracks.COLUMNS if name != BEFORE),
    ),
    "predictions": (),
}
"""The columns that tables had before; they are still read."""


def split_columns(kind: str, columns: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The table's own columns, present or earlier ones, and the names of the properties whose columns follow.

    Raises `WireError` if the columns are not those of a table of this kind.
    """
    table = TABLES[kind]
    for own in (table.COLUMNS, *EARLIER[kind]):
        rest = columns[len(own) :]
        if columns[: len(own)] != own:
            continue
        names = rest[: len(rest) // (2 * len(table.PREFIXES))] if table.PREFIXES else ()
        if rest == property_columns(names, table.PREFIXES):
            try:
                check_names(names, RESERVED)
            except ValueError as error:
                raise WireError(f"{kind} with columns that cannot be: {error}") from error
            return own, names
    raise WireError(f"{kind} with columns {list(columns)}; expected {list(table.COLUMNS)}")


Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Shape: TypeAlias = Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=3)]
Kind: TypeAlias = Literal[
    "frame", "detections", "tracks", "predictions", "command", "ack", "status", "start", "end"
]
KINDS: dict[type[Message], Kind] = {
    Frame: "frame",
    Detections: "detections",
    Tracks: "tracks",
    Predictions: "predictions",
    Command: "command",
    CommandReply: "ack",
    Status: "status",
    StreamStart: "start",
    StreamEnd: "end",
}
Number: TypeAlias = float | None


class LinkFields(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fields that a message link or a publisher adds to a message.

    `sequence` counts the messages of this sender from 0; `sender` is a random identity, new at every start, so that
    a restarted sender is recognised. Over shared memory the buffer lies in slot `slot` of the ring. `sent_ns` is
    `time.perf_counter_ns()` of the sending host.
    """

    sequence: Count
    sender: str
    slot: Int64 = -1
    sent_ns: Int64 = 0


class DecisionFields(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of `Decisions`; a credit of null is infinite."""

    opened: Count = 0
    replaced: bool = False
    predicted_from: Int64 = -1
    fit: FitDecision = FitDecision.WHOLE
    credit: Number = None
    turns_from: Int64 = -1
    learnt_from: Int64 = -1


class VolumeFields(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of `VolumeInfo`."""

    z_um: tuple[float, ...]
    time_s: tuple[float, ...] = ()
    missing: tuple[Count, ...] = ()
    upwards: bool = True


class InfoFields(msgspec.Struct, frozen=True):
    """`FrameInfo` without the fields in the header (`run_id`, `frame`); null is NaN, no decisions, or no volume."""

    camera_frame: Int64
    time_s: Number
    monotonic_ns: Int64
    wall_s: Number
    camera_time_s: Number = None
    focus_um: Number = None
    focus_commanded_um: Number = None
    flow_ul_s: Number = None
    exposure_ms: Number = None
    pixel_size_um: Number = 1.0
    detector_ms: Number = None
    age_ms: Number = None
    decisions: DecisionFields | None = None
    volume: VolumeFields | None = None


class CommandFields(msgspec.Struct, frozen=True):
    """The fields of `Command`; null stands for NaN."""

    kind: CommandKind
    value: float | str | None
    device: str
    property: str
    decided_on_frame: Int64
    sender: str
    command_id: str
    at_time_s: Number = None


class AckFields(msgspec.Struct, frozen=True):
    """The fields of `CommandReply`."""

    command_id: str
    accepted: bool
    first_frame: Int64
    reason: str
    monotonic_ns: Int64
    executed_ns: Int64 = 0


class StatusFields(msgspec.Struct, frozen=True):
    """The fields of `Status` except `run_id`; null stands for NaN."""

    stage: str
    state: StageState
    counts: dict[str, Int64]
    gauges: dict[str, Number]
    text: str
    monotonic_ns: Int64


class StartFields(msgspec.Struct, frozen=True):
    """The fields of `StreamStart` except `run_id`."""

    source: str


class EndFields(msgspec.Struct, frozen=True):
    """The fields of `StreamEnd` except `run_id`."""

    source: str
    offered: Count
    dropped: Count
    reason: str


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first part of a message; `htype` and `source` come first so that prefix subscription works."""

    htype: Literal["array-1.0"]
    source: str
    kind: Kind
    schema: Int64
    type: Literal["uint8", "uint16", "float64"]
    shape: Shape
    frame: Int64 = -1
    run_id: str = ""
    columns: tuple[str, ...] = ()
    info: InfoFields | None = None
    command: CommandFields | None = None
    ack: AckFields | None = None
    status: StatusFields | None = None
    start: StartFields | None = None
    end: EndFields | None = None
    link: LinkFields | None = None

    @property
    def payload_bytes(self) -> int:
        """Length of the buffer that belongs to this header, bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.type]


def _plain(value: Any) -> Any:
    """Convert numpy scalars, which easily get into the fields, to Python numbers."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written into a header")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_decoder = msgspec.json.Decoder(Header)


def encode_header(header: Header) -> bytes:
    """Return the bytes of a header. It is decoded again as a check, so that no receiver refuses it.

    Raises `WireError` for an integer beyond 64 bits, a text that is not valid Unicode, a header beyond 64 kB.
    """
    try:
        data = _encoder.encode(header)
        _decoder.decode(data)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"{header.kind} cannot be sent: {error}") from error
    if len(data) > MAX_HEADER_BYTES:
        raise WireError(
            f"{header.kind} cannot be sent: its header has {len(data)} bytes, the limit is "
            f"{MAX_HEADER_BYTES}; shorten its texts"
        )
    return data


def decode_header(data: bytes | bytearray | memoryview) -> Header:
    """Parse and check the first part of a message; raises `WireError` if it is not a valid header."""
    if len(data) > MAX_HEADER_BYTES:
        raise WireError(f"header of {len(data)} bytes, the limit is {MAX_HEADER_BYTES}")
    try:
        header = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"not a valid header: {error}") from error
    if header.schema != SCHEMA:
        raise WireError(f"header of schema version {header.schema}; this program reads version {SCHEMA}")
    check_shape(header)
    return header


def check_shape(header: Header) -> None:
    """Raise `WireError` unless shape, type, columns and frame number fit the kind of message."""
    kind, shape = header.kind, list(header.shape)
    if kind == "frame":
        if header.type == "float64" or len(shape) not in {2, 3} or 0 in shape:
            raise WireError(
                f"frame of shape {shape} and type {header.type}; frames are 2D or 3D, uint8 or uint16"
            )
        described = None if header.info is None else header.info.volume
        if described is not None and (len(shape) != 3 or len(described.z_um) != shape[0]):
            raise WireError(f"frame of shape {shape} with the heights of {len(described.z_um)} slices")
    elif kind in TABLES:
        columns = header.columns
        split_columns(kind, columns)
        if header.type != "float64" or len(shape) != 2 or shape[0] != len(columns):
            raise WireError(
                f"{kind} of shape {shape} and type {header.type}; expected [{len(columns)}, N], float64"
            )
    elif header.type != "uint8" or shape != [0]:
        raise WireError(
            f"{kind} of shape {shape} and type {header.type}; without an array it must be [0], uint8"
        )
    if (kind == "frame" or kind in TABLES) and header.frame < 0:
        raise WireError(f"{kind} of frame {header.frame}; frames count from 0")
