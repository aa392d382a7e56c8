"""Finds out which program has a trajectory file open for writing, a process of liveptv or any other.

Three sources: our own locks (`stream.writer_lock`); the lock that HDF5 takes on every file that it opens
(https://docs.hdfgroup.org/hdf5/rfc/HDF5_File_Locking.pdf: `flock`, on Windows `LockFileEx`); and, on Linux, the
system's list of open files, for programs that have switched HDF5's lock off.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from stream.writer_lock import RUN, WRITER, holder_of

WORK = (RUN, WRITER)


def who_writes(path: Path, suffixes: tuple[str, ...] = WORK) -> str:
    """Say in words which program has the file open for writing; "" if none is known.

    `suffixes` are those of our own locks to look at; a caller that holds one leaves it out.
    """
    holder = holder_of(path, *suffixes) if suffixes else None
    if holder is not None:
        return f"still being written by {holder}"
    programs = ", ".join(_programs(path))
    if programs:
        return f"open for writing in another program ({programs})"
    if hdf5_says_written(path):
        return "open for writing in another program"
    return ""


def hdf5_says_written(path: Path) -> bool:
    """Whether a program holds HDF5's exclusive lock, which programs that only read do not take."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        return sys.platform == "win32" and error.errno == errno.EACCES
    try:
        if sys.platform == "win32":
            os.read(fd, 1)  # a byte that is locked exclusively cannot be read
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
    finally:
        os.close(fd)
    return False


def _programs(path: Path) -> Iterator[str]:
    """Other processes that have the file open for writing, as far as this user may see them."""
    if not sys.platform.startswith("linux"):
        return  # on other systems such a list is slow, incomplete or missing
    own = path.stat()
    for process in psutil.process_iter(["name"]):
        if process.pid == os.getpid():
            continue
        try:
            for file in process.open_files():
                if file.mode != "r" and os.path.samestat(Path(file.path).stat(), own):
                    yield f"{process.info['name']}, process {process.pid}"
                    break
        except (psutil.Error, OSError):
            continue
