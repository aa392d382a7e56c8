"""A receiver that outlives its sender: it waits for a restarted neighbour, or ends the stream and says why.

The links themselves only flag a lost producer (`PeerLostError`). What then happens is the session's policy:
a stage that will be started again is waited for, any other loss becomes an ordinary end of stream, so that
everything downstream drains and the trajectory file is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from stream.errors import PeerLostError
from stream.link import Delivery, LinkAccount, PeerState, Receiver
from stream.messages import Message, StreamEnd


@dataclass(frozen=True, slots=True)
class Farewell:
    """The end of a stream whose sender could not say goodbye itself."""

    message: Message
    sequence: int = -1

    def done(self) -> None:
        """Nobody is left to be told."""


class ResilientReceiver:
    """Wraps `open_link`, a function that opens a fresh `Receiver` to the same address."""

    def __init__(
        self,
        open_link: Callable[[], Receiver],
        *,
        run_id: str,
        neighbour: str,
        recover_s: float,
        report: Callable[[str], None],
    ) -> None:
        """`recover_s` is how long a lost neighbour is waited for (0: not at all); `report` gets one line."""
        self._open = open_link
        self._run_id = run_id
        self._neighbour = neighbour
        self._recover_s = recover_s
        self._report = report
        self._link = open_link()
        self._past = LinkAccount()
        self._lost_at_s: float | None = None
        self._ended = False
        self.losses = 0

    @property
    def address(self) -> str:
        """The address this end connects to."""
        return self._link.address

    @property
    def peer(self) -> PeerState:
        """What is known of the sender."""
        return self._link.peer

    @property
    def account(self) -> LinkAccount:
        """The sum over all links to this neighbour."""
        return add_accounts(self._past, self._link.account)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended or self._link.ended

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next message; a lost neighbour gives None while it is waited for, then a `StreamEnd`."""
        if self._ended:
            return None
        try:
            delivery = self._link.receive(timeout_s)
        except PeerLostError as error:
            return self._lost(str(error))
        if self._lost_at_s is None:
            return delivery
        if delivery is not None:
            self._report(f"{self._neighbour} is back after {time.monotonic() - self._lost_at_s:.1f} s")
            self._lost_at_s = None
        elif time.monotonic() - self._lost_at_s > self._recover_s:
            return self._end(f"{self._neighbour} did not come back within {self._recover_s:g} s")
        return delivery

    def _lost(self, why: str) -> Delivery | None:
        self.losses += 1
        if self._recover_s <= 0:
            return self._end(f"{self._neighbour} was lost: {why}")
        if self._lost_at_s is None:
            self._lost_at_s = time.monotonic()
        self._report(f"{self._neighbour} was lost ({why}); waiting for it to come back")
        self._past = add_accounts(self._past, self._link.close())
        self._link = self._open()
        return None

    def _end(self, reason: str) -> Delivery:
        self._report(reason)
        self._ended = True
        return Farewell(StreamEnd(self._run_id, self._neighbour, offered=0, dropped=0, reason=reason))

    def close(self) -> LinkAccount:
        """Close the link; returns the summed account."""
        return add_accounts(self._past, self._link.close())


def add_accounts(one: LinkAccount, other: LinkAccount) -> LinkAccount:
    """Add two accounts field by field."""
    return LinkAccount(
        **{field.name: getattr(one, field.name) + getattr(other, field.name) for field in fields(LinkAccount)}
    )
