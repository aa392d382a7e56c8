"""Whose turn it is to be fitted: how long each particle has waited, and what the fit has cost so far.

There are no tracks in the detector: a particle is taken for the nearest one of the last frame. Where particles move
farther than they are apart this is often another one, and waiting times are handed on at random, which is fair too.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from engines.refine.arguments import BoolArray, FloatArray, IntArray
from engines.refine.choice import choose, cost_of_groups, need_of
from engines.refine.fit_notes import FitNotes

FIRST_MS = 0.5
"""ms of a unit of cost (a lone particle) before the first is measured: what one core of 2020 needs."""
REMEMBERED = 12
"""Frames over which the cost of a unit is averaged: fewer follow single expensive groups, more are slow to see that
the computer has become busy."""


class Allowance(NamedTuple):
    """How much of a frame's fit may be done: the `share` of its work (0 to 1), and `ms` at most.

    `notes` are what the fit of this frame goes by; without them it goes by what is known now.
    """

    share: float = 1.0
    ms: float = math.inf
    notes: FitNotes | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is limited."""
        return self.share >= 1.0 and self.ms == math.inf

    @property
    def is_none(self) -> bool:
        """Whether nothing may be fitted."""
        return not (self.share > 0.0 and self.ms > 0.0)


ALL, NOTHING = Allowance(), Allowance(0.0, 0.0)


class Waits(NamedTuple):
    """How long each particle of a `frame` has waited for its fit: `waited` (N,) frames, by their places in `tree`.

    A particle is taken for the nearest one of another frame within `reach`.
    """

    frame: int
    tree: cKDTree
    waited: FloatArray
    reach: float


WAITS_KEPT = 64
"""Frames whose waiting times are kept: more than are worked on at once (two for each of 16 workers), so that one
that was overtaken still finds those of the frame before it."""
TURN_S = 60.0
"""s that a frame of a replay waits for the choice of an earlier one, which begins before it on another thread; it
bounds the wait if that one has failed."""


class Candidates(NamedTuple):
    """The particles (N,) of a frame: places (N, D) with the same unit along all axes, groups below N, and what
    says how they need a fit.

    `doubts` (P,) are the groups of the places where one more may be, -1 where none is near. `need` (N,) is what
    else a particle needs a fit for, in units of `choice.need_of`.
    """

    frame: int
    place: FloatArray
    group: IntArray
    confidence: FloatArray
    sigma_z_um: FloatArray
    doubts: IntArray
    need: FloatArray | None = None


class FitTurns:
    """Chooses, frame by frame, which particles are fitted; several threads may ask at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chosen = threading.Condition(self._lock)
        self._waits: deque[Waits] = deque(maxlen=WAITS_KEPT)
        self._at_work: set[int] = set()
        self._debt = 0.0
        self._spent: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)

    @property
    def unit_ms(self) -> float:
        """Time of the fit of a lone particle, mean of the last frames, ms."""
        with self._lock:
            return self._unit_ms()

    def _unit_ms(self) -> float:
        units = sum(spent for spent, _ in self._spent)
        return sum(ms for _, ms in self._spent) / units if units > 0 else FIRST_MS

    def spent(self, units: float, ms: float) -> None:
        """Take how long the fit of `units` of cost took."""
        with self._lock:
            self._spent.append((units, ms))

    def begins(self, frame: int) -> None:
        """A frame is being worked on, and may choose."""
        with self._lock:
            self._at_work.add(frame)

    def ends(self, frame: int) -> None:
        """A frame is finished, whether it has chosen or not."""
        with self._chosen:
            self._at_work.discard(frame)
            self._chosen.notify_all()

    def credit(self, total: float, allowed: Allowance) -> float:
        """The units of cost up to which groups may be fitted in a frame whose whole fit costs `total` units."""
        with self._lock:
            return self._credit(total, allowed)

    def choose(
        self, of: Candidates, allowed: Allowance, credit: float | None = None
    ) -> tuple[BoolArray, float]:
        """The particles (N,) to fit in a frame, and the units of cost that they are.

        `credit` is what the method of that name has answered, where it was asked. The notes of `allowed` get the
        credit and the frame whose waiting times were used. Where they give them, the choice follows from these and
        the candidates alone; it then waits for that frame's choice.
        """
        n = len(of.group)
        if n == 0:
            return np.zeros(0, np.bool_), 0.0
        _, cost = cost_of_groups(of.group, of.doubts)
        total = float(cost[np.unique(of.group)].sum())
        given = None if allowed.notes is None else allowed.notes.given
        with self._chosen:
            waits = self._newest(of.frame) if given is None else self._of(given.turns_from)
            before = _waited(waits, of.place)
            waited = np.where(np.isnan(before), 1.0, before + 1.0)
            if credit is None:
                credit = self._credit(total, allowed)
            if credit == math.inf:
                chosen, units, self._debt = np.ones(n, np.bool_), total, 0.0
            else:
                size = np.bincount(of.group, minlength=n)
                need = need_of(size[of.group] > 1, np.isnan(before), of.confidence, of.sigma_z_um)
                need = need if of.need is None else need + of.need
                chosen, units = choose(of.group, cost, need, waited, credit, of.frame)
                self._debt = max(0.0, units - credit)
            self._waits.append(_waits_of(of, np.where(chosen, 0.0, waited)))
            self._chosen.notify_all()
        if allowed.notes is not None:
            allowed.notes.credit = credit
            allowed.notes.turns_from = -1 if waits is None else waits.frame
        return chosen, units

    def _credit(self, total: float, allowed: Allowance) -> float:
        """The units of cost up to which groups are fitted; infinite where there is time for all, `total`."""
        if allowed.notes is not None and allowed.notes.given is not None:
            return allowed.notes.given.credit
        may = max(min(allowed.share * total, allowed.ms / self._unit_ms()), 0.0)
        return math.inf if may >= total else may - self._debt

    def _newest(self, frame: int) -> Waits | None:
        """The waiting times of the newest frame up to this one: later ones may have overtaken it."""
        return max((w for w in self._waits if w.frame <= frame), key=lambda w: w.frame, default=None)

    def _of(self, frame: int) -> Waits | None:
        """The waiting times of a frame (-1: none), once it has chosen; those before it if it did not choose."""

        def found() -> Waits | None:
            return next((w for w in self._waits if w.frame == frame), None)

        def may_choose() -> bool:
            have = {w.frame for w in self._waits}
            return any(other <= frame and other not in have for other in self._at_work)

        if frame < 0:
            return None
        if not self._chosen.wait_for(lambda: found() or not may_choose(), TURN_S):
            raise TimeoutError(f"the fit of frame {frame}, on which this one depends, has not begun")
        return found() or self._newest(frame)


def _waited(waits: Waits | None, place: FloatArray) -> FloatArray:
    """Frames for which each particle (N, D) had waited; NaN for new ones."""
    if waits is None:
        return np.full(len(place), np.nan)
    far, nearest = waits.tree.query(place)
    known = waits.waited[np.minimum(nearest, len(waits.waited) - 1)]
    found: FloatArray = np.where(far < waits.reach, known, np.nan)
    return found


def _waits_of(of: Candidates, waited: FloatArray) -> Waits:
    extent = np.ptp(of.place, axis=0)
    # the mean distance between neighbours; a lone particle may have gone anywhere
    extent = extent[extent > 0.0]
    many = len(waited) > 3 and extent.size > 0
    reach = float(extent.prod() / len(waited)) ** (1 / extent.size) if many else math.inf
    return Waits(of.frame, cKDTree(of.place), waited, reach)
