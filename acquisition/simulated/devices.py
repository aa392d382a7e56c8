"""The devices of the simulated microscope, as named in configuration files: camera, focus drive, pump, shutter."""

from __future__ import annotations

from acquisition.microscope.pymmcore import GenericDevice, ShutterDevice, StageDevice
from acquisition.simulated.camera import SimulatedCamera
from acquisition.simulated.fluorescence import FluorescenceCamera
from acquisition.simulated.hologram import HologramCamera
from acquisition.simulated.properties import SimulatedDevice
from acquisition.simulated.settings_log import SettingsLog
from stream.errors import ConfigurationError

__all__ = [
    "FluorescenceCamera",
    "HologramCamera",
    "SimulatedCamera",
    "SimulatedFocus",
    "SimulatedPump",
    "SimulatedShutter",
]

MAX_FLOW_UL_S = 10.0  # range of the simulated pump; some 15 times the flow of the paper


class LoggedDevice(SimulatedDevice):
    """A device that logs its settings, with times, in the file `LogFile` (see `settings_log`)."""

    def __init__(self) -> None:
        super().__init__()
        self._log = SettingsLog()
        self.add("LogFile", str, lambda: self._log.path, self._log.set_path, pre_init=True)

    def log_setting(self, setting: str, value: float | bool) -> None:
        """Log a setting before it takes effect."""
        self._log.hang(self.get_label())
        if self.attached:
            self._log.write(self.get_label(), setting, value)


class SimulatedFocus(LoggedDevice, StageDevice):
    """The focus drive: finite speed, a lag to settle, limits, and a drift that its encoder does not measure.

    With `SequenceMaxLength` it follows the camera's trigger through that many positions.

    At position 0 the mid-plane between the focal lines is on the floor of the channel; it rises with the position.
    """

    def __init__(self) -> None:
        super().__init__()
        self._start_um, self._lower_um, self._upper_um = 150.0, -1000.0, 10_000.0
        self._speed_um_s, self._lag_s, self._drift_um_s = 1000.0, 0.005, 0.0
        self.add("StartPosition_um", float, lambda: self._start_um, self._set_start, pre_init=True)
        self.add("LowerLimit_um", float, lambda: self._lower_um, self._set_lower)
        self.add("UpperLimit_um", float, lambda: self._upper_um, self._set_upper)
        self.add("Speed_um_s", float, lambda: self._speed_um_s, self._set_speed, limits=(0.1, 1e6))
        self.add("Lag_s", float, lambda: self._lag_s, self._set_lag, limits=(0, 10))
        self.add("Drift_um_s", float, lambda: self._drift_um_s, self._set_drift, limits=(-1000, 1000))
        self._longest, self._first_trigger = 0, "second"
        self._positions_um: tuple[float, ...] = ()
        self.add("SequenceMaxLength", int, lambda: self._longest, self._set_longest, limits=(0, 1_000_000))
        first = (lambda: self._first_trigger, self._set_first_trigger)
        self.add("SecondImageAt", str, *first, allowed=("second", "first"))

    def join(self) -> None:
        """Set the drive to its start position."""
        self._check(self._start_um)
        with self.world.lock:
            self.world.focus.place(self._start_um)
            self._apply_speed()
            self.world.focus.set_drift(self._drift_um_s, self.world.time_s)

    def get_position_um(self) -> float:
        """Return what the encoder reads, um."""
        return self.world.read_focus_um()

    def set_position_um(self, val: float) -> None:
        """Start a move to a position, um; `busy` until the ramp ends, then it settles within a few lags."""
        self._check(float(val))
        if self.attached and self.world.focus.follows:
            raise ConfigurationError("the simulated focus drive follows its trigger; stop its sequence first")
        self.log_setting("Position", float(val))
        with self.world.lock:
            self.world.focus.move(float(val), self.world.time_s)

    def get_sequence_max_length(self) -> int:
        """Positions that the drive can hold; 0: it cannot be sequenced."""
        return self._longest

    def send_sequence(self, sequence: tuple[float, ...]) -> None:
        """Take positions, um, through which the camera's trigger will move the drive."""
        for position_um in sequence:
            self._check(float(position_um))
        self._positions_um = tuple(map(float, sequence))

    def start_sequence(self) -> None:
        """Follow the trigger from the first position on, again and again."""
        if not self._positions_um:
            raise ConfigurationError("the simulated focus drive has no positions to follow; load them first")
        self.log_setting("Sequence", True)
        moves_first = self._first_trigger == "second"
        with self.world.lock:
            self.world.focus.start_sequence(self._positions_um, self.world.time_s, moves_first=moves_first)

    def stop_sequence(self) -> None:
        """Follow the trigger no more."""
        self.log_setting("Sequence", False)
        if self.attached:
            with self.world.lock:
                self.world.focus.stop_sequence()

    def busy(self) -> bool:
        """Return whether the drive moves."""
        return self.attached and self.world.focus_busy()

    def home(self) -> None:
        """Go to position 0."""
        self.set_position_um(0.0)

    def stop(self) -> None:
        """Stop at the present position."""
        with self.world.lock:
            self.world.focus.stop(self.world.time_s)

    def set_origin(self) -> None:
        """Refuse: the origin is the floor of the channel."""
        raise ConfigurationError(
            "the origin of the simulated focus drive is the floor of the channel and cannot be changed"
        )

    def _check(self, position_um: float) -> None:
        if not self._lower_um <= position_um <= self._upper_um:
            raise ConfigurationError(
                f"the focus drive cannot go to {position_um:g} um; "
                f"stay within {self._lower_um:g} to {self._upper_um:g} um"
            )

    def _set_start(self, position_um: float) -> None:
        self._start_um = position_um

    def _set_lower(self, limit_um: float) -> None:
        self._lower_um = limit_um

    def _set_upper(self, limit_um: float) -> None:
        self._upper_um = limit_um

    def _set_longest(self, positions: int) -> None:
        self._longest = positions

    def _set_first_trigger(self, position: str) -> None:
        self._first_trigger = position

    def _set_speed(self, speed_um_s: float) -> None:
        self._speed_um_s = speed_um_s
        self._apply_speed()

    def _set_lag(self, lag_s: float) -> None:
        self._lag_s = lag_s
        self._apply_speed()

    def _apply_speed(self) -> None:
        if self.attached:
            with self.world.lock:
                self.world.focus.set_speed(self._speed_um_s, self._lag_s, self.world.time_s)

    def _set_drift(self, drift_um_s: float) -> None:
        self._drift_um_s = drift_um_s
        if self.attached:
            with self.world.lock:
                self.world.focus.set_drift(drift_um_s, self.world.time_s)


class SimulatedPump(LoggedDevice, GenericDevice):
    """The pump: a set-point in uL/s, a gain error, and a lag; negative flow runs backwards."""

    def __init__(self) -> None:
        super().__init__()
        self._flow_ul_s, self._gain, self._lag_s = 0.0, 1.0, 0.0
        limits = (-MAX_FLOW_UL_S, MAX_FLOW_UL_S)
        self.add("FlowRate", float, lambda: self._flow_ul_s, self._set_flow, limits=limits)
        self.add("Gain", float, lambda: self._gain, self._set_gain, limits=(0, 10))
        self.add("Lag_s", float, lambda: self._lag_s, self._set_lag, limits=(0, 1000))
        self.add("ActualFlow_uL_s", float, self._actual_flow)

    def join(self) -> None:
        """Start with the present settings."""
        self._apply()

    def _actual_flow(self) -> float:
        return self.world.pump.flow_ul_s(self.world.time_s) if self.attached else 0.0

    def _set_flow(self, flow_ul_s: float) -> None:
        self.log_setting("FlowRate", flow_ul_s)
        self._flow_ul_s = flow_ul_s
        self._apply()

    def _set_gain(self, gain: float) -> None:
        self._gain = gain
        self._apply()

    def _set_lag(self, lag_s: float) -> None:
        self._lag_s = lag_s
        self._apply()

    def _apply(self) -> None:
        if not self.attached:
            return
        with self.world.lock:
            self.world.pump.set(
                self.world.time_s, setpoint_ul_s=self._flow_ul_s, gain=self._gain, lag_s=self._lag_s
            )


class SimulatedShutter(LoggedDevice, ShutterDevice):
    """A shutter, closed at the start; it does not darken the image."""

    def __init__(self) -> None:
        super().__init__()
        self._open = False
        self.add(
            "State", int, lambda: int(self._open), lambda state: self.set_open(bool(state)), limits=(0, 1)
        )

    def get_open(self) -> bool:
        """Whether it is open."""
        return self._open

    def set_open(self, open: bool) -> None:  # noqa: A002 - the name in the interface of the core
        """Open or close it."""
        self.log_setting("Open", bool(open))
        self._open = bool(open)
