"""Status reports: the last word of a stage arrives, and nobody waits for a deaf supervisor."""

from __future__ import annotations

import pytest
import zmq
from wire_strategies import same

from stream.errors import ConfigurationError, LinkError
from stream.messages import CommandReply, StageState, Status
from stream.status import StatusSink, StatusSource
from stream.wire import encode

ANYWHERE = "tcp://127.0.0.1:0"


def a_status(number: int = 0, state: StageState = StageState.RUNNING, text: str = "") -> Status:
    return Status("run", "detect", state, {"received": number}, {"latency_ms": float("nan")}, text, number)


def test_reports_arrive_in_order_and_whole() -> None:
    sink = StatusSink(ANYWHERE)
    source = StatusSource(sink.address)
    for number in range(20):
        assert source.send(a_status(number))
        received = sink.receive(120.0)
        assert received is not None
        assert same(received, a_status(number))
    assert sink.receive(0.0) is None
    source.close()
    sink.close()


def test_the_last_word_of_a_stage_that_closes_at_once_arrives() -> None:
    sink = StatusSink(ANYWHERE)
    source = StatusSource(sink.address)
    source.send(a_status(1, StageState.FAILED, "no camera"))
    source.close()
    source.close()
    received = sink.receive(120.0)
    assert received is not None
    assert (received.state, received.text) == (StageState.FAILED, "no camera")
    sink.close()
    sink.close()


def test_many_stages_report_to_one_sink() -> None:
    sink = StatusSink(ANYWHERE)
    sources = [StatusSource(sink.address) for _ in range(5)]
    for number, source in enumerate(sources):
        source.send(a_status(number))
    numbers = set()
    for _ in sources:
        status = sink.receive(120.0)
        assert status is not None
        numbers.add(status.counts["received"])
    assert numbers == set(range(5))
    for source in sources:
        source.close()
    sink.close()


def test_without_a_supervisor_reports_are_dropped_and_counted_and_nobody_waits() -> None:
    sink = StatusSink(ANYWHERE)
    address = sink.address
    sink.close()
    source = StatusSource(address)
    queued = sum(source.send(a_status(number)) for number in range(500))
    assert queued + source.dropped == 500
    assert source.dropped > 0
    assert not source.send(a_status(500, StageState.DONE))
    source.close()


def test_a_failure_is_told_however_long_or_odd_its_text() -> None:
    sink = StatusSink(ANYWHERE)
    source = StatusSource(sink.address)
    source.send(a_status(0, StageState.FAILED, "caf\udce9 \x00 " + "\N{BOMB}" * 100_000))
    received = sink.receive(120.0)
    assert received is not None
    assert received.text.startswith("caf? \x00 \N{BOMB}")
    source.close()
    sink.close()


def test_what_is_no_status_is_counted_and_the_next_one_is_delivered() -> None:
    sink = StatusSink(ANYWHERE)
    context = zmq.Context()
    stranger = context.socket(zmq.PUSH)
    stranger.connect(sink.address)
    stranger.send(b"GET / HTTP/1.1")
    stranger.send_multipart([b"{}", b"", b"", b""])
    stranger.send_multipart(encode(CommandReply("x", True)))
    stranger.send_multipart(encode(a_status(5)))
    received = sink.receive(120.0)
    assert received is not None
    assert received.counts == {"received": 5}
    assert sink.malformed == 3
    stranger.close(0)
    context.term()
    sink.close()


def test_a_sink_on_a_taken_port_or_an_open_address_is_refused() -> None:
    sink = StatusSink(ANYWHERE)
    with pytest.raises(LinkError, match="cannot be opened"):
        StatusSink(sink.address)
    with pytest.raises(ConfigurationError, match="keys"):
        StatusSink("tcp://0.0.0.0:0")
    sink.close()
