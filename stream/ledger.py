"""Bookkeeping of a lossless message link, without sockets: what was offered, sent, lost, resent, consumed.

Sequence numbers count offered messages from 0; a dropped message leaves a hole. Only messages that were never sent
can be dropped, so everything before a message is settled when that message is sent, and holes can be declared in
the order of sending. The sender repeats from any point that the receiver names (go-back-N; Tanenbaum & Wetherall,
Computer Networks, section 3.4.2).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

import zmq

from stream.link import LinkAccount


@dataclass(slots=True, eq=False)
class Entry:
    """A message in the ring. `slot` is -1 for the end of the stream, which needs no room."""

    sequence: int
    slot: int
    header: bytes
    nbytes: int
    is_end: bool = False
    transmissions: list[zmq.MessageTracker] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Step:
    """What to send next: `skip` is the hole (first, last) to declare before `entry`."""

    entry: Entry
    skip: tuple[int, int] | None


class SendLedger:
    """The sender's side: a queue of unsent messages and a window of sent, unacknowledged ones.

    With `on_request` a message is sent for the first time only when the receiver wants it (`want`), or when it has
    said that it wants all (`want_all`).
    """

    def __init__(self, credit_limit: int, *, on_request: bool = False) -> None:
        self.credit_limit = credit_limit
        self.on_request = on_request
        self._wanted: int | None = 0 if on_request else None
        self.offered = 0
        self.dropped = 0
        self.acknowledged = 0
        self.resent = 0
        self.next_sequence = 0
        self.last_acknowledged = -1
        self.position = -1
        self.highest_sent = -1
        self.end_offered = False
        self.end_acknowledged = False
        self._end: Entry | None = None
        self._queue: deque[Entry] = deque()
        self._window: deque[Entry] = deque()
        self._cursor = 0

    def offer(self, entry: Entry) -> None:
        """Take a message into the queue; its sequence must be `next_sequence`."""
        if entry.sequence != self.next_sequence:
            raise ValueError(f"entry {entry.sequence} offered where {self.next_sequence} was due")
        self.next_sequence += 1
        self._queue.append(entry)
        if entry.is_end:
            self.end_offered = True
            self._end = entry
        else:
            self.offered += 1

    def drop_new(self, count: int = 1) -> None:
        """Count the message, or the `count` messages, about to be offered as dropped."""
        self.next_sequence += count
        self.offered += count
        self.dropped += count

    def want(self, received: int, more: int) -> None:
        """The receiver has everything up to `received` and wants `more` messages; those under way count."""
        self._wanted = max(0, more - sum(entry.sequence > received for entry in self._window))

    def want_all(self) -> None:
        """The receiver wants whatever the credits allow."""
        self._wanted = None

    def want_nothing(self) -> None:
        """There is no receiver, or a new one that has not asked for anything yet."""
        self._wanted = 0 if self.on_request else None

    @property
    def would_send(self) -> bool:
        """Whether a message offered now would be sent at once."""
        return not self._queue and len(self._window) < self.credit_limit and self._wanted != 0

    def drop_oldest(self) -> Entry | None:
        """Drop the oldest unsent message and return it; None if every message was sent."""
        if not self._queue or self._queue[0].is_end:
            return None
        self.dropped += 1
        return self._queue.popleft()

    def next_step(self) -> Step | None:
        """What to send next; None if there is nothing or the credits are used up."""
        if self._cursor < len(self._window):
            entry = self._window[self._cursor]
        elif (
            self._queue
            and len(self._window) < self.credit_limit
            and (self._wanted != 0 or self._queue[0].is_end)
        ):
            entry = self._queue[0]
        else:
            return None
        hole = self.position + 1 < entry.sequence
        return Step(entry, (self.position + 1, entry.sequence - 1) if hole else None)

    def sent(self, step: Step) -> None:
        """Record that `step`, as returned by `next_step`, was sent."""
        if self._cursor < len(self._window):
            self.resent += 1
        else:
            self._window.append(self._queue.popleft())
            if self._wanted is not None:
                self._wanted = max(0, self._wanted - 1)
        self._cursor += 1
        self.position = step.entry.sequence
        self.highest_sent = max(self.highest_sent, self.position)

    def acknowledge(self, consumed: int) -> list[Entry]:
        """Free everything up to `consumed`; raises ValueError if that was never sent."""
        if consumed > self.highest_sent:
            raise ValueError(
                f"message {consumed} was acknowledged, but {self.highest_sent} was the last one sent"
            )
        freed: list[Entry] = []
        while self._window and self._window[0].sequence <= consumed:
            entry = self._window.popleft()
            freed.append(entry)
            if entry.is_end:
                self.end_acknowledged = True
            else:
                self.acknowledged += 1
        self._cursor = max(0, self._cursor - len(freed))
        self.last_acknowledged = max(self.last_acknowledged, consumed)
        self.position = max(self.position, self.last_acknowledged)
        return freed

    def rewind(self, expected: int) -> None:
        """Go back so that `expected` comes next; ValueError if it is acknowledged or was never sent."""
        if not self.last_acknowledged < expected <= self.highest_sent + 1:
            raise ValueError(
                f"message {expected} was requested, but only {self.last_acknowledged + 1} to "
                f"{self.highest_sent + 1} can be sent"
            )
        self.position = expected - 1
        self._cursor = sum(entry.sequence < expected for entry in self._window)

    def start_over(self) -> None:
        """Prepare for a new receiver: it gets what the previous one did not acknowledge, and always the end."""
        if self.end_acknowledged and self._end is not None:
            self.end_acknowledged = False
            self.last_acknowledged = self._end.sequence - 1
            self._window.append(self._end)
        self.rewind(self.last_acknowledged + 1)
        self.want_nothing()

    @property
    def queued(self) -> int:
        """Messages offered and neither acknowledged nor dropped, the end of the stream included."""
        return len(self._queue) + len(self._window)

    @property
    def in_flight(self) -> int:
        """Messages sent and not acknowledged."""
        return len(self._window)

    def account(self, malformed: int, refused: int, reconnects: int) -> LinkAccount:
        """The account of this end; the end-of-stream message is not counted."""
        waiting = self.queued - (self.end_offered and not self.end_acknowledged)
        return LinkAccount(
            offered=self.offered,
            acknowledged=self.acknowledged,
            dropped=self.dropped,
            unacknowledged=waiting,
            resent=self.resent,
            malformed=malformed,
            refused=refused,
            reconnects=reconnects,
        )


class Arrival(Enum):
    """What a sequence number means to the receiver."""

    NEXT = auto()
    DUPLICATE = auto()
    GAP = auto()


class ReceiveLedger:
    """The receiver's side: the next sequence number, and the deliveries that are on loan."""

    def __init__(self) -> None:
        self.expected = 0
        self.consumed = -1
        self.received = 0
        self.duplicates = 0
        self.dropped = 0
        self.end_sequence = -1
        self.consumed_count = 0
        self._known = -1
        self._on_loan: deque[int] = deque()

    def start(self, sequence: int) -> None:
        """Begin at `sequence`, where the acknowledgements of the previous receiver ended."""
        self.expected = sequence
        self.consumed = sequence - 1
        self._known = sequence - 1

    def classify(self, sequence: int) -> Arrival:
        """Classify a message by its number; a duplicate message is counted, nothing else changes."""
        if sequence > self.expected:
            self._known = max(self._known, sequence)
            return Arrival.GAP
        if sequence < self.expected:
            self.duplicates += 1
            return Arrival.DUPLICATE
        return Arrival.NEXT

    def accept(self, sequence: int, is_end: bool) -> None:
        """Record that the next message was received and lent out."""
        self.expected = sequence + 1
        self._known = max(self._known, sequence)
        self._on_loan.append(sequence)
        if is_end:
            self.end_sequence = sequence
        else:
            self.received += 1

    def skip(self, first: int, last: int) -> Arrival:
        """Record a declared hole."""
        if first > self.expected:
            self._known = max(self._known, last)
            return Arrival.GAP
        if last < self.expected:
            return Arrival.DUPLICATE
        self.dropped += last - self.expected + 1
        self.expected = last + 1
        self._known = max(self._known, last)
        return Arrival.NEXT

    def reached(self, position: int) -> bool:
        """Whether everything up to `position`, which the sender has sent, has arrived."""
        self._known = max(self._known, position)
        return position < self.expected

    def is_on_loan(self, sequence: int) -> bool:
        """Whether a message is lent out and not yet consumed."""
        return bool(self._on_loan) and self._on_loan[0] <= sequence

    def loans_up_to(self, sequence: int) -> list[int]:
        """The messages on loan up to `sequence`, in order."""
        return [number for number in self._on_loan if number <= sequence]

    def consume(self, sequence: int) -> None:
        """Record that everything lent out up to `sequence` was consumed."""
        while self._on_loan and self._on_loan[0] <= sequence:
            self.consumed = self._on_loan.popleft()
            self.consumed_count += self.consumed != self.end_sequence

    def give_back(self, sequence: int) -> None:
        """Take back everything lent from `sequence` on: it must be received again."""
        while self._on_loan and self._on_loan[-1] >= sequence:
            if self._on_loan.pop() == self.end_sequence:
                self.end_sequence = -1
            else:
                self.received -= 1
        self.expected = min(self.expected, sequence)

    @property
    def ended(self) -> bool:
        """Whether the end of the stream has arrived and everything before it is consumed."""
        return self.end_sequence >= 0 and (not self._on_loan or self._on_loan[0] == self.end_sequence)

    @property
    def missing(self) -> int:
        """Messages known to have been sent that have neither arrived nor been declared dropped."""
        return max(0, self._known - self.expected + 1)

    def account(self, malformed: int, refused: int, reconnects: int) -> LinkAccount:
        """The account of this end; the end-of-stream message is not counted."""
        return LinkAccount(
            dropped=self.dropped,
            received=self.received,
            consumed=self.consumed_count,
            duplicates=self.duplicates,
            missing=self.missing,
            malformed=malformed,
            refused=refused,
            reconnects=reconnects,
        )
