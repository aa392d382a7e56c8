"""Makes a trajectory file whole again whose writer was killed: nothing that was committed is lost.

Nothing is touched that is not surely ours and dead: locks of the operating system decide whether somebody writes
it (`open_elsewhere`), and a file of another computer needs to be forced. It is first read through a view
in which only the superblock differs. Then a copy of it is mended: the 48 bytes of the superblock are written, the
torn end behind the last committed frame is cut off, attributes say what was done. The copy is checked as every
reader checks a file (`soundness`) and takes the name of the old file, which is kept beside it. Only a run
that has seen its own writer die mends in place, see `docs/decisions/0007`.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import socket
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np

from stream.errors import LivePTVError, OutputError, SourceError
from stream.hdf5_checks import known_as
from stream.writer_lock import WRITER, Claim
from tracking.trajectories.annotation import adding_to
from tracking.trajectories.commit_mark import committed_frames
from tracking.trajectories.hdf5_superblock import SIZE, Superblock, build, parse
from tracking.trajectories.open_elsewhere import WORK, who_writes
from tracking.trajectories.plausibility import nonsense_in_frames, nonsense_in_rows
from tracking.trajectories.reader import PIECE_ROWS, TrajectoryFile
from tracking.trajectories.schema import (
    EVENTS,
    FRAMES,
    ROWS,
    complete_event_bytes,
    decode_attribute,
    encode_attribute,
    file_statistics,
)
from tracking.trajectories.soundness import (
    EXTRAS,
    UNREADABLE,
    check_rest,
    check_schema,
    damaged_attributes,
    read_attributes,
    read_superblock,
)
from tracking.trajectories.statistics import TrackCensus

END_REASON = "the writer was lost; recovered"


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a recovery found and did; all zero `_cut` and `already_whole` where there was nothing to do.

    `path` is the file that is whole now, `kept` the one it was mended from, as it was.
    """

    path: Path
    already_whole: bool
    frames: int
    rows: int
    last_frame: int
    frames_cut: int = 0
    rows_cut: int = 0
    event_bytes_cut: int = 0
    kept: Path | None = None


@dataclass(frozen=True, slots=True)
class _Contents:
    frames: int
    rows: int
    event_bytes: int
    last_frame: int
    torn: tuple[int, int, int]
    statistics: dict[str, float]
    finished: bool
    host: str
    unreadable: bool
    spoilt_attributes: tuple[str, ...]


def recover(
    path: Path,
    *,
    output: Path | None = None,
    force: bool = False,
    locked: bool = False,
    in_place: bool = False,
) -> RecoveryReport:
    """Repair a trajectory file; a file that is whole is left alone.

    The mended copy takes the file's name, and the file as it was is kept as `NAME.before-recovery.h5`; with
    `output` the copy is written there instead, and the file stays where it is. `force` is for a file that another
    computer has written, whose locks may not be seen from here. `locked` is for who holds the output's lock
    himself, and `in_place`, without a copy, for who in addition has seen its writer end. It can be run again after
    having been killed.

    Raises `SourceError` if the file is none of ours, is damaged beyond this, is open for writing anywhere, or is
    another computer's, and `OutputError` if there is no room for the copy or it cannot be written.
    """
    path = Path(path)
    block = _superblock(path)
    if block is None:
        return _whole_or_foreign(path)
    size = path.stat().st_size
    repaired = replace(block, flags=0, end_of_file=size)
    closed = block.flags == 0 and block.end_of_file <= size
    if not closed:
        _check_that_nobody_writes(path, locked or in_place)
    contents = _inspect(path, build(block if closed else repaired), closed)
    if closed and contents.finished and not contents.unreadable:
        return RecoveryReport(path, True, contents.frames, contents.rows, contents.last_frame)
    if closed:
        _check_that_nobody_writes(path, locked or in_place)
    if contents.host not in {"", socket.gethostname()} and not force:
        raise SourceError(
            f"{path} was written on another computer ({contents.host}), which may still be writing it; recover it "
            "there, or use `liveptv recover --force` if you know that its run is over"
        )
    report = RecoveryReport(path, False, contents.frames, contents.rows, contents.last_frame, *contents.torn)
    if in_place:
        with Claim(path, "recovering", WRITER):
            _mend(path, build(block), build(repaired), contents, report)
        return report
    target = path if output is None else Path(output)
    with contextlib.ExitStack() as stack:
        for claimed in {path, target}:
            stack.enter_context(Claim(claimed, "recovering", WRITER))
        return _mend_a_copy(path, target, build(block), build(repaired), contents, report)


def run_of(path: Path) -> str:
    """The id of the run that a trajectory file is of, whether or not it was closed; "" if it cannot be read."""
    try:
        block = _superblock(path)
        if block is None:
            return ""
        head = build(replace(block, flags=0, end_of_file=path.stat().st_size))
        with path.open("rb", buffering=0) as raw, h5py.File(_Mended(raw, head), "r") as file:
            return str(decode_attribute(file.attrs.get("run_id", "")))
    except UNREADABLE:
        return ""


def _superblock(path: Path) -> Superblock | None:
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            head = file.read(SIZE)
        try:
            return parse(head)
        except ValueError:
            if read_superblock(path) is None:
                return None
            raise
    except ValueError as error:
        raise SourceError(f"cannot recover {path}: {error}") from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def _whole_or_foreign(path: Path) -> RecoveryReport:
    """A file that HDF5's own tools have rewritten: it can be judged, but not mended."""
    with TrajectoryFile(path) as file:
        file.check()
        rows = sum(len(piece) for piece in file.pieces())
        if not file.finished:
            raise SourceError(
                f"{path} was not finished and then changed by another program; it can be exported"
            )
        frames = file.frames
        return RecoveryReport(path, True, len(frames), rows, int(frames["frame"][-1]) if len(frames) else -1)


def _check_that_nobody_writes(path: Path, locked: bool) -> None:
    who = who_writes(path, (WRITER,) if locked else WORK)
    if who.startswith("still"):
        raise SourceError(f"{path} is {who}; it can be read as it is, and end the run before recovering")
    if who:
        raise SourceError(f"{path} is {who}; close it there before recovering")


def _inspect(path: Path, superblock: bytes, closed: bool) -> _Contents:
    """Read the file as if it had that superblock."""
    try:
        with (
            known_as(path),
            path.open("rb", buffering=0) as raw,
            h5py.File(_Mended(raw, superblock), "r") as file,
        ):
            check_schema(file, path)
            return _contents(file, path, closed)
    except LivePTVError:
        raise
    except UNREADABLE as error:
        raise SourceError(f"{path} is damaged ({error}); it was left as it is") from error


def _contents(file: h5py.File, path: Path, closed: bool) -> _Contents:
    table, stored_rows = file[FRAMES][:], file[ROWS].shape[0]
    events = bytes(file[EVENTS][:])
    count = committed_frames(table, stored_rows)
    finished = closed and "end_reason" in file.attrs
    nonsense = nonsense_in_frames(table, count, stored_rows) if finished else ""
    if nonsense:
        raise ValueError(nonsense)
    frames = table[:count]
    rows = int(frames["rows"].sum(dtype=np.int64))
    event_bytes = complete_event_bytes(events)
    census = TrackCensus()
    for start in range(0, rows, PIECE_ROWS):
        piece = file[ROWS][start : min(start + PIECE_ROWS, rows)]
        nonsense = nonsense_in_rows(piece, start, frames)
        if nonsense:
            raise ValueError(nonsense)
        census.add(piece)
    writer = read_attributes(file).get("writer", {})
    try:
        check_rest(file)
        unreadable = False
    except UNREADABLE:
        unreadable = True
    faults = damaged_attributes(file, needed=False)
    for fault in faults.values() if finished else ():
        raise SourceError(f"{path} is damaged: {fault}; it was left as it is")
    return _Contents(
        frames=count,
        rows=rows,
        event_bytes=event_bytes,
        last_frame=int(frames["frame"][-1]) if count else -1,
        torn=(len(table) - count, stored_rows - rows, len(events) - event_bytes),
        statistics=census.statistics() | file_statistics(frames),
        finished="end_reason" in file.attrs,
        host=str(writer.get("host", "")) if isinstance(writer, dict) else "",
        unreadable=unreadable,
        spoilt_attributes=tuple(name for name in faults if name in file.attrs),
    )


def _mend_a_copy(
    path: Path, target: Path, old: bytes, mended: bytes, contents: _Contents, report: RecoveryReport
) -> RecoveryReport:
    if target != path and target.exists():
        raise OutputError(f"{target} exists; choose another name for the recovered file")
    part = target.with_name(f"{target.name}.{uuid4().hex[:8]}.part")
    try:
        _copy(path, part)
        _mend(part, old, mended, contents, report)
        _check_whole(part)
        if target != path:
            part.replace(target)
            return replace(report, path=target, kept=path)
        kept = _free_name(path)
        _take_its_place(part, path, kept)
        return replace(report, kept=kept)
    except LivePTVError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise OutputError(f"cannot put {target} in its place: {reason}; {path} is as it was") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _copy(path: Path, part: Path) -> None:
    """Copy a file, its bytes on the disk afterwards; says how much room is missing before it begins."""
    size = path.stat().st_size
    try:
        free = shutil.disk_usage(part.parent).free
        if free < size + (1 << 20):
            raise OutputError(
                f"cannot recover {path}: its copy needs {size / 1e6:.0f} MB of disk space and {free / 1e6:.0f} MB "
                "are free; free some, or write the copy to another disk with --output"
            )
        shutil.copyfile(path, part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
    except LivePTVError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise OutputError(
            f"cannot copy {path} beside it: {reason}; check permission and disk space, or pass --output"
        ) from error


def _free_name(path: Path) -> Path:
    names = (f"{path.stem}.before-recovery{number}{path.suffix}" for number in _numbers())
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def _numbers() -> itertools.chain[str]:
    return itertools.chain([""], (f"-{number}" for number in itertools.count(2)))


def _take_its_place(part: Path, path: Path, kept: Path) -> None:
    """Let the mended copy take the file's name, and the file another: where links exist, without a gap between."""
    linked = False
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.link(path, kept)
            linked = True
    if not linked:
        path.rename(kept)
    try:
        part.replace(path)
    except OSError:
        if linked:
            kept.unlink()
        else:
            kept.rename(path)
        raise


def _check_whole(path: Path) -> None:
    with TrajectoryFile(path) as file:
        file.check()
        for _ in file.pieces():
            pass


def _mend(path: Path, old: bytes, mended: bytes, contents: _Contents, report: RecoveryReport) -> None:
    try:
        _write_superblock(path, mended)
        try:
            with adding_to(path, 0) as file:
                if contents.unreadable:
                    for name in EXTRAS:  # a picture or a record that was being added when the program died
                        file.pop(name, None)
                for name in contents.spoilt_attributes:
                    del file.attrs[name]
                for name, size in (
                    (ROWS, contents.rows),
                    (FRAMES, contents.frames),
                    (EVENTS, contents.event_bytes),
                ):
                    if file[name].shape[0] > size:
                        file[name].resize((size,))
                done = {name: value for name, value in asdict(report).items() if name not in {"path", "kept"}}
                done["at"] = datetime.now(UTC).isoformat(timespec="seconds")
                if contents.spoilt_attributes:
                    done["removed_attributes"] = list(contents.spoilt_attributes)
                added: dict[str, object] = {"recovered": done, "statistics": contents.statistics}
                if "end_reason" not in file.attrs:
                    added["end_reason"] = END_REASON
                for name, value in added.items():
                    file.attrs[name] = encode_attribute(value)
        except BaseException:
            if parse(mended) != parse(old) and _head(path) == mended:
                _write_superblock(path, old)
            raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else error
        raise OutputError(f"cannot repair {path}: {reason}; check permission and disk space") from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SIZE)


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
