"""Commands from a page are sent in order; those that make the hardware safe are sent first."""

import threading
import time

import pytest

from liveptv.monitor.steering import MOST_WAITING, Steering, command_from
from stream.commands import CommandClient, CommandServer
from stream.errors import LinkError
from stream.messages import CommandKind, CommandReply


@pytest.fixture
def server():
    server = CommandServer("tcp://127.0.0.1:0")
    yield server
    server.close()


@pytest.fixture
def held(server):
    """A steering that sends nothing before `gate` is set."""
    gate = threading.Event()

    def address():
        gate.wait(240.0)
        return server.address, None

    steering = Steering(address)
    yield steering, gate
    gate.set()
    steering.close()


def taken(server, count):
    """The next `count` commands in the order in which they came, each answered."""
    found = []
    deadline_s = time.monotonic() + 240.0
    while len(found) < count and time.monotonic() < deadline_s:
        for request in server.poll():
            found.append(request.command.kind)
            request.reply(CommandReply(request.command.command_id, True))
        time.sleep(0.002)
    return found


def flow():
    return command_from({"kind": "set_flow", "value": 0.01})


@pytest.mark.parametrize("kind", ["make_safe", "stop"])
def test_what_makes_safe_is_taken_when_the_queue_is_full_and_is_sent_first(server, held, kind, monkeypatch):
    sent = []
    send = CommandClient.send

    def noted(client, command):
        sent.append(command.kind)
        send(client, command)

    monkeypatch.setattr(CommandClient, "send", noted)
    steering, gate = held
    first = steering.send(flow())
    while steering.waiting:  # until it is being sent
        time.sleep(0.002)
    others = [steering.send(flow()) for _ in range(MOST_WAITING)]
    urgent = steering.send(command_from({"kind": kind}))
    gate.set()
    kinds = taken(server, MOST_WAITING + 2)
    assert sent.index(CommandKind(kind)) <= 1  # only the one being sent was before it
    assert CommandKind(kind) in kinds
    assert all(answer.result(240.0).accepted for answer in (first, urgent, *others))


def test_commands_beyond_the_queue_are_refused_with_the_reason(held):
    steering, _ = held
    answers = [steering.send(flow()) for _ in range(MOST_WAITING + 2)]
    refused = [answer for answer in answers if answer.done() and answer.exception() is not None]
    assert refused
    with pytest.raises(LinkError, match="32 commands wait to be sent"):
        refused[0].result(0.0)


@pytest.mark.parametrize("gone_when", ["queued", "sent", "never answered"])
def test_a_viewer_who_leaves_before_the_answer_ends_nobody_elses_steering(
    server, held, monkeypatch, gone_when
):
    steering, gate = held
    if gone_when == "never answered":
        monkeypatch.setattr("liveptv.monitor.steering.ANSWER_S", 0.0)
    if gone_when != "queued":
        gate.set()
    left = steering.send(flow())
    if gone_when == "queued":
        assert left.cancel()
        gate.set()
    else:
        while not (requests := server.poll()):
            time.sleep(0.002)
        left.cancel()
        if gone_when == "sent":
            requests[0].reply(CommandReply(requests[0].command.command_id, True))
    monkeypatch.undo()
    answer = steering.send(command_from({"kind": "make_safe"}))
    assert CommandKind.MAKE_SAFE in taken(server, 2 if gone_when == "queued" else 1)
    assert answer.result(240.0).accepted
