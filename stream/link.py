"""The two ends of a lossless message link, and how each accounts for every message.

A link has one sender and one receiver. The sender offers messages into a ring of pre-allocated slots; the
receiver acknowledges what it has *consumed*, not what has arrived. Whatever happens in between,

    offered = acknowledged + dropped + unacknowledged

holds at every moment and is reported at close. `open_sender` and `open_receiver` choose the transport by the
address: `inproc://NAME` (same process, by reference), `shm://HOST:PORT` (same host: headers over ZeroMQ,
arrays through shared memory), `tcp://HOST:PORT` (everything over ZeroMQ). The sender binds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from stream.messages import Message


class Policy(StrEnum):
    """What a sender does when its ring is full: wait, drop the oldest unsent message, or drop the new one.

    `LIVE`: it takes a message only when the receiver wants one, and drops it otherwise; nothing waits unsent. The
    caller holds the newest one, replaces it by a newer one, and declares what it has replaced with `Sender.drop`.
    """

    LIVE = "live"
    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


class PeerState(StrEnum):
    """State of the other end of a message link."""

    WAITING = "waiting"
    CONNECTED = "connected"
    STALLED = "stalled"
    LOST = "lost"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class LinkAccount:
    """All messages of a message link as counted by one end: totals since it was opened.

    A sender fills `offered`, `acknowledged`, `dropped`, `unacknowledged`, `resent`; a receiver fills
    `received`, `consumed`, `duplicates`, `missing` (sequence numbers neither received nor declared dropped).
    Both fill `malformed` (parts that are not a valid message), `refused` (second peers) and `reconnects`.
    """

    offered: int = 0
    acknowledged: int = 0
    dropped: int = 0
    unacknowledged: int = 0
    resent: int = 0
    received: int = 0
    consumed: int = 0
    duplicates: int = 0
    missing: int = 0
    malformed: int = 0
    refused: int = 0
    reconnects: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every offered message is accounted for."""
        return self.offered == self.acknowledged + self.dropped + self.unacknowledged


@runtime_checkable
class Delivery(Protocol):
    """A message on loan: its arrays may live in the sender's ring until `done` is called."""

    @property
    def message(self) -> Message:
        """The message; for shared memory its array is a read-only view of the ring."""
        ...

    @property
    def sequence(self) -> int:
        """The link's own number of this message, counted from 0."""
        ...

    def done(self) -> None:
        """Mark the message as consumed; acknowledgements are cumulative, so call it in order."""
        ...


@runtime_checkable
class Sender(Protocol):
    """The sending end of a lossless message link. `send` may be called from one thread."""

    @property
    def address(self) -> str:
        """The address that a receiver connects to; port 0 is replaced by the actual port."""
        ...

    @property
    def peer(self) -> PeerState:
        """State of the receiver."""
        ...

    @property
    def account(self) -> LinkAccount:
        """A snapshot of the account."""
        ...

    @property
    def queued(self) -> int:
        """Messages in the ring that are not yet acknowledged or dropped."""
        ...

    def send(self, message: Message, timeout_s: float | None = None) -> bool:
        """Offer a message.

        Returns False if the message was dropped (drop_newest, live). With `block`, waits for room; raises
        `NoRoomError` after `timeout_s` without room, and `PeerLostError` if the receiver has been lost for longer
        than the patience of the link.
        """
        ...

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a message would be taken; False if none would after `timeout_s`."""
        ...

    def drop(self, count: int) -> None:
        """Declare messages as dropped that are not offered at all; they count as offered and dropped."""
        ...

    def end(self, reason: str = "done") -> None:
        """Send the end-of-stream message; nothing can be offered afterwards."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything offered is acknowledged; False if time ran out first."""
        ...

    def close(self) -> LinkAccount:
        """Release sockets and memory; returns the final account. Idempotent."""
        ...


@runtime_checkable
class Receiver(Protocol):
    """The receiving end of a lossless message link. All methods must be called from one thread."""

    @property
    def address(self) -> str:
        """The address this end connects to."""
        ...

    @property
    def peer(self) -> PeerState:
        """State of the sender."""
        ...

    @property
    def account(self) -> LinkAccount:
        """A snapshot of the account."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the end-of-stream message has been received and everything before it consumed."""
        ...

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next message, or None if none came within `timeout_s`.

        The last delivery of a stream holds a `StreamEnd`. Raises `PeerLostError` when the sender died, hung
        (no sign of life for the link's patience) or restarted without its memory.
        """
        ...

    def want(self, more: int) -> None:
        """Ask a sender with the policy `live` for `more` messages beyond those received; it sends no others.

        The last number given holds: it counts down as messages arrive. Without a call every message is wanted, as
        far as the credits reach.
        """
        ...

    def give_up(self, why: str) -> None:
        """Consider the sender lost: what has arrived is handed out, then `receive` raises `PeerLostError`."""
        ...

    def close(self) -> LinkAccount:
        """Say goodbye to the sender and release everything; returns the final account. Idempotent."""
        ...
