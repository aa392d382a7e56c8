"""The offset between the clocks of two hosts or processes, from four time stamps.

Mills, RFC 5905, section 8: with the stamps t1 (sent), t2 (received there), t3 (answered there), t4 (back),
offset = ((t2 - t1) + (t3 - t4)) / 2, with an error of at most half the round trip (t4 - t1) - (t3 - t2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream.errors import LinkError
from stream.messages import StageState, Status

CLOCK_STAGE = "clock"


@dataclass(frozen=True, slots=True)
class ClockSample:
    """One exchange; `sent_ns` and `returned_ns` by our clock, the other two by the other host's."""

    sent_ns: int
    received_ns: int
    answered_ns: int
    returned_ns: int

    @property
    def round_trip_ns(self) -> int:
        """Time in transit, there and back; half of it bounds the error of the offset."""
        return (self.returned_ns - self.sent_ns) - (self.answered_ns - self.received_ns)

    @property
    def offset_ns(self) -> int:
        """Their clock minus ours, from this exchange alone."""
        return ((self.received_ns - self.sent_ns) + (self.answered_ns - self.returned_ns)) // 2


def best_sample(samples: Sequence[ClockSample]) -> ClockSample:
    """Return the exchange with the shortest round trip; raises `LinkError` if there is none."""
    if not samples:
        raise LinkError("no clock sample; the other host did not answer")
    return min(samples, key=lambda sample: sample.round_trip_ns)


def offset_ns(samples: Sequence[ClockSample]) -> int:
    """Their `perf_counter_ns` minus ours, from the exchange with the shortest round trip."""
    return best_sample(samples).offset_ns


def probe(sent_ns: int) -> Status:
    """The request of an exchange."""
    return Status("", CLOCK_STAGE, StageState.RUNNING, {"sent_ns": sent_ns})


def answer(question: Status, received_ns: int, answered_ns: int) -> Status:
    """The answer of the other host, which repeats the time stamp of the request."""
    stamps = {
        "sent_ns": question.counts["sent_ns"],
        "received_ns": received_ns,
        "answered_ns": answered_ns,
    }
    return Status("", CLOCK_STAGE, StageState.RUNNING, stamps)


def is_probe(status: Status) -> bool:
    """Whether a status is the request of an exchange."""
    return status.stage == CLOCK_STAGE and set(status.counts) == {"sent_ns"}


def sample(reply: Status, returned_ns: int) -> ClockSample | None:
    """Complete an exchange from its answer; None if the status is not an answer."""
    stamps = reply.counts
    if reply.stage != CLOCK_STAGE or set(stamps) != {"sent_ns", "received_ns", "answered_ns"}:
        return None
    return ClockSample(stamps["sent_ns"], stamps["received_ns"], stamps["answered_ns"], returned_ns)
