"""A receiver that survives the loss of its sender: it waits until the sender is back or the session gives it up.

A message link only notices silence (`PeerState.STALLED`), a sender that closed, or a new sender at the same
address. Only the session decides who is lost, because it sees the processes and restarts a detector. It calls
`give_up`, and the loss becomes an ordinary end of stream, so that all later stages drain and the trajectory file is
finished. Without a session (`orphaned`) a long silence ends the stream.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from stream.errors import PeerLostError
from stream.link import Delivery, LinkAccount, PeerState, Receiver
from stream.messages import Message, StreamEnd


@dataclass(frozen=True, slots=True)
class Farewell:
    """The end of a stream, made up for a sender that was lost."""

    message: Message
    sequence: int = -1

    def done(self) -> None:
        """There is no sender to acknowledge to."""


class ResilientReceiver:
    """Wraps `open_link`, a function that opens a fresh `Receiver` to the same address."""

    def __init__(
        self,
        open_link: Callable[[], Receiver],
        *,
        run_id: str,
        neighbour: str,
        report: Callable[[str], None],
    ) -> None:
        """`report` gets a line when the neighbour falls silent and when it is back."""
        self._open = open_link
        self._run_id = run_id
        self._neighbour = neighbour
        self._report = report
        self._link = open_link()
        self._past = LinkAccount()
        self._silent_since_s: float | None = None
        self._longest_s = math.inf
        self._lost = ""
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
        """Whether the stream is over."""
        return self._ended or self._link.ended

    def give_up(self, why: str) -> None:
        """The neighbour is lost for good: deliver what has arrived, then end the stream."""
        self._lost = self._lost or why

    def want(self, more: int) -> None:
        """Ask the sender for `more` messages beyond those received."""
        self._link.want(more)

    def orphaned(self, longest_s: float) -> None:
        """The session is gone: from now on a neighbour that is silent for `longest_s` counts as lost."""
        self._longest_s = longest_s

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next message, None while the neighbour is silent, a `StreamEnd` once it is lost."""
        if self._ended:
            return None
        try:
            delivery = self._link.receive(0.0 if self._lost else timeout_s)
        except PeerLostError as error:
            return self._reopen(str(error))
        if delivery is not None:
            self._is_back()
            return delivery
        if self._link.ended:
            return None
        if self._lost:
            self._link.give_up(self._lost)  # nothing is left to read; what has arrived is handed out
            return None
        if self._link.peer is PeerState.STALLED:
            self._is_silent("gives no sign of life")
        elif self._link.peer is PeerState.CONNECTED:
            self._is_back()
        silent_s = 0.0 if self._silent_since_s is None else time.monotonic() - self._silent_since_s
        if silent_s > self._longest_s:
            return self._end(
                f"{self._neighbour} was lost: silent for {silent_s:.0f} s, and the session is gone"
            )
        return None

    def _is_silent(self, why: str) -> None:
        if self._silent_since_s is None:
            self.losses += 1
            self._silent_since_s = time.monotonic()
            self._report(f"{self._neighbour} {why}; waiting for it to come back")

    def _is_back(self) -> None:
        if self._silent_since_s is not None:
            self._report(f"{self._neighbour} is back after {time.monotonic() - self._silent_since_s:.1f} s")
            self._silent_since_s = None

    def _reopen(self, why: str) -> Delivery | None:
        if self._lost:
            return self._end(f"{self._neighbour} was lost: {self._lost}")
        self._is_silent(f"was lost ({why})")
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
