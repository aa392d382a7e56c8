"""Recovers a trajectory file whose writer was killed; no committed frame is lost.

1. `open_elsewhere` checks that nobody has the file open for writing. A file that another computer has written
   needs `force`, because its locks may not be visible from here.
2. `inspection` reads what is committed, without changing the file.
3. `repair` works on a copy: it writes the 48 bytes of the superblock, cuts off the torn end behind the last
   committed frame, and notes in the attributes what was done.
4. The copy is checked as every reader checks a file (`soundness`) and takes the name of the old file, which is
   kept beside it.

Only a run that has seen its own writer die repairs its file in place, see `docs/decisions/0007`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

from stream.errors import LivePTVError, OutputError, SourceError
from stream.writer_lock import WRITER, Claim
from tracking.trajectories.hdf5_superblock import build
from tracking.trajectories.inspection import Contents, inspect_file, superblock_of
from tracking.trajectories.open_elsewhere import WORK, who_writes
from tracking.trajectories.reader import TrajectoryFile
from tracking.trajectories.repair_steps import repair

MARGIN_BYTES = 1 << 20
"""Free space that a copy needs beyond the size of the file, for the attributes that are added (about 1 kB)."""


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a recovery found and did.

    `path` is the recovered file, `kept` the unchanged file that it was made from. Where there was nothing to
    recover, `already_whole` is true and all `_cut` are 0.
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

    def note(self) -> dict[str, object]:
        """What the recovered file itself says of its recovery."""
        return {name: value for name, value in asdict(self).items() if name not in {"path", "kept"}}


def recover(
    path: Path,
    *,
    output: Path | None = None,
    force: bool = False,
    locked: bool = False,
    in_place: bool = False,
) -> RecoveryReport:
    """Repair a trajectory file; a file that is whole is not changed.

    The repaired copy takes the file's name, and the old file is kept as `NAME.before-recovery.h5`; with `output`
    the copy is written there instead, and the file stays where it is. A recovery that was killed can be repeated.

    Parameters
    ----------
    path
        The file.
    output
        Where to write the repaired copy.
    force
        Recover a file that another computer has written, whose locks may not be visible from here.
    locked
        The caller holds the lock of the output.
    in_place
        Work without a copy: the caller also knows that the writer has ended.

    Raises
    ------
    SourceError
        If it is not a trajectory file, cannot be repaired, is open for writing, or was written on another computer.
    OutputError
        If there is no room for the copy or it cannot be written.
    """
    path = Path(path)
    block = superblock_of(path)
    if block is None:
        return _whole_or_foreign(path)
    size = path.stat().st_size
    repaired = replace(block, flags=0, end_of_file=size)
    closed = block.flags == 0 and block.end_of_file <= size
    if not closed:
        _check_that_nobody_writes(path, locked or in_place)
    contents = inspect_file(path, build(block if closed else repaired), closed)
    if closed and contents.finished and not contents.unreadable:
        return RecoveryReport(path, True, contents.frames, contents.rows, contents.last_frame)
    if closed:
        _check_that_nobody_writes(path, locked or in_place)
    if contents.host not in {"", socket.gethostname()} and not force:
        raise SourceError(
            f"{path} was written on another computer ({contents.host}), which may still be writing it; recover it "
            "there, or use `liveptv recover --force` if you know that its run has ended"
        )
    report = RecoveryReport(path, False, contents.frames, contents.rows, contents.last_frame, *contents.torn)
    if in_place:
        with Claim(path, "recovering", WRITER):
            repair(path, build(block), build(repaired), contents, report.note())
        return report
    target = path if output is None else Path(output)
    with contextlib.ExitStack() as stack:
        for claimed in {path, target}:
            stack.enter_context(Claim(claimed, "recovering", WRITER))
        return _repair_a_copy(path, target, build(block), build(repaired), contents, report)


def _whole_or_foreign(path: Path) -> RecoveryReport:
    """Check a file that HDF5's own tools have rewritten; it can be read, but not repaired."""
    with TrajectoryFile(path) as file:
        file.check()
        rows = sum(len(piece) for piece in file.stored_pieces())
        if not file.finished:
            raise SourceError(
                f"{path} was changed by another program before it was finished; export it instead"
            )
        frames = file.frames
        return RecoveryReport(path, True, len(frames), rows, int(frames["frame"][-1]) if len(frames) else -1)


def _check_that_nobody_writes(path: Path, locked: bool) -> None:
    who = who_writes(path, (WRITER,) if locked else WORK)
    if who.startswith("still"):
        raise SourceError(f"{path} is {who}; end the run before recovering it (it can be read meanwhile)")
    if who:
        raise SourceError(f"{path} is {who}; close it there before recovering")


def _repair_a_copy(
    path: Path, target: Path, old: bytes, repaired: bytes, contents: Contents, report: RecoveryReport
) -> RecoveryReport:
    if target != path and target.exists():
        raise OutputError(f"{target} exists; choose another name for the recovered file")
    part = target.with_name(f"{target.name}.{uuid4().hex[:8]}.part")
    try:
        _copy(path, part)
        repair(part, old, repaired, contents, report.note())
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
        raise OutputError(
            f"cannot give the recovered file its name {target}: {reason}; {path} is unchanged"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _copy(path: Path, part: Path) -> None:
    """Copy a file and flush the copy to the disk; if there is too little space, say so before copying."""
    size = path.stat().st_size
    try:
        free = shutil.disk_usage(part.parent).free
        if free < size + MARGIN_BYTES:
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
            f"cannot copy {path} to {part}: {reason}; check permission and disk space, or pass --output"
        ) from error


def _free_name(path: Path) -> Path:
    names = (f"{path.stem}.before-recovery{number}{path.suffix}" for number in _numbers())
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def _numbers() -> itertools.chain[str]:
    return itertools.chain([""], (f"-{number}" for number in itertools.count(2)))


def _take_its_place(part: Path, path: Path, kept: Path) -> None:
    """Rename the file to `kept` and the repaired copy to `path`; with hard links, `path` exists at all times."""
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
        for _ in file.stored_pieces():
            pass
