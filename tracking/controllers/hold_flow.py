"""Hold the measured velocity at a target by setting the pump: proportional-integral control."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stream.messages import Command, CommandKind, TrackFlag, Tracks
from tracking.settings import HoldFlowSettings

DEADBAND = 1e-3
SIGNIFICANCE = 3.0


class HoldFlow:
    """PI control of the median velocity in a band of the channel.

    flow = start + g (kp e + integral of e dt / Ti), within its limits, with e the target minus the median and
    g the flow per velocity (`ul_s_per_um_s`), if not given the ratio of the two when control begins; a pump
    that does not run then, or too slowly to be measured, is first set to the middle of its limits for Ti.
    The integral stands still while the flow is at a limit and the error asks for more (anti-windup).
    """

    name = "hold_flow"

    def __init__(self, settings: HoldFlowSettings) -> None:
        self._settings = settings
        self._gain = settings.ul_s_per_um_s
        self._start_ul_s = math.nan
        self._asked_ul_s = math.nan
        self._integral_um_s = 0.0
        self._last_s = math.nan
        self._sent_s = -math.inf
        self.velocity_um_s = math.nan

    def update(self, tracks: Tracks) -> list[Command]:
        """Measure, and return a new set-point when one is due."""
        s = self._settings
        now_s = tracks.info.time_s
        velocities = band_velocities(tracks, s)
        if len(velocities) < s.min_tracks:
            self._last_s = math.nan
            return []
        self.velocity_um_s = float(np.median(velocities))
        if math.isnan(self._start_ul_s):
            settling = now_s - self._sent_s < s.integral_time_s
            if settling or not self._begin(tracks.info.flow_ul_s, velocities):
                return self._set((s.min_flow_ul_s + s.max_flow_ul_s) / 2.0, now_s)
        flow = self._correct(s.target_um_s - self.velocity_um_s, now_s)
        return self._set(flow, now_s)

    def _begin(self, flow_ul_s: float, velocities: npt.NDArray[np.float64]) -> bool:
        """Take the running flow as the start; False while flow or gain are not known."""
        if not math.isfinite(flow_ul_s):
            flow_ul_s = self._asked_ul_s
        if not math.isfinite(flow_ul_s):
            return False
        if self._gain is None:
            error = 1.25 * float(np.std(velocities)) / math.sqrt(len(velocities))
            if flow_ul_s == 0.0 or abs(self.velocity_um_s) <= SIGNIFICANCE * error:
                return False
            self._gain = flow_ul_s / self.velocity_um_s
        self._start_ul_s = flow_ul_s
        return True

    def _correct(self, error_um_s: float, now_s: float) -> float:
        s = self._settings
        assert self._gain is not None
        dt = now_s - self._last_s
        self._last_s = now_s
        step = error_um_s * dt / s.integral_time_s if dt > 0 else 0.0
        proportional = s.proportional * error_um_s
        wish = self._start_ul_s + self._gain * (proportional + self._integral_um_s + step)
        flow = min(max(wish, s.min_flow_ul_s), s.max_flow_ul_s)
        if wish == flow or (wish - flow) * self._gain * error_um_s < 0:
            self._integral_um_s += step
        return flow

    def _set(self, flow_ul_s: float, now_s: float) -> list[Command]:
        s = self._settings
        small = DEADBAND * (s.max_flow_ul_s - s.min_flow_ul_s)
        if now_s - self._sent_s < s.period_s or abs(flow_ul_s - self._asked_ul_s) < small:
            return []
        self._asked_ul_s, self._sent_s = flow_ul_s, now_s
        return [Command(CommandKind.SET_FLOW, flow_ul_s)]


def band_velocities(tracks: Tracks, settings: HoldFlowSettings) -> npt.NDArray[np.float64]:
    """Velocities, um/s, of the confirmed and detected tracks in the band."""
    unfit = TrackFlag.PREDICTED | TrackFlag.TENTATIVE | TrackFlag.DUPLICATE
    velocity = tracks.vx_um_s if settings.axis == "x" else tracks.vy_um_s
    chosen = (tracks.flags.astype(np.int64) & int(unfit) == 0) & np.isfinite(velocity)
    focus_um = tracks.info.focus_um
    height = tracks.z_um + (focus_um if math.isfinite(focus_um) else 0.0)
    for value, low, high in (
        (height, settings.min_height_um, settings.max_height_um),
        (tracks.y_um, settings.min_y_um, settings.max_y_um),
    ):
        if low is not None:
            chosen &= value >= low
        if high is not None:
            chosen &= value <= high
    chosen_velocity: npt.NDArray[np.float64] = velocity[chosen]
    return chosen_velocity
