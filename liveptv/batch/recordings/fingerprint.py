"""What a recording is recognised by: its files, their sizes and times, and samples of their contents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from acquisition.recording import ZARR_MARKS
from acquisition.stacks.file_set import member_files
from acquisition.stacks.image_files import TIFF
from acquisition.stacks.library_errors import kept_quiet, told_in_a_line
from acquisition.stacks.ndtiff import ndtiff_index
from acquisition.stacks.tiff_pages import TiffMembers
from stream.errors import LivePTVError, SourceError

FILES_SAMPLED, BYTES_SAMPLED = 16, 65_536
"""Files of which the beginning, the middle and the end are read, and bytes of each. All of a recording would
take as long as its detection does on a slow disk; another experiment of the same size differs in any of its
images."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Number of files, their bytes, when the newest was changed (ns), and a hash of names, sizes and samples."""

    files: int
    bytes: int
    newest_ns: int
    sample: str = ""

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Self:
        """From what `to_dict` gives. Raises `ValueError`, `TypeError` or `KeyError`."""
        return cls(int(facts["files"]), int(facts["bytes"]), int(facts["newest_ns"]), str(facts["sample"]))

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


def files_of(path: Path) -> list[Path]:
    """The files of a recording, in order. Raises `SourceError` if there is none."""
    plain = Path(str(path).partition("::")[0])
    if not plain.exists():
        raise SourceError(f"there is no recording {plain}")
    if plain.is_dir():
        is_deep = plain.suffix.lower() == ".zarr" or any((plain / mark).is_file() for mark in ZARR_MARKS)
        found = [Path(here) / name for here, _, names in os.walk(plain) for name in names]
        beside = [one for one in found if is_deep or one.parent == plain]
        return sorted(beside or found)
    if plain.suffix.lower() not in TIFF:
        return [plain]
    members = TiffMembers()
    try:
        with kept_quiet(), told_in_a_line(f"cannot read {plain}"):
            index = ndtiff_index(plain)
            found = list(member_files(plain, members)) if index is None else [*index.parent.iterdir()]
    except LivePTVError:
        found = [plain]  # what is wrong with it is told when it is processed
    finally:
        members.close()
    return sorted({one for one in found if one.is_file()} | {plain})


def fingerprint_of(path: Path, *, sampled: bool) -> Fingerprint:
    """The fingerprint of a recording as it is now; without `sampled` nothing of its contents is read.

    Raises `SourceError` if it cannot be read.
    """
    files = files_of(path)
    try:
        stats = [one.stat() for one in files]
        newest = max((stat.st_mtime_ns for stat in stats), default=0)
        sample = _sample(files, [stat.st_size for stat in stats]) if sampled else ""
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return Fingerprint(len(files), sum(stat.st_size for stat in stats), newest, sample)


def is_same(path: Path, known: Fingerprint) -> bool:
    """Whether a recording is the one that is `known`; contents are read only where its time has changed (a
    copy).
    """
    now = fingerprint_of(path, sampled=False)
    if (now.files, now.bytes) != (known.files, known.bytes):
        return False
    return now.newest_ns == known.newest_ns or fingerprint_of(path, sampled=True).sample == known.sample


def _sample(files: list[Path], sizes: list[int]) -> str:
    digest = hashlib.sha256()
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{file.name}\0{size}\0".encode(errors="replace"))
    step = max(1, len(files) // FILES_SAMPLED)
    for file, size in list(zip(files, sizes, strict=True))[::step]:
        with file.open("rb") as stream:
            for place in (0, max(0, size // 2 - BYTES_SAMPLED // 2), max(0, size - BYTES_SAMPLED)):
                stream.seek(place)
                digest.update(stream.read(BYTES_SAMPLED))
    return digest.hexdigest()
