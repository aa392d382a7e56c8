"""The flow through an ellipse, and through a circle with slip or with shear thinning: closed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracking.physics.sections.profile import Wall

FloatArray = npt.NDArray[np.float64]

WALL_PIECES = 256
"""Pieces of the wall; the shear of a circle is the same in all of them."""


@dataclass(frozen=True)
class EllipseProfile:
    """Newtonian flow through an ellipse with the semi-axes a, b: F = 2 (1 - (y/a)^2 - (z/b - 1)^2)."""

    width_um: float
    depth_um: float

    @property
    def resistance(self) -> float:
        """G / (viscosity U) = 4 (a^2 + b^2) / (a b)^2, um^-2."""
        a, b = self.width_um / 2.0, self.depth_um / 2.0
        return 4.0 * (a**2 + b**2) / (a * b) ** 2

    def at(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """F at points (N,); 0 outside."""
        a, b = self.width_um / 2.0, self.depth_um / 2.0
        velocity: FloatArray = np.maximum(2.0 * (1.0 - (y_um / a) ** 2 - (z_um / b - 1.0) ** 2), 0.0)
        return velocity

    def wall(self) -> Wall:
        """The shear at the wall."""
        a, b = self.width_um / 2.0, self.depth_um / 2.0
        angle, length = _around(a, b)
        shear = 4.0 * np.hypot(np.cos(angle) / a, np.sin(angle) / b)
        return Wall(a * np.cos(angle), b + b * np.sin(angle), length, shear)


@dataclass(frozen=True)
class PipeProfile:
    """Flow through a circle of radius R, with the slip length b and the flow index m (shear stress K |du/dr|^m).

    With p = 1 + 1/m: F = ((R^p - r^p) / p + b R^(p-1)) / M with the mean M = R^p / (p + 2) + b R^(p-1), and
    G / (K U^m) = 2 / M^m (Bird, Stewart & Lightfoot, Transport Phenomena, 2007, section 8.3).
    """

    diameter_um: float
    slip_um: float = 0.0
    index: float = 1.0

    @property
    def _power(self) -> float:
        return 1.0 + 1.0 / self.index

    @property
    def _mean(self) -> float:
        """M / R^p: everything is in units of the radius."""
        return 1.0 / (self._power + 2.0) + self.slip_um / (self.diameter_um / 2.0)

    @property
    def resistance(self) -> float:
        """G / (K U^m), um^-(1 + m)."""
        radius = self.diameter_um / 2.0
        return float(2.0 / (self._mean**self.index * radius ** (self.index + 1.0)))

    def at(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """F at points (N,); 0 outside."""
        radius = self.diameter_um / 2.0
        share = np.hypot(y_um, z_um - radius) / radius
        velocity = ((1.0 - share**self._power) / self._power + self.slip_um / radius) / self._mean
        return np.where(share <= 1.0, velocity, 0.0)

    def wall(self) -> Wall:
        """The shear at the wall."""
        radius = self.diameter_um / 2.0
        angle, length = _around(radius, radius)
        shear = np.full(angle.size, 1.0 / (self._mean * radius))
        return Wall(radius * np.cos(angle), radius + radius * np.sin(angle), length, shear)


def _around(a: float, b: float) -> tuple[FloatArray, FloatArray]:
    """Parameter of the ellipse in the middle of each piece of its wall, and their lengths."""
    angle = 2.0 * math.pi * (np.arange(WALL_PIECES) + 0.5) / WALL_PIECES
    length = 2.0 * math.pi / WALL_PIECES * np.hypot(a * np.sin(angle), b * np.cos(angle))
    return angle, length
