"""One run from the settings to the finished files: check, run, repair, annotate, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from acquisition.recorder.closing import RecordingAccount, close_table
from acquisition.recorder.settings import frame_table_of, name_beside
from engines.factory import check_model
from liveptv.config import Experiment
from liveptv.files import RunFiles, claimed, refuse_to_replace, writable
from liveptv.foreign_code import code_that_will_run
from liveptv.session.events import EventLog, read_events
from liveptv.session.frame_account import FileContents, FrameAccount, close_account
from liveptv.session.result_age import ResultAge
from liveptv.session.run_log import RunLog
from liveptv.session.run_status import Progress, SessionResult
from liveptv.session.signals import ending_signals
from liveptv.session.supervisor import Session
from liveptv.volumes.account import VolumeAccount
from liveptv.volumes.projections import flattened
from stream.errors import LivePTVError, SourceError
from stream.own_code import check_source

if TYPE_CHECKING:
    from liveptv.reports.page import Report

# What reads trajectory files and draws figures takes a second to import: the functions below that need it import
# it themselves, so that the pipeline stages start before.


KEPT_AS = {"engine": "engine", "replay": "replay_of"}
KEPT_EVENTS = {
    "engine": ("name", "backend", "device", "hash"),
    "replay": ("run_id", "images", "decisions", "same", "why"),
}
"""What of the newest event of a kind is kept in the trajectory file, and the name of its attribute."""


class Stoppable(Protocol):
    """Something that can be stopped cleanly: a session, a scan."""

    def request_stop(self, reason: str) -> None:
        """End as soon as that loses nothing."""
        ...


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended, its files, its report (if one could be made), the account of its frames.

    `age` is that of its results, None where they have none; `volumes` says how whole its volumes are, None for
    images.
    """

    files: RunFiles
    result: SessionResult
    report: Report | None
    account: FrameAccount
    age: ResultAge | None = None
    recording: RecordingAccount | None = None
    volumes: VolumeAccount | None = None

    @property
    def frames(self) -> int:
        """Frames in the file."""
        return self.account.in_file


def run_experiment(
    experiment: Experiment,
    files: RunFiles,
    *,
    on_update: Callable[[Progress], None],
    on_note: Callable[[str], None],
    beside: Callable[[Path], AbstractContextManager[object]] | None = None,
) -> RunOutcome:
    """Run an experiment and leave complete files, also if it fails or is interrupted.

    Its files are locked until the report is written. Those of an earlier run are replaced once the run has a frame.
    `beside` is entered while the run is on and gets the path of its card (`liveptv.session.announcement`).

    Raises `OutputError` before anything is started if a file of the run exists or is being written by somebody
    else, and `ConfigurationError` for a model that is not there.
    """
    experiment = with_output(experiment, files.tracks)
    files.check_folder()
    with claimed(files.tracks, "a run"):
        files.check(experiment.run.overwrite)
        check_inputs(experiment)
        experiment, text, facts = _prepared(experiment)
        check_recording(experiment)
        with RunLog(files.events, on_note) as events:
            if facts:
                events.write("replay", text, **facts)
                on_note(text)
            return _run(experiment, files, events, on_update, on_note, beside)


def _prepared(experiment: Experiment) -> tuple[Experiment, str, dict[str, Any]]:
    """The experiment, and for the replay of a recorded run how it is replayed, in words and facts."""
    if experiment.recording is None:
        return experiment, "", {}
    from liveptv.replaying.preparing import prepare_replay

    replay = prepare_replay(experiment)
    return replay.experiment, replay.text, replay.facts or {}


def _run(
    experiment: Experiment,
    files: RunFiles,
    events: RunLog,
    on_update: Callable[[Progress], None],
    on_note: Callable[[str], None],
    beside: Callable[[Path], AbstractContextManager[object]] | None,
) -> RunOutcome:
    settled = False

    def settle() -> None:
        nonlocal settled
        if settled:
            return
        settled = True
        events.settle()
        try:
            files.clear_report()
        except OSError as error:
            on_note(f"the report of an earlier run cannot be removed: {error}")

    def update(progress: Progress) -> None:
        events.look_after()
        if progress.frames:
            settle()
        on_update(progress)

    for line in code_that_will_run(experiment):
        events.write("code", line)
        on_note(line)
    session = Session(experiment, events=events, on_update=update, on_note=on_note)
    contents, report, age, recording, volumes = FileContents(), None, None, None, None
    with (
        nullcontext() if beside is None else beside(session.announcement.path),
        stopping_on_interrupt(session),
    ):
        result = session.run()
        from tracking.trajectories.inspection import run_of

        files, result = _where_it_went(files, result, events)
        if not result.started:
            discard(files.tracks, result.run_id)
        elif run_of(files.tracks) == result.run_id:
            settle()
            files = replace(files, log=events.path)
            recording = finish_recording(experiment, result, events, on_note)
            contents, age, volumes = finish_file(files, result, events, on_note, recording)
        else:
            contents = FileContents(readable=False)
            missing = "of another run" if files.tracks.exists() else "not there"
            result = failed(result, f"{files.tracks} is {missing}: nothing was written to it")
            events.write("finish", result.failures[-1])
    if not settled and events.path != files.events:
        on_note(f"the event log is {events.path}; the files of the earlier run are unchanged")
    account = close_account(
        result.counts, contents, lost_stages=final_losses(events, result), as_asked=result.reason == "done"
    )
    if contents.frames:
        report = make_report(files, events, on_note)
    return RunOutcome(files, result, report, account, age, recording, volumes)


def failed(result: SessionResult, why: str) -> SessionResult:
    """The same result with one more line of failure."""
    return replace(result, failures=(*result.failures, why))


def _where_it_went(files: RunFiles, result: SessionResult, events: RunLog) -> tuple[RunFiles, SessionResult]:
    """The files of the run; if its trajectory file had to continue elsewhere, that counts as a failure."""
    moved = events.newest.get("moved")
    if moved is None:
        return files, result
    there = RunFiles.beside(Path(str(moved["path"])))
    why = f"{files.tracks} was moved or deleted while it was written; the run is in {there.tracks}"
    return there, failed(result, why)


def final_losses(events: RunLog, result: SessionResult) -> set[str]:
    """The stages that were lost for good; a detector that was started again and finished is not."""
    lost = set(events.lost_stages)
    if result.ok:
        lost.discard("detect")
    return lost


def discard(tracks: Path, run_id: str) -> None:
    """Remove the empty file of a run that did not start, but no other run's file."""
    from tracking.trajectories.inspection import run_of

    if run_of(tracks) == run_id:
        tracks.unlink(missing_ok=True)


def with_output(experiment: Experiment, tracks: Path) -> Experiment:
    """The same experiment, writing to `tracks`; stages may run in another folder, so its path is absolute."""
    run = experiment.run.model_copy(update={"output": tracks.absolute()})
    images = experiment.record.output
    record = experiment.record.model_copy(update={"output": None if images is None else images.absolute()})
    return experiment.model_copy(update={"run": run, "record": record})


def check_inputs(experiment: Experiment) -> None:
    """Check the inputs before any stage is started."""
    model = experiment.detector.model
    if model is not None:
        check_model(model)
    detector, recording, source = experiment.detector, experiment.recording, experiment.source
    if source is not None and source.watch is not None and not source.watch.is_dir():
        raise SourceError(f"there is no folder {source.watch} to watch; make it, or compare source.watch")
    if detector.file is not None:
        check_source(detector.file, "detector")
    if recording is not None and not (path := Path(str(recording.path).partition("::")[0])).exists():
        raise SourceError(f"there is no recording {path}")
    inputs = [model, detector.bright, detector.dark, detector.file]
    if recording is not None:
        from liveptv.replaying.recorded import inputs_of

        inputs += inputs_of(recording.path)
    refuse_to_replace(experiment.run.output, *inputs)


def finish_file(
    files: RunFiles,
    result: SessionResult,
    events: RunLog,
    on_note: Callable[[str], None],
    recording: RecordingAccount | None = None,
) -> tuple[FileContents, ResultAge | None, VolumeAccount | None]:
    """Repair the trajectory file if its writer was lost, add the accounts, compress it.

    Returns the file's contents, the age of its results, and how whole its volumes are.

    Failures are only noted, because the result of the run stands.
    """
    from tracking.trajectories.compression import pack
    from tracking.trajectories.file import TrajectoryFile, annotate
    from tracking.trajectories.recovery import recover
    from tracking.trajectories.snapshot import store_snapshot

    contents, age, volumes = FileContents(readable=False), None, None
    try:
        mended = recover(files.tracks, in_place=True)
        if not mended.already_whole:
            text = f"{files.tracks.name} was left open by its writer and has been repaired: {mended.frames} frames"
            events.write("recovered", text)
            on_note(text)
        with TrajectoryFile(files.tracks) as file:
            contents, age = FileContents.of(file.frames), ResultAge.of(file.frames)
            attributes = file.attributes
            volumes = VolumeAccount.of(file.frames, attributes)
        account = close_account(
            result.counts,
            contents,
            lost_stages=final_losses(events, result),
            as_asked=result.reason == "done",
        )
        facts: dict[str, Any] = {
            "accounts": result.counts,
            "account": account.to_dict(),
            "session_end_reason": result.reason,
            "failures": list(result.failures),
        }
        for kind, keys in KEPT_EVENTS.items():
            if kind in events.newest:
                facts[KEPT_AS[kind]] = {key: events.newest[kind].get(key) for key in keys}
        if age is not None:
            facts["result_age"] = age.to_dict()
        if result.checks:
            facts["self_check"] = result.checks
        if recording is not None:
            facts["recording"] = recording.to_dict()
        if volumes is not None:
            facts["volume"] = {**attributes["volume"], **volumes.to_dict()}
        if result.recalibration:
            facts["recalibration"] = result.recalibration
        annotate(files.tracks, facts)
        if result.snapshot is not None:
            frame, sides = flattened(result.snapshot.frame)
            store_snapshot(files.tracks, frame, result.snapshot.detections, sides)
        add_control_record(files)
        pack(files.tracks)
    except LivePTVError as error:
        events.write("finish", str(error))
        on_note(str(error))
    return contents, age, volumes


def check_recording(experiment: Experiment) -> None:
    """Raise `OutputError` if the camera images of a run cannot be written, before anything is started."""
    record, run = experiment.record, experiment.run
    if record.mode == "off":
        return
    images = record.images(run.output)
    for path in (images, frame_table_of(images)):
        writable(path, run.overwrite)
    refuse_to_replace(images, None if experiment.recording is None else experiment.recording.path)


def finish_recording(
    experiment: Experiment, result: SessionResult, events: RunLog, on_note: Callable[[str], None]
) -> RecordingAccount | None:
    """The account of the camera images that were kept; what a lost recorder did not declare is declared now."""
    if experiment.record.mode == "off":
        return None
    tracks = experiment.run.output
    images = experiment.record.images(tracks)
    table = frame_table_of(images)
    try:
        closed = close_table(table, result.run_id, result.count("acquire", "received"))
        account = replace(closed, images=name_beside(images, tracks), frame_table=name_beside(table, tracks))
    except LivePTVError as error:
        events.write("finish", str(error))
        on_note(str(error))
        return None
    events.write("recorded", account.in_words(), **account.to_dict())
    return account


def missing_control_record(files: RunFiles, events: Path | None = None) -> list[dict[str, Any]]:
    """Control events in the event log (`events`, or that of `files`) that are missing in the trajectory file.

    Raises `LivePTVError` if one of them cannot be read.
    """
    from tracking.control.record import KINDS
    from tracking.trajectories.control_record import read_control

    log = files.events if events is None else events
    if not log.exists() or read_control(files.tracks):
        return []
    return [event for event in read_events(log) if event["kind"] in KINDS]


def add_control_record(files: RunFiles, events: Path | None = None) -> None:
    """Copy the control events of a run from its event log to its finished file, if they are missing there.

    Raises `LivePTVError` if one cannot be read or the other cannot be written.
    """
    from tracking.trajectories.control_record import store_control

    control = missing_control_record(files, events)
    if control:
        store_control(files.tracks, control)


def make_report(files: RunFiles, events: EventLog, on_note: Callable[[str], None]) -> Report | None:
    """Write the report; None, with a note, if that fails or is interrupted."""
    try:
        from liveptv.reports.page import write_report

        return write_report(files)
    except (LivePTVError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        text = f"no report was made ({why}); `liveptv report {files.tracks}` makes it"
        events.write("report", text)
        on_note(text)
        return None


def make_report_anew(files: RunFiles) -> None:
    """Replace the report after the trajectory file has grown."""
    from liveptv.reports.page import write_report

    files.clear_report()
    write_report(files)


@contextmanager
def stopping_on_interrupt(session: Stoppable) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal end the run cleanly; a second one ends it at once."""
    with ending_signals(lambda name: session.request_stop(f"stopped by the user ({name})")):
        yield
