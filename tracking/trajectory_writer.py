"""Writes a trajectory file that can be read while it grows and is whole whenever its writer dies.

Order of a commit: room on the disk, rows, events, and last the entries of the frames, which are the commit
mark. What `commit` has returned for is safe against the death of this process, not against a power cut.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import psutil

from stream.errors import OutputError
from stream.messages import Tracks
from tracking.census import TrackCensus
from tracking.disk_reserve import DiskReserve
from tracking.finished_file import adding_to
from tracking.row_precision import rounded, warmup
from tracking.trajectory_schema import (
    AXES,
    EVENT_CHUNK,
    EVENTS,
    FRAME,
    FRAME_CHUNK,
    FRAME_COLUMNS,
    FRAMES,
    LIBVER,
    ROW,
    ROW_CHUNK,
    ROW_COLUMNS,
    ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    Attribute,
    RecordArray,
    column_attributes,
    encode_attribute,
    encode_event,
    file_statistics,
)

MARGIN_BYTES = 2 << 20
NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
UNFINISHED = "closed before the end of the run"
PACKAGES = ("liveptv", "h5py", "numpy", "numba", "pymmcore-plus", "pyzmq", "onnxruntime")


class TrajectoryWriter:
    """One trajectory file, open for writing; see `docs/files.md` for what is in it.

    `append` buffers, `commit` writes; what has not been committed when the process dies is not in the file.
    """

    def __init__(
        self, path: Path, *, run_id: str, attributes: Mapping[str, object], overwrite: bool = False
    ) -> None:
        """Create the file, with `attributes` at its root (dicts and lists are stored as JSON).

        Raises `OutputError` if the file exists and is not to be overwritten, or cannot be created.
        """
        self.path = Path(path)
        self._make_way(overwrite)
        warmup()
        self._rows: list[RecordArray] = []
        self._frames: list[tuple[Any, ...]] = []
        self._events: list[bytes] = []
        self._census = TrackCensus()
        self._row_count = self._frame_count = self._event_bytes = self._commits = 0
        self._newest = -1
        self._broken = self._finalized = False
        self._file: h5py.File | None = None
        try:
            self._file = h5py.File(self.path, "x", libver=LIBVER)
            self._reserve = DiskReserve(self.path)
        except OSError as error:
            self._abandon()
            raise OutputError(f"cannot create {self.path}: {_reason(error)}") from error
        try:
            self._reserve.ensure(2 * MARGIN_BYTES)
            self._create(self._file, run_id, attributes)
        except BaseException as error:
            self._reserve.close()
            self._abandon()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise

    def _make_way(self, overwrite: bool) -> None:
        if not self.path.parent.is_dir():
            raise OutputError(
                f"cannot write {self.path}: there is no folder {self.path.parent}; create it first"
            )
        if self.path.is_dir():
            raise OutputError(f"cannot write {self.path}: it is a folder; name a file in it")
        if not os.access(self.path.parent, os.W_OK):
            raise OutputError(f"cannot write {self.path}: no permission to write in its folder")
        if not self.path.exists():
            return
        if not overwrite:
            raise OutputError(f"{self.path} exists; choose another name or pass --overwrite")
        try:
            self.path.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot replace {self.path}: {_reason(error)}; is it open elsewhere?"
            ) from error

    def _abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)
            self._file = None

    def _create(self, file: h5py.File, run_id: str, attributes: Mapping[str, object]) -> None:
        own: dict[str, object] = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "run_id": run_id,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "axes": AXES,
            "versions": _versions(),
            "writer": _who_writes(self.path),
        }
        for name, value in {**own, **attributes}.items():
            file.attrs[name] = encode_attribute(value)
        self._row_set = file.create_dataset(ROWS, (0,), ROW, maxshape=(None,), chunks=(ROW_CHUNK,))
        self._frame_set = file.create_dataset(FRAMES, (0,), FRAME, maxshape=(None,), chunks=(FRAME_CHUNK,))
        self._event_set = file.create_dataset(EVENTS, (0,), "u1", maxshape=(None,), chunks=(EVENT_CHUNK,))
        for dataset, columns in ((self._row_set, ROW_COLUMNS), (self._frame_set, FRAME_COLUMNS)):
            for name, texts in column_attributes(columns).items():
                dataset.attrs[name] = texts
        self._row_set.attrs["axes"] = AXES
        self._event_set.attrs["format"] = "UTF-8, one JSON object a line"
        file.swmr_mode = True

    @property
    def frames(self) -> int:
        """Frames committed."""
        return self._frame_count

    @property
    def rows(self) -> int:
        """Rows committed."""
        return self._row_count

    @property
    def newest_frame(self) -> int:
        """Number of the last frame appended, -1 before the first."""
        return self._newest

    @property
    def failed(self) -> bool:
        """Whether a commit has failed; the file then takes no more."""
        return self._broken

    @property
    def pending_rows(self) -> int:
        """Rows appended and not yet committed."""
        return sum(map(len, self._rows))

    def append(self, tracks: Tracks) -> None:
        """Take a frame's tracks for the next commit; the values are copied, as finely as `row_precision` says.

        Raises `OutputError` if the frame's number is not greater than the last one's.
        """
        if tracks.info.frame <= self._newest:
            raise OutputError(
                f"frame {tracks.info.frame} came after frame {self._newest}; the file needs them in order"
            )
        self._newest = tracks.info.frame
        rows = np.empty(len(tracks), ROW)
        for name in Tracks.COLUMNS:
            if name in ROW.fields:  # type: ignore[operator]
                rows[name] = rounded(name, getattr(tracks, name))
        info = tracks.info
        rows["frame"] = info.frame
        self._rows.append(rows)
        self._frames.append(
            (
                info.frame, info.camera_frame, info.time_s, info.wall_s, info.focus_um, info.flow_ul_s,
                info.exposure_ms, 0, len(rows), 0,
            )
        )  # fmt: skip

    def event(self, kind: str, text: str, **fields: object) -> None:
        """Note something that happened (a loss, a command, its answer) for the next commit."""
        self._events.append(encode_event(time.time(), kind, text, fields))

    def commit(self) -> None:
        """Write everything appended; once it returns, that survives the death of this process.

        Raises `OutputError` if there is no room or the disk fails; the file then stays as it was after the
        last commit, and takes no more.
        """
        if not self._frames and not self._events:
            return
        file = self._open_file()
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, ROW)
        frames = np.array(self._frames, FRAME)
        events = np.frombuffer(b"".join(self._events), np.uint8)
        frames["first_row"] = self._row_count + np.cumsum(frames["rows"], dtype=np.uint64) - frames["rows"]
        frames["commit"] = self._commits + 1
        try:
            size = int(file.id.get_filesize())
            self._reserve.ensure(size + rows.nbytes + frames.nbytes + events.nbytes + MARGIN_BYTES)
            _extend(self._row_set, rows, self._row_count)
            _extend(self._event_set, events, self._event_bytes)
            _extend(self._frame_set, frames, self._frame_count)
        except (OSError, RuntimeError) as error:
            self._broken = True
            raise self._failure(error) from error
        self._census.add(rows)
        self._row_count += len(rows)
        self._frame_count += len(frames)
        self._event_bytes += len(events)
        self._commits += 1
        self._rows, self._frames, self._events = [], [], []

    def finalize(self, attributes: Mapping[str, object], end_reason: str) -> None:
        """Commit what is left, add `attributes`, statistics and `end_reason`, and close the file.

        After a commit that failed, what it could not write is left out and the file is closed as it is.
        Raises `OutputError` if even that cannot be written; the file still opens then, without them.
        """
        if self._finalized:
            return
        failure: OutputError | None = None
        if not self._broken:
            try:
                self.commit()
            except OutputError as error:
                failure = error
        try:
            statistics = self._census.statistics() | file_statistics(self._frame_set[: self._frame_count])
            self._close_swmr()
            _add(self.path, {**attributes, "statistics": statistics, "end_reason": end_reason})
        except (OSError, RuntimeError) as error:
            raise failure or self._failure(error) from error
        finally:
            self._finalized = True
            self._reserve.close()
        if failure is not None:
            raise failure

    def _close_swmr(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def close(self) -> None:
        """Finish the file if nobody has, saying so in its `end_reason`. Idempotent."""
        self.finalize({}, UNFINISHED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_file(self) -> h5py.File:
        if self._file is None or self._broken:
            raise OutputError(f"{self.path} is closed or has failed before; nothing can be added to it")
        return self._file

    def _failure(self, error: BaseException) -> OutputError:
        safe = f"{self._frame_count} frames are safe in it"
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return OutputError(f"no space left for {self.path}; {safe}; free some before the next run")
        return OutputError(f"cannot write {self.path}: {_reason(error)}; {safe}")


def annotate(path: Path, attributes: Mapping[str, object]) -> None:
    """Add or replace attributes of a finished file (what only the session knows: the losses of all stages).

    Raises `OutputError` if there is no room or it cannot be opened for writing; it is as it was then.
    """
    try:
        _add(path, attributes)
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"cannot add attributes to {path}: {_reason(error)}") from error


def _add(path: Path, attributes: Mapping[str, object]) -> None:
    encoded = {name: encode_attribute(value) for name, value in attributes.items()}
    with adding_to(path, sum(_size(value) for value in encoded.values())) as file:
        file.attrs.update(encoded)


def _size(value: Attribute) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else len(str(value).encode())


def _extend(dataset: h5py.Dataset, values: np.ndarray[Any, Any], start: int) -> None:
    if len(values):
        dataset.resize((start + len(values),))
        dataset[start:] = values
        dataset.flush()


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "hdf5": h5py.version.hdf5_version, "system": sys.platform}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _who_writes(path: Path) -> dict[str, object]:
    """Who has the file open, so that `recover` never touches a file that is being written."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "started_s": process.create_time(),
        "inode": path.stat().st_ino,
    }
