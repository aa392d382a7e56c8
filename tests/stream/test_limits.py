"""Whatever a message says, what is too long or no Unicode in it ends neither its sender nor its receiver."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from stream.commands import CommandClient, CommandServer
from stream.errors import WireError
from stream.limits import ID_LENGTH, LARGEST_NUMBER, NAME_LENGTH, VALUE_LENGTH, why_refused
from stream.messages import (
    Command,
    CommandKind,
    CommandReply,
    Message,
    StageState,
    Status,
    StreamEnd,
    StreamStart,
)
from stream.safe_text import one_line, printable, sendable, shortened
from stream.wire import decode, encode

ODD = st.text(max_size=50).flatmap(
    lambda text: st.sampled_from((text, text * 3000, "\ud800" + text, "\x1b[2J" + text, "\x00" * 70_000))
)
GAUGES = st.dictionaries(ODD, st.floats(), max_size=3)


def passed(message: Message) -> Message:
    return decode(*encode(message)).message


@given(ODD, ODD, ODD, GAUGES, st.dictionaries(ODD, st.integers(), max_size=3))
def test_what_a_stage_says_of_its_own_accord_can_always_be_sent(
    run: str, source: str, text: str, gauges: dict[str, float], counts: dict[str, int]
) -> None:
    status = passed(Status(run, source, StageState.FAILED, counts, gauges, text))
    assert isinstance(status, Status)
    assert status.text[:50] == sendable(text, 100)[:50]
    assert isinstance(passed(StreamEnd(run, source, 1, 0, text)), StreamEnd)
    assert isinstance(passed(StreamStart(run, source)), StreamStart)
    assert isinstance(passed(CommandReply("id", False, reason=text)), CommandReply)


def test_a_status_with_a_thousand_gauges_arrives_with_as_many_as_fit() -> None:
    names = {f"{'measured' * 20}_{number}": 1.0 for number in range(1000)}
    status = passed(Status("run", "control", StageState.FAILED, {}, names, "the reason"))
    assert isinstance(status, Status)
    assert status.text == "the reason"
    assert 0 < len(status.gauges) < 1000


@pytest.mark.parametrize("kind", [CommandKind.STOP, CommandKind.MAKE_SAFE, CommandKind.MARK])
def test_a_long_reason_to_stop_is_shortened_not_refused(kind: CommandKind) -> None:
    for text in ("a" * 65_536, "\x00" * 100_000, "\ud800" * 70_000):
        message = passed(Command(kind, text, sender=text))
        assert isinstance(message, Command)
        assert message.kind is kind


TOO_MUCH = [
    {"sender": "s" * (NAME_LENGTH + 1)},
    {"device": "d" * 40_000},
    {"property": "p" * 40_000},
    {"value": "v" * (VALUE_LENGTH + 1)},
    {"value": 1e300},
    {"value": -2 * LARGEST_NUMBER},
    {"value": math.nan},
    {"value": math.inf},
    {"at_time_s": math.inf},
    {"at_time_s": 1e308},
    {"command_id": "i" * (ID_LENGTH + 1)},
    {"command_id": ""},
]


@pytest.mark.parametrize("change", TOO_MUCH)
def test_a_command_beyond_the_limits_is_not_sent_and_says_why(change: dict[str, object]) -> None:
    command = replace(Command(CommandKind.SET_PROPERTY, 1.0, "Pump", "Flow"), **change)  # type: ignore[arg-type]
    assert why_refused(command)
    client = CommandClient("tcp://127.0.0.1:9")
    with pytest.raises(WireError, match="not sent"):
        client.send(command)
    client.close()


@pytest.mark.parametrize("change", TOO_MUCH)
def test_a_command_beyond_the_limits_that_comes_from_outside_is_refused_and_the_next_one_is_taken(
    change: dict[str, object],
) -> None:
    server = CommandServer("tcp://127.0.0.1:0")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.connect(server.address)
    bad = replace(Command(CommandKind.SET_PROPERTY, 1.0, "Pump", "Flow"), **change)  # type: ignore[arg-type]
    good = Command(CommandKind.MAKE_SAFE, "x" * 60_000)
    try:
        stranger.send_multipart(encode(bad))
    except WireError:  # JSON itself has no such number
        text, _ = encode(Command(CommandKind.SET_PROPERTY, 1.5, command_id=bad.command_id))
        stranger.send_multipart([text.replace(b"1.5", b"1" * 400), b""])
    stranger.send_multipart([encode(Command(CommandKind.STOP))[0], b""])
    stranger.send_multipart(encode(good))
    taken = []
    while CommandKind.MAKE_SAFE not in [request.command.kind for request in taken]:
        taken += server.poll()
    kinds = [request.command.kind for request in taken]
    assert [kind for kind in kinds if kind is not bad.kind] == [CommandKind.STOP, CommandKind.MAKE_SAFE]
    assert server.refused + server.malformed + len(taken) == 3
    stranger.close(0)
    server.close()
    context.term()


def test_an_answer_that_does_not_fit_is_shortened() -> None:
    server = CommandServer("tcp://127.0.0.1:0")
    client = CommandClient(server.address)
    for reason in ("long " * 100_000, "\x01" * 50_000, "half \udc80 a pair", "\N{BOMB}" * 30_000):
        command = Command(CommandKind.TRIGGER)
        client.send(command)
        while not (requests := server.poll()):
            pass
        requests[0].reply(CommandReply(command.command_id, False, reason=reason))
        while not (replies := client.replies()):
            pass
        assert replies[0].reason[:5] == sendable(reason, 100)[:5]
    client.close()
    server.close()


@given(st.text())
def test_printable_text_has_nothing_that_acts_and_keeps_what_speaks(text: str) -> None:
    shown = printable(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown if c not in "\n\t")
    shown.encode()
    assert printable(shown) == shown
    assert "\n" not in one_line(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone\x07", "?[2Jgone?"),
        ("\x9b31mred", "?31mred"),
        ("\x1b]0;title\x07", "?]0;title?"),
        ("a\u202eb\u2066c", "a?b?c"),
        ("half \ud800", "half ?"),
        ("流速 µm/s \N{BOMB} e\u0301", "流速 µm/s \N{BOMB} e\u0301"),
        ("two\r\nlines\tand\rmore", "two\nlines\tand?more"),
        ("a\u2028b\x85c", "a?b?c"),
    ],
)
def test_escape_sequences_are_replaced_and_every_script_is_kept(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(), st.integers(0, 20))
def test_shortened_text_is_no_longer_than_asked_for(text: str, limit: int) -> None:
    assert len(shortened(text, limit)) <= limit
