"""Finds the wall from the laminar velocity profile, which falls to zero there."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tracking.analysis.robust import robust_sigma
from tracking.control.controllers.measuring import CLIP, FloatArray

ROUNDS = 3
"""Fits, each without the outliers of the one before. The first guess is robust, so that the set of outliers hardly
changes after the second."""
FEWEST = 6
"""Velocities that a fit needs: twice the three parameters, so that it has residuals to judge outliers by."""
GROUPS = 12
"""Groups of neighbours whose medians give the first guess: at least two for each parameter even if a group is
wrong, few enough that a group of some tens of tracks has a reliable median. Only the first guess depends on it."""
FARTHEST = 2.0
"""Largest distance of the wall from the nearest particle, in half ranges of the particles' depths. Beyond, the
extrapolated zero of a parabola is uncertain by a large part of its distance."""


def wall_um(depth_um: FloatArray, velocity_um_s: FloatArray, wall: Literal["floor", "ceiling"]) -> float:
    """Depth at which the parabola through velocities (N,) over depths (N,) is zero, um.

    Least squares without outliers, which are found relative to a first fit through medians. NaN if the data do not
    show a parabola that is fastest between its zeros, or only a small part of one: the wall must not be farther
    from the nearest particle than the whole range of the particles' depths.
    """
    usable = np.isfinite(depth_um) & np.isfinite(velocity_um_s)
    depth, velocity = depth_um[usable], velocity_um_s[usable]
    if len(depth) < FEWEST or np.ptp(depth) == 0:
        return math.nan
    middle, spread = float(np.median(depth)), float(np.ptp(depth)) / 2
    u = (depth - middle) / spread
    fit = _first_guess(u, velocity)
    for _ in range(ROUNDS):
        off = velocity - np.polyval(fit, u)
        inside = np.abs(off) <= CLIP * max(robust_sigma(off), 1e-12)
        if np.count_nonzero(inside) < FEWEST:
            return math.nan
        fit = np.polyfit(u[inside], velocity[inside], 2)
    curvature, slope, level = (float(value) for value in fit)
    discriminant = slope**2 - 4 * curvature * level
    if curvature == 0 or discriminant <= 0 or curvature * np.median(velocity) >= 0:
        return math.nan
    half = math.sqrt(discriminant) / (2 * abs(curvature))
    centre = -slope / (2 * curvature)
    root = centre - half if wall == "floor" else centre + half
    edge = u.min() if wall == "floor" else u.max()
    return middle + spread * root if abs(root - edge) <= FARTHEST else math.nan


def _first_guess(u: FloatArray, velocity: FloatArray) -> FloatArray:
    """Parabola through the medians of groups of neighbours in depth."""
    groups = np.array_split(np.argsort(u), min(GROUPS, len(u) // 2))
    depths = np.array([np.median(u[group]) for group in groups])
    speeds = np.array([np.median(velocity[group]) for group in groups])
    fit: FloatArray = np.polyfit(depths, speeds, 2)
    return fit
