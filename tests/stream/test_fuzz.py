"""A hundred thousand messages of garbage on each small socket: all counted, none felt, nothing grows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import psutil
import pytest
import zmq
from wire_strategies import a_frame, some_detections

from stream.commands import CommandServer
from stream.errors import WireError
from stream.messages import Command, CommandKind, CommandReply, StageState, Status
from stream.monitor import MonitorSubscriber
from stream.status import StatusSink
from stream.wire import decode, encode

COUNT = 100_000
WARM_UP = 20_000
GROWTH_BYTES = 16 * 2**20


def garbage(seed: int) -> list[list[bytes]]:
    """Messages of one to many parts, none of which is ours: noise, damage, other protocols, excess."""
    dice = random.Random(seed)
    good = [a_frame(), some_detections(), Command(CommandKind.STOP), CommandReply("x", True)]
    good.append(Status("run", "detect", StageState.RUNNING, {"n": 1}))
    messages: list[list[bytes]] = [
        [b""],
        [b"GET / HTTP/1.1\r\nHost: camera\r\n\r\n"],
        [b"\x16\x03\x01" + bytes(200), b""],
        [b"[" * 60_000, b""],
        [b"{" * 70_000, b""],
        [b"{}"] * 20,
        [b"null", b"null"],
    ]
    while len(messages) < 500:
        header, payload = encode(dice.choice(good))
        parts = [bytearray(header), bytearray(payload)]
        match dice.randrange(4):
            case 0:
                parts = [bytearray(dice.randbytes(dice.randrange(200))) for _ in range(dice.randint(1, 4))]
            case 1:
                parts[1] += b"x"
            case 2:
                where = dice.randrange(len(header))
                parts[0][where : where + 3] = dice.randbytes(dice.randint(0, 5))
            case 3:
                parts.append(bytearray(b"more"))
        if not is_ours(parts):
            messages.append([bytes(part) for part in parts])
    return messages


def is_ours(parts: list[bytearray]) -> bool:
    try:
        decode(parts[0], parts[1])
    except (WireError, IndexError):
        return False
    return len(parts) == 2


def flood(socket: zmq.Socket[bytes], drain: Callable[[], object], counted: Callable[[], int]) -> None:
    """Send `COUNT` pieces of garbage as fast as they are read; all that they leave is a number."""
    messages = garbage(7)
    process = psutil.Process()
    before = sent = 0
    while sent < COUNT:
        try:
            socket.send_multipart(messages[sent % len(messages)], zmq.NOBLOCK)
        except zmq.Again:
            drain()
            continue
        sent += 1
        if sent == WARM_UP:
            before = process.memory_info().rss
    deadline_s = time.monotonic() + 240
    while counted() < COUNT:
        assert time.monotonic() < deadline_s
        drain()
    assert counted() == COUNT
    assert process.memory_info().rss - before < GROWTH_BYTES


@pytest.fixture
def context() -> zmq.Context[zmq.Socket[bytes]]:
    return zmq.Context()


def test_a_monitor_subscriber_survives_garbage(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    vandal = context.socket(zmq.XPUB)
    vandal.setsockopt(zmq.XPUB_NODROP, 1)
    port = vandal.bind_to_random_port("tcp://127.0.0.1")
    subscriber = MonitorSubscriber(f"tcp://127.0.0.1:{port}")
    vandal.recv()
    flood(vandal, lambda: subscriber.receive(0.001), lambda: subscriber.malformed)
    vandal.send_multipart(encode(a_frame()))
    assert subscriber.receive(240.0) is not None
    assert subscriber.gaps == 0
    subscriber.close()
    vandal.close(0)
    context.term()


def test_a_command_server_survives_garbage(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    server = CommandServer("tcp://127.0.0.1:0")
    vandal = context.socket(zmq.DEALER)
    vandal.connect(server.address)
    flood(vandal, server.poll, lambda: server.malformed)
    vandal.send_multipart(encode(Command(CommandKind.STOP)))
    while not (requests := server.poll()):
        pass
    requests[0].reply(CommandReply(requests[0].command.command_id, True))
    assert vandal.poll(240_000)
    server.close()
    vandal.close(0)
    context.term()


def test_a_status_sink_survives_garbage(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    sink = StatusSink("tcp://127.0.0.1:0")
    vandal = context.socket(zmq.PUSH)
    vandal.connect(sink.address)
    flood(vandal, lambda: sink.receive(0.001), lambda: sink.malformed)
    vandal.send_multipart(encode(Status("run", "detect", StageState.DONE)))
    assert sink.receive(240.0) is not None
    sink.close()
    vandal.close(0)
    context.term()
