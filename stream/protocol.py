"""Control messages of a lossless message link: single JSON parts, in both directions, beside the data.

The receiver sends `Hello`, `Ack`, `Resend`, `Goodbye`; the sender `Welcome`, `Refused`, `Confirm`, `Skip`,
`Heartbeat` and `Goodbye`. The connection keeps their order, so a `Heartbeat` or a `Skip` that names messages which
have not arrived proves that these are lost, and the receiver requests them again.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from stream.errors import WireError

HTYPE: Literal["liveptv.link-1.0"] = "liveptv.link-1.0"
MAX_CONTROL_BYTES = 4096

Sequence: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Position: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, lt=2**62)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=1024)]


class _Control(msgspec.Struct, kw_only=True, tag_field="kind", tag=str.lower):
    htype: Literal["liveptv.link-1.0"] = HTYPE


class Hello(_Control):
    """A receiver asks to be served.

    `connection` counts its connections from 1, which distinguishes a repeated hello from a reconnect. `expected`
    is the next sequence number that the receiver needs and `consumed` the last one consumed; both are None when it
    starts.
    """

    receiver: Name
    connection: Sequence
    expected: Sequence | None = None
    consumed: Position | None = None


class Welcome(_Control):
    """The sender accepts: its identity, the next sequence number, and the name of its ring.

    A `sparse` ring takes memory where it is touched, so a receiver does not touch it in advance.

    If the sender `confirms` acknowledgements, the receiver hands out a message only once everything consumed
    before is confirmed: if it is killed, at most the message in progress is delivered a second time.
    """

    sender: Name
    run_id: Name
    source: Name
    next: Sequence
    slots: Annotated[int, msgspec.Meta(ge=1, le=2**20)]
    slot_bytes: Annotated[int, msgspec.Meta(ge=1, lt=2**40)]
    ring: Name = ""
    confirms: bool = False
    sparse: bool = False


class Refused(_Control):
    """The sender refuses, because it serves another receiver."""

    reason: Text


class Ack(_Control, omit_defaults=True):
    """Everything up to `consumed` has been consumed; repeated as a sign of life.

    A receiver that asks for its messages (policy `live`) has everything up to `received` and wants `more` of them.
    """

    consumed: Position
    received: Position = -1
    more: Sequence | None = None


class Confirm(_Control):
    """The sender knows that everything up to `consumed` has been consumed."""

    consumed: Position


class Resend(_Control):
    """The receiver has lost messages and requests everything from `expected` on."""

    expected: Sequence


class Skip(_Control):
    """Messages `first` to `last` were dropped and will never come."""

    first: Sequence
    last: Sequence


class Heartbeat(_Control):
    """The sender is alive and has sent everything up to `position` before this message."""

    sender: Name
    position: Position


class Goodbye(_Control):
    """This end closes: what the receiver has consumed, or what the sender has sent."""

    consumed: Position = -1
    position: Position = -1
    reason: Text = ""


FromReceiver = Hello | Ack | Resend | Goodbye
FromSender = Welcome | Refused | Confirm | Skip | Heartbeat | Goodbye

_encoder = msgspec.json.Encoder()
_from_receiver: msgspec.json.Decoder[FromReceiver] = msgspec.json.Decoder(FromReceiver)
_from_sender: msgspec.json.Decoder[FromSender] = msgspec.json.Decoder(FromSender)


def pack(control: FromReceiver | FromSender) -> bytes:
    """Return the bytes of a control message."""
    return _encoder.encode(control)


def unpack_from_receiver(data: bytes | memoryview) -> FromReceiver:
    """Parse a control message from a receiver; raises `WireError` for anything else."""
    return _unpack(_from_receiver, data)


def unpack_from_sender(data: bytes | memoryview) -> FromSender:
    """Parse a control message from a sender; raises `WireError` for anything else."""
    return _unpack(_from_sender, data)


T = TypeVar("T")


def _unpack(decoder: msgspec.json.Decoder[T], data: bytes | memoryview) -> T:
    if len(data) > MAX_CONTROL_BYTES:
        raise WireError(f"control message of {len(data)} bytes, the limit is {MAX_CONTROL_BYTES}")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"not a control message of a message link: {error}") from error
