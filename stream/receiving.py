"""The receiving end of a lossless message link: in order, without gaps, acknowledged when consumed.

There is no thread behind it. Messages are read when `receive` is called and stay in ZeroMQ's queue until then; a
consumer that hangs therefore stops acknowledging, and the sender notices.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import deque
from collections.abc import Sequence

import zmq

from stream.errors import LinkError, PeerLostError, WireError
from stream.ledger import Arrival, ReceiveLedger
from stream.link import LinkAccount, PeerState
from stream.messages import Message, StreamEnd
from stream.protocol import (
    Ack,
    Confirm,
    FromReceiver,
    FromSender,
    Goodbye,
    Heartbeat,
    Hello,
    Refused,
    Resend,
    Skip,
    Welcome,
    pack,
    unpack_from_sender,
)
from stream.ring import ReferenceRing, SlotReader
from stream.shared_ring import SharedRingReader
from stream.sockets import LINGER_MS, LinkAddress, Security, connect_dealer, read_parts
from stream.waker import Waker
from stream.wire import assemble, decode_header

# All in s. The patience of a link is 3 s by default; each of these is well below it, so that one lost control
# message
# makes nobody look dead. Shorter ones cost messages while idle, longer ones delay the recovery from a cut by as
# much.
HELLO_S = 0.3  # between two attempts to be served
SIGN_OF_LIFE_S = 0.3  # between two acknowledgements while nothing is consumed
SILENCE_S = 1.0  # of the sender, before a hello asks whether it still knows this receiver
ASK_AGAIN_S = 0.2  # before missing messages are requested again; doubled each time, up to
ASK_AGAIN_MAX_S = 2.0
LOOK_S = 0.05  # between two looks for new connections while a caller does not wait, which would show them
POLL_S = 0.1  # longest wait for the socket before the state of the sender is checked
READS_PER_TURN = (
    256  # messages read before the clock is looked at: bounds a turn under a flood to milliseconds
)


Wakes = Waker | zmq.Socket[bytes]


class LosslessDelivery:
    """The `Delivery` of a lossless message link."""

    __slots__ = ("_message", "_receiver", "_sequence")

    def __init__(self, receiver: LosslessReceiver, message: Message, sequence: int) -> None:
        self._receiver = receiver
        self._message = message
        self._sequence = sequence

    @property
    def message(self) -> Message:
        """The message; its array is read-only and on loan."""
        return self._message

    @property
    def sequence(self) -> int:
        """The link's own number of this message, counted from 0."""
        return self._sequence

    def done(self) -> None:
        """Declare this message and all before it consumed.

        Raises `LinkError` if the array was overwritten while it was on loan: results computed from it are
        invalid, and the message will be delivered again.
        """
        self._receiver.consume(self._sequence)


class LosslessReceiver:
    """The `Receiver` of all three transports, which differ in where the arrays are stored."""

    def __init__(
        self,
        address: LinkAddress,
        patience_s: float,
        lost_after_s: float,
        security: Security | None,
        wakers: Sequence[Wakes] = (),
    ) -> None:
        self._where = address
        self._wakers = tuple(wakers)
        self._monitor: zmq.Socket[bytes] | None = None
        self._patience_s = patience_s
        self._lost_after_s = lost_after_s
        self._security = security
        self._ledger = ReceiveLedger()
        self._ring: SlotReader | None = None
        self._slots: dict[int, int] = {}
        self._ready: deque[LosslessDelivery] = deque()
        self._confirms = False
        self._wants: int | None = None
        self._confirmed = -1
        self._sender = ""
        self._state = PeerState.WAITING
        self._lost = ""
        self._closed = False
        self._malformed = 0
        self._refused = 0
        self._reconnects = 0
        self._silent_since_s: float | None = None
        self._ask_due_s = 0.0
        self._ask_wait_s = ASK_AGAIN_S
        self._sign_due_s = 0.0
        self._connect()

    @property
    def address(self) -> str:
        """The address this end connects to."""
        return self._endpoint.address

    @property
    def peer(self) -> PeerState:
        """State of the sender."""
        return PeerState.ENDED if self.ended else self._state

    @property
    def account(self) -> LinkAccount:
        """A snapshot of the account."""
        return self._ledger.account(self._malformed, self._refused, self._reconnects)

    @property
    def ended(self) -> bool:
        """Whether the end of the stream has arrived and everything before it is consumed."""
        return self._ledger.ended and not self._ready

    def receive(self, timeout_s: float) -> LosslessDelivery | None:
        """Return the next message, or None; see `stream.link.Receiver.receive`.

        Raises `LinkError` if the sender's shared memory cannot be opened.
        """
        if self._closed:
            raise LinkError(f"the link {self.address} is closed; open a new one")
        deadline_s = time.monotonic() + timeout_s
        while True:
            for _ in range(READS_PER_TURN):
                if self._ready and self._may_hand_out:
                    return self._ready.popleft()
                parts = None if self._lost else read_parts(self._socket, keep=2)
                if parts is None:
                    self._watch_sender(time.monotonic())
                    break
                self._take(parts)
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or self.ended:
                return None
            for source, _ in self._poller.poll(math.ceil(1000 * min(left_s, POLL_S))):
                if source is self._monitor:
                    self._look_due_s = 0.0
                elif source is not self._socket:
                    deadline_s = 0.0  # woken: once more through the loop, for what has come meanwhile

    def consume(self, sequence: int) -> None:
        """Acknowledge everything up to `sequence`; called by `LosslessDelivery.done`."""
        if self._closed or not self._ledger.is_on_loan(sequence):
            return
        for number in self._ledger.loans_up_to(sequence):
            slot = self._slots.pop(number, -1)
            if self._ring is not None and slot >= 0 and not self._ring.intact(slot, number):
                self._take_back(number)
            self._ledger.consume(number)
            if self._ring is not None:
                self._ring.mark_consumed(number)
        self._acknowledge(time.monotonic())

    def want(self, more: int) -> None:
        """Ask the sender for `more` messages beyond those received; see `stream.link.Receiver.want`."""
        self._wants = more
        if self._sender:
            self._acknowledge(time.monotonic())

    def give_up(self, why: str) -> None:
        """Consider the sender lost: what has arrived is handed out, then `receive` raises `PeerLostError`."""
        self._lose(f"was lost: {why}")

    def close(self) -> LinkAccount:
        """Say goodbye to the sender and release everything; returns the final account. Idempotent."""
        if not self._closed:
            self._closed = True
            serving = bool(self._sender) and not self._lost
            if serving:
                self._post(Goodbye(consumed=self._ledger.consumed, reason="the receiver closed"))
            self._endpoint.close(LINGER_MS if serving else 0)
            if self._ring is not None:
                self._ring.close()
        return self.account

    @property
    def _may_hand_out(self) -> bool:
        is_confirmed = self._confirmed >= self._ledger.consumed
        return is_confirmed or not self._confirms or bool(self._lost)

    def _connect(self) -> None:
        self._id = uuid.uuid4().hex
        self._connection = 0
        self._hello_due_s = 0.0
        self._endpoint = connect_dealer(self._where, self._security, self._id.encode())
        self._socket = self._endpoint.socket
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._look_due_s = 0.0
        self._monitor = self._endpoint.watch_connections()
        if self._monitor is not None:
            self._poller.register(self._monitor, zmq.POLLIN)
        for waker in self._wakers:
            self._poller.register(waker, zmq.POLLIN)

    def _take(self, parts: list[zmq.Frame]) -> None:
        try:
            if len(parts) == 1:
                self._hear(unpack_from_sender(parts[0].buffer))
            elif len(parts) == 2:
                self._take_data(parts[0].buffer, parts[1].buffer)
            else:
                raise WireError(f"message of more than two parts on {self.address}")
        except WireError:
            self._malformed += 1

    def _take_data(self, head: memoryview, buffer: memoryview) -> None:
        header = decode_header(head)
        link = header.link
        if link is None or not self._sender or link.sender != self._sender:
            raise WireError("message from another sender")
        self._silent_since_s = None
        arrival = self._ledger.classify(link.sequence)
        if arrival is not Arrival.NEXT:
            if arrival is Arrival.GAP:
                self._ask_again()
            return
        payload: memoryview | None = buffer
        if self._ring is not None and header.payload_bytes:
            payload = self._ring.view(link.slot, link.sequence, header.payload_bytes)
        try:
            if payload is None:
                raise WireError(f"slot {link.slot} does not hold message {link.sequence}")
            message = assemble(header, payload.toreadonly())
        except WireError:
            self._ask_again()
            raise
        self._ledger.accept(link.sequence, isinstance(message, StreamEnd))
        if self._wants:
            self._wants -= 1
        self._slots[link.sequence] = link.slot if header.payload_bytes else -1
        self._ask_due_s, self._ask_wait_s = 0.0, ASK_AGAIN_S
        self._ready.append(LosslessDelivery(self, message, link.sequence))

    def _hear(self, control: FromSender) -> None:
        match control:
            case Welcome():
                self._greet(control)
            case Refused():
                self._be_refused(control)
            case _ if not self._sender:
                self._malformed += 1
                return
            case Confirm():
                self._confirmed = max(self._confirmed, control.consumed)
            case Skip():
                if control.first > control.last:
                    raise WireError("skip of nothing")
                if self._ledger.skip(control.first, control.last) is Arrival.GAP:
                    self._ask_again()
            case Heartbeat():
                if control.sender != self._sender:
                    self._lose("was restarted and has lost its memory")
                elif not self._ledger.reached(control.position):
                    self._ask_again()
            case Goodbye():
                self._ledger.reached(control.position)
                self._lose("closed the link before the end of the stream")
        self._silent_since_s = None

    def _greet(self, welcome: Welcome) -> None:
        if not self._sender:
            self._ring = self._open_ring(welcome)
            self._sender = welcome.sender
            self._ledger.start(welcome.next)
            self._confirms = welcome.confirms
            self._state = PeerState.CONNECTED
        elif welcome.sender != self._sender:
            self._lose("was restarted and has lost its memory")
        elif welcome.next > self._ledger.expected:
            self._lose("has meanwhile sent messages to another receiver")
        self._confirmed = max(self._confirmed, welcome.next - 1)

    def _be_refused(self, refused: Refused) -> None:
        if self._sender:
            self._lose(f"refuses this receiver ({refused.reason})")
        else:
            self._refused = 1

    def _open_ring(self, welcome: Welcome) -> SlotReader | None:
        match self._where.scheme:
            case "shm":
                return SharedRingReader(
                    welcome.ring, welcome.slots, welcome.slot_bytes, sparse=welcome.sparse
                )
            case "inproc":
                return ReferenceRing.attach(welcome.ring)
            case _:
                return None

    def _lose(self, what: str) -> None:
        if self._ledger.end_sequence < 0:
            self._lost = f"the sender on {self.address} {what}"

    def _watch_sender(self, now_s: float) -> None:
        """Called when nothing is left to read; silence is measured from the first such call."""
        fresh = 0
        if now_s >= self._look_due_s:  # without waiting: a look costs as much as reading a message
            self._look_due_s = now_s + LOOK_S
            fresh = self._endpoint.new_connections()
        if fresh:
            self._reconnects += fresh - (self._connection == 0)
            self._hello_due_s = now_s if self._connection + fresh > 1 else self._hello_due_s
            self._connection += fresh
            self._ask_due_s, self._ask_wait_s = 0.0, ASK_AGAIN_S
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        silent_s = now_s - self._silent_since_s
        if self._sender and silent_s > self._lost_after_s:
            self._lose(f"gave no sign of life for {self._lost_after_s:g} s")
        if self._state in {PeerState.CONNECTED, PeerState.STALLED}:
            is_silent = silent_s > self._patience_s
            self._state = PeerState.STALLED if is_silent else PeerState.CONNECTED
        if self._lost and not self._ready:
            self._state = PeerState.LOST
            raise PeerLostError(
                f"{self._lost}; {self._ledger.missing} messages known to have been sent did not arrive; "
                "start it again"
            )
        if not self._sender and self._where.scheme == "inproc" and silent_s > SILENCE_S:
            self._endpoint.close(0)
            self._connect()
            self._silent_since_s = now_s
        quiet = silent_s > min(SILENCE_S, self._patience_s / 3)
        if (not self._sender or quiet or (fresh and self._connection > 1)) and now_s >= self._hello_due_s:
            self._say_hello(now_s)
        if self._sender and now_s >= self._sign_due_s:
            self._acknowledge(now_s)

    def _say_hello(self, now_s: float) -> None:
        self._hello_due_s = now_s + HELLO_S
        known = bool(self._sender)
        self._post(
            Hello(
                receiver=self._id,
                connection=max(1, self._connection),
                expected=self._ledger.expected if known else None,
                consumed=self._ledger.consumed if known else None,
            )
        )

    def _acknowledge(self, now_s: float) -> None:
        self._sign_due_s = now_s + SIGN_OF_LIFE_S
        ledger = self._ledger
        if self._wants is None:
            self._post(Ack(consumed=ledger.consumed))
        else:
            self._post(Ack(consumed=ledger.consumed, received=ledger.expected - 1, more=self._wants))

    def _ask_again(self) -> None:
        """Request what is missing, at growing intervals until it arrives."""
        now_s = time.monotonic()
        if now_s >= self._ask_due_s:
            self._post(Resend(expected=self._ledger.expected))
            self._ask_due_s = now_s + self._ask_wait_s
            self._ask_wait_s = min(2 * self._ask_wait_s, ASK_AGAIN_MAX_S)

    def _take_back(self, number: int) -> None:
        self._malformed += 1
        self._ledger.give_back(number)
        self._ready.clear()
        self._slots = {sequence: slot for sequence, slot in self._slots.items() if sequence < number}
        self._acknowledge(time.monotonic())
        self._ask_again()
        raise LinkError(
            f"message {number} on {self.address} was overwritten while it was read; discard its results, it "
            "will be delivered again"
        )

    def _post(self, control: FromReceiver) -> None:
        """Send, or skip the message if the queue is full: every control message is repeated."""
        try:
            self._socket.send(pack(control), zmq.NOBLOCK)
        except zmq.Again:
            return
