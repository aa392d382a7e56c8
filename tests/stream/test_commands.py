"""Commands: each is executed once at most, each gets its answer, and nobody waits for the dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from stream import clock
from stream.commands import PENDING_LIMIT, CommandClient, CommandServer, Request
from stream.errors import ConfigurationError, LinkError
from stream.messages import Command, CommandKind, CommandReply
from stream.wire import encode

ANYWHERE = "tcp://127.0.0.1:0"
T = TypeVar("T")


def eventually(attempt: Callable[[], T]) -> T:
    deadline_s = time.monotonic() + 120
    while not (result := attempt()):
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    return result


def accept(request: Request) -> None:
    request.reply(CommandReply(request.command.command_id, True, first_frame=7))


@contextmanager
def both() -> Iterator[tuple[CommandServer, CommandClient]]:
    server = CommandServer(ANYWHERE)
    client = CommandClient(server.address)
    try:
        yield server, client
    finally:
        client.close()
        server.close()


@contextmanager
def an_acquisition(server: CommandServer) -> Iterator[list[Command]]:
    """A loop that accepts every command, as the acquisition does between two frames."""
    stop = threading.Event()
    done: list[Command] = []

    def loop() -> None:
        while not stop.is_set():
            for request in server.poll():
                done.append(request.command)
                accept(request)
            time.sleep(0.001)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def test_a_command_arrives_and_its_answer_comes_back() -> None:
    with both() as (server, client):
        command = Command(CommandKind.MOVE_FOCUS, 12.5, decided_on_frame=3, sender="me")
        client.send(command)
        (request,) = eventually(server.poll)
        assert request.command == command
        request.reply(CommandReply(command.command_id, False, reason="beyond the limit"))
        assert eventually(client.replies) == [
            CommandReply(command.command_id, False, reason="beyond the limit")
        ]


def test_a_request_gets_its_own_answer_and_leaves_those_to_others_alone() -> None:
    with both() as (server, client), an_acquisition(server):
        first, second = Command(CommandKind.PAUSE), Command(CommandKind.RESUME)
        client.send(first)
        assert client.request(second, 120.0).command_id == second.command_id
        assert [ack.command_id for ack in client.replies()] == [first.command_id]


def test_a_repeated_command_is_not_executed_again_and_gets_the_same_answer() -> None:
    with both() as (server, client), an_acquisition(server) as done:
        command = Command(CommandKind.TRIGGER)
        assert client.request(command, 120.0) == client.request(command, 120.0)
        assert done == [command]
        assert server.repeated == 1


def test_a_command_repeated_before_it_is_answered_is_executed_once() -> None:
    with both() as (server, client):
        command = Command(CommandKind.TRIGGER)
        client.send(command)
        (request,) = eventually(server.poll)
        client.send(command)
        eventually(lambda: server.poll() or server.repeated)
        accept(request)
        assert len(eventually(client.replies)) == 1


def test_a_client_that_comes_back_gets_the_answer_that_it_missed() -> None:
    server = CommandServer(ANYWHERE)
    command = Command(CommandKind.NEXT_SLICE)
    client = CommandClient(server.address)
    client.send(command)
    (request,) = eventually(server.poll)
    client.close()
    again = CommandClient(server.address)
    again.send(command)
    eventually(lambda: server.poll() or server.repeated)
    accept(request)
    assert eventually(again.replies)[0].first_frame == 7
    again.close()
    server.close()


def test_without_an_answer_a_request_says_so_in_time() -> None:
    with both() as (_, client), pytest.raises(LinkError, match=r"no answer.*0\.1 s"):
        client.request(Command(CommandKind.STOP), 0.1)


def test_an_answer_to_a_client_that_is_gone_is_counted() -> None:
    server = CommandServer(ANYWHERE)
    client = CommandClient(server.address)
    requests: list[Request] = []
    for _ in range(20):
        client.send(Command(CommandKind.TRIGGER))
    while len(requests) < 20:
        requests += server.poll()
    noticed = server._endpoint.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    client.close()
    assert noticed.poll(240_000)
    for request in requests:  # the first ones may still go to where the client was
        accept(request)
        time.sleep(0.05)
    assert 0 < server.undelivered <= 20
    server._endpoint.socket.disable_monitor()
    noticed.close(0)
    server.close()


def test_an_answer_belongs_to_its_command_and_is_given_once() -> None:
    with both() as (server, client):
        client.send(Command(CommandKind.STOP))
        (request,) = eventually(server.poll)
        with pytest.raises(LinkError, match="answer to"):
            request.reply(CommandReply("another", True))
        accept(request)
        with pytest.raises(LinkError, match="before"):
            accept(request)


def test_commands_that_nobody_answers_do_not_pile_up_without_end() -> None:
    with both() as (server, client):
        requests: list[Request] = []
        for _ in range(PENDING_LIMIT + 10):
            before = len(requests) + server.refused
            client.send(Command(CommandKind.TRIGGER))
            while len(requests) + server.refused == before:
                requests += server.poll()
        assert server.refused == 10
        assert len(requests) == PENDING_LIMIT
        refusals = eventually(client.replies)
        assert not any(reply.accepted for reply in refusals)
        assert "commands wait" in refusals[0].reason


def test_commands_to_nobody_end_in_an_error_not_in_a_full_memory() -> None:
    server = CommandServer(ANYWHERE)
    address = server.address
    server.close()
    client = CommandClient(address)

    def send_many() -> None:
        for _ in range(5000):
            client.send(Command(CommandKind.TRIGGER))

    with pytest.raises(LinkError, match=r"are queued|no answer"):
        send_many()
    client.close()


def test_a_client_believes_only_answers_that_it_waits_for() -> None:
    context = zmq.Context()
    impostor = context.socket(zmq.ROUTER)
    port = impostor.bind_to_random_port("tcp://127.0.0.1")
    client = CommandClient(f"tcp://127.0.0.1:{port}")
    client.send(Command(CommandKind.STOP))
    name = impostor.recv_multipart()[0]
    impostor.send_multipart([name, *encode(CommandReply("never asked", True))])
    impostor.send_multipart([name, b"garbage"])
    eventually(lambda: client.replies() or client.malformed)
    assert (client.malformed, client.unexpected) == (1, 1)
    client.close()
    impostor.close(0)
    context.term()


def test_what_is_no_command_or_too_long_is_counted() -> None:
    with both() as (server, _):
        context = zmq.Context()
        stranger = context.socket(zmq.DEALER)
        stranger.connect(server.address)
        stranger.send_multipart(encode(CommandReply("x", True)))
        stranger.send_multipart(encode(Command(CommandKind.STOP, command_id="")))
        stranger.send_multipart(encode(Command(CommandKind.STOP, command_id="x" * 200)))
        stranger.send_multipart([b" " * 100_000, b""])
        eventually(lambda: server.poll() or server.malformed == 4)
        stranger.close(0)
        context.term()


def test_commands_leave_the_machine_only_with_keys() -> None:
    for address in ("tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.168.1.5:5555", "tcp://camera-pc:5555"):
        with pytest.raises(ConfigurationError, match="liveptv keys make"):
            CommandServer(address)
        with pytest.raises(ConfigurationError, match="liveptv keys make"):
            CommandClient(address)


def test_two_processes_of_one_host_agree_on_the_time() -> None:
    with both() as (server, client), an_acquisition(server):
        samples = [client.clock_sample(120.0) for _ in range(10)]
        best = clock.best_sample(samples)
        assert best.round_trip_ns > 0
        assert abs(clock.offset_ns(samples)) <= best.round_trip_ns


def test_a_server_that_does_not_poll_leaves_the_clock_unanswered() -> None:
    with both() as (_, client), pytest.raises(LinkError, match="clock"):
        client.clock_sample(0.05)
    with pytest.raises(LinkError):
        clock.offset_ns([])


@given(
    st.integers(-(10**15), 10**15),
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**6)), min_size=1),
)
def test_the_offset_is_wrong_by_at_most_half_of_the_least_round_trip(
    true_ns: int, trips: list[tuple[int, int, int]]
) -> None:
    samples = []
    for there, back, work in trips:
        returned_ns = there + work + back
        samples.append(clock.ClockSample(0, there + true_ns, there + work + true_ns, returned_ns))
    least = min(there + back for there, back, _ in trips)
    assert abs(clock.offset_ns(samples) - true_ns) <= least / 2 + 1


@pytest.mark.parametrize("kind", [CommandKind.STOP, CommandKind.MAKE_SAFE, CommandKind.HEARTBEAT])
def test_stopping_and_making_safe_pass_commands_that_wait_for_their_answers(kind: CommandKind) -> None:
    with both() as (server, client):
        waiting: list[Request] = []
        for _ in range(PENDING_LIMIT):
            client.send(Command(CommandKind.TRIGGER))
            waiting += eventually(server.poll)
        client.send(Command(CommandKind.TRIGGER))
        eventually(lambda: server.poll() or server.refused)
        command = Command(kind)
        client.send(command)
        (request,) = eventually(server.poll)
        assert request.command.command_id == command.command_id
        accept(request)
        assert command.command_id in {
            reply.command_id for reply in eventually(lambda: _replies_with(client, command))
        }


def _fill(client: CommandClient) -> None:
    for _ in range(100_000):
        client.send(Command(CommandKind.TRIGGER))


def _replies_with(client: CommandClient, command: Command) -> list[CommandReply]:
    replies = client.replies()
    return replies if any(reply.command_id == command.command_id for reply in replies) else []


@pytest.mark.parametrize("kind", [CommandKind.STOP, CommandKind.MAKE_SAFE])
def test_stopping_and_making_safe_pass_a_full_socket_and_are_handed_out_first(kind: CommandKind) -> None:
    with both() as (server, client):
        client.send(Command(kind))  # opens the connection of urgent commands
        eventually(lambda: bool(server.poll()))
        with pytest.raises(LinkError):
            _fill(client)
        urgent = Command(kind)
        client.send(urgent)
        handed_out: list[str] = []

        def comes() -> bool:
            time.sleep(1.0)  # what was sent arrives between two polls, also on a loaded machine
            handed_out.extend(request.command.command_id for request in server.poll())
            return urgent.command_id in handed_out

        eventually(comes)
        assert handed_out.index(urgent.command_id) < 2 * 64


def test_the_answer_to_an_urgent_command_is_waited_for_on_its_own_connection() -> None:
    with both() as (server, client), an_acquisition(server):
        command = Command(CommandKind.MAKE_SAFE)
        assert client.request(command, 120.0).accepted
