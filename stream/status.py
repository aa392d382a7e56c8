"""Status reports of the pipeline stages to their supervisor: many PUSH sources, one PULL sink, no waiting."""

from __future__ import annotations

import zmq

from stream.channel import LINGER_MS, MAX_SMALL_BYTES, Intake, open_channel
from stream.limits import fitted
from stream.messages import StageState, Status
from stream.sockets import Security
from stream.wire import encode

SOURCE_HWM = 64  # reports queued at a stage: half a minute at two a second
SINK_HWM = 1000  # and at the supervisor, from all stages
LAST_WORD_MS = 500  # ms that the last report waits for room


class StatusSink:
    """Binds and collects the `Status` messages of all stages. All methods must be called from one thread."""

    def __init__(self, address: str, security: Security | None = None) -> None:
        self._endpoint = open_channel(
            zmq.PULL, address, security, bind=True, hwm=SINK_HWM, max_bytes=MAX_SMALL_BYTES
        )
        self._intake = Intake(self._endpoint.socket)
        self._strangers = 0
        self._closed = False

    @property
    def address(self) -> str:
        """The address that sources connect to."""
        return self._endpoint.address

    @property
    def malformed(self) -> int:
        """Messages that were not a valid `Status`."""
        return self._intake.malformed + self._strangers

    def receive(self, timeout_s: float) -> Status | None:
        """Return the next status, None if none came within `timeout_s`."""
        received = self._intake.receive(timeout_s)
        while received is not None and not isinstance(received.message, Status):
            self._strangers += 1
            received = self._intake.receive(0.0)
        return None if received is None else received.message  # type: ignore[return-value]

    def close(self) -> None:
        """Close the sink. Idempotent."""
        if not self._closed:
            self._closed = True
            self._endpoint.close(0)


class StatusSource:
    """Connects a stage to the sink. If the queue is full, reports are dropped and counted in `dropped`.

    All methods must be called from one thread.
    """

    def __init__(self, address: str, security: Security | None = None) -> None:
        self._endpoint = open_channel(
            zmq.PUSH, address, security, bind=False, hwm=SOURCE_HWM, max_bytes=MAX_SMALL_BYTES
        )
        self._closed = False
        self.dropped = 0

    def send(self, status: Status) -> bool:
        """Report without waiting; only `done` and `failed` wait up to half a second for room.

        Returns whether the report was queued. Texts that are too long are shortened, invalid Unicode is replaced
        (`stream.limits`), so that a failure is always reported.
        """
        parts = encode(fitted(status))
        last_word = status.state in {StageState.DONE, StageState.FAILED}
        try:
            if self._endpoint.socket.poll(LAST_WORD_MS if last_word else 0, zmq.POLLOUT):
                self._endpoint.socket.send_multipart(parts, zmq.NOBLOCK)
                return True
        except zmq.Again:
            pass  # the connection ended between the two calls
        self.dropped += 1
        return False

    def close(self) -> None:
        """Close, waiting at most half a second until the last report is sent. Idempotent."""
        if not self._closed:
            self._closed = True
            self._endpoint.close(LINGER_MS)
