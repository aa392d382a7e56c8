"""Checks that a file can be written at a path; names the reasons for failures in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from stream.errors import OutputError
from tracking.trajectories.open_elsewhere import who_writes

NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def check_place(path: Path, overwrite: bool) -> None:
    """Raise `OutputError` if no file can be created at this path, or one exists and `overwrite` is false."""
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission to write in its folder")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another name or pass --overwrite")


def check_replaceable(path: Path) -> None:
    """Raise `OutputError` if the file cannot be replaced later, because another program has it open."""
    try:
        path.rename(path)  # fails on Windows while another program has it open
        who = who_writes(path, ())
    except OSError as error:
        raise OutputError(f"cannot replace {path}: {reason(error)}; is it open elsewhere?") from error
    if who:
        raise OutputError(f"cannot replace {path}: it is {who}; close it there")


def is_full(error: BaseException) -> bool:
    """Whether the disk, the quota or the largest file size has been reached."""
    return isinstance(error, OSError) and error.errno in NO_SPACE


def reason(error: BaseException) -> str:
    """What went wrong, in the words of the operating system if it has any."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error)
