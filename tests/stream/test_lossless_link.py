"""The lossless link on real sockets, the same for all three transports."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_workers import HANGS_S, SLOT_BYTES, HandClock, frame, number_of, sender_at, take_all, wait_until

from stream.errors import ConfigurationError, LinkError, PeerLostError, WireError
from stream.link import Delivery, PeerState, Policy, Receiver, Sender
from stream.links import open_receiver, open_sender
from stream.messages import Detections, Frame, FrameInfo, StreamEnd, StreamStart
from stream.receiving import LosslessReceiver
from stream.security import generate_keys
from stream.settings import LinkSettings
from stream.shared_ring import SharedRingReader

_names = itertools.count()


@pytest.fixture(params=["inproc", "shm", "tcp"])
def address(request: pytest.FixtureRequest) -> str:
    return fresh(request.param)


def fresh(scheme: str) -> str:
    return f"inproc://link-{next(_names)}" if scheme == "inproc" else f"{scheme}://127.0.0.1:0"


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def next_one(receiver: Receiver) -> Delivery:
    deadline_s = time.monotonic() + HANGS_S
    while time.monotonic() < deadline_s:
        delivery = receiver.receive(0.1)
        if delivery is not None:
            return delivery
    raise AssertionError("nothing came")


def in_background(stack: ExitStack, receiver: Receiver) -> list[int]:
    numbers: list[int] = []
    thread = threading.Thread(target=lambda: numbers.extend(take_all(receiver)))
    thread.start()
    stack.callback(thread.join)
    return numbers


def test_everything_offered_arrives_in_order_and_the_accounts_agree(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address)))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    with ExitStack() as running:
        numbers = in_background(running, receiver)
        for number in range(200):
            assert sender.send(frame(number), timeout_s=HANGS_S)
        sender.end()
        assert sender.flush(HANGS_S)
    assert numbers == list(range(200))
    assert sender.peer is PeerState.ENDED
    assert receiver.peer is PeerState.ENDED
    assert receiver.receive(0) is None
    sent, got = sender.close(), receiver.close()
    assert (sent.offered, sent.acknowledged, sent.dropped, sent.unacknowledged) == (200, 200, 0, 0)
    assert (got.received, got.consumed, got.duplicates, got.missing, got.malformed) == (200, 200, 0, 0, 0)


def test_both_ends_are_what_the_contract_says() -> None:
    with closing(sender_at(fresh("inproc"))) as sender, closing(open_receiver(sender.address)) as receiver:
        assert isinstance(sender, Sender)
        assert isinstance(receiver, Receiver)
        sender.send(frame(0))
        assert isinstance(next_one(receiver), Delivery)


def test_the_end_says_how_much_was_offered_and_dropped(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address, policy=Policy.DROP_NEWEST)))
    for number in range(11):
        sender.send(frame(number))
    sender.end("enough")
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    for _ in range(8):
        delivery = next_one(receiver)
        assert not receiver.ended
        delivery.done()
    last = next_one(receiver)
    assert receiver.ended
    end = last.message
    assert isinstance(end, StreamEnd)
    assert (end.run_id, end.source, end.offered, end.dropped, end.reason) == ("run", "test", 11, 3, "enough")
    last.done()
    assert sender.flush(HANGS_S)
    with pytest.raises(LinkError, match="has ended"):
        sender.send(frame(11))


def test_messages_without_an_array_pass_too(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address)))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    info = frame(3).info
    sender.send(StreamStart("run", "test"))
    sender.send(Detections.empty(info))
    sender.send(Detections.from_columns(info, x_um=[1.0, 2.0]))
    assert next_one(receiver).message == StreamStart("run", "test")
    empty, two = next_one(receiver).message, next_one(receiver).message
    assert isinstance(empty, Detections)
    assert isinstance(two, Detections)
    assert len(empty) == 0
    assert list(two.x_um) == [1.0, 2.0]


def test_a_full_ring_blocks_until_there_is_room(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address, slots=4)))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    for number in range(4):
        sender.send(frame(number))
    with pytest.raises(LinkError, match="no room"):
        sender.send(frame(4), timeout_s=0.05)
    next_one(receiver).done()
    assert sender.send(frame(4), timeout_s=HANGS_S)
    assert sender.account.offered == 5
    assert sender.queued == 4


def test_drop_oldest_keeps_the_newest_and_declares_the_hole(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address, slots=4, policy=Policy.DROP_OLDEST)))
    assert all(sender.send(frame(number)) for number in range(20))
    sender.end()
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    assert take_all(receiver) == [16, 17, 18, 19]
    assert receiver.account.dropped == 16
    assert receiver.account.missing == 0
    assert sender.flush(HANGS_S)
    assert sender.account.dropped == 16


def test_drop_newest_keeps_the_oldest_and_says_so(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address, slots=4, policy=Policy.DROP_NEWEST)))
    assert [sender.send(frame(number)) for number in range(6)] == [True] * 4 + [False] * 2
    sender.end()
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    assert take_all(receiver) == [0, 1, 2, 3]
    assert receiver.account.dropped == 2
    assert receiver.account.missing == 0


@given(
    scheme=st.sampled_from(["inproc", "shm", "tcp"]),
    policy=st.sampled_from(list(Policy)),
    slots=st.integers(2, 5),
    actions=st.lists(st.sampled_from(["send", "send", "take", "reopen"]), max_size=25),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_policy_keeps_the_account_balanced(
    scheme: str, policy: Policy, slots: int, actions: list[str]
) -> None:
    taken: list[int] = []
    offered, kept = 0, []
    with closing(sender_at(fresh(scheme), slots=slots, policy=policy)) as sender:
        receiver = open_receiver(sender.address)
        try:
            for action in actions:
                if action == "reopen":
                    receiver.close()
                    receiver = open_receiver(sender.address)
                elif action == "take":
                    delivery = receiver.receive(0.02)
                    if delivery is not None:
                        taken.append(number_of(delivery.message))
                        delivery.done()
                elif policy is not Policy.BLOCK or sender.queued < slots:
                    if sender.send(frame(offered), timeout_s=HANGS_S):
                        kept.append(offered)
                    offered += 1
                assert sender.account.balanced
            sender.end()
            taken += take_all(receiver)
            assert sender.flush(HANGS_S)
        finally:
            receiver.close()
        account = sender.close()
    assert account.balanced
    assert account.offered == offered
    assert account.unacknowledged == 0
    assert account.acknowledged + account.dropped == offered
    assert taken == sorted(set(taken)), "in order, nothing twice"
    assert len(taken) == account.acknowledged
    if policy is not Policy.DROP_OLDEST:
        assert taken == kept


def test_a_delivery_done_twice_or_after_a_later_one_changes_nothing(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address)))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    for number in range(3):
        sender.send(frame(number))
    first, second, third = (next_one(receiver) for _ in range(3))
    second.done()
    second.done()
    first.done()
    assert receiver.account.consumed == 2
    wait_until(lambda: sender.account.acknowledged == 2)
    third.done()
    wait_until(lambda: sender.queued == 0)


def test_arrays_are_read_only(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address)))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    sender.send(frame(1))
    message = next_one(receiver).message
    assert isinstance(message, Frame)
    with pytest.raises(ValueError, match="read-only"):
        message.image[0, 0] = 1


def test_an_array_may_be_kept_after_the_link_is_closed(address: str) -> None:
    with closing(sender_at(address)) as sender, closing(open_receiver(sender.address)) as receiver:
        sender.send(frame(7))
        message = next_one(receiver).message
    assert number_of(message) == 7


def test_a_message_larger_than_a_slot_is_refused_and_costs_nothing(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address, slots=2)))
    huge = Frame(frame(0).info, np.zeros((2, SLOT_BYTES), np.uint8))
    for _ in range(5):
        with pytest.raises(LinkError, match="larger slots"):
            sender.send(huge, timeout_s=HANGS_S)
    with pytest.raises(WireError):
        sender.send(Frame(frame(0).info, np.zeros((2, 2), np.float32)), timeout_s=HANGS_S)  # type: ignore[arg-type]
    assert sender.send(frame(0), timeout_s=HANGS_S)
    assert sender.account.offered == 1


def test_what_nobody_took_is_counted_at_close(address: str) -> None:
    sender = sender_at(address)
    for number in range(5):
        sender.send(frame(number))
    assert not sender.flush(0.05)
    account = sender.close()
    assert (account.offered, account.acknowledged, account.unacknowledged) == (5, 0, 5)
    assert account.balanced
    assert sender.close() == account
    with pytest.raises(LinkError, match="is closed"):
        sender.send(frame(5))


def test_a_sender_that_closes_without_an_end_is_flagged_after_the_last_message(
    address: str, ends: ExitStack
) -> None:
    sender = ends.enter_context(closing(sender_at(address)))
    receiver = ends.enter_context(closing(open_receiver(sender.address, patience_s=HANGS_S)))
    for number in range(3):
        sender.send(frame(number))
    first = next_one(receiver)
    sender.close()
    assert number_of(first.message) == 0
    first.done()
    for number in (1, 2):
        delivery = next_one(receiver)
        assert number_of(delivery.message) == number
        delivery.done()
    with pytest.raises(PeerLostError, match="before the end of the stream"):
        receiver.receive(HANGS_S)
    with pytest.raises(PeerLostError):
        receiver.receive(0)
    assert receiver.peer is PeerState.LOST


def test_a_second_receiver_is_refused_until_the_first_has_left(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address)))
    first = ends.enter_context(closing(open_receiver(sender.address)))
    sender.send(frame(0))
    next_one(first).done()
    second = ends.enter_context(closing(open_receiver(sender.address)))
    sender.send(frame(1))
    while not second.account.refused:
        assert second.receive(0.1) is None
    assert second.peer is PeerState.WAITING
    assert second.account.refused == 1
    assert sender.account.refused == 1
    assert number_of(next_one(first).message) == 1
    first.close()
    assert number_of(next_one(second).message) == 1, "what the first did not declare consumed"
    assert sender.account.reconnects == 1


def test_a_receiver_may_come_first(ends: ExitStack) -> None:
    name = fresh("inproc")
    receiver = ends.enter_context(closing(open_receiver(name, patience_s=0.3)))
    assert receiver.receive(1.5) is None
    assert receiver.peer is PeerState.WAITING
    sender = ends.enter_context(closing(sender_at(name)))
    sender.send(frame(0))
    assert number_of(next_one(receiver).message) == 0


def test_a_restarted_sender_is_flagged_always(ends: ExitStack) -> None:
    old = sender_at("tcp://127.0.0.1:0")
    port = old.address
    receiver = ends.enter_context(closing(open_receiver(port, patience_s=20)))
    old.send(frame(0))
    next_one(receiver).done()
    wait_until(lambda: old.queued == 0)
    old._thread._peer.leaves(0.0)  # type: ignore[attr-defined]  # as if it had crashed: no goodbye
    old.close()
    new = ends.enter_context(closing(sender_at(port)))
    new.send(frame(0))
    with pytest.raises(PeerLostError, match="was restarted and has lost its memory"):
        take_all(receiver)


def test_a_sender_gives_up_when_its_receiver_is_gone_for_good(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address, slots=2, give_up_s=0.3)))
    for number in range(2):
        sender.send(frame(number))
    with pytest.raises(LinkError, match="the receiver is waiting"):
        sender.send(frame(2), timeout_s=0.5)
    receiver = open_receiver(sender.address)
    next_one(receiver)
    receiver.close()
    with pytest.raises(PeerLostError, match=r"gone for 0\.3 s"):
        sender.send(frame(3))


def test_a_hung_consumer_is_called_stalled_and_recovers(address: str, ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at(address)))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    sender.send(frame(0))
    delivery = next_one(receiver)
    wait_until(lambda: sender.peer is PeerState.STALLED)
    delivery.done()
    wait_until(lambda: sender.peer is PeerState.CONNECTED)


def test_an_idle_link_stays_connected(address: str, ends: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    sender = ends.enter_context(closing(sender_at(address, patience_s=0.3)))
    receiver = ends.enter_context(closing(open_receiver(sender.address, patience_s=0.3)))
    sender.send(frame(0))
    next_one(receiver).done()
    monkeypatch.setattr("stream.receiving.time", clock)
    for _ in range(10):
        assert receiver.receive(0.0) is None  # with a heartbeat in it, read before time has passed
        assert receiver._endpoint.socket.poll(1000 * HANGS_S)  # type: ignore[attr-defined]
        clock.now_s += 0.2
        assert receiver.peer is PeerState.CONNECTED
        assert sender.peer is PeerState.CONNECTED


def test_a_torn_slot_is_not_delivered_but_asked_for_again(ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at("shm://127.0.0.1:0")))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    assert isinstance(receiver, LosslessReceiver)
    sender.send(frame(0))
    next_one(receiver).done()
    words = sender._ring._words  # type: ignore[attr-defined]
    sender.send(frame(1))
    slot = int(np.flatnonzero(words == 1)[0])
    words[slot] = 99
    while not receiver.account.malformed:
        assert receiver.receive(0.1) is None
    words[slot] = 1
    assert number_of(next_one(receiver).message) == 1
    assert sender.account.resent > 0


def test_a_slot_overwritten_while_it_is_read_is_reported_and_comes_again(ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at("shm://127.0.0.1:0")))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    for number in range(3):
        sender.send(frame(number))
    deliveries = [next_one(receiver) for _ in range(3)]
    words = sender._ring._words  # type: ignore[attr-defined]
    slot = int(np.flatnonzero(words == 1)[0])
    words[slot] = 99
    with pytest.raises(LinkError, match="overwritten while it was read"):
        deliveries[2].done()
    words[slot] = 1
    assert [number_of(next_one(receiver).message) for _ in range(2)] == [1, 2]
    assert receiver.account.consumed == 1


@pytest.mark.parametrize("scheme", ["tcp", "shm"])
def test_a_port_in_use_is_said_in_one_line(scheme: str) -> None:
    with closing(sender_at("tcp://127.0.0.1:0")) as sender:
        taken = sender.address.replace("tcp", scheme)
        with pytest.raises(LinkError, match="in use by another program") as error:
            sender_at(taken)
    assert "\n" not in str(error.value)
    with closing(sender_at(taken)):
        pass


def test_a_name_in_use_is_said_too() -> None:
    name = fresh("inproc")
    with closing(sender_at(name)), pytest.raises(LinkError, match="in use"):
        sender_at(name)


@pytest.mark.parametrize(
    "text",
    ["", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "tcp://127.0.0.1:70000", "udp://127.0.0.1:1",
     "ipc:///tmp/x", "inproc://", "tcp://*:5555", "tcp://0.0.0.0:0", "shm://192.168.0.1:5555"],
)  # fmt: skip
def test_addresses_that_make_no_sense_or_leave_the_machine_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        sender_at(text)
    with pytest.raises(ConfigurationError):
        open_receiver(text)


@pytest.mark.parametrize(("slots", "limit"), [(4, 4), (4, 0), (1, None)])
def test_credits_must_fit_into_the_ring(slots: int, limit: int | None) -> None:
    with pytest.raises(ConfigurationError, match="fewer than slots"):
        open_sender("tcp://127.0.0.1:0", run_id="r", source="s", slot_bytes=10, slots=slots, credits=limit)


def test_settings_open_a_link_and_refuse_what_they_do_not_know() -> None:
    chosen = LinkSettings.model_validate({"slots": 3, "policy": "drop_oldest"})
    options = chosen.model_dump(exclude={"age_limit_ms"})
    with closing(open_sender("tcp://127.0.0.1:0", run_id="r", source="s", slot_bytes=10, **options)):
        pass
    for bad in ({"slots": 1}, {"slots": 4, "credits": 4}, {"policy": "never"}, {"slot": 3}):
        with pytest.raises(ValueError, match="validation error"):
            LinkSettings.model_validate(bad)


def test_a_reader_sees_the_memory_of_the_sender_itself(ends: ExitStack) -> None:
    sender = ends.enter_context(closing(sender_at("shm://127.0.0.1:0")))
    receiver = ends.enter_context(closing(open_receiver(sender.address)))
    info = FrameInfo("run", 0, 0, 0.0, 0, 0.0)
    sender.send(Frame(info, np.zeros((64, 100), np.uint8)))
    message = next_one(receiver).message
    assert isinstance(message, Frame)
    reader: SharedRingReader = receiver._ring  # type: ignore[attr-defined]
    assert np.shares_memory(message.image, reader._payloads)


@pytest.mark.parametrize("scheme", ["tcp", "shm"])
def test_with_keys_a_link_is_encrypted_and_strangers_get_nothing(
    scheme: str, ends: ExitStack, tmp_path: Path
) -> None:
    keys = generate_keys(tmp_path / "keys")
    strangers = generate_keys(tmp_path / "strangers")
    sender = ends.enter_context(closing(sender_at(fresh(scheme), security=keys)))
    outsider = ends.enter_context(closing(open_receiver(sender.address)))
    wrong = replace(strangers, server_public=keys.server_public)
    stranger = ends.enter_context(closing(open_receiver(sender.address, security=wrong)))
    sender.send(frame(0))
    assert outsider.receive(0.3) is None
    assert stranger.receive(0.3) is None
    receiver = ends.enter_context(closing(open_receiver(sender.address, security=keys)))
    assert number_of(next_one(receiver).message) == 0


def live(address: str, ends: ExitStack, slots: int = 4) -> tuple[Sender, Receiver]:
    sender = ends.enter_context(
        closing(sender_at(address, slots=slots, credits=slots - 1, policy=Policy.LIVE))
    )
    return sender, ends.enter_context(closing(open_receiver(sender.address)))


def test_a_live_sender_gives_what_is_wanted_and_declares_the_rest(address: str, ends: ExitStack) -> None:
    sender, receiver = live(address, ends)
    receiver.want(1)
    assert not sender.send(frame(0)), "there is no receiver yet"
    while not sender.wait_for_room(0.05):
        receiver.receive(0.01)
    assert [sender.send(frame(number)) for number in (1, 2, 3)] == [True, False, False]
    first = next_one(receiver)
    assert number_of(first.message) == 1
    assert not sender.wait_for_room(0.05), "a message that has arrived is no longer wanted"
    sender.drop(5)
    receiver.want(2)
    while not sender.wait_for_room(0.05):
        receiver.receive(0.0)
    assert sender.send(frame(9))
    first.done()
    assert number_of(next_one(receiver).message) == 9
    assert sender.wait_for_room(HANGS_S)
    assert sender.send(frame(10))
    sender.end()
    assert take_all(receiver) == [10]
    assert sender.flush(HANGS_S)
    account = sender.account
    assert (account.offered, account.dropped, account.acknowledged) == (11, 8, 3)
    assert receiver.account.dropped == 8
    assert receiver.account.missing == 0


def test_a_live_sender_serves_a_receiver_that_asks_for_nothing_as_far_as_the_credits_reach(
    address: str, ends: ExitStack
) -> None:
    sender, receiver = live(address, ends)
    while not sender.wait_for_room(0.05):
        receiver.receive(0.0)
    assert [sender.send(frame(0))] == [True]
    assert number_of(next_one(receiver).message) == 0


def test_after_a_live_receiver_was_killed_the_next_one_gets_what_was_not_consumed_and_then_asks(
    address: str, ends: ExitStack
) -> None:
    sender, receiver = live(address, ends)
    receiver.want(2)
    for number in range(2):
        while not sender.wait_for_room(0.05):
            receiver.receive(0.0)
        assert sender.send(frame(number))
    next_one(receiver).done()
    next_one(receiver)
    receiver.close()
    second = ends.enter_context(closing(open_receiver(sender.address)))
    assert number_of(next_one(second).message) == 1
    assert second.account.missing == 0
    second.want(1)
    while not sender.wait_for_room(0.05):
        second.receive(0.0)
    assert sender.send(frame(7))
    assert number_of(next_one(second).message) == 7
