"""Limits of texts and numbers in messages, incoming and outgoing.

Commands are checked on receipt: `why_refused` says what is wrong, and the sender gets that as the answer. Messages
of our own (an answer, a status, the end of a stream) must always arrive: `fitted` shortens them instead.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from stream.messages import Command, CommandKind, CommandReply, Message, Status, StreamEnd, StreamStart
from stream.safe_text import sendable

ID_LENGTH = 128  # characters; ours have 32 (a UUID)
NAME_LENGTH = 256  # a sender, a device, a property; Micro-Manager's own names are shorter
VALUE_LENGTH = 4096  # the text of a property (Micro-Manager: 1024), the settings of a controller, a note
LARGEST_NUMBER = 1e15  # more than any um, uL/s, ms, Hz; exact as float64
LARGEST_TIME_S = 1e9  # 30 years
TEXT_LENGTH = 8000  # of an answer or a status: a traceback fits

# Limits for a message that is still too long: at six bytes per character it stays below 64 kB.
LAST_TEXT, LAST_NAME, LAST_ENTRIES = 1000, 64, 48
_REASONS = {CommandKind.STOP, CommandKind.MAKE_SAFE, CommandKind.MARK}
_INT64 = 2**63

M = TypeVar("M", bound=Message)


def is_id(text: str) -> bool:
    """Whether a text can be the id of a command."""
    return 0 < len(text) <= ID_LENGTH


def why_refused(command: Command) -> str:
    """Which text or number of a command is outside the limits, and why; "" if none is."""
    if not is_id(command.command_id):
        return f"the id of a command must have 1 to {ID_LENGTH} characters, not {len(command.command_id)}"
    for what in ("sender", "device", "property"):
        length = len(getattr(command, what))
        if length > NAME_LENGTH:
            return f"{command.kind}: {what} has {length} characters; at most {NAME_LENGTH} are allowed"
    value, time_s = command.value, command.at_time_s
    if isinstance(value, str):
        if len(value) > VALUE_LENGTH:
            return f"{command.kind}: the text has {len(value)} characters; at most {VALUE_LENGTH} are allowed"
    elif value is not None and not _is_number(value):
        return f"{command.kind}: the value must be a finite number, at most {LARGEST_NUMBER:g}"
    if not math.isnan(time_s) and not abs(time_s) <= LARGEST_TIME_S:
        return f"{command.kind}: at_time_s must be a finite time, at most {LARGEST_TIME_S:g} s"
    return ""


def _is_number(value: float) -> bool:
    try:
        return abs(float(value)) <= LARGEST_NUMBER
    except (TypeError, ValueError, OverflowError):
        return False


def fitted(message: M) -> M:
    """The message with texts that can be sent; only texts that are too long are shortened.

    A command is never changed, with three exceptions that must always get through: for a note, a stop or a safe
    state texts are shortened, and a value or time outside the limits, which they do not need, is left out.
    """
    return _fitted(message, TEXT_LENGTH, NAME_LENGTH, 4 * LAST_ENTRIES)


def least(message: M) -> M:
    """The shortest form of a message; it always fits into a header."""
    return _fitted(message, LAST_TEXT, LAST_NAME, LAST_ENTRIES)


def _fitted(message: M, text: int, name: int, entries: int) -> M:
    match message:
        case CommandReply() as a:
            return replace(a, reason=sendable(a.reason, text))  # type: ignore[return-value]
        case Status() as s:
            counts = [(sendable(key, name), max(-_INT64, min(_INT64 - 1, n))) for key, n in s.counts.items()]
            gauges = [(sendable(key, name), value) for key, value in s.gauges.items()]
            return replace(  # type: ignore[return-value]
                s,
                stage=sendable(s.stage, name),
                run_id=sendable(s.run_id, name),
                text=sendable(s.text, text),
                counts=dict(counts[:entries]),
                gauges=dict(gauges[:entries]),
            )
        case StreamStart() as b:
            return replace(b, source=sendable(b.source, name), run_id=sendable(b.run_id, name))  # type: ignore[return-value]
        case StreamEnd() as e:
            return replace(  # type: ignore[return-value]
                e,
                source=sendable(e.source, name),
                run_id=sendable(e.run_id, name),
                reason=sendable(e.reason, text),
            )
        case Command() as c if c.kind in _REASONS:
            return _without_excess(c, min(text, VALUE_LENGTH), name)  # type: ignore[return-value]
    return message


def _without_excess(command: Command, text: int, name: int) -> Command:
    value = command.value
    if isinstance(value, str):
        value = sendable(value, text)
    elif value is not None and not _is_number(value):
        value = None
    return replace(
        command,
        value=value,
        sender=sendable(command.sender, name),
        device=sendable(command.device, name),
        property=sendable(command.property, name),
        at_time_s=command.at_time_s if abs(command.at_time_s) <= LARGEST_TIME_S else math.nan,
    )
