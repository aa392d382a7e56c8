"""One run from the settings to the finished files: check, run, mend, annotate, report."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from engines.factory import check_model
from liveptv.config import Experiment
from liveptv.files import PICTURES, RunFiles, refuse_to_replace
from liveptv.foreign_code import code_that_will_run
from liveptv.reports.page import Report, write_report
from liveptv.session.events import EventLog, read_events
from liveptv.session.supervisor import Session
from liveptv.session.views import Progress, SessionResult
from stream.errors import LivePTVError, SourceError
from tracking.control_file import read_control, store_control
from tracking.control_record import KINDS
from tracking.packing import pack
from tracking.recover import recover
from tracking.trajectory_file import TrajectoryFile, annotate
from tracking.trajectory_snapshot import store_snapshot


class Stoppable(Protocol):
    """What can be asked to end cleanly: a session, a scan."""

    def request_stop(self, reason: str) -> None:
        """End as soon as nothing is lost by it."""
        ...


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended, and its report where one could be made."""

    files: RunFiles
    result: SessionResult
    report: Report | None
    frames: int


def run_experiment(
    experiment: Experiment,
    files: RunFiles,
    *,
    on_update: Callable[[Progress], None],
    on_note: Callable[[str], None],
    beside: Callable[[Path], AbstractContextManager[object]] | None = None,
) -> RunOutcome:
    """Run an experiment and leave complete files behind, also when it fails or is interrupted.

    `beside` is entered while the run is on and gets the path of its card (`liveptv.session.front`).

    Raises `OutputError` before anything is started if a file of the run exists, and `ConfigurationError` for
    a model that is not there.
    """
    experiment = with_output(experiment, files.tracks)
    files.check(experiment.run.overwrite)
    check_inputs(experiment)
    for stale in (files.report, *map(files.picture, ("frame", "trajectories", "profile"))):
        stale.unlink(missing_ok=True)
    with EventLog(files.events) as events:
        for line in code_that_will_run(experiment):
            events.write("code", line)
            on_note(line)
        session = Session(experiment, events=events, on_update=on_update, on_note=on_note)
        frames, report = 0, None
        with (
            nullcontext() if beside is None else beside(session.front.path),
            stopping_on_interrupt(session),
        ):
            result = session.run()
            if result.started:
                frames = finish_file(files, result, events, on_note)
            else:
                files.tracks.unlink(missing_ok=True)
        if frames:
            report = make_report(files, events, on_note)
    return RunOutcome(files, result, report, frames)


def with_output(experiment: Experiment, tracks: Path) -> Experiment:
    """The same experiment, writing to `tracks`; stages may run in another folder, so its path is absolute."""
    run = experiment.run.model_copy(update={"output": tracks.absolute()})
    return experiment.model_copy(update={"run": run})


def check_inputs(experiment: Experiment) -> None:
    """Say at once what would otherwise fail only once the stages are up."""
    model = experiment.detector.model
    if model is not None:
        check_model(model)
    recording = experiment.recording
    detector = experiment.detector
    inputs = [None if recording is None else recording.path, model, detector.bright, detector.dark]
    refuse_to_replace(experiment.run.output, *inputs)
    if recording is not None and not (path := Path(str(recording.path).partition("::")[0])).exists():
        raise SourceError(f"there is no recording {path}")


def finish_file(
    files: RunFiles, result: SessionResult, events: EventLog, on_note: Callable[[str], None]
) -> int:
    """Mend the trajectory file if its writer was lost, add the accounts, pack it; returns the frames in it.

    What cannot be done is noted; the run is over and its result stands.
    """
    frames = 0
    try:
        mended = recover(files.tracks)
        if not mended.already_whole:
            text = f"{files.tracks.name} was left open by its writer and was mended: {mended.frames} frames"
            events.write("recovered", text)
            on_note(text)
        facts: dict[str, Any] = {
            "accounts": result.counts,
            "session_end_reason": result.reason,
            "failures": list(result.failures),
        }
        with TrajectoryFile(files.tracks) as file:
            frames = len(file.frames)
        annotate(files.tracks, facts)
        if result.snapshot is not None:
            store_snapshot(files.tracks, result.snapshot.frame, result.snapshot.detections)
        add_control_record(files)
        pack(files.tracks)
    except LivePTVError as error:
        events.write("finish", str(error))
        on_note(str(error))
    return frames


def add_control_record(files: RunFiles) -> None:
    """Put what the event log has of the control of a run into its finished file, where it is not there yet.

    Raises `LivePTVError` if one cannot be read or the other cannot be written.
    """
    if files.events.exists() and not read_control(files.tracks):
        control = [event for event in read_events(files.events) if event["kind"] in KINDS]
        if control:
            store_control(files.tracks, control)


def make_report(files: RunFiles, events: EventLog, on_note: Callable[[str], None]) -> Report | None:
    """Write the report; None, with a note, if that fails or is interrupted."""
    try:
        return write_report(files)
    except (LivePTVError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        text = f"no report was made ({why}); `liveptv report {files.tracks}` makes it"
        events.write("report", text)
        on_note(text)
        return None


def make_report_anew(files: RunFiles) -> None:
    """Replace the report by one of the trajectory file as it is now, which has grown since."""
    for path in (files.report, *map(files.picture, PICTURES)):
        path.unlink(missing_ok=True)
    write_report(files)


@contextmanager
def stopping_on_interrupt(session: Stoppable) -> Iterator[None]:
    """Let Ctrl-C (and a polite `kill`) end the run cleanly; a second one ends it at once."""
    before: dict[signal.Signals, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        session.request_stop(f"stopped by the user ({signal.Signals(number).name})")

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
