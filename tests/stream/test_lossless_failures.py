"""The lossless link when processes are killed and connections are cut."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from link_workers import (
    HANGS_S,
    SPAWN,
    Proxy,
    consume_and_log,
    consume_then_hang,
    frame,
    number_of,
    process,
    produce_for_ever,
    sender_at,
    take_all,
    wait_until,
)

from stream.errors import PeerLostError
from stream.link import PeerState, Receiver
from stream.links import open_receiver

NETWORKED = pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "shm://127.0.0.1:0"])


def take(receiver: Receiver, seen: list[int]) -> None:
    delivery = receiver.receive(0.2)
    if delivery is not None:
        seen.append(number_of(delivery.message))
        delivery.done()


def take_until_lost(receiver: Receiver, seen: list[int]) -> None:
    while True:
        take(receiver, seen)


def logged(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


@NETWORKED
def test_a_killed_consumer_and_its_replacement_lose_nothing(address: str, tmp_path: Path) -> None:
    log = tmp_path / "consumed.txt"
    kills, count = 2, 300
    with closing(sender_at(address, patience_s=2.0, give_up_s=None)) as sender:

        def produce() -> None:
            for number in range(count):
                sender.send(frame(number))
                time.sleep(0.002)
            sender.end()

        producer = threading.Thread(target=produce)
        producer.start()
        for kill in range(kills):
            with process(consume_and_log, sender.address, log) as consumer:
                wait_until(lambda kill=kill: len(logged(log)) > 80 * (kill + 1))
                consumer.kill()
        with process(consume_and_log, sender.address, log) as consumer:
            producer.join()
            assert sender.flush(HANGS_S)
            consumer.join(HANGS_S)
            assert consumer.exitcode == 0
        account = sender.close()
    numbers = logged(log)
    assert sorted(set(numbers)) == list(range(count)), "0 lost"
    assert len(numbers) - count <= kills, "at most one twice for each killed consumer"
    assert account.acknowledged == count
    assert account.unacknowledged == 0
    assert account.reconnects == kills


def test_ten_cut_connections_lose_nothing_and_keep_the_order() -> None:
    count = 400
    with closing(sender_at("tcp://127.0.0.1:0", give_up_s=None)) as sender:
        proxy = Proxy(int(sender.address.rpartition(":")[2]))
        numbers: list[int] = []
        with closing(proxy), closing(open_receiver(proxy.address, lost_after_s=None)) as receiver:
            consumer = threading.Thread(target=lambda: numbers.extend(take_all(receiver)))
            consumer.start()
            cuts = 0
            for number in range(count):
                sender.send(frame(number))
                if number % 38 == 37 and cuts < 10:
                    connections = proxy.connections
                    proxy.cut()
                    wait_until(lambda connections=connections: proxy.connections > connections)
                    cuts += 1
            sender.end()
            assert sender.flush(HANGS_S)
            consumer.join()
            got = receiver.close()
        account = sender.close()
    assert cuts == 10
    assert numbers == list(range(count))
    assert (account.acknowledged, account.unacknowledged, account.dropped) == (count, 0, 0)
    assert got.missing == 0
    assert got.reconnects >= 10
    assert account.reconnects >= 1


@NETWORKED
def test_a_killed_producer_is_flagged_after_its_last_message(address: str) -> None:
    where = SPAWN.Queue()
    with process(produce_for_ever, address, where) as producer:
        there = where.get(timeout=HANGS_S)
        with closing(open_receiver(there, patience_s=1.5, lost_after_s=None)) as receiver:
            seen: list[int] = []
            while len(seen) < 50:
                take(receiver, seen)
            producer.kill()
            producer.join()
            while receiver.peer is not PeerState.STALLED:  # whose silence is not yet taken for death
                take(receiver, seen)
            receiver._lost_after_s = receiver._patience_s  # type: ignore[attr-defined]
            with pytest.raises(PeerLostError, match="no sign of life"):
                take_until_lost(receiver, seen)
            assert receiver.peer is PeerState.LOST
    where.close()
    where.join_thread()
    assert seen == list(range(len(seen)))


def test_a_consumer_process_that_hangs_is_called_stalled_and_when_killed_lost() -> None:
    with closing(sender_at("tcp://127.0.0.1:0", patience_s=1.0)) as sender:
        with process(consume_then_hang, sender.address) as consumer:
            for number in range(5):
                sender.send(frame(number))
            wait_until(lambda: sender.account.acknowledged == 1)
            wait_until(lambda: sender.peer is PeerState.STALLED)
            consumer.kill()
            wait_until(lambda: sender.peer is PeerState.LOST)
        with closing(open_receiver(sender.address)) as receiver:
            sender.end()
            assert take_all(receiver) == [1, 2, 3, 4]
            assert sender.flush(HANGS_S)


def test_a_consumer_that_dies_after_the_end_leaves_the_end_to_its_replacement() -> None:
    with closing(sender_at("tcp://127.0.0.1:0")) as sender:
        sender.send(frame(0))
        sender.end()
        with closing(open_receiver(sender.address)) as receiver:
            assert take_all(receiver) == [0]
            wait_until(lambda: sender.peer is PeerState.ENDED)
        with closing(open_receiver(sender.address)) as receiver:
            assert take_all(receiver) == []
        assert sender.flush(HANGS_S)
        assert sender.account.acknowledged == 1
