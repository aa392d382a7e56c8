"""A simulated trigger line that counts its pulses and records their times."""

from __future__ import annotations

from collections import deque

from acquisition.microscope.pymmcore import GenericDevice
from acquisition.simulated.properties import SimulatedDevice

KEPT = 1000  # times of pulses


class SimulatedTrigger(SimulatedDevice, GenericDevice):
    """A line that setting `State` to 1 raises; `PulseTimes_s` are simulated times, the newest last."""

    def __init__(self) -> None:
        super().__init__()
        self._state = 0
        self._pulses = 0
        self._times_s: deque[float] = deque(maxlen=KEPT)
        self.add("State", int, lambda: self._state, self._set_state, allowed=(0, 1))
        self.add("Pulses", int, lambda: self._pulses)
        self.add("PulseTimes_s", str, lambda: " ".join(f"{time_s:.6f}" for time_s in self._times_s))

    def _set_state(self, state: int) -> None:
        if state and not self._state and self.attached:
            self._pulses += 1
            self._times_s.append(self.world.time_s)
        self._state = state
