"""Garbage on either socket of a lossless link is counted and ignored, and the stream goes on."""

from __future__ import annotations

import random
import threading
import tracemalloc
from contextlib import closing

import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from link_workers import frame, sender_at, take_all, wait_until

from stream.errors import WireError
from stream.links import open_receiver
from stream.protocol import (
    Ack,
    Goodbye,
    Heartbeat,
    Hello,
    Refused,
    Resend,
    Skip,
    Welcome,
    pack,
    unpack_from_receiver,
    unpack_from_sender,
)
from stream.wire import LinkFields, encode

COUNT = 50_000
GROWTH_BYTES = 4_000_000


def garbage(source: random.Random, sender: str) -> list[bytes]:
    """A message of any number of parts: noise, damaged messages of ours, and well-formed nonsense."""
    number = source.randrange(2**62)
    controls = (
        Ack(consumed=number),
        Resend(expected=number),
        Goodbye(consumed=number),
        Hello(receiver="somebody", connection=number),
        Heartbeat(sender=sender, position=-1),
        Skip(first=number, last=0),
        Refused(reason="x"),
        Welcome(sender=sender, run_id="", source="", next=0, slots=1, slot_bytes=1),
    )
    data = encode(frame(1), link=LinkFields(number, "another"))
    valid = [pack(source.choice(controls[:4])), data[0], bytes(data[1])]
    match source.randrange(4):
        case 0:
            return [source.randbytes(source.randrange(200)) for _ in range(source.randrange(1, 6))]
        case 1:
            damaged = bytearray(source.choice(valid[:2]))
            damaged[source.randrange(len(damaged))] = source.randrange(256)
            return [bytes(damaged[: source.randrange(1, len(damaged))])]
        case 2:
            return [valid[1], valid[2][: source.randrange(len(valid[2]))]]
        case _:
            return [valid[0], valid[0]]


def test_a_sender_counts_garbage_and_goes_on() -> None:
    source = random.Random(1)
    context = zmq.Context()
    with (
        closing(sender_at("tcp://127.0.0.1:0")) as sender,
        closing(open_receiver(sender.address)) as receiver,
    ):
        with context, context.socket(zmq.DEALER) as attacker:
            attacker.linger = 0
            attacker.connect(sender.address)
            for _ in range(200):
                attacker.send_multipart(garbage(source, ""))
            wait_until(lambda: sender.account.malformed == 200)
            tracemalloc.start()
            for _ in range(COUNT - 200):
                attacker.send_multipart(garbage(source, ""))
            wait_until(lambda: sender.account.malformed == COUNT)
            grown, _peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert grown < GROWTH_BYTES
        sender.send(frame(0))
        sender.end()
        assert take_all(receiver) == [0]
        assert sender.flush(240)
        assert sender.account.acknowledged == 1


def test_garbage_from_the_receiver_that_is_served_is_counted_too() -> None:
    source = random.Random(2)
    with (
        closing(sender_at("tcp://127.0.0.1:0")) as sender,
        closing(open_receiver(sender.address)) as receiver,
    ):
        sender.send(frame(0))
        delivery = None
        while delivery is None:
            delivery = receiver.receive(0.1)
        socket = receiver._socket  # type: ignore[attr-defined]
        for _ in range(1000):
            socket.send_multipart(garbage(source, ""))
        wait_until(lambda: sender.account.malformed == 1000)
        delivery.done()
        sender.end()
        assert take_all(receiver) == []
        assert sender.flush(240)


def test_a_receiver_counts_garbage_and_goes_on() -> None:
    source = random.Random(3)
    context = zmq.Context()
    with context, context.socket(zmq.ROUTER) as impostor:
        impostor.linger = 0
        impostor.sndhwm = 0
        port = impostor.bind_to_random_port("tcp://127.0.0.1")
        with closing(open_receiver(f"tcp://127.0.0.1:{port}", patience_s=30)) as receiver:
            assert receiver.receive(0.1) is None
            identity, _hello = impostor.recv_multipart()
            welcome = Welcome(sender="me", run_id="r", source="s", next=0, slots=4, slot_bytes=6400)
            impostor.send_multipart([identity, pack(welcome)])

            def attack() -> None:
                for _ in range(COUNT):
                    impostor.send_multipart([identity, *garbage(source, "me")])

            attacker = threading.Thread(target=attack)
            attacker.start()
            tracemalloc.start()
            wait_until(lambda: receiver.receive(0.0) is not None or receiver.account.malformed == COUNT)
            grown, _peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            attacker.join()
            assert grown < GROWTH_BYTES
            assert receiver.account.malformed == COUNT
            header, payload = encode(frame(0), link=LinkFields(0, "me"))
            impostor.send_multipart([identity, header, payload])
            delivery = None
            while delivery is None:
                delivery = receiver.receive(0.1)
            assert delivery.sequence == 0
            assert receiver.account.received == 1


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_control_message_or_a_wire_error(data: bytes) -> None:
    for unpack in (unpack_from_receiver, unpack_from_sender):
        try:
            unpack(data)
        except WireError:
            continue


def test_a_control_message_survives_the_wire() -> None:
    hello = Hello(receiver="r", connection=3, expected=4, consumed=2)
    assert unpack_from_receiver(pack(hello)) == hello
    beat = Heartbeat(sender="s", position=-1)
    assert unpack_from_sender(pack(beat)) == beat
