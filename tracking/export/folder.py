"""Folders (Zarr) that get their final name when they are complete, as `stream.unfinished_files` does for files."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from stream.errors import LivePTVError, OutputError
from stream.unfinished_files import check_folder_of

ZARR_NAMES = (".zgroup", "zarr.json")


@contextmanager
def folder_beside(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """The path of a new, empty folder; it becomes `target` if the block succeeds and is removed if it fails.

    With `overwrite` an existing folder is replaced, but only one that holds a Zarr group. Raises `OutputError`.
    """
    target = Path(target)
    check_folder_of(target)
    check_replaceable_folder(target, overwrite)
    part = target.with_name(f"{target.stem}.partial-{uuid4().hex[:8]}{target.suffix}")
    try:
        part.mkdir()
        yield part
        check_replaceable_folder(target, overwrite)
        _take_the_place(part, target)
    except OSError as error:
        if isinstance(error, LivePTVError):
            raise
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_replaceable_folder(target: Path, overwrite: bool) -> None:
    """Raise `OutputError` if something is there that is not to be, or must not be, replaced."""
    if not target.exists():
        return
    if not overwrite:
        raise OutputError(f"{target} exists; choose another name or pass --overwrite")
    if not target.is_dir() or not any((target / name).is_file() for name in ZARR_NAMES):
        raise OutputError(f"cannot replace {target}: it is not a Zarr folder; choose another name")


def _take_the_place(part: Path, target: Path) -> None:
    """Rename; an earlier folder is moved aside first and comes back if that fails."""
    old = target.with_name(f"{target.name}.{uuid4().hex[:8]}.old") if target.exists() else None
    if old is not None:
        target.replace(old)
    try:
        part.replace(target)
    except OSError:
        if old is not None:
            with contextlib.suppress(OSError):
                old.replace(target)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
