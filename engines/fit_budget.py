"""What engines whose fit can be reduced have in common: the budget that they are given, and what a frame cost."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

COSTS_KEPT = 200
"""Frames whose cost is kept until somebody asks; more than finish between two calls."""


class FrameCost(NamedTuple):
    """What a frame took on its thread, ms: the `network` with preparation and decoding, and the `fit`.

    `reduced` of its `particles` were not fitted for want of time.
    """

    frame: int
    network_ms: float
    fit_ms: float
    particles: int
    reduced: int


@runtime_checkable
class Reducible(Protocol):
    """An engine whose fit can be reduced."""

    def allow_fit(self, share: float, ms: float) -> None:
        """Set how much of the fit, and for how long, may be done in the frames submitted from now on."""
        ...

    def costs(self) -> list[FrameCost]:
        """What the frames cost that were finished since the last call."""
        ...
