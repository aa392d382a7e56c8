"""The bookkeeping of a lossless link, driven by hypothesis through a pipe that is cut at will."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stream.ledger import Arrival, Entry, ReceiveLedger, SendLedger
from stream.link import Policy

SLOTS = 6
CREDITS = 3


class LinkOverABadPipe(RuleBasedStateMachine):
    """A sender and a receiver joined by an ordered pipe; a cut loses everything in it."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = SendLedger(CREDITS)
        self.receiver = ReceiveLedger()
        self.pipe: deque[tuple[str, int, int]] = deque()
        self.kept: list[int] = []
        self.dropped: set[int] = set()
        self.seen: list[int] = []
        self.used = 0

    def _offer(self) -> int:
        number = self.sender.next_sequence
        self.sender.offer(Entry(number, 0, b"", 0))
        self.kept.append(number)
        return number

    @rule(policy=st.sampled_from(list(Policy)))
    def offer(self, policy: Policy) -> None:
        if self.sender.queued < SLOTS:
            self._offer()
        elif policy is Policy.DROP_NEWEST:
            self.dropped.add(self.sender.next_sequence)
            self.sender.drop_new()
        elif policy is Policy.DROP_OLDEST:
            oldest = self.sender.drop_oldest()
            assert oldest is not None, "credits are fewer than slots, so something is unsent"
            self.dropped.add(oldest.sequence)
            self._offer()

    @rule()
    def send(self) -> None:
        step = self.sender.next_step()
        if step is None:
            return
        if step.skip is not None:
            self.pipe.append(("skip", *step.skip))
        self.pipe.append(("data", step.entry.sequence, 0))
        self.sender.sent(step)

    @rule()
    def beat(self) -> None:
        self.pipe.append(("beat", self.sender.position, 0))

    @rule()
    def cut(self) -> None:
        self.pipe.clear()

    @precondition(lambda self: self.pipe)
    @rule()
    def receive(self) -> None:
        kind, first, last = self.pipe.popleft()
        if kind == "beat":
            complete = self.receiver.reached(first)
        elif kind == "skip":
            complete = self.receiver.skip(first, last) is not Arrival.GAP
        else:
            arrival = self.receiver.classify(first)
            complete = arrival is not Arrival.GAP
            if arrival is Arrival.NEXT:
                self.receiver.accept(first, is_end=False)
                self.seen.append(first)
        if not complete:
            self.pipe.clear()
            self.sender.rewind(self.receiver.expected)

    @rule()
    def consume(self) -> None:
        if self.seen:
            self.receiver.consume(self.seen[-1])
            self.sender.acknowledge(self.receiver.consumed)

    @rule()
    def replace_receiver(self) -> None:
        self.pipe.clear()
        consumed = self.sender.last_acknowledged
        self.seen = [number for number in self.seen if number <= consumed]
        self.sender.start_over()
        self.receiver = ReceiveLedger()
        self.receiver.start(consumed + 1)

    @invariant()
    def every_message_is_accounted_for(self) -> None:
        account = self.sender.account(0, 0, 0)
        assert account.balanced
        assert account.offered == self.sender.next_sequence
        assert account.dropped == len(self.dropped)
        assert self.sender.in_flight <= CREDITS
        assert self.sender.queued <= SLOTS

    @invariant()
    def what_is_received_is_what_was_kept_in_order(self) -> None:
        surviving = [number for number in self.kept if number not in self.dropped]
        assert self.seen == surviving[: len(self.seen)]

    def teardown(self) -> None:
        for _ in range(4 * SLOTS):
            self.send()
            self.beat()
            while self.pipe:
                self.receive()
            self.consume()
        assert self.seen == [number for number in self.kept if number not in self.dropped]
        assert self.sender.account(0, 0, 0).unacknowledged == 0
        assert self.receiver.missing == 0


class LinkOnRequest(LinkOverABadPipe):
    """The same with a receiver that asks; its questions may be lost, late, or repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = SendLedger(CREDITS, on_request=True)
        self.wanted = 0
        self.asked = (-1, 0)

    @rule(more=st.integers(0, 2))
    def want(self, more: int) -> None:
        received = self.receiver.expected - 1
        self.asked = (received, more)
        self.wanted = len(self.seen) + more

    @rule()
    def hear(self) -> None:
        self.sender.want(*self.asked)

    @rule()
    def offer_what_is_wanted(self) -> None:
        if self.sender.would_send:
            self._offer()
            self.send()

    @rule(count=st.integers(1, 3))
    def drop(self, count: int) -> None:
        self.dropped |= set(range(self.sender.next_sequence, self.sender.next_sequence + count))
        self.sender.drop_new(count)

    def teardown(self) -> None:
        self.sender.want_all()
        super().teardown()


TestLinkOnRequest = LinkOnRequest.TestCase
TestLinkOnRequest.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestLinkOverABadPipe = LinkOverABadPipe.TestCase
TestLinkOverABadPipe.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_only_messages_that_were_sent_can_be_acknowledged() -> None:
    ledger = SendLedger(CREDITS)
    ledger.offer(Entry(0, 0, b"", 0))
    with pytest.raises(ValueError, match="-1 was the last one sent"):
        ledger.acknowledge(0)


def test_an_acknowledged_message_cannot_be_asked_for_again() -> None:
    ledger = SendLedger(CREDITS)
    ledger.offer(Entry(0, 0, b"", 0))
    step = ledger.next_step()
    assert step is not None
    ledger.sent(step)
    ledger.acknowledge(0)
    with pytest.raises(ValueError, match="can be sent"):
        ledger.rewind(0)


def test_a_new_receiver_is_told_the_end_again() -> None:
    ledger = SendLedger(CREDITS)
    ledger.offer(Entry(0, -1, b"", 0, is_end=True))
    step = ledger.next_step()
    assert step is not None
    ledger.sent(step)
    ledger.acknowledge(0)
    ledger.start_over()
    again = ledger.next_step()
    assert again is not None
    assert again.entry.is_end


def test_a_message_out_of_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="where 0 was due"):
        SendLedger(CREDITS).offer(Entry(3, 0, b"", 0))


def test_what_is_given_back_is_received_once_more() -> None:
    ledger = ReceiveLedger()
    for number in range(3):
        ledger.accept(number, is_end=number == 2)
    ledger.give_back(1)
    assert ledger.expected == 1
    assert ledger.received == 1
    assert not ledger.ended
    assert ledger.missing == 2


def test_what_is_under_way_counts_as_wanted_and_a_repeated_question_changes_nothing() -> None:
    ledger = SendLedger(CREDITS, on_request=True)
    assert not ledger.would_send
    ledger.want(received=-1, more=2)
    for number in range(2):
        assert ledger.would_send
        ledger.offer(Entry(number, 0, b"", 0))
        step = ledger.next_step()
        assert step is not None
        ledger.sent(step)
    ledger.want(received=-1, more=2)
    assert not ledger.would_send
    ledger.want(received=0, more=2)
    assert ledger.would_send


def test_the_end_needs_no_question() -> None:
    ledger = SendLedger(CREDITS, on_request=True)
    ledger.offer(Entry(0, -1, b"", 0, is_end=True))
    assert ledger.next_step() is not None
