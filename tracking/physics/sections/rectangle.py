"""The flow through a rectangle, with slip at its walls: a series that converges exponentially away from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tracking.physics.sections.profile import Wall
from tracking.physics.sections.spline_table import SplineTable

FloatArray = npt.NDArray[np.float64]

TERMS = 40
"""Terms of the series. The error is largest at the two shorter walls, 1 / (4 (2 TERMS)^2) = 4e-5 of the maximum
velocity, and falls with distance d from them as exp(-2 pi TERMS d / shorter side)."""
TABLE_POINTS = 40
"""Points of the table along each half side: errors below 5e-5, in the corners. The series is summed up for the
table only: it would cost ten times as much for each point."""
WALL_PIECES = 64
"""Pieces of each wall; the force on the liquid and the shear at the wall then balance within 0.05 %."""
BISECTIONS = 60
"""Halvings of an interval of pi / 2: the wave numbers are exact to rounding."""


@dataclass(frozen=True)
class RectangleProfile:
    """Newtonian flow through a rectangle with Navier's slip length at all walls, u = slip |du/dn| (slip >= 0).

    With t along the shorter side h and s along the longer one w, both from the middle,

        phi = (h^2/4 - t^2)/2 + b h/2 - sum_n a_n cos(k_n t) cosh(k_n s) / (cosh(k_n w/2) + b k_n sinh(k_n w/2))

    solves laplace(phi) = -1 with phi = -b dphi/dn at the walls, where b k_n tan(k_n h/2) = 1 and a_n =
    2 sin(k_n h/2) / k_n^3 / (h/2 + sin(k_n h) / (2 k_n)). Without slip it is eq. 3.48 of Bruus, Theoretical
    Microfluidics (2008), with the series of the parallel plates summed up. F = phi / mean(phi).
    """

    width_um: float
    depth_um: float
    slip_um: float = 0.0

    @cached_property
    def _series(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Wave numbers k_n, coefficients a_n, and 1 / (1 + b k_n tanh(k_n w/2)), (TERMS,)."""
        h, w, b = self._short, self._long, self.slip_um
        n = np.arange(1, TERMS + 1, dtype=np.float64)
        low: FloatArray = (n - 1.0) * np.pi
        high: FloatArray = (n - 0.5) * np.pi
        if b > 0:
            slip = 2.0 * b / h
            sign = np.where(n % 2 == 1, 1.0, -1.0)
            for _ in range(BISECTIONS):
                middle = (low + high) / 2.0
                above = sign * (np.cos(middle) - slip * middle * np.sin(middle)) > 0
                low, high = np.where(above, middle, low), np.where(above, high, middle)
        k = 2.0 * high / h
        a = 2.0 * np.sin(k * h / 2.0) / k**3 / (h / 2.0 + np.sin(k * h) / (2.0 * k))
        return k, a, 1.0 / (1.0 + b * k * np.tanh(k * w / 2.0))

    @property
    def _short(self) -> float:
        return min(self.width_um, self.depth_um)

    @property
    def _long(self) -> float:
        return max(self.width_um, self.depth_um)

    @cached_property
    def mean_um2(self) -> float:
        """Mean of phi over the section."""
        k, a, damped = self._series
        h, w = self._short, self._long
        plates = h**2 / 12.0 + self.slip_um * h / 2.0
        ends = a * 2.0 * np.sin(k * h / 2.0) / k * 2.0 * np.tanh(k * w / 2.0) / k * damped
        return float(plates - ends.sum() / (h * w))

    @property
    def resistance(self) -> float:
        """G / (viscosity U), um^-2."""
        return 1.0 / self.mean_um2

    def at(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """F at points (N,), by splines within 1e-4; 0 outside. It does not depend on what was asked before."""
        t, s = (np.abs(one) for one in self._own_axes(y_um, z_um))
        inside = (t <= self._short / 2.0) & (s <= self._long / 2.0)
        velocity = np.zeros(t.size)
        velocity[inside] = self._table.at(t[inside], s[inside])
        return velocity

    @cached_property
    def _table(self) -> SplineTable:
        """Cubic splines through a quarter of the section, with points that are denser towards the ends of the long
        side: the velocity changes over a length of the short side there."""
        h, w = self._short, self._long
        share = np.linspace(1.0, 0.0, TABLE_POINTS)
        bend = math.asinh(w / h)
        t = h / 2.0 * np.linspace(0.0, 1.0, TABLE_POINTS)
        s = w / 2.0 * (1.0 - np.sinh(bend * share) / math.sinh(bend))
        grid_t, grid_s = np.meshgrid(t, s, indexing="ij")
        values = self._summed(grid_t.ravel(), grid_s.ravel()).reshape(grid_t.shape)
        return SplineTable(t, s, values)

    def _summed(self, t: FloatArray, s: FloatArray) -> FloatArray:
        """F at points inside by the series."""
        k, a, damped = self._series
        ends = (a * damped) @ (np.cos(k[:, None] * t) * _cosh_ratio(k, s, self._long / 2.0))
        phi = (self._short**2 / 4.0 - t**2) / 2.0 + self.slip_um * self._short / 2.0 - ends
        velocity: FloatArray = phi / self.mean_um2
        return velocity

    def _own_axes(self, y_um: FloatArray, z_um: FloatArray) -> tuple[FloatArray, FloatArray]:
        up = z_um - self.depth_um / 2.0
        return (up, y_um) if self.depth_um <= self.width_um else (y_um, up)

    def wall(self) -> Wall:
        """The shear at the wall."""
        return self._wall

    @cached_property
    def _wall(self) -> Wall:
        w, d = self.width_um, self.depth_um
        share = (np.arange(WALL_PIECES) + 0.5) / WALL_PIECES
        across, up = (share - 0.5) * w, share * d
        shear_floor = self._shear(across, np.zeros(WALL_PIECES), 1)
        shear_side = self._shear(np.full(WALL_PIECES, w / 2.0), up, 0)
        half = np.full(WALL_PIECES, w / 2.0)
        level = np.full(WALL_PIECES, d)
        return Wall(
            np.concatenate([across, half, across[::-1], -half]),
            np.concatenate([np.zeros(WALL_PIECES), up, level, up[::-1]]),
            np.repeat(np.array([w, d, w, d]) / WALL_PIECES, WALL_PIECES),
            np.concatenate([shear_floor, shear_side, shear_floor[::-1], shear_side[::-1]]),
        )

    def _shear(self, y_um: FloatArray, z_um: FloatArray, axis: int) -> FloatArray:
        """|dF/dn| on a wall that is normal to `axis` (0: y, 1: z)."""
        t, s = self._own_axes(y_um, z_um)
        k, a, damped = self._series
        along_short = (axis == 1) == (self.depth_um <= self.width_um)
        if along_short:
            slope = t - (a * k * damped) @ (np.sin(k[:, None] * t) * _cosh_ratio(k, s, self._long / 2.0))
        else:
            slope = (a * k * damped * np.tanh(k * self._long / 2.0)) @ np.cos(k[:, None] * t)
        shear: FloatArray = np.abs(slope) / self.mean_um2
        return shear


def _cosh_ratio(k: FloatArray, s: FloatArray, half: float) -> FloatArray:
    """cosh(k s) / cosh(k half), (terms, N), without overflow; beyond the walls as at them."""
    distance = np.minimum(np.abs(s), half)
    k = k[:, None]
    ratio: FloatArray = np.exp(k * (distance - half)) * (
        (1.0 + np.exp(-2.0 * k * distance)) / (1.0 + np.exp(-2.0 * k * half))
    )
    return ratio
