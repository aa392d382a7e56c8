"""An experiment rehearsed on the simulated microscope in simulated time: one loop, a frame at a time.

Camera, executor with its limits, detector, tracker and controller are those of a live run; only the links
between them are left out. A decision made on frame n acts before frame n + 3 is exposed, as it does live, and
nothing depends on how fast the machine is. Under overload only every k-th frame is detected, and results are older.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from acquisition.commands.execution import CommandExecutor
from acquisition.microscope.microscope import Microscope
from acquisition.simulated.stepping import SteppedStream
from engines.engine import Engine
from engines.factory import open_engine
from liveptv.config import Experiment
from liveptv.session.builders.control import flow_follower
from stream.errors import ConfigurationError
from stream.messages import Command, CommandKind, CommandReply, Detections, Tracks
from tracking.control.controllers import Controller, load_controller
from tracking.control.record import ControlRecord
from tracking.tracker import OnlineTracker

FRAMES_IN_WORK = 2
RESULT_S = 5.0


@dataclass(slots=True)
class RehearsalRecord:
    """What came of it: every answer by command id, and the entries of the control record."""

    answers: dict[str, CommandReply] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The entries of one kind, in order."""
        return [entry for entry in self.entries if entry["kind"] == kind]


class Rehearsal:
    """Steps an experiment on a simulated microscope; call `step` for every frame, and `close` at the end.

    `frames` have been taken; `stopped` is the reason once the controller has ended the run. Every `every`-th frame
    is detected; its tracks are seen `frames_in_work` frames later.
    """

    def __init__(
        self, experiment: Experiment, *, every: int = 1, frames_in_work: int = FRAMES_IN_WORK
    ) -> None:
        """Raises `ConfigurationError` where the experiment names no controller or no simulated microscope."""
        if experiment.microscope is None or not experiment.is_controlled:
            raise ConfigurationError("a rehearsal needs a [microscope] and a [controller] or [protocol]")
        properties = {**experiment.microscope.properties, "Camera.RealTime": 0}
        settings = experiment.microscope.model_copy(update={"properties": properties})
        self.controller: Controller = load_controller(
            experiment.controller, experiment.protocol, experiment.limits.watchdog_s
        )
        self.microscope = Microscope(settings)
        self.record = RehearsalRecord()
        self.stopped = ""
        self.frames = 0
        self._every, self._frames_in_work = every, frames_in_work
        try:
            self.stream = SteppedStream(self.microscope, run_id="rehearsal")
            self.executor = CommandExecutor(
                self.microscope, self.stream, experiment.limits, clock=self.stream.now_s
            )
            self._engine: Engine = open_engine(
                experiment.detector,
                model=experiment.detector.model,
                pixel_size_um=self.stream.info.pixel_size_um,
            )
        except BaseException:
            self.microscope.close()
            raise
        info = self.stream.info
        self._engine.warmup(info.height, info.width, np.dtype(info.dtype))
        self._tracker = OnlineTracker(experiment.tracker)
        self._tracker.warmup()
        self._control = ControlRecord(self.controller, self._keep)
        self._flow = flow_follower(experiment, in_thread=False)
        self._heard: deque[CommandReply] = deque()
        self._detected: deque[int] = deque()
        self._found: deque[Detections] = deque()

    def step(self) -> Tracks | None:
        """Take a frame, carry out what is due, and let the controller look at what has been found.

        Returns the tracks that it looked at, None where there were none to look at.
        """
        self._hear(self.executor.poll())
        frame = self.stream.read()
        self._hear(self.executor.frame_taken(frame))
        if self.frames % self._every == 0:
            self._engine.submit(frame)
            self._detected.append(self.frames)
        self.frames += 1
        if not self._detected or self.frames - 1 - self._detected[0] < self._frames_in_work:
            return None
        self._detected.popleft()
        while not self._found:
            self._found.extend(self._engine.results(RESULT_S))
        tracks = self._tracker.step(self._found.popleft())
        age_ms = 1000.0 * (self.stream.now_s() - tracks.info.time_s)
        tracks = replace(tracks, info=replace(tracks.info, age_ms=age_ms))
        self._decide(tracks)
        return tracks

    def _decide(self, tracks: Tracks) -> None:
        acknowledged = getattr(self.controller, "acknowledged", None)
        while self._heard:
            ack = self._heard.popleft()
            self._control.answered(ack)
            if acknowledged is not None:
                acknowledged(ack)
        if self._flow is not None:
            self._flow.take_in(tracks)
            found = self._flow.poll()
            if found is not None:
                self._control.flow(found.findings)
                fitted = getattr(self.controller, "flow_fitted", None)
                if fitted is not None:
                    fitted(found)
        for command in self.controller.update(tracks):
            self._control.sent(command, tracks, time.perf_counter_ns())
            if command.kind is CommandKind.STOP:
                self.stopped = str(command.value or "stopped")
            else:
                self._carry_out(command)
        self._control.frame(tracks)
        self.executor.execute(Command(CommandKind.HEARTBEAT, decided_on_frame=tracks.info.frame))

    def _carry_out(self, command: Command) -> None:
        ack = self.executor.execute(command)
        self._hear([] if ack is None else [ack])

    def _hear(self, replies: list[CommandReply]) -> None:
        for ack in replies:
            self.record.answers[ack.command_id] = ack
            self._heard.append(ack)

    def _keep(self, kind: str, text: str, facts: dict[str, Any]) -> None:
        self.record.entries.append({"kind": kind, "text": text, **facts})

    def close(self) -> None:
        """Leave the hardware safe and let go of it. Idempotent."""
        self._engine.close()
        try:
            self.executor.safe_state()
        finally:
            self.microscope.close()
