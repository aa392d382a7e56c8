"""Control loops in simulated time with results that come late and seldom: the plants, and what runs the loop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

import numpy as np
from flows import info

from stream.messages import Command, CommandReply, FrameInfo, Tracks

EXECUTION_S = 0.02


class PumpedChannel:
    """Tracks in a channel whose pump lags behind its set-point; velocities are those of the tracker's filter.

    The filter is the one of a wandering velocity: two poles, whose delay is 28 frames, or k^(1/4) times as much if
    every k-th frame is tracked.
    """

    def __init__(self, rate_hz: float, gap: float, *, flow_ul_s=0.4, lag_s=0.3, noise=0.02, seed=0) -> None:
        self.frame_s, self.lag_s, self.noise = 1 / rate_hz, lag_s, noise
        self.velocity_per_flow = 200.0
        self.set_point = self.flow = flow_ul_s
        self.pole = math.sqrt(2) / (28 * self.frame_s * gap**0.25)
        self.seen, self.rate = self.velocity_um_s, 0.0
        self.rng = np.random.default_rng(seed)

    @property
    def velocity_um_s(self) -> float:
        return self.velocity_per_flow * self.flow

    def step(self) -> None:
        """Let a frame's time pass."""
        self.flow += (self.set_point - self.flow) * -math.expm1(-self.frame_s / self.lag_s)
        steps = max(1, math.ceil(self.pole * self.frame_s / 0.1))
        for _ in range(steps):
            force = self.pole**2 * (self.velocity_um_s - self.seen) - math.sqrt(2) * self.pole * self.rate
            self.rate += force * self.frame_s / steps
            self.seen += self.rate * self.frame_s / steps

    def tracks(self, stamp: FrameInfo) -> Tracks:
        v = self.seen * self.rng.normal(1.0, self.noise, 20)
        return Tracks.from_columns(
            stamp, track=np.arange(20), x_um=0.0, y_um=0.0, z_um=0.0, vx_um_s=v, vy_um_s=0.0,
            sigma_vx_um_s=self.noise * abs(self.seen), age_frames=50, flags=0, detection=0,
        )  # fmt: skip

    def state(self) -> dict[str, float]:
        return {"flow_ul_s": self.set_point}

    def obey(self, command: Command) -> None:
        self.set_point = float(command.value)


class DriftingFocus:
    """Particles that come and go, seen by a focus whose plane drifts away from its encoder."""

    def __init__(self, rate_hz: float, *, drift_um_s=1.0, sigma_um=1.0, seed=0) -> None:
        self.frame_s, self.drift_um_s, self.sigma_um = 1 / rate_hz, drift_um_s, sigma_um
        self.rng = np.random.default_rng(seed)
        self.encoder_um = self.start_um = 150.0
        self.drifted_um = 0.0
        self.height, self.number = self.rng.uniform(2, 298, 40), np.arange(40)
        self.reduced = 0.0

    @property
    def error_um(self) -> float:
        return self.encoder_um + self.drifted_um - self.start_um

    def step(self) -> None:
        """Let a frame's time pass; a particle stays in view for four seconds."""
        self.drifted_um += self.drift_um_s * self.frame_s
        gone = self.rng.random(40) < self.frame_s / 4
        self.height[gone] = self.rng.uniform(2, 298, gone.sum())
        self.number[gone] = self.number.max() + 1 + np.arange(gone.sum())

    def tracks(self, stamp: FrameInfo) -> Tracks:
        sigma = np.where(self.rng.random(40) < self.reduced, 4 * self.sigma_um, self.sigma_um)
        z = self.height - self.start_um - self.error_um + self.rng.normal(0, sigma)
        return Tracks.from_columns(
            stamp, track=self.number, x_um=0.0, y_um=0.0, z_um=z, sigma_z_um=sigma, vx_um_s=0.0, vy_um_s=0.0,
            age_frames=50, flags=0, detection=0,
        )  # fmt: skip

    def state(self) -> dict[str, float]:
        return {"focus_um": self.encoder_um, "focus_commanded_um": self.encoder_um}

    def obey(self, command: Command) -> None:
        self.encoder_um = float(command.value)


class LateLoop:
    """A controller that sees every `gap`-th frame of a plant (or gaps of these lengths in turn), `age_s` late.

    A command acts `EXECUTION_S` after it was decided, and is answered with the first frame after that. `notes` are
    what the controller says of itself, `commands` the times at which it decided one.
    """

    def __init__(self, plant, controller, rate_hz: float, gap: int | Iterable[int], age_s: float) -> None:
        self.plant, self.controller, self.frame_s, self.age_s = plant, controller, 1 / rate_hz, age_s
        self._gaps: Iterator[int] = repeat(gap) if isinstance(gap, int) else chain.from_iterable(repeat(gap))
        self._frame, self._next = 0, 0
        self._found: deque[tuple[float, Tracks]] = deque()
        self._due: list[tuple[float, Command]] = []
        self._shown: list[Command] = []
        self.notes: list[str] = []
        self.commands: list[float] = []

    def results_are(self, age_s: float) -> None:
        """Change the age of the results; those that are on their way are dropped."""
        self.age_s = age_s
        self._found.clear()

    @property
    def now_s(self) -> float:
        return self._frame * self.frame_s

    def step(self) -> None:
        self._frame += 1
        now_s = self.now_s
        self.plant.step()
        for command in self._shown:
            self.controller.acknowledged(CommandReply(command.command_id, True, self._frame))
        self._shown = [command for at_s, command in self._due if at_s <= now_s]
        self._due = [(at_s, command) for at_s, command in self._due if at_s > now_s]
        if self._frame >= self._next:
            self._next = self._frame + next(self._gaps)
            stamp = info(self._frame, time_s=now_s, age_ms=1000 * self.age_s, **self.plant.state())
            self._found.append((now_s + self.age_s, self.plant.tracks(stamp)))
        for command in self._shown:
            self.plant.obey(command)
        while self._found and self._found[0][0] <= now_s + 1e-9:
            self._decide(self._found.popleft()[1])

    def _decide(self, tracks: Tracks) -> None:
        for command in self.controller.update(tracks):
            self.commands.append(self.now_s)
            self._due.append((self.now_s + EXECUTION_S, command))
        self.notes += [happening.text for happening in self.controller.happenings()]

    def run(self, seconds: float, look) -> np.ndarray:
        """Go on for so long; returns what `look` says after each frame."""
        return np.array([(self.step(), look())[1] for _ in range(round(seconds / self.frame_s))])


def settled_s(values: np.ndarray, target: float, frame_s: float, within: float = 0.05) -> float:
    """Time after which values, one for each frame, stay within this part of the target; infinite if never."""
    off = np.flatnonzero(np.abs(values / target - 1) > within)
    if not len(off):
        return 0.0
    return math.inf if off[-1] == len(values) - 1 else float((off[-1] + 1) * frame_s)
