"""A message link between two stages that one thread steps in turn: messages pass by reference, without sockets.

It keeps the promises of `stream.link` (order, acknowledgement of what was consumed, an account that balances). It
never waits for the other end, which has its turn later: who steps the stages looks at `unread` and steps the
one that has something to do.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stream.errors import LinkError, NoRoomError
from stream.link import LinkAccount, PeerState
from stream.messages import Message, StreamEnd
from stream.waker import Waker

ADDRESS = "direct"


class DirectLink:
    """Both ends of the link: `sender` and `receiver`."""

    def __init__(
        self,
        run_id: str,
        source: str,
        room: int | None = None,
        hear: Callable[[Message], None] = lambda _message: None,
    ) -> None:
        """`room`: messages that are not acknowledged yet at most; None for any number. `hear` gets each message."""
        self.sender = DirectSender(self, source)
        self.receiver = DirectReceiver(self)
        self.hear = hear
        self.turn: Callable[[float], None] = lambda _wait_s: None
        """Gives the stages behind the receiver a turn, while its sender waits for them (`flush`)."""
        self.run_id, self.room = run_id, room
        self.waiting: deque[tuple[int, Message]] = deque()
        self.offered = self.received = self.consumed = 0
        self.drains = False
        """Whether messages are acknowledged at once, because nobody reads them."""
        self.end_sequence = -1

    @property
    def unread(self) -> int:
        """Messages that the receiver has not taken yet."""
        return len(self.waiting)

    @property
    def queued(self) -> int:
        """Messages that were sent and are not acknowledged."""
        return self.offered - self.consumed

    def put(self, message: Message) -> None:
        """Queue a message."""
        self.hear(message)
        self.offered += 1
        if self.drains:
            self.received = self.consumed = self.offered
        else:
            self.waiting.append((self.offered - 1, message))

    def account(self) -> LinkAccount:
        """The account, which is the same at both ends; the end of the stream is no message of its own."""
        is_ended = self.end_sequence >= 0
        is_consumed = is_ended and self.consumed > self.end_sequence
        is_received = is_ended and self.received > self.end_sequence
        offered, acknowledged = self.offered - is_ended, self.consumed - is_consumed
        return LinkAccount(
            offered=offered,
            acknowledged=acknowledged,
            unacknowledged=offered - acknowledged,
            received=self.received - is_received,
            consumed=acknowledged,
        )


@dataclass(frozen=True, slots=True)
class DirectDelivery:
    """A message that its receiver has taken."""

    link: DirectLink
    sequence: int
    message: Message

    def done(self) -> None:
        """Acknowledge it, and all before it."""
        self.link.consumed = max(self.link.consumed, self.sequence + 1)


class DirectSender:
    """The sending end."""

    peer = PeerState.CONNECTED
    address = ADDRESS

    def __init__(self, link: DirectLink, source: str) -> None:
        self._link = link
        self._source = source

    @property
    def account(self) -> LinkAccount:
        """A snapshot of the account."""
        return self._link.account()

    @property
    def queued(self) -> int:
        """Messages that are not acknowledged."""
        return self._link.queued

    def send(self, message: Message, timeout_s: float | None = None) -> bool:
        """Pass a message on. Raises `NoRoomError` at once where there is no room, whatever `timeout_s`."""
        if self._link.end_sequence >= 0:
            raise LinkError("nothing can be sent after the end of the stream")
        if not self.wait_for_room(0.0):
            raise NoRoomError(f"{self._link.room} messages are not acknowledged yet")
        self._link.put(message)
        return True

    def wait_for_room(self, timeout_s: float) -> bool:
        """Whether a message would be taken now."""
        return self._link.room is None or self._link.queued < self._link.room

    def drop(self, count: int) -> None:
        """Refused: nothing is dropped where both ends take turns."""
        raise LinkError(f"{count} messages cannot be dropped on a direct link; use the policy block")

    def end(self, reason: str = "done") -> None:
        """Send the end of the stream. Idempotent."""
        link = self._link
        if link.end_sequence < 0:
            link.end_sequence = link.offered
            link.put(StreamEnd(link.run_id, self._source, link.offered, 0, reason))

    def flush(self, timeout_s: float) -> bool:
        """Whether everything is acknowledged, after one turn of the stages behind the link if there are any."""
        if self._link.queued:
            self._link.turn(timeout_s)
        return self._link.queued == 0

    def close(self) -> LinkAccount:
        """The final account."""
        return self.account


class DirectReceiver:
    """The receiving end."""

    peer = PeerState.CONNECTED
    address = ADDRESS

    def __init__(self, link: DirectLink) -> None:
        self._link = link
        self._wakers = selectors.DefaultSelector()

    def woken_by(self, wakers: Iterable[Waker]) -> None:
        """Let a wait of `receive` be ended by these."""
        for waker in wakers:
            self._wakers.register(waker, selectors.EVENT_READ)

    @property
    def account(self) -> LinkAccount:
        """A snapshot of the account."""
        return self._link.account()

    @property
    def ended(self) -> bool:
        """Whether the end of the stream and everything before it are consumed."""
        return 0 <= self._link.end_sequence < self._link.consumed

    def receive(self, timeout_s: float) -> DirectDelivery | None:
        """The next message, or None if there is none; then a waker is waited for (`woken_by`), `timeout_s` at
        most.
        """
        if not self._link.waiting:
            if timeout_s > 0 and self._wakers.get_map():
                self._wakers.select(timeout_s)
            return None
        sequence, message = self._link.waiting.popleft()
        self._link.received += 1
        return DirectDelivery(self._link, sequence, message)

    def want(self, more: int) -> None:
        """Refused: there is no policy `live` where both ends take turns."""
        raise LinkError("a direct link has no policy live")

    def give_up(self, why: str) -> None:
        """Nothing to do: the sender lives in the same thread."""

    def close(self) -> LinkAccount:
        """The final account. Idempotent."""
        self._wakers.close()
        return self.account
