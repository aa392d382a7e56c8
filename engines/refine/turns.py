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

FIRST_MS = 0.5
"""ms of a unit of cost (a lone particle) before the first is measured: what one core of 2020 needs."""
REMEMBERED = 12
"""Frames over which the cost of a unit is averaged: fewer follow single expensive groups, more are slow to see that
the computer has become busy."""


class Allowance(NamedTuple):
    """How much of a frame's fit may be done: the `share` of its work (0 to 1), and `ms` at most."""

    share: float = 1.0
    ms: float = math.inf

    @property
    def is_all(self) -> bool:
        """Whether nothing is limited."""
        return self.share >= 1.0 and self.ms == math.inf

    @property
    def is_none(self) -> bool:
        """Whether nothing may be fitted."""
        return not (self.share > 0.0 and self.ms > 0.0)


ALL, NOTHING = Allowance(), Allowance(0.0, 0.0)


class Candidates(NamedTuple):
    """The particles (N,) of a frame: places x, y (N, 2), um, groups below N, and what says how they need a fit.

    `doubts` (P,) are the groups of the places where one more may be, -1 where none is near.
    """

    frame: int
    xy_um: FloatArray
    group: IntArray
    confidence: FloatArray
    sigma_z_um: FloatArray
    doubts: IntArray


class FitTurns:
    """Chooses, frame by frame, which particles are fitted; several threads may ask at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame = -1
        self._tree: cKDTree | None = None
        self._waited: FloatArray = np.zeros(0)
        self._reach_um = 0.0
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

    def choose(self, of: Candidates, allowed: Allowance) -> tuple[BoolArray, float]:
        """The particles (N,) to fit in a frame, and the units of cost that they are."""
        n = len(of.group)
        if n == 0:
            return np.zeros(0, np.bool_), 0.0
        _, cost = cost_of_groups(of.group, of.doubts)
        total = float(cost[np.unique(of.group)].sum())
        with self._lock:
            before = self._waits(of)
            waited = np.where(np.isnan(before), 1.0, before + 1.0)
            may = max(min(allowed.share * total, allowed.ms / self._unit_ms()), 0.0)
            if may >= total:
                chosen, units, self._debt = np.ones(n, np.bool_), total, 0.0
            else:
                size = np.bincount(of.group, minlength=n)
                need = need_of(size[of.group] > 1, np.isnan(before), of.confidence, of.sigma_z_um)
                chosen, units = choose(of.group, cost, need, waited, may - self._debt, of.frame)
                self._debt = max(0.0, units - (may - self._debt))
            if of.frame > self._frame:
                self._remember(of, np.where(chosen, 0.0, waited))
        return chosen, units

    def _waits(self, of: Candidates) -> FloatArray:
        """Frames for which each particle (N,) had waited in the last frame; NaN for new ones."""
        if self._tree is None:
            return np.full(len(of.group), np.nan)
        far, nearest = self._tree.query(of.xy_um)
        waits: FloatArray = np.where(
            far < self._reach_um, self._waited[np.minimum(nearest, len(self._waited) - 1)], np.nan
        )
        return waits

    def _remember(self, of: Candidates, waited: FloatArray) -> None:
        self._frame, self._waited = of.frame, waited
        self._tree = cKDTree(of.xy_um)
        extent = np.ptp(of.xy_um, axis=0)
        # the mean distance between neighbours; a lone particle may have gone anywhere
        self._reach_um = math.sqrt(float(extent.prod()) / len(waited)) if len(waited) > 3 else math.inf
