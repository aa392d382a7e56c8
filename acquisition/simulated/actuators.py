"""Motion of a focus drive and flow of a pump in closed form, so that they can be evaluated at any time."""

from __future__ import annotations

import math

SHORTEST_LAG_S = 1e-6  # s; a shorter one is treated as none, as divisions by it would overflow
SETTLED_LAGS = 12  # lags after which the drive rests: exp(-12) = 6e-6 of the move are left


class FocusDrive:
    """Moves at constant speed; the carriage follows with a first-order lag and settles afterwards.

    Like real drives it reports "done" at the end of the ramp, a few lags before it rests. Its encoder reads the
    position of the carriage. `drift_um_s` moves the focal plane relative to the encoder.
    """

    def __init__(self, position_um: float = 0.0) -> None:
        self.speed_um_s = 1000.0
        self.lag_s = 0.005
        self.drift_um_s = 0.0
        self._from_um = self._to_um = position_um
        self._offset_um = 0.0
        self._start_s = 0.0
        self._drifted_um = 0.0
        self._drift_since_s = 0.0
        self._sequence: tuple[float, ...] = ()
        self._at = 0

    def start_sequence(self, positions_um: tuple[float, ...], time_s: float, *, moves_first: bool) -> None:
        """Follow the trigger through positions, over and over; with `moves_first`, go to the first one now."""
        self._sequence, self._at = positions_um, 0
        if moves_first:
            self.trigger(time_s)

    def trigger(self, time_s: float) -> None:
        """A pulse of the trigger at a simulated time: go to the next position, if a sequence runs."""
        if self._sequence:
            self.move(self._sequence[self._at], time_s)
            self._at = (self._at + 1) % len(self._sequence)

    def stop_sequence(self) -> None:
        """Follow the trigger no more; the drive stays where it is."""
        self._sequence = ()

    @property
    def follows(self) -> bool:
        """Whether a sequence runs."""
        return bool(self._sequence)

    def place(self, position_um: float) -> None:
        """Set the drive at rest at a position, without drift so far."""
        self._from_um = self._to_um = position_um
        self._offset_um = self._drifted_um = 0.0
        self._start_s = self._drift_since_s = 0.0

    @property
    def target_um(self) -> float:
        """The last target of the drive."""
        return self._to_um

    def move(self, target_um: float, time_s: float) -> None:
        """Start a move at a simulated time, from the position at that time."""
        encoder = self.encoder_um(time_s)
        reference = self._reference_um(time_s)
        self._from_um, self._to_um, self._start_s = reference, target_um, time_s
        self._offset_um = encoder - reference

    def stop(self, time_s: float) -> None:
        """Stop at the present position."""
        here = self.encoder_um(time_s)
        self._from_um = self._to_um = here
        self._offset_um, self._start_s = 0.0, time_s

    def encoder_um(self, time_s: float) -> float:
        """Position that the drive reports, um."""
        elapsed = max(time_s - self._start_s, 0.0)
        ramp_s = self.ramp_s
        speed = math.copysign(self.speed_um_s, self._to_um - self._from_um) if ramp_s else 0.0
        if self.lag_s == 0:
            return self._reference_um(time_s)
        fading = math.exp(-min(elapsed, ramp_s) / self.lag_s)
        behind = self._offset_um * fading - speed * self.lag_s * (1 - fading)
        if elapsed > ramp_s:
            behind *= math.exp(-(elapsed - ramp_s) / self.lag_s)
        return self._reference_um(time_s) + behind

    def focal_plane_um(self, time_s: float) -> float:
        """Height of the plane midway between the focal lines, drift included, um."""
        drifted = self._drifted_um + self.drift_um_s * (time_s - self._drift_since_s)
        return self.encoder_um(time_s) + drifted

    def set_drift(self, drift_um_s: float, time_s: float) -> None:
        """Change the rate of drift at a time; the drift so far stays."""
        self._drifted_um += self.drift_um_s * (time_s - self._drift_since_s)
        self.drift_um_s, self._drift_since_s = drift_um_s, time_s

    def set_speed(self, speed_um_s: float, lag_s: float, time_s: float) -> None:
        """Change speed and lag; a running move continues with the new ones."""
        reference, encoder = self._reference_um(time_s), self.encoder_um(time_s)
        self._from_um, self._offset_um, self._start_s = reference, encoder - reference, time_s
        self.speed_um_s, self.lag_s = speed_um_s, _lag(lag_s)

    def rests(self, time_s: float) -> bool:
        """Return whether the carriage rests (within 1e-5 of the move)."""
        if not self.ramp_s and not self._offset_um:
            return True
        return time_s >= self.done_s() + SETTLED_LAGS * self.lag_s

    def done_s(self) -> float:
        """Return the simulated time at which the present move's ramp ends."""
        return self._start_s + self.ramp_s

    @property
    def ramp_s(self) -> float:
        """Duration of the present move's ramp."""
        return abs(self._to_um - self._from_um) / self.speed_um_s

    def _reference_um(self, time_s: float) -> float:
        travelled = self.speed_um_s * max(time_s - self._start_s, 0.0)
        distance = self._to_um - self._from_um
        return (
            self._to_um if travelled >= abs(distance) else self._from_um + math.copysign(travelled, distance)
        )


class Pump:
    """A pump whose flow follows `gain` x set-point with a first-order lag (tubing compliance)."""

    def __init__(self) -> None:
        self.gain = 1.0
        self.lag_s = 0.0
        self.setpoint_ul_s = 0.0
        self._flow_ul_s = 0.0
        self._volume_ul = 0.0
        self._since_s = 0.0

    def restart(self) -> None:
        """Count time and volume from zero again."""
        self._since_s = self._volume_ul = 0.0

    def set(
        self,
        time_s: float,
        *,
        setpoint_ul_s: float | None = None,
        gain: float | None = None,
        lag_s: float | None = None,
    ) -> None:
        """Change set-point, gain or lag at a simulated time."""
        self._flow_ul_s, self._volume_ul = self.flow_ul_s(time_s), self.volume_ul(time_s)
        self._since_s = time_s
        self.setpoint_ul_s = self.setpoint_ul_s if setpoint_ul_s is None else setpoint_ul_s
        self.gain = self.gain if gain is None else gain
        self.lag_s = self.lag_s if lag_s is None else _lag(lag_s)

    def flow_ul_s(self, time_s: float) -> float:
        """Return the true flow at a time, uL/s."""
        final = self.gain * self.setpoint_ul_s
        if self.lag_s == 0:
            return final
        return final + (self._flow_ul_s - final) * math.exp(-max(time_s - self._since_s, 0.0) / self.lag_s)

    def volume_ul(self, time_s: float) -> float:
        """Return the volume delivered so far, uL: the integral of the flow."""
        elapsed = max(time_s - self._since_s, 0.0)
        final = self.gain * self.setpoint_ul_s
        transient = 0.0
        if self.lag_s > 0:
            transient = (self._flow_ul_s - final) * self.lag_s * -math.expm1(-elapsed / self.lag_s)
        return self._volume_ul + final * elapsed + transient


def _lag(lag_s: float) -> float:
    """0 for a lag that is too short to matter; dividing by it would overflow."""
    return lag_s if lag_s > SHORTEST_LAG_S else 0.0
