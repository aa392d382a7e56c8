"""How sure the side of focus is, where images alone leave it open: not with astigmatic optics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracking.trajectories.columns import Trajectories

SURE = 0.95
"""Probability of the chosen side from which a particle counts as decided: of the least sure, one in twenty errs."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Of so many `particles`, those whose image alone fits `two` depths, one on each side of focus.

    `sure` of them are decided (`SURE`), `p_side` is the mean probability of their chosen sides; the tracker has
    changed its mind `changes` times. Averages over frames may be fractions.
    """

    particles: float
    two: float
    sure: float
    p_side: float
    changes: int

    def in_words(self) -> str:
        """One or two sentences."""
        share = 100 * self.two / max(self.particles, 1e-9)
        percent = f"{share:.0f}" if share >= 1 else f"{share:.2g}"
        changed = {0: "not changed its mind", 1: "changed its mind once"}
        mind = changed.get(self.changes, f"changed its mind {self.changes} times")
        return (
            f"{_count(self.two)} of {_count(self.particles)} particles ({percent} %) could be on either "
            f"side of focus by their images alone; with their motion, {_count(self.sure)} of them are decided "
            f"(more than {100 * SURE:.0f} % sure), and {100 * (1 - self.p_side):.2g} % of the chosen sides are "
            f"expected to be wrong. The tracker has {mind}."
        )

    def in_short(self) -> str:
        """A few words."""
        return f"{100 * self.p_side:.3g} % sure, where images alone leave it open"


def _count(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def sides_of(trajectories: Trajectories) -> Sides | None:
    """The sides of all particles of a run, each as its track ended; None where no image fitted two depths."""
    asked = np.flatnonzero(np.isfinite(trajectories.z_other_um) & np.isfinite(trajectories.p_side))
    if not asked.size:
        return None
    _, newest = np.unique(
        trajectories.track[asked][::-1], return_index=True
    )  # rows are in the order of frames
    p_side = trajectories.p_side[asked][::-1][newest].astype(np.float64)
    counts = trajectories.attributes.get("accounts", {}).get("track", {})
    changed = np.unique(trajectories.track[trajectories.revised > 0]).size
    return Sides(
        np.unique(trajectories.track).size,
        p_side.size,
        float((p_side > SURE).sum()),
        float(p_side.mean()),
        max(int(counts.get("revised", 0)), changed),
    )
