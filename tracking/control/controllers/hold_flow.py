"""PID controller that holds the measured velocity at a target by setting the pump."""

from __future__ import annotations

import math

import numpy as np

from stream.messages import Command, CommandKind, CommandReply, FrameInfo, Tracks
from tracking.control.controllers.age_limit import AgeLimit, age_limit_s
from tracking.control.controllers.controller_interface import Happening
from tracking.control.controllers.flow_tuning import integral_time_s, response_s
from tracking.control.controllers.loop_delay import LoopDelay
from tracking.control.controllers.measuring import FloatArray, heights_um, weighted_median
from tracking.control.settings import HoldFlowSettings, PumpLoopSettings

DEADBAND = 1e-3
"""Smallest change of the flow that is sent, as a part of its range. Smaller ones are below the resolution of most
pumps; a larger value saves commands and leaves an error of up to that part of the range."""
SIGNIFICANCE = 3.0
"""Standard errors by which the velocity must differ from zero before flow per velocity is taken from it. At 3 the
gain is known to a third at worst, which the loop corrects (docs/control.md: 30 % within 10 s). At a higher value
more runs begin with the pump in the middle of its range."""
BEGIN_S = 1.0
"""Time from the first velocity until control begins, s: several `filter_time_s` (0.2), because the gain is taken
from this velocity. Longer only delays the start."""
HELD = 0.1
"""Largest deviation from the old target, relative, at which a new target may use the present flow over velocity as
the gain. Farther off, the velocity is still on its way and the ratio would be wrong."""
LARGEST_STEP = 0.5
"""Largest part of an error that the integral takes up at once, after a gap in the results. Intervals of the loop
stay below it (its integral time is at least three quarters of them); only a pause is longer."""


class HoldFlow:
    """PID control of the median velocity in a band of the channel, weighted by the tracks' standard errors.

    flow = start + g (kp e + integral of e dt / Ti - kp Td dv/dt), within its limits. v is the median averaged over
    `filter_time_s`. g is the flow per velocity (`ul_s_per_um_s`); if it is not given, it is the ratio of the two
    when control begins. If the pump does not run then, or too slowly to be measured, it is first set to the middle
    of its limits. The integral is held while the flow is at a limit and the error would push it farther
    (anti-windup). A new target is fed forward: velocity is proportional to flow, so the flow changes at once by g
    times the step. Tracks show a new velocity with a delay, so e is the difference to the velocity that is expected
    by now (`RESPONSE_S`), not to the target; it changes once the command can show (`LoopDelay`).

    A loop with more delay is slower: kp and 1 / Ti fall in proportion (`flow_tuning`), so that it is stable at any
    age of the results. Beyond `max_age_s` it measures but does not act.
    """

    name = "hold_flow"

    def __init__(self, settings: HoldFlowSettings, watchdog_s: float = math.inf) -> None:
        """`watchdog_s` is `limits.watchdog_s`; raises `ConfigurationError` if `max_age_s` is not below it."""
        self._begin_loop(settings, settings.target_um_s, watchdog_s)
        self._band = settings

    def _begin_loop(self, settings: PumpLoopSettings, target_um_s: float, watchdog_s: float) -> None:
        self._settings = settings
        setting = f"controller.{self.name}.max_age_s"
        self._limit = AgeLimit(self.name, age_limit_s(settings.max_age_s, watchdog_s, setting), setting)
        self._delay = LoopDelay()
        self._waiting, self._from_frame = "", -1
        self._step_is_sent, self._step_shows_s = True, -math.inf
        self._gain = settings.ul_s_per_um_s
        self._start_ul_s = math.nan
        self._asked_ul_s = math.nan
        self._integral_um_s = 0.0
        self._last_s = math.nan
        self._rate_um_s2 = 0.0
        self._begun_s = self._expected_s = self._expected_um_s = math.nan
        self._sent_s = -math.inf
        self.target_um_s = target_um_s
        self.velocity_um_s = self.standard_error_um_s = math.nan
        self._used = 0

    def released(self) -> None:
        """Begin again at the present flow, after a safe state has ended."""
        self._start_ul_s = self._asked_ul_s = self._last_s = self._begun_s = self._expected_s = math.nan
        self.velocity_um_s = math.nan

    def retarget(self, target_um_s: float) -> None:
        """Change the target velocity."""
        held = abs(self.velocity_um_s - self.target_um_s) <= HELD * abs(self.target_um_s)
        still_to_come_um_s = self.target_um_s - self._expected_um_s
        self.target_um_s = target_um_s
        if math.isnan(self._start_ul_s) or self._gain is None:
            return
        if held and self.velocity_um_s != 0:
            self._gain = self._asked_ul_s / self.velocity_um_s if self._asked_ul_s else self._gain
        self._feed_forward(self._asked_ul_s, still_to_come_um_s)

    def _feed_forward(self, flow_ul_s: float, still_to_come_um_s: float) -> None:
        """Change the flow at once by the step to the target from the velocity that `flow_ul_s` leads to."""
        assert self._gain is not None
        self._expected_um_s = self.velocity_um_s
        self._integral_um_s = 0.0
        leads_to_um_s = self.velocity_um_s + still_to_come_um_s
        self._start_ul_s = flow_ul_s + self._gain * (self.target_um_s - leads_to_um_s)
        self._step_is_sent = False

    def acknowledged(self, ack: CommandReply) -> None:
        """Note the first frame that shows a command."""
        self._delay.acknowledged(ack)
        if ack.command_id == self._waiting:
            self._waiting, self._from_frame = "", ack.first_frame

    def happenings(self) -> list[Happening]:
        """Whether it has stopped acting because of the results' age, or acts again."""
        return self._limit.happenings()

    def measured(self) -> dict[str, float]:
        """The last measured velocity and the last commanded flow."""
        return {
            "velocity_um_s": self.velocity_um_s,
            "standard_error_um_s": self.standard_error_um_s,
            "tracks": float(self._used),
            "target_um_s": self.target_um_s,
            "asked_ul_s": self._asked_ul_s,
            "dead_time_s": self._delay.longest_dead_s,
        }

    def update(self, tracks: Tracks) -> list[Command]:
        """Measure, and return a new set-point when one is due."""
        s = self._settings
        now_s = tracks.info.time_s
        self._delay.see(tracks.info)
        was_late, is_late = self._limit.is_late, self._limit.refuses(self._delay.age_s)
        if was_late and not is_late and self._was_set_by_another(tracks.info):
            self.released()
        velocities, sigma = self._velocities(tracks)
        self._used = len(velocities)
        if self._used < s.min_tracks:
            self._last_s = math.nan
            return []
        median_um_s, self.standard_error_um_s = weighted_median(velocities, sigma)
        dt_s = now_s - self._last_s
        self._last_s = now_s
        self._smooth(median_um_s, dt_s)
        if math.isnan(self._begun_s):
            self._begun_s = now_s
        if is_late:
            return []
        if math.isnan(self._start_ul_s):
            if now_s < max(self._sent_s + integral_time_s(s, self._delay), self._begun_s + BEGIN_S):
                return []
            if not self._begin(tracks.info.flow_ul_s):
                return self._set((s.min_flow_ul_s + s.max_flow_ul_s) / 2.0, now_s)
        self._expect(now_s)
        return self._set(self._correct(dt_s), now_s)

    def _velocities(self, tracks: Tracks) -> tuple[FloatArray, FloatArray]:
        """Velocities (M,) whose median is held, and their standard errors (M,), um/s."""
        return band_velocities(tracks, self._band)

    def _was_set_by_another(self, info: FrameInfo) -> bool:
        """Whether this frame shows a set-point of the pump that is not the last one asked for."""
        off_ul_s = abs(info.flow_ul_s - self._asked_ul_s)
        return not self._waiting and info.frame >= self._from_frame and off_ul_s > self._deadband_ul_s()

    def _deadband_ul_s(self) -> float:
        return DEADBAND * (self._settings.max_flow_ul_s - self._settings.min_flow_ul_s)

    def _expect(self, now_s: float) -> None:
        """Move the velocity that is expected by now towards the target, once the step can show."""
        if not math.isnan(self._expected_s) and self._step_is_sent:
            since_s = now_s - max(self._expected_s, self._step_shows_s)
            share = -math.expm1(-max(since_s, 0.0) / response_s(self._settings, self._delay))
            self._expected_um_s += share * (self.target_um_s - self._expected_um_s)
        self._expected_s = now_s

    def _smooth(self, velocity_um_s: float, dt_s: float) -> None:
        before_um_s = self.velocity_um_s
        if not dt_s > 0 or math.isnan(before_um_s):
            self.velocity_um_s, self._rate_um_s2 = velocity_um_s, 0.0
            return
        share = dt_s / (dt_s + self._settings.filter_time_s)
        self.velocity_um_s += share * (velocity_um_s - before_um_s)
        self._rate_um_s2 = (self.velocity_um_s - before_um_s) / dt_s

    def _begin(self, flow_ul_s: float) -> bool:
        """Start from the present flow; False while flow or gain are not known."""
        if not math.isfinite(flow_ul_s):
            flow_ul_s = self._asked_ul_s
        if not math.isfinite(flow_ul_s):
            return False
        if self._gain is None:
            if flow_ul_s == 0.0 or abs(self.velocity_um_s) <= SIGNIFICANCE * self.standard_error_um_s:
                return False
            self._gain = flow_ul_s / self.velocity_um_s
        self._feed_forward(flow_ul_s, 0.0)
        return True

    def _error_um_s(self) -> float:
        """Distance of the velocity from the range in which it should be by now: from expected to target."""
        low, high = sorted((self._expected_um_s, self.target_um_s))
        return min(max(self.velocity_um_s, low), high) - self.velocity_um_s

    def _correct(self, dt_s: float) -> float:
        s = self._settings
        assert self._gain is not None
        error_um_s = self._error_um_s()
        slow_s = integral_time_s(s, self._delay)
        proportional = s.proportional * s.integral_time_s / slow_s
        step = error_um_s * min(dt_s / slow_s, LARGEST_STEP) if dt_s > 0 else 0.0
        ahead = error_um_s - s.derivative_time_s * self._rate_um_s2
        wanted = self._start_ul_s + self._gain * (proportional * ahead + self._integral_um_s + step)
        flow = min(max(wanted, s.min_flow_ul_s), s.max_flow_ul_s)
        if wanted == flow or (wanted - flow) * self._gain * error_um_s < 0:
            self._integral_um_s += step
        return flow

    def _set(self, flow_ul_s: float, now_s: float) -> list[Command]:
        if now_s - self._sent_s < self._settings.period_s:
            return []
        if not self._step_is_sent:
            self._step_is_sent, self._step_shows_s = True, now_s + self._delay.dead_s
        if abs(flow_ul_s - self._asked_ul_s) < self._deadband_ul_s():
            return []
        self._asked_ul_s, self._sent_s = flow_ul_s, now_s
        command = Command(CommandKind.SET_FLOW, flow_ul_s)
        self._delay.sent(command.command_id)
        self._waiting = command.command_id
        return [command]


def band_velocities(tracks: Tracks, settings: HoldFlowSettings) -> tuple[FloatArray, FloatArray]:
    """Velocities (M,) and their standard errors (M,), um/s, of the confirmed, detected tracks in the band."""
    along_x = settings.axis == "x"
    velocity = tracks.vx_um_s if along_x else tracks.vy_um_s
    sigma = tracks.sigma_vx_um_s if along_x else tracks.sigma_vy_um_s
    chosen = tracks.counted & np.isfinite(velocity)
    for value, low, high in (
        (heights_um(tracks), settings.min_height_um, settings.max_height_um),
        (tracks.y_um, settings.min_y_um, settings.max_y_um),
    ):
        if low is not None:
            chosen &= value >= low
        if high is not None:
            chosen &= value <= high
    return velocity[chosen], sigma[chosen]
