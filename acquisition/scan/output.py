"""The image file of a scan while it is taken: planes are written where they belong, in any order, one at a time."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acquisition.scan.journal import PlaneRecord, ScanHeader
from stream.errors import ConfigurationError, OutputError

TIFF_SUFFIXES = (".ome.tif", ".ome.tiff")
ZARR_SUFFIX = ".ome.zarr"
SPARE_BYTES = 16 << 20

Images = npt.NDArray[Any]


class ScanOutput(Protocol):
    """An unfinished file. Images (N, H, W) of a plane are written and read as one."""

    def write(self, plane: int, images: Images) -> None:
        """Write the images of a plane. Raises `OutputError`."""
        ...

    def read(self, plane: int) -> Images:
        """The images of a plane as they lie in the file. Raises `OutputError`."""
        ...

    def finish(self, records: Sequence[PlaneRecord], facts: dict[str, Any]) -> None:
        """Write positions and times of all planes, and further facts. Raises `OutputError`."""
        ...

    def close(self) -> None:
        """Close the file. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ScanPaths:
    """The files of a scan: the whole one, and `partial` and `journal` beside it while it is taken."""

    whole: Path

    def __post_init__(self) -> None:
        name = self.whole.name.lower()
        if not name.endswith((*TIFF_SUFFIXES, ZARR_SUFFIX)) or self.stem == "":
            raise ConfigurationError(
                f"{self.whole} must be named NAME.ome.tif, NAME.ome.tiff or NAME.ome.zarr, by the format you want"
            )

    @property
    def is_zarr(self) -> bool:
        """Whether it is OME-Zarr, else OME-TIFF."""
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

    def discard_unfinished(self) -> None:
        """Delete what an unfinished scan has left. Raises `OutputError`."""
        with writing(self.partial):
            self.journal.unlink(missing_ok=True)
            remove(self.partial)

    def publish(self) -> None:
        """Give the finished file its name, in place of what had it. Raises `OutputError`."""
        with writing(self.whole):
            if self.is_zarr:
                remove(self.whole)
            self.partial.replace(self.whole)
            self.journal.unlink(missing_ok=True)


def create_output(paths: ScanPaths, header: ScanHeader) -> ScanOutput:
    """Make the unfinished file, all planes empty. Raises `OutputError`, also where the disk is too small."""
    check_room(paths.whole, header.planes * header.plane_bytes)
    if paths.is_zarr:
        from acquisition.scan.zarr_output import ZarrOutput

        return ZarrOutput.create(paths.partial, header)
    from acquisition.scan.tiff_output import TiffOutput

    return TiffOutput.create(paths.partial, header)


def reopen_output(paths: ScanPaths, header: ScanHeader) -> ScanOutput:
    """Open the unfinished file again. Raises `OutputError`, also where the disk is too small for the rest."""
    check_room(paths.whole, header.planes * header.plane_bytes - allocated_bytes(paths.partial))
    if paths.is_zarr:
        from acquisition.scan.zarr_output import ZarrOutput

        return ZarrOutput(paths.partial, header)
    from acquisition.scan.tiff_output import TiffOutput

    return TiffOutput(paths.partial, header)


def checksum(images: Images) -> int:
    """CRC-32 of images as they lie in memory."""
    return zlib.crc32(np.ascontiguousarray(images).reshape(-1).view(np.uint8).data)


def check_room(path: Path, needed_bytes: int) -> None:
    """Raise `OutputError` where the disk has no room for so many bytes."""
    folder = path.absolute().parent
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"cannot write {path}: {folder}: {error.strerror}") from error
    if needed_bytes > 0 and needed_bytes + SPARE_BYTES > free_bytes:
        raise OutputError(
            f"{path.name} needs {needed_bytes / 1e9:.2f} GB, and {folder} has {free_bytes / 1e9:.2f} GB left; "
            "free some space or choose another disk"
        )


def allocated_bytes(path: Path) -> int:
    """What a file or a folder already takes on the disk; holes in a file take nothing."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(_allocated(file.stat()) for file in files)


def _allocated(found: os.stat_result) -> int:
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else min(found.st_size, 512 * blocks)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors into `OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
