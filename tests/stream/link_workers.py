"""What the tests of the lossless link run in other processes and between sockets, importable under spawn."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from stream.link import Receiver, Sender
from stream.links import open_receiver, open_sender
from stream.messages import Frame, FrameInfo

SHAPE = (64, 100)
SLOT_BYTES = SHAPE[0] * SHAPE[1]
PATIENCE_S = 0.6
HANGS_S = 120.0  # what has not happened by then never will; nothing is measured with it
SPAWN = multiprocessing.get_context("spawn")


def frame(number: int) -> Frame:
    """A frame whose pixels can be checked against its number."""
    return Frame(FrameInfo("run", number, number, 0.0, 0, 0.0), np.full(SHAPE, number % 251, np.uint8))


def number_of(message: object) -> int:
    """The number of a frame, after checking that its pixels belong to it."""
    assert isinstance(message, Frame)
    assert np.all(message.image == message.info.frame % 251)
    return message.info.frame


def sender_at(address: str, **options: Any) -> Sender:
    settings = {"slots": 8, "patience_s": PATIENCE_S, "give_up_s": 5.0} | options
    return open_sender(address, run_id="run", source="test", slot_bytes=SLOT_BYTES, **settings)


def take_all(receiver: Receiver) -> list[int]:
    """Consume a stream to its end; the numbers of its frames."""
    numbers: list[int] = []
    deadline_s = time.monotonic() + HANGS_S
    while not receiver.ended:
        assert time.monotonic() < deadline_s, f"no end, {receiver.account}"
        delivery = receiver.receive(0.2)
        if delivery is not None:
            if isinstance(delivery.message, Frame):
                numbers.append(number_of(delivery.message))
            delivery.done()
    return numbers


def wait_until(condition: Any) -> None:
    """Wait for something to become true, for as long as a very slow machine needs."""
    deadline_s = time.monotonic() + HANGS_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.01)


class HandClock:
    """A clock that only the test moves, in the place of the module `time`."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()

    def monotonic(self) -> float:
        """Now, s."""
        return self.now_s


def consume_and_log(address: str, log: Path) -> None:
    """Consume a stream to its end; each number is on disk before its message is acknowledged."""
    receiver = open_receiver(address)
    with log.open("a") as file:
        while not receiver.ended:
            delivery = receiver.receive(0.5)
            if delivery is None:
                continue
            if isinstance(delivery.message, Frame):
                file.write(f"{number_of(delivery.message)}\n")
                file.flush()
                os.fsync(file.fileno())
            delivery.done()
    receiver.close()


def consume_then_hang(address: str) -> None:
    """Consume one message, then hang with the connection open."""
    receiver = open_receiver(address)
    while (delivery := receiver.receive(0.5)) is None:
        pass
    delivery.done()
    time.sleep(10 * HANGS_S)


def produce_for_ever(address: str, where: Any) -> None:
    """Send until killed."""
    sender = sender_at(address)
    where.put(sender.address)
    number = 0
    while True:
        sender.send(frame(number))
        number += 1
        time.sleep(0.002)


@contextmanager
def process(target: Any, *arguments: Any) -> Iterator[BaseProcess]:
    """A spawned process that is killed in the end."""
    child = SPAWN.Process(target=target, args=arguments, daemon=True)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()
        child.close()


class Proxy:
    """A TCP proxy on the loopback whose connections can be cut."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._start(self._accept)

    def cut(self) -> None:
        """Cut every connection, with what is on its way."""
        with self._lock:
            for end in self._sockets:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in self._sockets:
            end.close()

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [near, far]
                self.connections += 1
            self._start(self._copy, near, far)
            self._start(self._copy, far, near)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
