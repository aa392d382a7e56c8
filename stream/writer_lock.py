"""Lock of a file that is being written: an operating-system lock on a small file beside it.

The system releases the lock when the process dies, however it dies: neither a clock nor a process number decides.
The small file contains who holds the lock, as text. It is removed on release; a file left by a killed process is
taken over by the next one. `flock` also works across computers on NFS and, on Linux, on network shares; where a
file system has no locks, the text in the file decides. A file left by another computer is never taken over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from stream.errors import LivePTVError, OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

RUN = ".lock"
"""Suffix of the lock of a whole output: the run, and all files beside its trajectory file."""
WRITER = ".writer.lock"
"""Suffix of the lock of the process that has the trajectory file itself open."""

TAKEN = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
TEXT_AT = 1  # Windows hides the locked byte from other processes; the text begins behind it
TEXT_BYTES = 4096
TRIES = 10
TRY_S = 0.02  # s; a process that only looks who holds a lock has it for a shorter time


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock: computer, process, what it is doing, and since when (ISO 8601, local time)."""

    host: str = ""
    pid: int = 0
    what: str = ""
    since: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        here = "" if self.host == socket.gethostname() else f" on {self.host}"
        doing = f" ({self.what}, since {self.since})" if self.what else ""
        return f"process {self.pid}{here}{doing}"

    def is_here_and_alive(self) -> bool:
        """Whether its process runs on this computer; used only where there are no locks."""
        return self.host == socket.gethostname() and psutil.pid_exists(self.pid)


class Claim:
    """A lock on an output, held until `release` or the death of this process."""

    def __init__(self, output: Path, what: str, suffix: str = RUN) -> None:
        """Take the lock; `what` tells others what is being done.

        Raises `OutputError` if another process holds it, or nothing can be written beside the output.
        """
        self._path = lock_path(output, suffix)
        self._fd = -1
        try:
            self._take(output, what)
        except LivePTVError:
            self._close()
            raise
        except OSError as error:
            self._close()
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise OutputError(
                f"cannot write {output}: {reason} (tried {self._path}); check the folder and its permission"
            ) from error

    def _take(self, output: Path, what: str) -> None:
        for _ in range(TRIES):
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            holder = _read(self._fd)
            if _is_free(self._fd, holder) and _is_still(self._path, self._fd):
                break
            self._close()
            time.sleep(TRY_S)
        else:
            raise OutputError(
                f"{output} is being written by {holder or Holder()}; choose another name, or end that process"
            )
        if holder is not None and holder.host not in {"", socket.gethostname()}:
            raise OutputError(
                f"{output} is or was being written by {holder}; if that process has ended, delete {self._path}"
            )
        mine = Holder(socket.gethostname(), os.getpid(), what, time.strftime("%Y-%m-%d %H:%M:%S"))
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.write(self._fd, b" " * TEXT_AT + json.dumps(asdict(mine)).encode())

    def release(self) -> None:
        """Release the lock and remove its file. Idempotent."""
        if self._fd < 0:
            return
        if sys.platform != "win32" and _is_still(self._path, self._fd):
            # while the lock is held: a process that opened the file meanwhile sees that it is gone
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._close()
        if sys.platform == "win32":
            with contextlib.suppress(OSError):  # a process that opened it meanwhile keeps it
                self._path.unlink()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_path(output: Path, suffix: str = RUN) -> Path:
    """The small file beside an output; the same for all symbolic links to the output."""
    real = Path(os.path.realpath(output))
    return real.with_name(real.name + suffix)


def holder_of(output: Path, *suffixes: str) -> Holder | None:
    """Who holds a lock on an output; None if nobody does. Nothing is created or changed."""
    for suffix in suffixes or (RUN, WRITER):
        try:
            fd = os.open(lock_path(output, suffix), os.O_RDWR | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            continue
        except OSError:
            return Holder()
        try:
            holder = _read(fd)
            if not _is_free(fd, holder):
                return holder or Holder()
        finally:
            os.close(fd)
    return None


def read_holder(lock: Path) -> Holder | None:
    """Who a lock file names, whether the lock is still held or not; None if it is not there or names nobody."""
    try:
        fd = os.open(lock, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    try:
        return _read(fd)
    finally:
        os.close(fd)


def _is_free(fd: int, holder: Holder | None) -> bool:
    """Take the lock if it is free; without locks in the file system, the text in the file decides."""
    try:
        if sys.platform == "win32":
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        if error.errno in NO_LOCKS:
            return holder is None or not holder.is_here_and_alive()
        raise
    return True


def _read(fd: int) -> Holder | None:
    try:
        os.lseek(fd, TEXT_AT, os.SEEK_SET)
        words = json.loads(os.read(fd, TEXT_BYTES))
        return Holder(str(words["host"]), int(words["pid"]), str(words["what"]), str(words["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except OSError:
        return False
