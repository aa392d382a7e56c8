"""The fit of volumes as one that can be done in part: what a volume is allowed, whose turn it is, what it costs.

Whose turn it is is decided as for images (`engines.refine.turns`), after the short fit has shown which particles
may be two.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter

import numpy as np
import numpy.typing as npt

from engines.refine.arguments import BoolArray, FloatArray, IntArray
from engines.refine.choice import cost_of_groups
from engines.refine.fit_notes import FitNotes, Learnt
from engines.refine.turns import ALL, Allowance, Candidates, FitTurns

MOST_LONGER = 10.0
"""Strength of an elongation that is counted at most. Squared, it is what a second particle would explain (-2 ln L):
at 10 such a particle goes before one that has waited for ten volumes."""
NO_DOUBTS = np.empty(0, np.int64)


class VolumeFits:
    """The fits of an engine's volumes; several threads may use it at once. See `engines.frame_tasks.LimitedFit`."""

    def __init__(self) -> None:
        self.turns = FitTurns()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(refined=0, reduced=0)

    def counts(self) -> dict[str, int]:
        """Particles so far whose fit was done whole (`refined`), and those that had the short fit only."""
        with self._lock:
            return dict(self._counts)

    def count(self, particles: int, reduced: int) -> None:
        """Take how many particles of a volume are kept, and how many of these were `reduced`."""
        with self._lock:
            self._counts.update(refined=particles - reduced, reduced=reduced)

    def notes(self) -> FitNotes:
        """Notes for a volume; what earlier ones have shown does not matter."""
        return FitNotes()

    def begins(self, frame: int) -> None:
        """A volume is being worked on."""
        self.turns.begins(frame)

    def ends(self, frame: int) -> None:
        """A volume is finished: no other need wait for it."""
        self.turns.ends(frame)

    def learn(self, learnt: Learnt) -> None:
        """Nothing is learnt from volume to volume."""


class VolumeLimit:
    """Says which particles of one volume are fitted whole, by what it is `allowed`: `engines.volumes.fit.in_part`.

    `fit_ms` is how long the whole fit has taken, known after `ended`.
    """

    def __init__(self, fits: VolumeFits, frame: int, allowed: Allowance = ALL) -> None:
        self._fits, self._frame, self._allowed = fits, frame, allowed
        self._place: FloatArray = np.empty((0, 3))
        self._units = 0.0
        self._credit = math.inf
        self._began_s = math.nan
        self.fit_ms = 0.0

    def is_time_for(self, group: IntArray, place: FloatArray) -> bool:
        """Whether there is time for the whole fit of all particles; their groups (N,) and places (N, 3)."""
        self._place = place
        if not self._allowed.is_none:
            total = float(cost_of_groups(group, NO_DOUBTS)[0][_firsts(group)].sum())
            self._credit = math.inf if self._allowed.is_all else self._fits.turns.credit(total, self._allowed)
            if self._credit == math.inf:
                self._choose(group, np.zeros(len(group)))
                return True
        return False

    def choose(self, group: IntArray, longer: FloatArray) -> BoolArray:
        """The particles (N,) for whose whole fit there is time; `longer` says how surely each is two."""
        if self._allowed.is_none:
            self._began_s = time.perf_counter()
            return np.zeros(len(group), np.bool_)
        return self._choose(group, np.clip(longer, 0.0, MOST_LONGER) ** 2)

    def _choose(self, group: IntArray, need: FloatArray) -> BoolArray:
        even = np.ones(len(group))
        of = Candidates(self._frame, self._place, group, even, even, NO_DOUBTS, need)
        chosen, self._units = self._fits.turns.choose(of, self._allowed, self._credit)
        self._began_s = time.perf_counter()
        return chosen

    def ended(self) -> None:
        """The fit has ended."""
        if math.isfinite(self._began_s):
            self.fit_ms = 1e3 * (time.perf_counter() - self._began_s)
        if self._units > 0.0:
            self._fits.turns.spent(self._units, self.fit_ms)


def _firsts(group: IntArray) -> npt.NDArray[np.intp]:
    """One particle of each group."""
    return np.unique(group, return_index=True)[1]
