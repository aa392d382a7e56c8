"""Performs one task in a worker: looks whether it is done, locks it, does it, and publishes the result whole."""

from __future__ import annotations

import os
import socket
import time
import traceback
from pathlib import Path

from liveptv import __version__
from liveptv.batch.pieces.detecting import detect_piece, join_pieces
from liveptv.batch.pieces.plan import Piece
from liveptv.batch.processing import Notebook, process_recording
from liveptv.batch.recordings.fingerprint import Fingerprint, fingerprint_of, is_same
from liveptv.batch.results.identity import key_of
from liveptv.batch.results.lease import STALE_S, BusyError, Lease
from liveptv.batch.results.marker import Marker, complete, publish, why_not_the_same
from liveptv.batch.results.places import Places, put_in_place
from liveptv.batch.task import Answer, Task
from liveptv.batch.warm import warm
from liveptv.config import Experiment, build_experiment
from liveptv.replaying.preparing import prepare_replay
from liveptv.session.recorded_source import RUN
from liveptv.session.supervisor import new_run_id
from stream.errors import LivePTVError, OutputError, SourceError
from stream.safe_text import in_words
from tracking.trajectories.file import TrajectoryFile
from tracking.trajectories.inspection import run_of

WHAT = "liveptv batch"
RECORDING = "recording"


def perform(task: Task) -> Answer:
    """Do what is asked. Every error becomes an answer; only the death of the worker does not."""
    began_s = time.perf_counter()
    try:
        answer = _perform(task)
    except BusyError as error:
        return Answer("busy", str(error), worker=this_worker())
    except LivePTVError as error:
        answer = _failed(str(error), error)
    except Exception as error:  # noqa: BLE001 - one recording must not end the batch
        last = traceback.extract_tb(error.__traceback__)[-1]
        answer = _failed(f"unexpected at {Path(last.filename).name}:{last.lineno}: {in_words(error)}", error)
    return Answer(
        answer.state,
        answer.why,
        answer.marker,
        answer.was_there,
        answer.frames,
        this_worker(),
        time.perf_counter() - began_s,
    )


def this_worker() -> str:
    """Computer and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _failed(why: str, error: BaseException) -> Answer:
    return Answer("failed", " ".join("; ".join([why, *getattr(error, "__notes__", ())]).split()))


def _perform(task: Task) -> Answer:
    if task.version != __version__:
        raise OutputError(
            f"this worker has liveptv {__version__}, the batch {task.version}; install the same on both"
        )
    places = Places(Path(task.out), task.name)
    if (found := _already(places, task)) is not None:
        return found
    places.make_folders()
    if task.kind == "piece":
        return _piece(places, task)
    try:
        answer = _under_lock(places, task)
        if answer.state == "done":
            places.clear_pieces()
        return answer
    finally:
        places.remove_empty()


def _under_lock(places: Places, task: Task) -> Answer:
    with Lease(places.lock, WHAT):
        if (found := _already(places, task)) is not None:
            return found
        _refuse_to_replace(places, task)
        places.clear_unfinished(RECORDING, STALE_S)
        notebook = Notebook()
        experiment = _experiment(task, notebook)
        if task.cut_above is not None and (frames := _frames(experiment)) > task.cut_above:
            return Answer("cut", frames=frames)
        return _whole(places, task, experiment, notebook)


def _experiment(task: Task, notebook: Notebook) -> Experiment:
    """The settings, for a recorded run as `liveptv replay` settles them."""
    prepared = prepare_replay(build_experiment(task.settings, task.recording))
    if prepared.text:
        notebook.record("replay", prepared.text, prepared.facts or {})
    return prepared.experiment


def _already(places: Places, task: Task) -> Answer | None:
    """The answer if the result is there and was made from the same; else None."""
    marker = complete(places)
    if marker is None or marker.identity != task.identity:
        return None
    if not is_same(Path(task.recording), marker.fingerprint):
        return None
    return Answer("done", marker=marker.to_dict(), was_there=True)


def _refuse_to_replace(places: Places, task: Task) -> None:
    """An older result may have been written meanwhile, by another batch with other settings."""
    if task.replace or not places.result.exists():
        return
    marker = complete(places)
    why = (
        ""
        if marker is None
        else why_not_the_same(marker, task.identity, is_same(Path(task.recording), marker.fingerprint))
    )
    raise OutputError(
        f"{places.result} exists ({why or 'not made by a batch'}); pass --overwrite to replace it"
    )


def _frames(experiment: Experiment) -> int:
    """How many frames would be processed; 0 if only its end tells, or frames hang together as in the run."""
    from liveptv.session.sources import open_source

    if experiment.run.seconds is not None or (experiment.recording and experiment.recording.decisions == RUN):
        return 0
    opened = open_source(experiment, "count")
    try:
        frames = opened.source.info.frames or 0
    finally:
        opened.close()
    return min(frames, experiment.run.frames or frames)


def _whole(places: Places, task: Task, experiment: Experiment, notebook: Notebook) -> Answer:
    """Process a recording, or join its pieces, and publish the result."""
    began_s = time.perf_counter()
    fingerprint = fingerprint_of(Path(task.recording), sampled=True)
    unfinished = places.fresh(RECORDING, ".h5")
    try:
        if task.kind == "join":
            processed = join_pieces(experiment, _piece_files(places, task), unfinished, notebook)
        else:
            warm(experiment)
            processed = process_recording(experiment, unfinished, notebook)
        _check_unchanged(task, fingerprint)
        marker = Marker(
            task.recording,
            fingerprint,
            task.identity,
            processed,
            max(1, len(task.pieces)),
            time.perf_counter() - began_s,
            this_worker(),
            run_of(unfinished),
            notes=notebook.notes,
        )
        publish(places, unfinished, marker)
    except LivePTVError as error:
        _keep_part(places, unfinished, error)
        raise
    finally:
        _remove(unfinished)
    _remove(places.partial)
    return Answer("done", marker=marker.to_dict())


def _check_unchanged(task: Task, before: Fingerprint) -> None:
    now = fingerprint_of(Path(task.recording), sampled=False)
    if (now.files, now.bytes, now.newest_ns) != (before.files, before.bytes, before.newest_ns):
        raise SourceError(
            f"{task.recording} changed while it was processed; start the batch again once it is complete"
        )


def _keep_part(places: Places, unfinished: Path, error: LivePTVError) -> None:
    """Keep the tracks of the frames before the place where a recording is damaged."""
    try:
        with TrajectoryFile(unfinished) as file:
            frames = len(file.frames)
        if frames:
            put_in_place(unfinished, places.partial)
            error.add_note(f"the tracks of the first {frames} frames are in {places.partial}")
    except LivePTVError:
        return


def _remove(path: Path) -> None:
    for one in (path, *path.parent.glob(f"{path.name}.*lock")):
        try:
            one.unlink(missing_ok=True)
        except OSError:
            continue


def _piece_files(places: Places, task: Task) -> list[Path]:
    folder = places.pieces(_key(task))
    return [
        folder / f"{number:05d}-of-{len(task.pieces):05d}.detections" for number in range(len(task.pieces))
    ]


def _key(task: Task) -> str:
    """What the detections of pieces belong to: the recording as it is now, settings, bounds and version."""
    now = fingerprint_of(Path(task.recording), sampled=False)
    return key_of(
        {
            "recording": now.to_dict(),
            "settings": task.identity,
            "pieces": task.pieces,
            "version": task.version,
        }
    )


def _piece(places: Places, task: Task) -> Answer:
    """Detect in one piece, unless its file is there: it has its name once it is complete."""
    target = _piece_files(places, task)[task.number]
    if target.is_file():
        return Answer("piece", was_there=True)
    with Lease(target, WHAT):
        if target.is_file():
            return Answer("piece", was_there=True)
        experiment = _experiment(task, Notebook())
        piece = Piece(*task.pieces[task.number])
        what = f"piece{task.number}"
        places.clear_unfinished(what, STALE_S)
        unfinished = places.fresh(what, ".detections")
        try:
            warm(experiment)
            with unfinished.open("wb") as file:
                is_last = task.number == len(task.pieces) - 1
                detect_piece(experiment, piece, is_last, file, new_run_id())
            put_in_place(unfinished, target)
        except OSError as error:
            if isinstance(error, LivePTVError):
                raise
            raise OutputError(f"cannot write {target}: {error.strerror}") from error
        finally:
            _remove(unfinished)
    return Answer("piece")
