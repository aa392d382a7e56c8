"""Whether the flow of a run was the same all the time, beside what the pump was told to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from liveptv.flow_fit.run_settings import STEADY
from tracking.physics.channel.fit import ChannelFit
from tracking.physics.channel.over_time import over_time
from tracking.physics.live.pump_history import PumpHistory
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

BLOCK_S = 1.0
"""Blocks of time in which a variation of the flow is looked for."""


@dataclass(frozen=True, slots=True)
class OverRun:
    """How the flow went over a run.

    `steady`: whether it was the same; None if the run is too short to tell. If it was not, `memory_s` is over which
    time blocks are worth averaging, and `as_pump` whether it went as the pump's set-point did: in proportion to it,
    no variation is left. `set_points_ul_s` are the lowest and the highest one, where it was changed.
    """

    steady: bool | None
    memory_s: float | None
    as_pump: bool
    set_points_ul_s: tuple[float, float] | None


def over_run(fit: ChannelFit, pieces: TrackVelocities, time_s: FloatArray, flow_ul_s: FloatArray) -> OverRun:
    """Of `pieces` of tracks not much longer than `BLOCK_S`, and the set-point in frames (N,), NaN without a pump.

    A controller that holds the flow moves the set-point: the flow is steady then, and its ratio to the set-point is
    not. Without one, the set-point's changes are seen in the flow, and the ratio is steady.
    """
    known = np.isfinite(flow_ul_s)
    time_s, flow_ul_s = time_s[known], flow_ul_s[known]
    changed = flow_ul_s.size > 0 and np.ptp(flow_ul_s) > STEADY * np.abs(flow_ul_s).max()
    set_points = (float(flow_ul_s.min()), float(flow_ul_s.max())) if changed else None
    found = over_time(fit, pieces, BLOCK_S)
    if found is None:
        return OverRun(None, None, False, set_points)
    if found.steady:
        return OverRun(True, None, False, set_points)
    as_pump = False
    if changed:
        in_proportion = over_time(fit, _at_mean_set_point(pieces, time_s, flow_ul_s), BLOCK_S)
        as_pump = in_proportion is not None and in_proportion.steady
    return OverRun(False, found.memory_s, as_pump, set_points)


def _at_mean_set_point(pieces: TrackVelocities, time_s: FloatArray, flow_ul_s: FloatArray) -> TrackVelocities:
    """The pieces' velocities as they would be at the mean set-point, if the flow is in proportion to it."""
    history = PumpHistory(kept=None)
    for at in np.flatnonzero(np.diff(flow_ul_s, prepend=math.nan) != 0):
        history.see(float(time_s[at]), float(flow_ul_s[at]))
    half_s = pieces.duration_s / 2.0
    factor = history.factors(pieces.time_s - half_s, pieces.time_s + half_s)
    factor /= factor.mean()
    return replace(
        pieces,
        velocity_um_s=pieces.velocity_um_s / factor,
        velocity_sigma_um_s=pieces.velocity_sigma_um_s / np.abs(factor),
    )
