"""The wire format: PSI `htypes array-1.0`, a JSON header and a raw little-endian buffer.

https://github.com/paulscherrerinstitute/htypes (array-1.0); our own header fields are described in
`docs/streaming.md`. For any input, `decode` either returns a valid message or raises `WireError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from stream.errors import WireError
from stream.header import (
    ITEM_BYTES,
    KINDS,
    MAX_HEADER_BYTES,
    SCHEMA,
    TABLES,
    AckFields,
    CommandFields,
    DecisionFields,
    EndFields,
    Header,
    InfoFields,
    Kind,
    LinkFields,
    Number,
    StartFields,
    StatusFields,
    VolumeFields,
    check_shape,
    decode_header,
    encode_header,
    split_columns,
)
from stream.limits import fitted, least
from stream.messages import (
    NAN,
    Command,
    CommandReply,
    Decisions,
    Detections,
    Frame,
    FrameInfo,
    ImageArray,
    Message,
    ParticleTable,
    Predictions,
    Status,
    StreamEnd,
    StreamStart,
    Tracks,
)
from stream.volume_info import VolumeInfo

__all__ = [
    "KINDS",
    "MAX_HEADER_BYTES",
    "Header",
    "LinkFields",
    "Received",
    "assemble",
    "decode",
    "decode_header",
    "encode",
]

Payload: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded message with its link fields and the name of its publisher."""

    message: Message
    link: LinkFields | None
    source: str


def encode(
    message: Message, source: str = "liveptv", link: LinkFields | None = None, *, frame: int = -1
) -> tuple[bytes, memoryview | bytes]:
    """Return header and buffer of a message; the buffer is a view if the array is C-contiguous little-endian.

    `frame` is written into the header of a message that has no frame number; other programs read it as an id.
    Texts of an answer, a status, an end or a note are shortened where they do not fit, and invalid Unicode in them
    is replaced (`stream.limits`). Raises `WireError` for what the format cannot carry: an image that is not 2D or
    3D uint8 or uint16, a non-finite command value, an integer beyond 64 bits, a header beyond 64 kB.
    """
    header, payload = _describe(message, source, link, frame)
    try:
        return encode_header(header), payload
    except WireError:
        return _encode_shortened(message, source, link, frame)


def _encode_shortened(
    message: Message, source: str, link: LinkFields | None, frame: int
) -> tuple[bytes, memoryview | bytes]:
    try:
        header, payload = _describe(fitted(message), source, link, frame)
        return encode_header(header), payload
    except WireError:
        header, payload = _describe(least(message), source, link, frame)
        return encode_header(header), payload


def assemble(header: Header, payload: Payload) -> Message:
    """Return the message that a checked header and its buffer describe.

    Arrays are read-only views of the buffer; only an unaligned buffer (libzmq delivers small messages so) is
    copied. Raises `WireError` if the length of the buffer or the fields of the header do not fit.
    """
    view = memoryview(payload)
    if view.nbytes != header.payload_bytes:
        raise WireError(
            f"buffer of {view.nbytes} bytes, but shape {list(header.shape)} of {header.type} "
            f"needs {header.payload_bytes}"
        )
    kind = header.kind
    if kind == "frame":
        image: ImageArray = _array(header, view)
        return Frame(_info(header), image)
    if kind in TABLES:
        table = _array(header, view)
        own, names = split_columns(kind, header.columns)
        if own != TABLES[kind].COLUMNS:
            earlier = TABLES[kind].from_columns(_info(header), **dict(zip(own, table, strict=False)))
            table = np.concatenate([earlier.table, table[len(own) :]])
        return TABLES[kind].with_rows(_info(header), table, names)
    if kind == "command" and header.command is not None:
        c = header.command
        at_time_s = _number(c.at_time_s)
        return Command(
            c.kind, c.value, c.device, c.property, c.decided_on_frame, c.sender, c.command_id, at_time_s
        )
    if kind == "ack" and header.ack is not None:
        a = header.ack
        return CommandReply(a.command_id, a.accepted, a.first_frame, a.reason, a.monotonic_ns, a.executed_ns)
    if kind == "status" and header.status is not None:
        s = header.status
        gauges = {name: _number(value) for name, value in s.gauges.items()}
        return Status(header.run_id, s.stage, s.state, s.counts, gauges, s.text, s.monotonic_ns)
    if kind == "start" and header.start is not None:
        return StreamStart(header.run_id, header.start.source)
    if kind == "end" and header.end is not None:
        e = header.end
        return StreamEnd(header.run_id, e.source, e.offered, e.dropped, e.reason)
    raise WireError(f"header of kind {kind!r} without the field {kind!r}")


def decode(header: bytes | bytearray | memoryview, payload: Payload) -> Received:
    """Return the message in two parts; raises `WireError` for anything that is not a valid message."""
    parsed = decode_header(header)
    return Received(assemble(parsed, payload), parsed.link, parsed.source)


def _describe(
    message: Message, source: str, link: LinkFields | None, frame: int
) -> tuple[Header, memoryview | bytes]:
    def bare(kind: Kind, run_id: str = "", **fields: Any) -> tuple[Header, bytes]:
        return Header(
            "array-1.0", source, kind, SCHEMA, "uint8", (0,), frame, run_id, link=link, **fields
        ), b""

    match message:
        case Frame():
            return _describe_array("frame", message.info, message.image, (), source, link)
        case Detections():
            return _describe_table("detections", message, source, link)
        case Tracks():
            return _describe_table("tracks", message, source, link)
        case Predictions():
            return _describe_table("predictions", message, source, link)
        case Command() as c:
            if isinstance(c.value, float) and not math.isfinite(c.value):
                raise WireError(f"{c.kind} cannot be sent: its value is {c.value}; give a finite number")
            at_time_s = c.at_time_s if math.isfinite(c.at_time_s) else None
            fields = CommandFields(
                c.kind, c.value, c.device, c.property, c.decided_on_frame, c.sender, c.command_id, at_time_s
            )
            return bare("command", command=fields)
        case CommandReply() as a:
            answer = AckFields(
                a.command_id, a.accepted, a.first_frame, a.reason, a.monotonic_ns, a.executed_ns
            )
            return bare("ack", ack=answer)
        case Status() as s:
            report = StatusFields(s.stage, s.state, s.counts, {**s.gauges}, s.text, s.monotonic_ns)
            return bare("status", s.run_id, status=report)
        case StreamStart():
            return bare("start", message.run_id, start=StartFields(message.source))
        case StreamEnd() as e:
            return bare("end", e.run_id, end=EndFields(e.source, e.offered, e.dropped, e.reason))


def _describe_table(
    kind: Kind, message: ParticleTable, source: str, link: LinkFields | None
) -> tuple[Header, memoryview]:
    table, further = message.table, message.property_columns()
    if further:  # the rows of a table without properties are sent without a copy
        table = np.concatenate([table, *(column[None] for column in further.values())])
    return _describe_array(kind, message.info, table, (*message.COLUMNS, *further), source, link)


def _describe_array(
    kind: Kind,
    info: FrameInfo,
    array: npt.NDArray[Any],
    columns: tuple[str, ...],
    source: str,
    link: LinkFields | None,
) -> tuple[Header, memoryview]:
    fields = InfoFields(
        info.camera_frame,
        info.time_s,
        info.monotonic_ns,
        info.wall_s,
        info.camera_time_s,
        info.focus_um,
        info.focus_commanded_um,
        info.flow_ul_s,
        info.exposure_ms,
        info.pixel_size_um,
        info.detector_ms,
        info.age_ms,
        None if info.decisions is None else _decision_fields(info.decisions),
        None if info.volume is None else _volume_fields(info.volume),
    )
    name: Any = array.dtype.name
    header = Header("array-1.0", source, kind, SCHEMA, name, array.shape, info.frame, info.run_id, columns)
    if name not in ITEM_BYTES:
        raise WireError(f"{kind} of type {name} cannot be sent; images are uint8 or uint16, tables float64")
    header = msgspec.structs.replace(header, info=fields, link=link)
    check_shape(header)
    flat = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1)
    return header, flat.view(np.uint8).data


def _array(header: Header, payload: memoryview) -> npt.NDArray[Any]:
    try:
        flat = np.frombuffer(payload, dtype=np.dtype(header.type).newbyteorder("<"))
    except (ValueError, BufferError) as error:
        raise WireError(f"buffer cannot be read: {error}") from error
    array = flat.reshape(header.shape)
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array


def _number(value: Number) -> float:
    return NAN if value is None else value


def _info(header: Header) -> FrameInfo:
    i = header.info
    if i is None:
        raise WireError(f"{header.kind} without the field 'info'")
    return FrameInfo(
        header.run_id,
        header.frame,
        i.camera_frame,
        _number(i.time_s),
        i.monotonic_ns,
        _number(i.wall_s),
        _number(i.camera_time_s),
        _number(i.focus_um),
        _number(i.focus_commanded_um),
        _number(i.flow_ul_s),
        _number(i.exposure_ms),
        _number(i.pixel_size_um),
        _number(i.detector_ms),
        _number(i.age_ms),
        None if i.decisions is None else _decisions(i.decisions),
        None if i.volume is None else _volume(i.volume),
    )


def _volume_fields(v: VolumeInfo) -> VolumeFields:
    return VolumeFields(v.z_um, v.time_s, v.missing, v.upwards)


def _volume(v: VolumeFields) -> VolumeInfo:
    try:
        return VolumeInfo(v.z_um, v.time_s, v.missing, v.upwards)
    except ValueError as error:
        raise WireError(f"slices of a volume that cannot be: {error}") from error


def _decision_fields(d: Decisions) -> DecisionFields:
    credit = d.credit if math.isfinite(d.credit) else None
    return DecisionFields(d.opened, d.replaced, d.predicted_from, d.fit, credit, d.turns_from, d.learnt_from)


def _decisions(d: DecisionFields) -> Decisions:
    credit = math.inf if d.credit is None else d.credit
    return Decisions(d.opened, d.replaced, d.predicted_from, d.fit, credit, d.turns_from, d.learnt_from)
