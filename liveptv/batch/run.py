"""A whole batch: what is to be done, by whom, and what became of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.settings import DetectorSettings
from liveptv.batch.jobs import Job, Jobs, JobState
from liveptv.batch.perform import perform
from liveptv.batch.pieces.detecting import uses_predictions
from liveptv.batch.pieces.plan import LONG_FRAMES, WARM_FRAMES
from liveptv.batch.recordings.entry import Entry
from liveptv.batch.recordings.finding import find_recordings
from liveptv.batch.recordings.fingerprint import fingerprint_of, is_same
from liveptv.batch.recordings.listing import is_list, read_list
from liveptv.batch.recordings.naming import names_of
from liveptv.batch.recordings.part import Part
from liveptv.batch.results.identity import identity_of
from liveptv.batch.results.marker import complete, why_not_the_same
from liveptv.batch.results.places import Places
from liveptv.batch.table import table_name, write_table
from liveptv.batch.time_left import time_left_s
from liveptv.batch.workers.dask_cluster import DaskWorkers, is_open_to_others
from liveptv.batch.workers.interface import Workers
from liveptv.batch.workers.local import LocalWorkers
from liveptv.config import Experiment, load_experiment, revised
from liveptv.foreign_code import detector_code
from stream.errors import ConfigurationError, OutputError, SourceError

TABLE_S = 10.0
"""Time between two versions of the table while the batch runs, s."""
SHOWN = 5
"""Lines about files that are left out, and about results that would be replaced, that are shown one by one."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The options of `liveptv batch`."""

    source: Path
    out: Path
    model: Path | None = None
    settings: tuple[str, ...] = ()
    recording: dict[str, Any] | None = None
    workers: int | None = None
    scheduler: str | None = None
    piece_frames: int | None = None
    overwrite: bool = False
    only: Part | None = None
    waits_for_others: bool = True


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A batch at one moment."""

    jobs: Sequence[Job]
    workers: str
    elapsed_s: float
    left_s: float

    def number(self, *states: JobState) -> int:
        """How many recordings are in one of these states."""
        return sum(job.state in states for job in self.jobs)


def entries_of(options: BatchOptions, say: Callable[[str], None]) -> list[Entry]:
    """The recordings that are meant. Raises `ConfigurationError` if there is none."""
    source = options.source
    if is_list(source):
        return read_list(source)
    plain = Path(str(source).partition("::")[0])
    if not plain.exists():
        raise ConfigurationError(f"there is no folder or list {plain}")
    if not plain.is_dir() or "::" in str(source):
        return [Entry(source.absolute(), names_of([source.absolute()])[0])]
    top = plain.absolute()
    found = find_recordings(top, options.out)
    for text in found.left_out[:SHOWN]:
        say(text)
    if len(found.left_out) > SHOWN:
        say(f"{len(found.left_out) - SHOWN} more files are left out, as they are no recordings")
    if not found.paths:
        raise ConfigurationError(f"there is no recording in {plain}")
    return [Entry(path, name) for path, name in zip(found.paths, names_of(found.paths, top), strict=True)]


def experiment_of(entry: Entry, options: BatchOptions) -> Experiment:
    """The settings with which `liveptv replay` would process a recording; one frame at a time.

    Raises `ConfigurationError`.
    """
    recording = {"path": entry.path, **(options.recording or {})}
    experiment = load_experiment(None, [*options.settings, *entry.settings], base={"recording": recording})
    has_model = experiment.detector.model is not None
    experiment = revised(
        experiment, detector={"model": None if has_model and entry.settings else options.model}
    )
    if experiment.recording is None or experiment.recording.pace or experiment.link.is_live:
        raise ConfigurationError(
            "a batch processes recordings as fast as it can; leave out recording.pace and link.policy live"
        )
    if "workers" not in experiment.detector.model_fields_set:
        experiment = revised(experiment, detector={"workers": 1})
    files = {name: value.absolute() for name, value in experiment.detector if isinstance(value, Path)}
    return revised(experiment, detector=files)


def job_of(entry: Entry, options: BatchOptions, several_workers: bool) -> Job:
    """A recording with all that decides its result. Raises `ConfigurationError`."""
    from engines.factory import check_model

    experiment = experiment_of(entry, options)
    if experiment.detector.model is not None and not experiment.detector.model.is_file():
        check_model(experiment.detector.model)
    predicted = uses_predictions(experiment)
    cut_above = options.piece_frames
    if cut_above is None and several_workers and not predicted:
        cut_above = LONG_FRAMES
    identity = identity_of(experiment, options.piece_frames if predicted else None)
    return Job(
        entry,
        experiment.model_dump(mode="json", exclude_unset=True),
        identity,
        0,
        cut_above,
        WARM_FRAMES if predicted else 0,
        options.overwrite,
    )


def look_at(job: Job, out: Path) -> str:
    """Look whether a recording is done; returns why its result is another one's, "" if it is not."""
    places, path = Places(out, job.entry.name), job.entry.path
    try:
        job.size = fingerprint_of(path, sampled=False).bytes
        marker = complete(places)
        if marker is None:
            has_result = places.result.exists()
            return f"{places.result} was not made by a batch" if has_result else ""
        why = why_not_the_same(marker, job.identity, is_same(path, marker.fingerprint))
        if not why:
            job.state, job.marker = JobState.THERE, marker
            return ""
        return f"{places.result} was made with {why}"
    except SourceError as error:
        job.state, job.why = JobState.FAILED, str(error)
        return ""


def prepare(options: BatchOptions, say: Callable[[str], None]) -> list[Job]:
    """All recordings, those that are done marked as such.

    Raises `ConfigurationError`, before anything is done, if results of other settings would be replaced.
    """
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {options.out}: {error.strerror}") from error
    several = options.scheduler is not None or worker_count(options) > 1
    entries = entries_of(options, say)
    if options.only is not None:
        entries = options.only.taken(entries)
    jobs = [job_of(entry, options, several) for entry in entries]
    others = [why for job in jobs if (why := look_at(job, options.out))]
    if others and not options.overwrite:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise ConfigurationError(
            f"{others[0]}{more}; choose another folder, or pass --overwrite to make {'them' if more else 'it'} anew"
        )
    for text in others[:SHOWN]:
        say(f"{text}; it is made anew")
    if len(others) > SHOWN:
        say(f"{len(others) - SHOWN} more results are made anew")
    return jobs


def worker_count(options: BatchOptions) -> int:
    """Number of worker processes on this computer: as wished, else one for each processor that may be used."""
    if options.workers is not None:
        return options.workers
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(given) if given.isdigit() and int(given) > 0 else allowed


def open_workers(options: BatchOptions, most: int, say: Callable[[str], None]) -> Workers:
    """The workers of the scheduler, else processes of this computer, not more than there is work for."""
    if options.scheduler is None:
        return LocalWorkers(max(1, min(most, worker_count(options))), perform)
    if is_open_to_others(options.scheduler):
        say(
            f"{options.scheduler} has no certificates: whoever reaches that computer can run programs on its "
            "workers; see dask's tls://"
        )
    return DaskWorkers(options.scheduler, perform)


def run_batch(
    options: BatchOptions,
    *,
    say: Callable[[str], None],
    show: Callable[[BatchProgress], None] = lambda _progress: None,
    on_job: Callable[[Job], None] = lambda _job: None,
    open_with: Callable[[BatchOptions, int, Callable[[str], None]], Workers] = open_workers,
) -> list[Job]:
    """Process all recordings; returns what became of each, which is in `batch.csv` as well.

    `say` gets lines for the user, `show` the progress some times a second, `on_job` each recording that is done or
    has failed. Raises `ConfigurationError` before anything is started, `LivePTVError` if the workers are gone; what
    is done stays done.
    """
    jobs = prepare(options, say)
    for path in sorted(
        {job.settings.get("detector", {}).get("file") or "" for job in jobs if job.is_open} - {""}
    ):
        say(*detector_code(DetectorSettings(file=Path(path))))
    for job in jobs:
        if job.state is JobState.FAILED:
            on_job(job)
    try:
        if any(job.is_open for job in jobs):
            _work(options, jobs, say, show, on_job, open_with)
    finally:
        write_table(jobs, options.out, table_name(options.only))
    return jobs


def _work(
    options: BatchOptions,
    jobs: list[Job],
    say: Callable[[str], None],
    show: Callable[[BatchProgress], None],
    on_job: Callable[[Job], None],
    open_with: Callable[[BatchOptions, int, Callable[[str], None]], Workers],
) -> None:
    most = sum(job.is_open for job in jobs)
    if any(job.cut_above is not None for job in jobs):
        most = max(most, worker_count(options))
    began_s = time.monotonic()
    table_due_s = began_s + TABLE_S
    workers = open_with(options, most, say)
    try:
        on_its_way = Jobs(
            jobs, str(options.out.absolute()), workers, waits_for_others=options.waits_for_others, on_note=say
        )
        on_its_way.begin()
        while not on_its_way.is_over:
            for job in on_its_way.poll():
                if not job.is_open:
                    on_job(job)
            now_s = time.monotonic()
            left_s = time_left_s(jobs, now_s - began_s, workers.count)
            show(BatchProgress(jobs, workers.title, now_s - began_s, left_s))
            if now_s > table_due_s:
                table_due_s = now_s + TABLE_S
                write_table(jobs, options.out, table_name(options.only))
    finally:
        workers.close()


def check_options(options: BatchOptions) -> None:
    """Raise `ConfigurationError` for what cannot be meant."""
    if options.scheduler is not None and options.workers is not None:
        raise ConfigurationError("--workers are processes of this computer; a scheduler has its own")
    if options.out.is_file():
        raise ConfigurationError(f"{options.out} is a file; give a folder for the results")
    if options.source.absolute() == options.out.absolute():
        raise ConfigurationError(f"{options.out} holds the recordings; give another folder for the results")
