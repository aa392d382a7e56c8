"""The table of a batch: what became of each recording, and why."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Sequence
from pathlib import Path

from liveptv.batch.jobs import Job
from liveptv.batch.recordings.part import Part
from liveptv.batch.results.places import put_in_place
from stream.errors import OutputError

NAME = "batch.csv"
COLUMNS = (
    "recording", "result", "state", "frames", "frames_lost", "rows", "trajectories", "detections", "pieces",
    "seconds", "worker", "workers_lost", "why",
)  # fmt: skip


def rows_of(jobs: Sequence[Job]) -> list[dict[str, object]]:
    """A row for each recording."""
    rows: list[dict[str, object]] = []
    for job in jobs:
        row: dict[str, object] = {
            "recording": str(job.entry.path),
            "result": f"{job.entry.name}.h5" if job.marker is not None else "",
            "state": str(job.state),
            "worker": job.worker,
            "workers_lost": job.losses,
            "why": job.why,
        }
        if job.marker is not None:
            found = job.marker.processed
            row |= {
                "frames": found.frames,
                "frames_lost": found.lost,
                "rows": found.rows,
                "trajectories": found.tracks,
                "detections": found.detections,
                "pieces": job.marker.pieces,
                "seconds": f"{job.marker.seconds:.2f}",
                "worker": job.worker or job.marker.worker,
            }
        rows.append(row)
    return rows


def table_name(part: Part | None) -> str:
    """Name of the table; jobs that share the recordings have one each."""
    return NAME if part is None else part.named(NAME)


def write_table(jobs: Sequence[Job], out: Path, name: str = NAME) -> Path:
    """Write the table into the folder of the results, in place of an earlier one. Raises `OutputError`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows_of(jobs))
    target = out / name
    part = out / f".{name}.{uuid.uuid4().hex}"  # several batches may share a folder
    try:
        part.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from error
    put_in_place(part, target)
    return target


def failure_in_words(job: Job) -> str:
    """Why a recording has failed, with its path."""
    path = str(job.entry.path)
    return job.why if path in job.why else f"{path}: {job.why}"
