"""The files of a scan: their names, what may be replaced, and the disk space they need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ConfigurationError, OutputError
from stream.unfinished_files import check_folder_of

TIFF_SUFFIXES = (".ome.tif", ".ome.tiff")
ZARR_SUFFIX = ".ome.zarr"
SPARE_BYTES = 16 << 20  # beyond the pixels: metadata and journal of 20,000 planes take less
KINDS = ("bright", "dark")
RESUME = "continue with --resume"


@dataclass(frozen=True, slots=True)
class ScanPaths:
    """The files of a scan: the finished one (`whole`), and beside it `partial` and `journal` while it runs."""

    whole: Path

    def __post_init__(self) -> None:
        name = self.whole.name.lower()
        if not name.endswith((*TIFF_SUFFIXES, ZARR_SUFFIX)) or self.stem == "":
            raise ConfigurationError(
                f"{self.whole} must be named NAME.ome.tif, NAME.ome.tiff or NAME.ome.zarr, which selects the format"
            )

    @property
    def is_zarr(self) -> bool:
        """Whether the format is OME-Zarr, not OME-TIFF."""
        return self.whole.name.lower().endswith(ZARR_SUFFIX)

    @property
    def stem(self) -> str:
        """The name without its suffixes."""
        name = self.whole.name
        return name[: name.lower().rindex(".ome.")]

    @property
    def partial(self) -> Path:
        """The unfinished file."""
        return self.whole.with_name(f"{self.whole.name}.part")

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.whole.with_name(f"{self.whole.name}.journal.jsonl")

    def reference(self, kind: str) -> Path:
        """`NAME.bright.tif` or `NAME.dark.tif`."""
        return self.whole.with_name(f"{self.stem}.{kind}.tif")

    def _aside(self, kind: str) -> Path:
        return self.reference(kind).with_name(f"{self.reference(kind).name}.replaced")

    def put_references_aside(self, kinds: Sequence[str]) -> None:
        """Rename the references of a scan that is being replaced, so that they are not mistaken for new ones.

        Raises `OutputError`.
        """
        for kind in kinds:
            with writing(self.reference(kind)):
                if self.reference(kind).exists():
                    self.reference(kind).replace(self._aside(kind))

    def discard_old_references(self) -> None:
        """Delete the renamed references once the new scan has replaced the old one. Raises `OutputError`."""
        for kind in KINDS:
            with writing(self._aside(kind)):
                self._aside(kind).unlink(missing_ok=True)

    def check(self, references: Sequence[str], *, resume: bool, overwrite: bool) -> None:
        """Check before the scan that nothing is replaced by accident.

        Raises `OutputError` if a file exists and may not be replaced, `ConfigurationError` if both options are
        given.
        """
        check_folder_of(self.whole)
        if resume and overwrite:
            raise ConfigurationError(
                "--resume keeps existing files, --overwrite replaces them; pass only one of them"
            )
        if resume or overwrite:
            return
        if self.partial.exists():
            raise OutputError(
                f"{self.partial.name} is an unfinished scan; {RESUME}, or pass --overwrite to start again"
            )
        for path in (self.whole, *map(self.reference, references)):
            if path.exists():
                raise OutputError(f"{path} exists; choose another name or pass --overwrite")

    def discard_unfinished(self) -> None:
        """Delete the files of an unfinished scan. Raises `OutputError`."""
        with writing(self.partial):
            self.journal.unlink(missing_ok=True)
            remove(self.partial)

    def publish(self) -> None:
        """Give the finished file its final name, replacing an older file. Raises `OutputError`."""
        with writing(self.whole):
            if self.is_zarr:
                remove(self.whole)
            self.partial.replace(self.whole)
            self.journal.unlink(missing_ok=True)


def check_room(path: Path, needed_bytes: int) -> None:
    """Raise `OutputError` if the disk has no room for this many bytes."""
    folder = path.absolute().parent
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"cannot write {path}: {folder}: {error.strerror}") from error
    if needed_bytes > 0 and needed_bytes + SPARE_BYTES > free_bytes:
        raise OutputError(
            f"{path.name} needs {needed_bytes / 1e9:.2f} GB, but {folder} has only {free_bytes / 1e9:.2f} GB left; "
            "free some space or choose another disk"
        )


def allocated_bytes(path: Path) -> int:
    """Disk space of a file or folder, bytes; holes in a file take none."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(_allocated(file.stat()) for file in files)


def _allocated(found: os.stat_result) -> int:
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else min(found.st_size, 512 * blocks)


def remove(path: Path) -> None:
    """Delete a file or folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into `OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
