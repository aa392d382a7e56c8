"""The monitor: a lossy channel for viewers. The publisher never waits, subscribers count their gaps."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from typing import Protocol

import zmq

from stream.channel import LINGER_MS, Intake, open_channel
from stream.errors import LinkError
from stream.messages import Detections, Frame, Message, StreamEnd, StreamStart, Tracks
from stream.sockets import MAX_PAYLOAD_BYTES, Endpoint, Security, read_parts
from stream.wire import KINDS, LinkFields, encode

HWM = 8  # messages queued for a subscriber: 8 full frames are 30 MB; more would only make a slow viewer later
SUBSCRIBE, UNSUBSCRIBE = b"\x01", b"\x00"
SUBSCRIPTIONS_PER_PUBLISH = 100  # read before a message is sent, so that a flood of them costs little
MAX_SUBSCRIPTION_BYTES = 512  # of one subscription; less would end the handshake with keys (some 350 bytes)
"""libzmq keeps some 40 bytes for each of them, and may read thousands of subscriptions before one is seen here."""
MAX_SUBSCRIBED_BYTES = 64 * 1024  # of all subscriptions together: thousands of those that viewers make
RENEW_S = 1.0  # s between two renewals of the socket, so that an attacker cannot keep viewers away


class Publisher(Protocol):
    """Where a pipeline stage sends copies of its results for viewers."""

    def publish(self, message: Message) -> None:
        """Send a copy to all listeners; never waits."""
        ...


class MonitorPublisher:
    """Publishes messages to any number of subscribers and never waits: one that is too slow loses messages.

    Each message has the source `<source>/<kind>`, so that a subscription by prefix can choose the kind.
    When a subscriber connects, a `StreamStart` is sent before the next message. `published` counts the messages,
    with or without listeners. A subscriber cannot exhaust the memory: one with a subscription of more than 512
    bytes is disconnected; if all subscriptions together exceed 64 kB, everybody is disconnected and reconnects
    (counted in `renewed`). All methods must be called from one thread.
    """

    def __init__(self, address: str, *, run_id: str, source: str, security: Security | None = None) -> None:
        self._security = security
        self._address = address
        self._endpoint: Endpoint | None = self._open()
        self._address = self._endpoint.address
        self._topics: Counter[bytes] = Counter()
        self._subscribed_bytes = 0
        self._renewed_s = -RENEW_S
        self.renewed = 0
        self._run_id = run_id
        self._source = source
        self._sender = secrets.token_hex(8)
        self._sequence = 0
        self._frame = -1
        self._ended = False
        self._closed = False
        self.published = 0

    def _open(self) -> Endpoint:
        endpoint = open_channel(
            zmq.XPUB, self._address, self._security, bind=True, hwm=HWM, max_bytes=MAX_SUBSCRIPTION_BYTES
        )
        endpoint.socket.setsockopt(zmq.XPUB_MANUAL, 1)
        return endpoint

    @property
    def address(self) -> str:
        """Where subscribers connect to."""
        return self._address

    def publish(self, message: Message) -> None:
        """Send a copy of the message to the subscribers that have room; raises `LinkError` once closed."""
        if self._closed:
            raise LinkError(f"monitor {self._source} is closed; it cannot publish any more")
        if isinstance(message, Frame | Detections | Tracks):
            self._frame = message.info.frame
        if self._endpoint is None and time.monotonic() - self._renewed_s > RENEW_S:
            self._renew()
        self._greet_newcomers()
        self.published += 1
        self._ended = isinstance(message, StreamEnd)
        self._send(message)

    def _greet_newcomers(self) -> None:
        newcomers = False
        if self._endpoint is None:
            return
        for _ in range(SUBSCRIPTIONS_PER_PUBLISH):
            parts = read_parts(self._endpoint.socket, 1)
            if parts is None:
                break
            request = bytes(parts[0].buffer)
            topic = request[1:]
            if request[:1] == SUBSCRIBE:
                self._endpoint.socket.setsockopt(zmq.SUBSCRIBE, topic)
                self._topics[topic] += 1
                self._subscribed_bytes += len(topic)
                newcomers = True
            elif request[:1] == UNSUBSCRIBE:
                self._endpoint.socket.setsockopt(zmq.UNSUBSCRIBE, topic)
                self._forget(topic)
        if self._subscribed_bytes > MAX_SUBSCRIBED_BYTES and time.monotonic() - self._renewed_s > RENEW_S:
            self._renew()
        elif newcomers:
            self._send(StreamStart(self._run_id, self._source))

    def _forget(self, topic: bytes) -> None:
        if topic in self._topics:
            self._subscribed_bytes -= len(topic)
            self._topics[topic] -= 1
            if not self._topics[topic]:
                del self._topics[topic]

    def _renew(self) -> None:
        """Drop all subscriptions by opening the socket again; listeners reconnect and subscribe by themselves.

        If another program has taken the port meanwhile, the next attempt follows a second later: a run never waits
        for viewers.
        """
        self._renewed_s = time.monotonic()
        if self._endpoint is not None:
            self._endpoint.close(0)
            self._endpoint = None
            self.renewed += 1
        self._topics.clear()
        self._subscribed_bytes = 0
        with contextlib.suppress(LinkError):
            self._endpoint = self._open()

    def _send(self, message: Message) -> None:
        link = LinkFields(self._sequence, self._sender, sent_ns=time.perf_counter_ns())
        self._sequence += 1
        source = f"{self._source}/{KINDS[type(message)]}"
        if self._endpoint is None or not self._is_asked_for(source):
            return
        parts = encode(message, source, link, frame=self._frame)
        self._endpoint.socket.send_multipart(parts, zmq.NOBLOCK)

    def _is_asked_for(self, source: str) -> bool:
        """Whether a subscription may match messages of this source, so that they must be made at all."""
        begins = topic_of(source)
        return any(begins.startswith(topic) or topic.startswith(begins) for topic in self._topics)

    def close(self) -> None:
        """Publish the `StreamEnd`, if it was not published already, and close. Idempotent."""
        if self._closed:
            return
        if not self._ended:
            self.publish(StreamEnd(self._run_id, self._source, self.published, 0))
        self._closed = True
        if self._endpoint is not None:
            self._endpoint.close(LINGER_MS)


def topic_of(source: str) -> bytes:
    """What to subscribe to for the messages whose source begins with `source`; "" is for all messages."""
    return f'{{"htype":"array-1.0","source":"{source}'.encode() if source else b""


class MonitorSubscriber:
    """Listens to a publisher. `gaps` counts messages that were published and did not arrive.

    With `latest`, `receive` skips to the newest waiting message and counts the others in `skipped`. Messages
    before the first one received are not gaps. With `source` only messages come whose source begins with it (such
    as `liveptv/detect/detections`); `gaps` then counts the others too. All methods must be called from one thread.
    """

    def __init__(
        self, address: str, *, latest: bool = False, security: Security | None = None, source: str = ""
    ) -> None:
        self._endpoint = open_channel(
            zmq.SUB, address, security, bind=False, hwm=HWM, max_bytes=MAX_PAYLOAD_BYTES
        )
        self._topic = topic_of(source)
        self._endpoint.socket.subscribe(self._topic)
        self._intake = Intake(self._endpoint.socket)
        self._latest = latest
        self._sender = ""
        self._sequence = -1
        self._closed = False
        self.gaps = 0
        self.skipped = 0

    @property
    def malformed(self) -> int:
        """Messages that were invalid."""
        return self._intake.malformed

    def pause(self) -> None:
        """Let no more messages be sent here until `resume`; those on their way still come."""
        self._endpoint.socket.unsubscribe(self._topic)

    def resume(self) -> None:
        """Listen again; what was published meanwhile is no gap."""
        self._sender = ""
        self._endpoint.socket.subscribe(self._topic)

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message, None if none came within `timeout_s`; arrays are read-only."""
        message = self._next(timeout_s)
        if self._latest and message is not None:
            for _ in range(2 * HWM):
                newer = self._next(0.0)
                if newer is None:
                    break
                message = newer
                self.skipped += 1
        return message

    def _next(self, timeout_s: float) -> Message | None:
        received = self._intake.receive(timeout_s)
        if received is None:
            return None
        link = received.link
        if link is not None:
            if link.sender != self._sender:
                self._sender, self._sequence = link.sender, link.sequence
            elif link.sequence > self._sequence:
                self.gaps += link.sequence - self._sequence - 1
                self._sequence = link.sequence
        return received.message

    def close(self) -> None:
        """Close the subscription. Idempotent."""
        if not self._closed:
            self._closed = True
            self._endpoint.close(0)
