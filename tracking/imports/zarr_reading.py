"""Reads Zarr groups of unknown origin: what an array claims is checked before anything is read.

An array without chunks on the disk is all zeros to Zarr, so that 200 bytes can claim terabytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from stream.errors import SourceError
from stream.hdf5_checks import NUMBERS, check_memory

Array = Any  # zarr.Array, whose type parameters differ between versions
ZARR_NAMES = (".zgroup", ".zattrs", ".zarray", "zarr.json")
MOST_RATIO = 20_000
"""Largest ratio of compression that is believed. Blosc and Zstandard reach 10,000 on constant columns of a few
megabytes a chunk; more claims less than a byte of disk for 20 kB of memory."""
SLACK_BYTES = 16 << 20
CODECS = {
    "adler32", "astype", "bitround", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset",
    "fletcher32", "gzip", "lz4", "lzma", "packbits", "quantize", "sharding_indexed", "shuffle", "transpose", "zlib",
    "zstd",
}  # fmt: skip
"""Codecs that turn bytes into numbers and nothing else."""


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((path / name).is_file() for name in ZARR_NAMES)


def open_group(path: Path) -> zarr.Group:
    """Open a group for reading; use within `stream.hdf5_reading.reading`."""
    return zarr.open_group(path, mode="r")


def child(group: zarr.Group, name: str) -> Any:
    """A group or an array within a group, None if there is none of that name."""
    return group.get(name)


def array(path: Path, group: zarr.Group, name: str, *, rows: int | None = None, width: int = 1) -> Array:
    """The array `name` of numbers, of `rows` (any if None) times `width`; (N,) for a width of 1.

    Raises `SourceError` that names it.
    """
    place = f"{path}: {name}"
    found = group.get(name)
    if not isinstance(found, zarr.Array):
        raise SourceError(f"{place} is missing; the file is damaged, or another kind of file")
    if found.dtype.kind not in NUMBERS:
        raise SourceError(f"{place} has values of type {found.dtype}, not numbers")
    shape = found.shape
    fits = len(shape) == (1 if width == 1 else 2) and (width == 1 or shape[1] == width)
    if not fits or (rows is not None and shape[0] != rows):
        wanted = "any" if rows is None else str(rows)
        expected = wanted if width == 1 else f"{wanted} x {width}"
        raise SourceError(f"{place} has {' x '.join(map(str, shape))} values, not {expected}")
    _check_codecs(found, place)
    _check_size(path, found, place)
    return found


def numbers(
    path: Path, group: zarr.Group, name: str, *, rows: int | None = None, width: int = 1
) -> npt.NDArray[Any]:
    """The values of `array`."""
    return np.asarray(array(path, group, name, rows=rows, width=width)[...])


def whole_numbers(path: Path, values: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
    """Values as int64. Raises `SourceError` if they are not whole or too large."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise SourceError(f"{path}: {name} has values that are not whole numbers")
        if values.size and np.abs(values).max() >= 2.0**62:
            raise SourceError(f"{path}: {name} has values beyond 2^62")
    if values.dtype.kind == "u" and values.size and int(values.max()) >= 1 << 62:
        raise SourceError(f"{path}: {name} has values beyond 2^62")
    return values.astype(np.int64)


def _check_codecs(found: Array, place: str) -> None:
    unknown = sorted(set(_names(found.metadata.to_dict())) - CODECS)
    if unknown:
        raise SourceError(
            f"{place} is stored with {', '.join(unknown)}, which is not read; store it with gzip or zstd"
        )


def _names(node: Any) -> list[str]:
    """The names of the codecs in an array's metadata."""
    if isinstance(node, list | tuple):
        return [name for item in node for name in _names(item)]
    if not isinstance(node, dict):
        return []
    own = [
        str(node[key]).removeprefix("numcodecs.")
        for key in ("id", "name")
        if isinstance(node.get(key), str) and "chunk_shape" not in node.get("configuration", {})
    ]
    own = own if "zarr_format" not in node else []
    inner = [
        _names(node[key])
        for key in ("codecs", "index_codecs", "filters", "compressor", "configuration")
        if key in node
    ]
    return own + [name for part in inner for name in part]


def _check_size(path: Path, found: Array, place: str) -> None:
    claimed = int(np.prod([int(n) for n in found.shape], dtype=np.float64)) * found.dtype.itemsize
    chunk = int(np.prod([int(n) for n in found.chunks], dtype=np.float64)) * found.dtype.itemsize
    folder = Path(getattr(found.store, "root", path)) / found.path
    stored = sum(entry.stat().st_size for entry in _files(folder))
    if max(claimed, chunk if claimed else 0) > stored * MOST_RATIO + SLACK_BYTES:
        raise SourceError(
            f"{place} claims {claimed / 1e6:.3g} MB, but {stored / 1e6:.3g} MB are stored; it is damaged or forged"
        )
    check_memory(claimed, place)


def _files(folder: Path) -> list[os.DirEntry[str]]:
    found: list[os.DirEntry[str]] = []
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    found.append(entry)
    return found
