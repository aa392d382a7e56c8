"""Which frames of an array on disk were ever written; others read as zeros and look like black frames."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from acquisition.stacks.absent_planes import IndexArray, absent_planes, stored_in_shards, stored_places
from acquisition.stacks.video_choice import Channel
from stream.errors import SourceError
from stream.hdf5_checks import check_memory

BLOSC_HEADER = 16
"""Bytes of the header of a Blosc buffer; the last four are the length of the buffer."""
Place = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """`frames`: the number of frames up to the last one written; `remark` is about the others.

    `holes` is about chunks that are missing before. `absent` finds the frames without any chunk.
    """

    frames: int
    remark: str = ""
    holes: str = ""
    absent: Callable[[], IndexArray] = lambda: np.empty(0, np.int64)


def written(
    path: Path,
    shape: Sequence[int],
    chunks: Sequence[int],
    present: Iterable[Place],
    channel: Channel | None = None,
) -> Written:
    """The written part of an array (..., Y, X) of which only the chunks `present` (indices) were stored.

    Only for `channel`, if one is chosen. Raises `SourceError` if nothing was written.
    """
    check_chunks(path, chunks)
    if channel is not None:
        layer = channel.number // chunks[channel.axis]
        whole = len(shape)
        present = (
            channel.without(place)
            for place in present
            if len(place) == whole and place[channel.axis] == layer
        )
        shape, chunks = channel.without(shape), channel.without(chunks)
    lead, step = tuple(shape[:-2]), tuple(chunks[:-2])
    grid = tuple(-(-size // each) for size, each in zip(lead, step, strict=True))
    inside = {place[: len(grid)] for place in present if len(place) == len(shape)}
    inside = {place for place in inside if all(0 <= i < n for i, n in zip(place, grid, strict=True))}
    planes = math.prod(lead)
    if not inside and planes:
        raise SourceError(f"{path} contains no images: none of its {planes} frames was ever written")
    if not grid or len(inside) == math.prod(grid):
        return Written(planes)
    first = _first_missing(inside, grid)
    ends = 1 + max(place[0] for place in inside)
    kept = min(ends * step[0], lead[0]) * math.prod(lead[1:])
    within = ends * math.prod(grid[1:])
    said = f"only {kept} of {planes} frames were written: the others are left out" if kept < planes else ""
    holes = ""
    if len(inside) < within:
        at = sum(
            i * each * math.prod(lead[axis + 1 :])
            for axis, (i, each) in enumerate(zip(first, step, strict=True))
        )
        holes = f"{within - len(inside)} of {within} chunks of frames are missing, the first at frame {at}"
    return Written(kept, said, holes)


def _first_missing(inside: Iterable[Place], grid: Place) -> Place:
    """The first place in a grid that is not `inside`; the last axis runs fastest."""
    numbers = sorted(_number(place, grid) for place in inside)
    rest = next((number for number, found in enumerate(numbers) if found != number), len(numbers))
    first = []
    for size in reversed(grid):
        rest, index = divmod(rest, size)
        first.append(index)
    return tuple(reversed(first))


def _number(place: Place, grid: Place) -> int:
    number = 0
    for index, size in zip(place, grid, strict=True):
        number = number * size + index
    return number


def check_chunks(path: Path, chunks: Sequence[int]) -> None:
    """Raise `SourceError` for empty chunks."""
    if min(chunks, default=1) < 1:
        raise SourceError(f"{path} claims chunks of {_by(chunks)} pixels; it is damaged, copy it again")


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def zarr_written(path: Path, array: Any, channel: Channel | None = None) -> Written:
    """The written part of a Zarr array in a local folder, by the names of its chunks."""
    folder = _folder(array)
    whole = Written(_planes(array.shape, channel))
    check_chunks(path, array.chunks)
    check_memory(
        math.prod(array.chunks) * array.dtype.itemsize, f"{path}: one of its chunks ({_by(array.chunks)})"
    )
    if folder is None or array.ndim < 3:
        return whole
    shards = getattr(array, "shards", None)
    found = written(path, array.shape, shards or array.chunks, _chunk_names(folder), channel)

    def absent() -> IndexArray:
        names = _chunk_names(folder)
        stored = (
            stored_in_shards(folder, array, names)
            if shards
            else stored_places(array.shape, array.chunks, names)
        )
        return absent_planes(array.shape, array.chunks, stored, channel)

    return replace(found, absent=absent)


def check_blosc(path: Path, array: Any, plane: Place) -> None:
    """Raise `SourceError` if a chunk of this plane is truncated: Blosc would read beyond its end."""
    folder = _folder(array)
    if folder is None or not _has_blosc(array):
        return
    each = array.chunks
    lead = tuple(i // n for i, n in zip(plane, each, strict=False))
    rows = (range(-(-size // n)) for size, n in zip(array.shape[-2:], each[-2:], strict=True))
    for row in product(*rows):
        file = folder / array.metadata.encode_chunk_key((*lead, *row))
        try:
            with file.open("rb") as chunk:
                head = chunk.read(BLOSC_HEADER)
                size = os.fstat(chunk.fileno()).st_size
        except FileNotFoundError:
            continue
        if len(head) < BLOSC_HEADER or int.from_bytes(head[12:], "little") > size:
            raise SourceError(f"{path}: the chunk {file.relative_to(folder)} is truncated; copy it again")


def _planes(shape: Sequence[int], channel: Channel | None) -> int:
    return math.prod(shape[:-2]) // (1 if channel is None else max(1, channel.count))


def hdf5_written(path: Path, dataset: h5py.Dataset, channel: Channel | None = None) -> Written:
    """The written part of an HDF5 dataset. Raises `SourceError` if a file with a part of it is missing."""
    planes = _planes(dataset.shape, channel)
    if dataset.is_virtual:
        home = Path(dataset.file.filename).parent
        names = {source.file_name for source in dataset.virtual_sources()} - {"."}
        missing = sorted(name for name in names if "%" not in name and not (home / name).is_file())
        if missing:
            raise SourceError(
                f"{path} refers to other files, of which {', '.join(missing[:3])} is missing; put them beside it"
            )
        return Written(planes)
    if dataset.chunks is None or dataset.ndim < 3:
        if planes and dataset.size and dataset.external is None and dataset.id.get_storage_size() == 0:
            raise SourceError(f"{path} contains no images: none of its {planes} frames was ever written")
        return Written(planes)
    grid = [-(-size // each) for size, each in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() == math.prod(grid):
        return Written(planes)
    present: list[Place] = []
    each = dataset.chunks
    dataset.id.chunk_iter(
        lambda chunk: present.append(tuple(i // n for i, n in zip(chunk.chunk_offset, each, strict=True)))
    )
    found = written(path, dataset.shape, each, present, channel)

    def absent() -> IndexArray:
        return absent_planes(dataset.shape, each, stored_places(dataset.shape, each, present), channel)

    return replace(found, absent=absent)


def _folder(array: Any) -> Path | None:
    root = getattr(array.store, "root", None)
    return root / array.path if isinstance(root, Path) else None


def _has_blosc(array: Any) -> bool:
    names = [type(codec).__name__.lower() for codec in getattr(array, "compressors", ())]
    return any("blosc" in name for name in names) and getattr(array, "shards", None) is None


def _chunk_names(folder: Path) -> Iterable[Place]:
    """The indices in the names of the chunks of an array: `c/3/0/0`, `3/0/0` or `3.0.0`."""
    for place, _, names in os.walk(folder):
        inner = Path(place).relative_to(folder).parts
        for name in names:
            parts = re.split(r"[./]", "/".join([*inner, name]).removeprefix("c/").removeprefix("c."))
            if all(part.isdecimal() for part in parts):
                yield tuple(int(part) for part in parts)
