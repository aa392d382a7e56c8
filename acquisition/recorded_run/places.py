"""Finds the images and the frame table of a recorded run, from the name of either."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from acquisition.recorder.frame_table import MARK, FrameTable, read_frame_table
from acquisition.recorder.settings import frame_table_of
from stream.errors import SourceError

TABLE_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class RecordedFiles:
    """The files of a recorded run; `trajectories` is where its trajectory file should be."""

    images: Path
    table: Path
    trajectories: Path


def recorded_files(path: Path) -> RecordedFiles | None:
    """The files of the recorded run whose images or frame table lie at `path`; None if it is no recorded run.

    Raises `SourceError` if the frame table is damaged or its images are not there.
    """
    table = path if path.suffix.lower() == TABLE_SUFFIX else frame_table_of(path)
    if not table.is_file() or not _is_frame_table(table):
        return None
    head = _head(table)
    named = beside(table, str(head.get("images", "")))
    images = path if table != path else named
    if head.get("images") and images.name != named.name and named.exists():
        raise SourceError(
            f"{table} is the frame table of {named}, not of {images}, which an earlier run has left; remove that, "
            "or give it another name to replay it as images without a frame table"
        )
    if not images.exists():
        raise SourceError(f"{table} belongs to the images {images}, which are not there; move them beside it")
    return RecordedFiles(images, table, beside(table, str(head.get("trajectories", ""))))


def beside(table: Path, name: str) -> Path:
    """A file that a frame table names: in the table's own folder, as files move together, else where it says."""
    here = table.with_name(Path(name).name or "tracks.h5")
    there = table.parent / name
    return there if name and there.exists() and not here.exists() else here


def _is_frame_table(table: Path) -> bool:
    try:
        with table.open("rb") as file:
            return f'"{MARK}"'.encode() in file.readline(1 << 20)
    except OSError:
        return False


def _head(table: Path) -> dict[str, object]:
    with table.open("rb") as file:  # the rest is read once, by the source
        first = file.readline(1 << 20)
    try:
        found = json.loads(first)
    except ValueError as error:
        raise SourceError(f"{table} is not a frame table of a recording: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{table} is not a frame table of a recording")
    return found


def table_of(files: RecordedFiles) -> FrameTable:
    """The frame table. Raises `SourceError` if it cannot be read or names no frame."""
    table = read_frame_table(files.table)
    if not table.rows:
        raise SourceError(f"{files.table} names no frame: nothing was recorded")
    return table
