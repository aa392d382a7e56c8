"""The lock of a recording while it is processed, by whichever batch on whichever computer.

It is the lock of an output (`stream.writer_lock`): the system releases it when its process dies, also on NFS. Some
network file systems have no locks between computers, so a lock file that another computer has left could belong
to a process that lives. Its holder therefore renews the time of the file every `BEAT_S`; a file of another
computer that was not renewed for `STALE_S`, by the clock of the file server, belongs to nobody and is taken
over.

Even if two processes should both believe that they hold it, nothing is damaged: each writes to a file of its own
name, and both results are the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.errors import LivePTVError, OutputError
from stream.writer_lock import Claim, Holder, holder_of, lock_path, read_holder

BEAT_S = 20.0
"""Time between two renewals, s: one small request to the file server. More often is a load with 1,000 workers."""
STALE_S = 300.0
"""Age from which a lock of another computer is nobody's, s: fifteen renewals. Computers do stop for a minute
(swapping, a server that is restarted); longer, what a computer that lost its power had begun waits longer to be
taken over."""


TRIES = 4
"""How often a lock is asked for: its folder may be removed, and a stale one taken over by somebody else."""


class BusyError(LivePTVError):
    """Somebody else is processing the recording."""


class Lease:
    """The lock of `output`, held and renewed until `release` or the death of this process."""

    def __init__(self, output: Path, what: str, *, beat_s: float = BEAT_S, stale_s: float = STALE_S) -> None:
        """Take the lock. Raises `BusyError`, which says who has it, or `OutputError` if nothing can be written."""
        self._lock = lock_path(output)
        self._claim = _claimed(output, what, self._lock, stale_s)
        self._beat_s = beat_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._over.wait(self._beat_s):
            with contextlib.suppress(OSError):
                os.utime(self._lock)

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        self._over.set()
        self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _claimed(output: Path, what: str, lock: Path, stale_s: float) -> Claim:
    for tries_left in reversed(range(TRIES)):
        left_by = read_holder(lock)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            return Claim(output, what)
        except OSError as error:
            if not lock.exists() and left_by is None:
                if tries_left:
                    continue  # who was done has removed the empty folder
                raise OutputError(f"cannot write to {output.parent}: {error}") from error
            if left_by is None or left_by.host in {"", socket.gethostname()}:
                raise BusyError(f"{holder_of(output) or left_by or 'another process'}") from error
            if not _is_stale(lock, stale_s):
                raise BusyError(str(left_by)) from error
            _take_away(lock, left_by)
    raise BusyError("another process")


def _is_stale(lock: Path, stale_s: float) -> bool:
    """Whether a lock file was not renewed for long, by the file server's own clock."""
    probe = lock.with_name(f"clock-{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - lock.stat().st_mtime > stale_s
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _take_away(lock: Path, left_by: Holder) -> None:
    """Remove a stale lock file; if another process was faster and the file is its own already, give it back."""
    aside = lock.with_name(f"stale-{uuid.uuid4().hex}")
    try:
        os.rename(lock, aside)  # noqa: PTH104 - atomic, and one of several processes succeeds
    except OSError:
        return
    if read_holder(aside) != left_by:
        with contextlib.suppress(OSError):
            os.link(aside, lock)  # fails if there is a new one
    with contextlib.suppress(OSError):
        aside.unlink()
