"""The sending end of a lossless message link: the caller copies arrays into slots, a thread sends them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from stream.errors import LinkError, NoRoomError, PeerLostError
from stream.ledger import Entry, SendLedger
from stream.link import LinkAccount, PeerState, Policy
from stream.messages import Message, StreamEnd
from stream.peer import PeerWatch
from stream.protocol import Welcome
from stream.ring import SlotWriter
from stream.sender_thread import SenderThread, Shared
from stream.sockets import Endpoint
from stream.wire import LinkFields, encode

NO_MEMORY_S = 0.05  # s until a ring that found no memory is tried again: another program may free some
LOOK_UP_S = 0.5  # s between two looks at the receiver while `send` waits for room


@dataclass(frozen=True, slots=True)
class SenderOptions:
    """How a sender behaves; see `stream.links.open_sender`."""

    run_id: str
    source: str
    slot_bytes: int
    slots: int
    credits: int
    policy: Policy
    patience_s: float
    give_up_s: float | None
    while_waiting: Callable[[], None] | None = None
    on_news: Callable[[], None] | None = None


class LosslessSender:
    """The `Sender` of all three transports, which differ in the ring and the address of the socket."""

    def __init__(self, endpoint: Endpoint, ring: SlotWriter, options: SenderOptions) -> None:
        self._options = options
        self._address = endpoint.address
        self._ring = ring
        self._id = uuid.uuid4().hex
        self._ledger = SendLedger(options.credits, on_request=options.policy is Policy.LIVE)
        self._peer = PeerWatch(options.patience_s, time.monotonic())
        self._shared = Shared(self._ledger, ring, self._peer, list(range(options.slots)))
        self._lock = self._shared.lock
        self._shared.on_news = options.on_news
        self._closed = False
        welcome = Welcome(
            sender=self._id,
            run_id=options.run_id,
            source=options.source,
            next=0,
            slots=options.slots,
            slot_bytes=options.slot_bytes,
            ring=ring.name,
            confirms=not ring.name,
            sparse=ring.sparse,
        )
        self._thread = SenderThread(endpoint, self._shared, welcome, options.patience_s)

    @property
    def address(self) -> str:
        """The address a receiver connects to."""
        return self._address

    @property
    def peer(self) -> PeerState:
        """State of the receiver."""
        with self._lock:
            return self._peer.state

    @property
    def account(self) -> LinkAccount:
        """A snapshot of the account."""
        with self._lock:
            return self._ledger.account(self._shared.malformed, self._peer.refused, self._peer.reconnects)

    @property
    def queued(self) -> int:
        """Messages in the ring that are not yet acknowledged or dropped."""
        with self._lock:
            return self._ledger.queued

    def send(self, message: Message, timeout_s: float | None = None) -> bool:
        """Offer a message; see `stream.link.Sender.send`. `LinkError` if it does not fit into a slot."""
        started_s = time.monotonic()
        while (slot := self._claim(timeout_s)) is not None:
            sequence = self._ledger.next_sequence
            try:
                header, payload = self._encode(message, sequence, slot)
                self._ring.write(slot, sequence, payload)
            except MemoryError as error:
                timeout_s = self._wait_for_memory(slot, started_s, timeout_s, error)
            except BaseException:  # raised again: whatever ended the writing, the slot must not stay taken
                with self._lock:
                    self._shared.free.append(slot)
                raise
            else:
                self._hand_over(Entry(sequence, slot, header, len(payload)))
                return True
        return False

    def _wait_for_memory(
        self, slot: int, started_s: float, timeout_s: float | None, error: MemoryError
    ) -> float | None:
        """A sparse ring cannot grow: give the slot back to be used last, and wait for one that has its memory.

        Returns the time left, s. Raises `NoRoomError` if there is none.
        """
        with self._lock:
            self._shared.free.insert(0, slot)
            if timeout_s is not None and time.monotonic() - started_s >= timeout_s:
                raise NoRoomError(f"no room on {self._address}: {error}") from error
            self._lock.wait(NO_MEMORY_S)
            self._check_open()
            if self._options.while_waiting is not None:
                self._options.while_waiting()
        return None if timeout_s is None else max(0.0, timeout_s - NO_MEMORY_S)

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a message would be taken; see `stream.link.Sender.wait_for_room`."""
        with self._lock:
            self._lock.wait_for(
                lambda: self._has_room or self._closed or self._shared.failure is not None, timeout_s
            )
            self._check_open()
            return self._has_room

    def drop(self, count: int) -> None:
        """Declare messages as dropped that are not offered at all."""
        with self._lock:
            self._check_open()
            self._ledger.drop_new(count)

    @property
    def _has_room(self) -> bool:
        is_wanted = self._options.policy is not Policy.LIVE or self._ledger.would_send
        return is_wanted and bool(self._shared.free)

    def end(self, reason: str = "done") -> None:
        """Send the end-of-stream message, which needs no slot; nothing can be offered afterwards."""
        with self._lock:
            self._check_open()
            o, ledger = self._options, self._ledger
            end = StreamEnd(o.run_id, o.source, ledger.offered, ledger.dropped, reason)
        header, _ = self._encode(end, ledger.next_sequence, -1)
        self._hand_over(Entry(ledger.next_sequence, -1, header, 0, is_end=True))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything offered is acknowledged; False if time ran out first."""
        with self._lock:
            self._lock.wait_for(
                lambda: not self._ledger.queued or self._closed or self._shared.failure is not None, timeout_s
            )
            self._check_works()
            return self._ledger.queued == 0

    def close(self) -> LinkAccount:
        """Say goodbye, release sockets and memory; returns the final account. Idempotent."""
        with self._lock:
            is_first, self._closed = not self._closed, True
            self._lock.notify_all()
        if is_first:
            self._thread.stop()
            self._ring.close()
        return self.account

    def _encode(self, message: Message, sequence: int, slot: int) -> tuple[bytes, memoryview | bytes]:
        link = LinkFields(sequence, self._id, slot, sent_ns=time.perf_counter_ns())
        header, payload = encode(message, self._options.source, link)
        if len(payload) > self._options.slot_bytes:
            raise LinkError(
                f"a message of {len(payload)} bytes does not fit into the slots of {self._address} "
                f"({self._options.slot_bytes} bytes); open it with larger slots"
            )
        return header, payload

    def _claim(self, timeout_s: float | None) -> int | None:
        """A free slot according to the policy; None if the new message was dropped."""
        with self._lock:
            self._check_open()
            if not self._shared.free and self._options.policy is Policy.BLOCK:
                self._wait_for_room(timeout_s)
            if self._has_room:
                return self._shared.free.pop()
            oldest = self._ledger.drop_oldest() if self._options.policy is Policy.DROP_OLDEST else None
            if oldest is None:
                self._ledger.drop_new()
                return None
            return oldest.slot

    def _wait_for_room(self, timeout_s: float | None) -> None:
        start_s, give_up_s = time.monotonic(), self._options.give_up_s
        while not self._shared.free:
            now_s = time.monotonic()
            waiting = f"{self._ledger.queued} messages wait"
            left_s = LOOK_UP_S
            if timeout_s is not None:
                left_s = min(left_s, start_s + timeout_s - now_s)
                if left_s <= 0:
                    raise NoRoomError(
                        f"no room on {self._address} for {timeout_s:g} s: {waiting}, the receiver is "
                        f"{self._peer.state}; make it faster or choose a drop policy"
                    )
            if give_up_s is not None and self._peer.alone_since_s is not None:
                left_s = min(left_s, self._peer.alone_since_s + give_up_s - now_s)
                if left_s <= 0:
                    raise PeerLostError(
                        f"the receiver on {self._address} has been gone for {give_up_s:g} s: {waiting}; "
                        "start it again"
                    )
            self._lock.wait(left_s)
            self._check_open()
            if self._options.while_waiting is not None:
                self._options.while_waiting()

    def _hand_over(self, entry: Entry) -> None:
        with self._lock:
            self._check_open()
            self._ledger.offer(entry)
        self._thread.signal()

    def _check_open(self) -> None:
        self._check_works()
        if self._closed:
            raise LinkError(f"the link {self._address} is closed; open a new one")
        if self._ledger.end_offered:
            raise LinkError(f"the stream on {self._address} has ended; open a new link for more")

    def _check_works(self) -> None:
        failure = self._shared.failure
        if failure is not None:
            raise LinkError(f"the link {self._address} failed: {failure!r}; start it again") from failure
