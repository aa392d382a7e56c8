"""Where the wall is, from the flow beside it: a laminar profile comes to rest there."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tracking.controllers.measuring import FloatArray, scatter

CLIP = 4.0
ROUNDS = 3


def wall_um(depth_um: FloatArray, velocity_um_s: FloatArray, wall: Literal["floor", "ceiling"]) -> float:
    """Depth at which the parabola through velocities (N,) over depths (N,) is zero, um.

    Fitted by least squares without outliers. NaN where the data do not show a parabola that is fastest between
    its zeros, or hardly a part of one: the wall must not be farther from the nearest particle than the particles
    are spread.
    """
    usable = np.isfinite(depth_um) & np.isfinite(velocity_um_s)
    depth, velocity = depth_um[usable], velocity_um_s[usable]
    middle, spread = float(np.median(depth)), float(np.ptp(depth)) / 2
    if spread == 0:
        return math.nan
    u = (depth - middle) / spread
    inside = np.ones(len(u), np.bool_)
    for _ in range(ROUNDS):
        if np.count_nonzero(inside) < 6:
            return math.nan
        fit = np.polyfit(u[inside], velocity[inside], 2)
        off = velocity - np.polyval(fit, u)
        inside = np.abs(off) <= CLIP * max(scatter(off[inside]), 1e-12)
    curvature, slope, level = (float(value) for value in fit)
    discriminant = slope**2 - 4 * curvature * level
    if curvature == 0 or discriminant <= 0 or curvature * np.median(velocity) >= 0:
        return math.nan
    half = math.sqrt(discriminant) / (2 * abs(curvature))
    centre = -slope / (2 * curvature)
    root = centre - half if wall == "floor" else centre + half
    edge = u.min() if wall == "floor" else u.max()
    return middle + spread * root if abs(root - edge) <= 2 else math.nan
