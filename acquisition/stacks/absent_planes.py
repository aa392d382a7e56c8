"""Which planes of an array on disk are in none of its stored chunks: of volumes, these slices are missing.

A plane counts as stored if any piece of it is. In a sharded Zarr (Zarr 3, "sharding_indexed") the chunks that are
stored are in the index of each shard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from acquisition.stacks.video_choice import Channel

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.int64]
Place = tuple[int, ...]
ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])
EMPTY = np.iinfo(np.uint64).max  # offset and length of a chunk that is not stored
CHECKSUM = 4  # bytes of a CRC32C


def absent_planes(
    shape: Sequence[int], chunks: Sequence[int], stored: BoolArray, channel: Channel | None
) -> IndexArray:
    """The planes that are not stored, of an array (..., Y, X) with such `chunks`.

    `stored` are the places, along the axes before y and x, of chunks of which any was stored; `channel` is the only
    one that counts.
    """
    lacking: npt.NDArray[Any] = ~stored
    for axis, (size, each) in enumerate(zip(shape[:-2], chunks[:-2], strict=True)):
        lacking = np.repeat(lacking, each, axis).take(np.arange(size), axis)
    if channel is not None:
        lacking = lacking.take(channel.number, channel.axis)
    return np.flatnonzero(lacking)


def chunk_grid(shape: Sequence[int], chunks: Sequence[int]) -> Place:
    """How many chunks an array (..., Y, X) has along each axis before y and x."""
    return tuple(-(-size // each) for size, each in zip(shape[:-2], chunks[:-2], strict=True))


def stored_places(shape: Sequence[int], chunks: Sequence[int], present: Iterable[Place]) -> BoolArray:
    """Where, along the axes before y and x, any of the chunks `present` (indices) lies."""
    grid = chunk_grid(shape, chunks)
    stored = np.zeros(grid, np.bool_)
    for place in present:
        lead = place[: len(grid)]
        if len(place) == len(shape) and all(i < n for i, n in zip(lead, grid, strict=True)):
            stored[lead] = True
    return stored


def stored_in_shards(folder: Path, array: Any, present: Iterable[Place]) -> BoolArray:
    """The same for the chunks within the shards `present` of a Zarr array; unreadable indices say that all are."""
    each = tuple(whole // part for whole, part in zip(array.shards, array.chunks, strict=True))
    grid = chunk_grid(array.shape, array.chunks)
    stored = np.zeros(grid, np.bool_)
    for place in present:
        if len(place) != len(each):
            continue
        begins = tuple(i * n for i, n in zip(place, each, strict=True))[: len(grid)]
        if any(i >= n for i, n in zip(begins, grid, strict=True)):
            continue
        index = _index(folder / array.metadata.encode_chunk_key(place), array, each)
        inside: BoolArray = np.any(index, axis=(-2, -1))
        where = tuple(slice(i, i + n) for i, n in zip(begins, inside.shape, strict=True))
        part = stored[where]
        part |= inside[tuple(slice(n) for n in part.shape)]
    return stored


def _index(path: Path, array: Any, each: Place) -> BoolArray:
    """Which chunks (`each`) a shard has, by its index."""
    count = math.prod(each)
    everything = np.ones(each, np.bool_)
    (codec,) = array.metadata.codecs
    kinds = [type(step).__name__ for step in codec.index_codecs]
    is_little = getattr(getattr(codec.index_codecs[0], "endian", None), "value", "") == "little"
    if kinds not in (["BytesCodec"], ["BytesCodec", "Crc32cCodec"]) or not is_little:
        return everything
    size = count * ENTRY.itemsize
    with path.open("rb") as file:
        if codec.index_location.value == "end":
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size - CHECKSUM * (len(kinds) - 1)))
        data = file.read(size)
    if len(data) != size:
        return everything
    entries = np.frombuffer(data, ENTRY)
    there: BoolArray = (entries["offset"] != EMPTY) | (entries["length"] != EMPTY)
    return there.reshape(each)
