"""The thread of a sender: it owns the socket, sends while credits last, and reads from the receiver.

It holds the lock that it shares with the sender all the time, except while it waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq
from msgspec.structs import replace

from stream.errors import WireError
from stream.ledger import Entry, SendLedger, Step
from stream.peer import PeerWatch
from stream.protocol import (
    Ack,
    Confirm,
    FromSender,
    Goodbye,
    Heartbeat,
    Hello,
    Refused,
    Resend,
    Skip,
    Welcome,
    pack,
    unpack_from_receiver,
)
from stream.ring import SlotWriter
from stream.sockets import LINGER_MS, Endpoint, read_parts
from stream.waker import Waker

BEAT_S = (
    0.25  # s between heartbeats; a receiver's patience is 3 s, so ten may be late before it doubts the sender
)
SLOT_POLL_MS = (
    2  # ms until slots that libzmq still sends from are looked at again: it does not report when it is done
)
READS_PER_TURN = (
    256  # control messages read before anything is sent, so that a flood of them cannot stop the data
)


@dataclass(slots=True)
class Shared:
    """State that a sender and its thread share under `lock`, which is notified of room and acknowledgements."""

    ledger: SendLedger
    ring: SlotWriter
    peer: PeerWatch
    free: list[int]
    lock: threading.Condition = field(default_factory=threading.Condition)
    malformed: int = 0
    stopping: bool = False
    failure: BaseException | None = None
    on_news: Callable[[], None] | None = None

    def tell(self) -> None:
        """Wake whoever waits for room or acknowledgements; called under `lock`."""
        self.lock.notify_all()
        if self.on_news is not None:
            self.on_news()


class SenderThread:
    """Moves messages from the ring to the socket until `stop`."""

    def __init__(self, endpoint: Endpoint, shared: Shared, welcome: Welcome, patience_s: float) -> None:
        self._endpoint = endpoint
        self._socket = endpoint.socket
        self._shared = shared
        self._ledger = shared.ledger
        self._ring = shared.ring
        self._peer = shared.peer
        self._welcome = welcome
        self._beat_s = min(BEAT_S, patience_s / 6)
        self._beat_due_s = 0.0
        self._held: list[Entry] = []
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name=f"link {endpoint.address}", daemon=True)
        self._thread.start()

    def signal(self) -> None:
        """Wake the thread because there is something to do; may be called from any thread."""
        with self._shared.lock:
            if self._shared.failure is None:
                self._waker.wake()

    def stop(self) -> None:
        """Say goodbye to the receiver, end the thread and close the socket."""
        with self._shared.lock:
            self._shared.stopping = True
        self.signal()
        self._thread.join()
        self._waker.close()
        self._endpoint.close(LINGER_MS)

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - the sender's next call raises it
            with self._shared.lock:
                self._shared.failure = error
                self._shared.tell()

    def _loop(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._waker, zmq.POLLIN)
        while True:
            poller.poll(self._wait_ms())
            with self._shared.lock:
                self._waker.clear()
                self._read()
                self._recycle()
                if self._shared.stopping:
                    self._read_consumption_mark()
                    if self._peer.identity is not None:
                        goodbye = Goodbye(position=self._ledger.position, reason="the sender closed")
                        self._post(self._peer.identity, goodbye)
                    return
                self._send_what_may_go()
                self._beat(time.monotonic())

    def _wait_ms(self) -> int:
        beat_ms = int(1000 * max(0.0, self._beat_due_s - time.monotonic())) + 1
        return min(beat_ms, SLOT_POLL_MS) if self._held else beat_ms

    def _read(self) -> None:
        for _ in range(READS_PER_TURN):
            parts = read_parts(self._socket, keep=2)
            if parts is None:
                return
            try:
                if len(parts) != 2:
                    raise WireError("not exactly one part after the identity")
                self._hear(parts[0].bytes, parts[1].buffer)
            except WireError:
                self._shared.malformed += 1

    def _hear(self, sender: bytes, data: memoryview) -> None:
        control = unpack_from_receiver(data)
        try:
            if isinstance(control, Hello):
                self._meet(sender, control)
            elif sender == self._peer.identity:
                self._handle(control)
            else:
                raise WireError("message from a receiver that is not connected")
        except ValueError as error:
            raise WireError(str(error)) from error

    def _meet(self, sender: bytes, hello: Hello) -> None:
        peer, ledger, now_s = self._peer, self._ledger, time.monotonic()
        if sender != hello.receiver.encode():
            raise WireError("hello with the name of another receiver")
        if peer.is_stranger(sender):
            peer.refuse(sender)
            reason = f"{self._endpoint.address} already serves a receiver; close that one first"
            self._post(sender, Refused(reason=reason))
            self._beat_due_s = 0.0
            return
        if sender != peer.identity:
            self._read_consumption_mark()
            ledger.start_over()
        elif hello.connection > peer.connection:
            if hello.consumed is not None:
                self._release(ledger.acknowledge(hello.consumed))
            ledger.rewind(ledger.last_acknowledged + 1 if hello.expected is None else hello.expected)
        peer.accept(sender, hello.connection, now_s)
        self._post(sender, replace(self._welcome, next=ledger.last_acknowledged + 1))
        self._beat_due_s = 0.0

    def _read_consumption_mark(self) -> None:
        """Acknowledge what the mark in shared memory says: it outlives a receiver that was killed."""
        consumed = self._ring.consumed()
        if self._ledger.last_acknowledged < consumed <= self._ledger.highest_sent:
            self._release(self._ledger.acknowledge(consumed))

    def _handle(self, control: Ack | Resend | Goodbye) -> None:
        now_s = time.monotonic()
        match control:
            case Ack():
                self._release(self._ledger.acknowledge(control.consumed))
                self._peer.lives(now_s)
                if self._ledger.on_request:
                    self._grant(control)
                if self._welcome.confirms and self._peer.identity is not None:
                    self._post(self._peer.identity, Confirm(consumed=self._ledger.last_acknowledged))
            case Resend():
                self._ledger.rewind(control.expected)
                self._peer.lives(now_s)
            case Goodbye():
                self._release(self._ledger.acknowledge(control.consumed))
                self._peer.leaves(now_s)
                self._shared.tell()

    def _grant(self, ack: Ack) -> None:
        """Note how many messages the receiver wants, and wake a caller that holds one."""
        if ack.more is None:
            self._ledger.want_all()
        else:
            self._ledger.want(ack.received, ack.more)
        if self._ledger.would_send:
            self._shared.tell()

    def _release(self, freed: list[Entry]) -> None:
        if freed:
            self._peer.progresses(time.monotonic())
            if self._ledger.end_acknowledged:
                self._peer.ends()
            self._held += freed
            self._recycle()
            self._shared.tell()

    def _recycle(self) -> None:
        """Free the slots of acknowledged messages that libzmq no longer reads."""
        held, self._held = self._held, []
        for entry in held:
            if not all(tracker.done for tracker in entry.transmissions):
                self._held.append(entry)
            elif entry.slot >= 0:
                self._ring.free(entry.slot)
                self._shared.free.append(entry.slot)
        if len(self._held) < len(held):
            self._shared.tell()

    def _send_what_may_go(self) -> None:
        while self._peer.can_be_sent_to and (step := self._ledger.next_step()):
            if not self._ledger.in_flight:
                self._peer.progresses(time.monotonic())
            if not self._transmit(step):
                return

    def _transmit(self, step: Step) -> bool:
        peer, entry = self._peer.identity, step.entry
        if peer is None or (
            step.skip is not None and not self._post(peer, Skip(first=step.skip[0], last=step.skip[1]))
        ):
            return False
        if not self._begin(peer):
            return False
        self._socket.send(entry.header, zmq.SNDMORE)
        outgoing = self._ring.outgoing(entry.slot, entry.nbytes) if entry.nbytes else b""
        tracker = self._socket.send(outgoing, copy=False, track=True)
        entry.transmissions = [t for t in entry.transmissions if not t.done]
        if tracker is not None:
            entry.transmissions.append(tracker)
        self._ledger.sent(step)
        return True

    def _post(self, receiver: bytes, control: FromSender) -> bool:
        if not self._begin(receiver):
            return False
        self._socket.send(pack(control))
        return True

    def _begin(self, receiver: bytes) -> bool:
        """Begin a message; False if the receiver is gone or its queue is full.

        The next heartbeat tries again. ZeroMQ decides on a whole message at its first part.
        """
        try:
            self._socket.send(receiver, zmq.NOBLOCK | zmq.SNDMORE)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            if receiver == self._peer.identity:
                self._peer.cannot_be_reached(time.monotonic())
            return False
        return True

    def _beat(self, now_s: float) -> None:
        if now_s >= self._beat_due_s:
            self._beat_due_s = now_s + self._beat_s
            if self._peer.identity is not None:
                was_cut = not self._peer.can_be_sent_to
                beat = Heartbeat(sender=self._welcome.sender, position=self._ledger.position)
                if self._post(self._peer.identity, beat) and was_cut:
                    self._peer.lives(now_s)
                    self._send_what_may_go()
        self._peer.judge(self._ledger.in_flight > 0, now_s)
