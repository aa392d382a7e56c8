"""Starts and ends the process that proposes recalibrations beside a run, and passes on what it says."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from liveptv.config import Experiment
from liveptv.recalibration.subject import Subject
from liveptv.recalibration.worker import Watch, recalibrate_beside
from liveptv.session.plan import Recorded
from liveptv.session.process_end import end_process, how_it_ended
from liveptv.session.processes import start_ignoring_signals
from stream.run_keys import RunKeys

PATIENCE_S = 1.0
"""Wait at the end of a run for the process to end, s; it looks every 0.2 s, but not while it estimates."""
ENDED = "recalibration during the run has ended ({how}): nothing more is proposed; the run is not affected"
KIND = "recalibration"


class Recalibrator:
    """The process beside a run. Whatever happens to it, the run goes on; its failure is recorded once."""

    def __init__(
        self,
        watch: Watch,
        record: Callable[[Recorded], None],
        work: Callable[[Watch, Connection], None] = recalibrate_beside,
    ) -> None:
        """`record` gets proposals and failures; `work` is what the process does."""
        context = multiprocessing.get_context("spawn")
        self._record = record
        self._pipe, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=work, args=(watch, theirs), name="liveptv-recalibrate", daemon=True
        )
        self._is_over = False
        self.facts: dict[str, Any] = {}
        start_ignoring_signals(self._process)
        theirs.close()

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    def poll(self) -> None:
        """Pass on what the process has said; never waits."""
        if self._is_over:
            return
        has_ended = not self._process.is_alive()
        with contextlib.suppress(EOFError, OSError):  # it has closed its end, and ends
            while self._pipe.poll():
                kind, text, facts = self._pipe.recv()
                self.facts |= facts
                if text:
                    self._record(Recorded(KIND, text, facts if kind == "proposed" else {}))
        if has_ended:
            self._is_over = True
            self._record(Recorded(KIND, ENDED.format(how=how_it_ended(self._process.exitcode)), {}))

    def close(self) -> None:
        """Take what has been said, and end the process. Idempotent."""
        with contextlib.suppress(Exception):  # a failure to record does not keep the process alive
            self.poll()
        self._is_over = True
        self._pipe.close()
        end_process(self._process, PATIENCE_S)


def watch_of(experiment: Experiment, run_id: str, keys: RunKeys, bound: dict[str, str]) -> Watch | None:
    """What to watch, once detector and tracker have bound their addresses; None before, and where it is off."""
    settings, model = experiment.recalibration, experiment.detector.model
    detect, track = bound.get("detect.monitor"), bound.get("track.monitor")
    if settings.live == "off" or model is None or detect is None or track is None:
        return None
    subject = Subject(
        model.absolute(),
        experiment.run.output,
        run_id,
        experiment.detector.bright,
        experiment.detector.dark,
        settings.wall_distance_um,
        settings.wall_focus_um,
        experiment.optics.refraction_factor,
    )
    door = keys.viewer_of_monitor(experiment.session.monitor)
    return Watch(
        detect, track, door.security(), keys.viewer_of_bulk.security(), 60 * settings.every_minutes, subject
    )
