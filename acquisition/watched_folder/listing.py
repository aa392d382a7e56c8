"""What lies in a folder at one moment: its files and Zarr folders, each with a stamp that changes when it does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from acquisition.stacks.image_files import SUFFIXES
from stream.errors import SourceError

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".temp", ".writing")
"""How programs name files that they will rename; these are waited for without a word."""
ZARR = ".zarr"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Changes whenever a file (or a file in a Zarr folder) is written: bytes, newest time (ns), number of files."""

    size: int
    modified_ns: int
    files: int = 1


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of a folder by path, and the names of files that are none."""

    images: dict[Path, Stamp]
    foreign: tuple[str, ...] = ()
    has_end: bool = False


def list_folder(folder: Path, end_file: str) -> Listing:
    """Look into a folder; a file that vanishes meanwhile is left out.

    Raises `SourceError` if the folder cannot be read.
    """
    images: dict[Path, Stamp] = {}
    foreign: list[str] = []
    has_end = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                has_end = has_end or name == end_file
                if name == end_file or name[0] in ".~" or name.lower().endswith(UNFINISHED):
                    continue
                stamp = _stamp(entry)
                if stamp is not None:
                    images[folder / name] = stamp
                else:
                    foreign.append(name)
    except OSError as error:
        raise SourceError(f"the folder {folder} cannot be read: {error.strerror or error}") from error
    return Listing(images, tuple(foreign), has_end)


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
    """None for what is no image: other files, and folders that are no Zarr."""
    suffix = Path(entry.name).suffix.lower()
    try:
        if entry.is_dir():
            return _tree(Path(entry.path)) if suffix == ZARR else None
        if suffix not in SUFFIXES:
            return None
        found = entry.stat()
    except OSError:  # it has just been removed or renamed, or is held by its writer
        return None
    return Stamp(found.st_size, found.st_mtime_ns)


def _tree(folder: Path) -> Stamp:
    size = newest = files = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.stat(os.path.join(where, name))  # noqa: PTH116, PTH118 - thousands of chunks
            except OSError:
                continue
            size += found.st_size
            newest = max(newest, found.st_mtime_ns)
            files += 1
    return Stamp(size, newest, files)
