import threading
import time

import pytest
import zmq

from stream.commands import CommandClient, CommandServer
from stream.messages import Command, CommandKind
from stream.waker import Waker

LONG_S = 240.0


@pytest.fixture
def waker():
    waker = Waker()
    yield waker
    waker.close()


@pytest.fixture
def server():
    server = CommandServer("tcp://127.0.0.1:0")
    yield server
    server.close()


def waited_s(wait, timeout_s):
    began_s = time.monotonic()
    wait(timeout_s)
    return time.monotonic() - began_s


def test_a_wake_ends_the_wait(waker, server):
    wait = server.waiter(waker)
    threading.Timer(0.05, waker.wake).start()
    assert waited_s(wait, LONG_S) < LONG_S


def test_a_wake_before_the_wait_is_not_missed_and_counts_once(waker, server):
    wait = server.waiter(waker)
    for _ in range(1000):  # more than fit into a socket, if each were sent
        waker.wake()
    assert waited_s(wait, LONG_S) < LONG_S
    assert waited_s(wait, 0.05) >= 0.04


def test_a_command_ends_the_wait(waker, server):
    client = CommandClient(server.address)
    client.send(Command(CommandKind.PAUSE))
    assert waited_s(server.waiter(waker), LONG_S) < LONG_S
    assert [request.command.kind for request in server.poll()] == [CommandKind.PAUSE]
    client.close()


def test_a_closed_waker_may_still_be_woken(waker):
    waker.wake()
    waker.close()
    waker.wake()
    waker.clear()
    waker.close()


def test_a_wake_from_many_threads_at_once_is_seen(waker):
    poller = zmq.Poller()
    poller.register(waker, zmq.POLLIN)
    for _ in range(100):
        threads = [threading.Thread(target=waker.wake) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert poller.poll(0)
        waker.clear()
        assert not poller.poll(0)
