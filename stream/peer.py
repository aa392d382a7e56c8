"""The state of a receiver as its sender sees it: what arrived, what could not be sent, what is overdue."""

from __future__ import annotations

from collections import OrderedDict

from stream.link import PeerState

GRACE_S = 0.5  # s; libzmq reconnects within 0.2 s (`reconnect_ivl_max`), so a shorter cut is not a loss
STRANGERS_KEPT = 256  # refused receivers that are remembered, so that each is counted once


class PeerWatch:
    """The one connected receiver, and the number of those refused. All times are `time.monotonic()`.

    A receiver is lost when it cannot be reached for longer than a reconnection takes. It is stalled when it can be
    reached but has acknowledged nothing for `patience_s` although messages wait.
    """

    def __init__(self, patience_s: float, now_s: float) -> None:
        self.identity: bytes | None = None
        self.connection = 0
        self.state = PeerState.WAITING
        self.reconnects = 0
        self.refused = 0
        self.alone_since_s: float | None = None
        self._patience_s = patience_s
        self._lost = False
        self._had_one = False
        self._unreachable_since_s: float | None = None
        self._progress_s = now_s
        self._strangers: OrderedDict[bytes, None] = OrderedDict()

    @property
    def can_be_sent_to(self) -> bool:
        """Whether there is a receiver and the last attempt reached it."""
        return self.identity is not None and self._unreachable_since_s is None

    def is_stranger(self, identity: bytes) -> bool:
        """Whether another receiver is connected already."""
        return self.identity not in (None, identity) and not self._lost

    def refuse(self, identity: bytes) -> None:
        """Count a second receiver, once however often it tries."""
        if identity not in self._strangers:
            self.refused += 1
            self._strangers[identity] = None
            if len(self._strangers) > STRANGERS_KEPT:
                self._strangers.popitem(last=False)

    def accept(self, identity: bytes, connection: int, now_s: float) -> None:
        """Serve this receiver from now on, over this connection."""
        is_new = identity != self.identity or connection > self.connection
        self.reconnects += self._had_one and is_new
        self._had_one = True
        self._strangers.pop(identity, None)
        self.connection = max(connection, self.connection) if identity == self.identity else connection
        self.identity = identity
        self.lives(now_s)

    def lives(self, now_s: float) -> None:
        """Something arrived from the receiver, or could be sent to it again."""
        if self._unreachable_since_s is not None or self.state in (PeerState.WAITING, PeerState.LOST):
            self._progress_s = now_s
        self._lost = False
        self._unreachable_since_s = None
        self.alone_since_s = None
        if self.state in (PeerState.WAITING, PeerState.LOST):
            self.state = PeerState.CONNECTED

    def progresses(self, now_s: float) -> None:
        """Something new was acknowledged, or the first message was sent after a pause."""
        self._progress_s = now_s

    def cannot_be_reached(self, now_s: float) -> None:
        """An attempt to send failed because there is no connection."""
        if self._unreachable_since_s is None:
            self._unreachable_since_s = now_s

    def leaves(self, now_s: float) -> None:
        """The receiver said goodbye."""
        self.identity = None
        self.connection = 0
        self._unreachable_since_s = None
        self._be_alone(PeerState.WAITING, now_s)

    def ends(self) -> None:
        """The receiver has acknowledged the end of the stream."""
        self.state = PeerState.ENDED

    def judge(self, is_waited_for: bool, now_s: float) -> None:
        """Update the state; `is_waited_for`: whether there are messages to be acknowledged."""
        if self._unreachable_since_s is not None:
            if now_s - self._unreachable_since_s > min(GRACE_S, self._patience_s / 2):
                self._lost = True
                self._be_alone(PeerState.LOST, now_s)
        elif self.state in (PeerState.CONNECTED, PeerState.STALLED):
            is_late = is_waited_for and now_s - self._progress_s > self._patience_s
            self.state = PeerState.STALLED if is_late else PeerState.CONNECTED

    def _be_alone(self, state: PeerState, now_s: float) -> None:
        if self.state is not PeerState.ENDED:
            self.state = state
        if self.alone_since_s is None:
            self.alone_since_s = now_s
