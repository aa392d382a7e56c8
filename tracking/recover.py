"""Makes a trajectory file whole again whose writer was killed: nothing that was committed is lost.

The file is repaired in place, and checked before a byte of it is changed: it is first opened through a view
in which only the superblock differs. Then these 48 bytes are written at once, the torn end behind the last
committed frame is cut off, and attributes say what was done. A megabyte of room is needed, no second copy.
"""

from __future__ import annotations

import io
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil

from stream.errors import LivePTVError, OutputError, SourceError
from stream.hdf5_reading import RECORDS, check_attributes, dataset, schema_of, values
from tracking.census import TrackCensus
from tracking.finished_file import adding_to
from tracking.integrity import nonsense_in_rows
from tracking.superblock import SIZE, Superblock, build, parse
from tracking.trajectory_reader import PIECE_ROWS
from tracking.trajectory_schema import (
    EVENTS,
    FRAME,
    FRAMES,
    ROW,
    ROWS,
    SCHEMA,
    committed_frames,
    complete_event_bytes,
    decode_attribute,
    encode_attribute,
    file_statistics,
)

END_REASON = "the writer was lost; recovered"


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a recovery found and did; all zero `_cut` and `already_whole` where there was nothing to do."""

    path: Path
    already_whole: bool
    frames: int
    rows: int
    last_frame: int
    frames_cut: int = 0
    rows_cut: int = 0
    event_bytes_cut: int = 0


@dataclass(frozen=True, slots=True)
class _Contents:
    frames: int
    rows: int
    event_bytes: int
    last_frame: int
    torn: tuple[int, int, int]
    statistics: dict[str, float]
    finished: bool


def recover(path: Path) -> RecoveryReport:
    """Repair a trajectory file in place; a file that is whole is left alone.

    Killed itself while at it, it can be run again. Raises `SourceError` if the file is none of ours, is
    damaged beyond this, or is still being written, and `OutputError` if it cannot be written to.
    """
    path = Path(path)
    block = _read_superblock(path)
    repaired = block.repaired(path.stat().st_size)
    contents = _inspect(path, build(repaired), check_writer=bool(block.flags))
    if block == repaired and contents.finished:
        return RecoveryReport(path, True, contents.frames, contents.rows, contents.last_frame)
    report = RecoveryReport(path, False, contents.frames, contents.rows, contents.last_frame, *contents.torn)
    _mend(path, build(block), build(repaired), contents, report)
    return report


def _read_superblock(path: Path) -> Superblock:
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            return parse(file.read(SIZE))
    except ValueError as error:
        raise SourceError(f"cannot recover {path}: {error}") from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def _inspect(path: Path, superblock: bytes, *, check_writer: bool) -> _Contents:
    """Read the file as if it had that superblock."""
    try:
        with path.open("rb", buffering=0) as raw, h5py.File(_Mended(raw, superblock), "r") as file:
            if schema_of(file) != SCHEMA:
                raise SourceError(f"{path} is no trajectory file of liveptv")
            check_attributes(file)
            if check_writer:
                _check_that_writer_is_gone(path, decode_attribute(file.attrs.get("writer", "{}")))
            return _contents(file)
    except LivePTVError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise SourceError(
            f"{path} is damaged beyond its superblock ({error}); it was left as it is"
        ) from error


def _contents(file: h5py.File) -> _Contents:
    rows_set = dataset(file, ROWS, kinds=RECORDS, ndim=1, most_bytes=None)
    frame_set = dataset(file, FRAMES, kinds=RECORDS, ndim=1)
    if rows_set.dtype != ROW or frame_set.dtype != FRAME:
        raise ValueError("its columns are not those of a trajectory file")
    table, stored_rows = frame_set[:], rows_set.shape[0]
    events = bytes(values(file, EVENTS, kinds="u", ndim=1))
    count = committed_frames(table, stored_rows)
    frames = table[:count]
    rows = int(frames["rows"].sum(dtype=np.int64))
    event_bytes = complete_event_bytes(events)
    census = TrackCensus()
    for start in range(0, rows, PIECE_ROWS):
        piece = rows_set[start : min(start + PIECE_ROWS, rows)]
        nonsense = nonsense_in_rows(piece, start, frames)
        if nonsense:
            raise ValueError(nonsense)
        census.add(piece)
    return _Contents(
        frames=count,
        rows=rows,
        event_bytes=event_bytes,
        last_frame=int(frames["frame"][-1]) if count else -1,
        torn=(len(table) - count, stored_rows - rows, len(events) - event_bytes),
        statistics=census.statistics() | file_statistics(frames),
        finished="end_reason" in file.attrs,
    )


def _check_that_writer_is_gone(path: Path, writer: dict[str, Any]) -> None:
    if writer.get("host") != socket.gethostname() or writer.get("inode") != path.stat().st_ino:
        return
    try:
        process = psutil.Process(writer["pid"])
        same = abs(process.create_time() - writer["started_s"]) < 1.0
        alive = same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return
    if alive:
        raise SourceError(
            f"{path} is still being written by process {writer['pid']}; it can be read as it is, and end the "
            "run before recovering"
        )


def _mend(path: Path, old: bytes, mended: bytes, contents: _Contents, report: RecoveryReport) -> None:
    try:
        _write_superblock(path, mended)
        try:
            with adding_to(path, 0) as file:
                for name, size in (
                    (ROWS, contents.rows),
                    (FRAMES, contents.frames),
                    (EVENTS, contents.event_bytes),
                ):
                    if file[name].shape[0] > size:
                        file[name].resize((size,))
                done = {name: value for name, value in asdict(report).items() if name != "path"}
                done["at"] = datetime.now(UTC).isoformat(timespec="seconds")
                added: dict[str, object] = {"recovered": done, "statistics": contents.statistics}
                if "end_reason" not in file.attrs:
                    added["end_reason"] = END_REASON
                for name, value in added.items():
                    file.attrs[name] = encode_attribute(value)
        except BaseException:
            if parse(mended) != parse(old) and _read_superblock(path) == parse(mended):
                _write_superblock(path, old)
            raise
    except (OSError, RuntimeError, ValueError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else error
        raise OutputError(f"cannot repair {path}: {reason}; check permission and disk space") from error


def _write_superblock(path: Path, data: bytes) -> None:
    with path.open("rb+", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())


class _Mended(io.RawIOBase):
    """A file read as if its first bytes were others."""

    def __init__(self, raw: io.RawIOBase, head: bytes) -> None:
        super().__init__()
        self._raw = raw
        self._head = head

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        start = self._raw.tell()
        count = self._raw.readinto(buffer) or 0
        if start < len(self._head):
            stop = min(len(self._head), start + count)
            memoryview(buffer).cast("B")[: stop - start] = self._head[start:stop]
        return count
