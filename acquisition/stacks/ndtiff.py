"""NDTiff recordings: the index file that names the images of each file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile

from acquisition.stacks.claimed_size import check_size
from acquisition.stacks.plane_table import Coordinates, Place, PlaneTable
from stream.errors import SourceError

NDTIFF_INDEX = "NDTiff.index"
NDTIFF_NUMBERS_BYTES = 32
"""Bytes of the numbers at the end of an entry of an NDTiff index: offsets, sizes, types."""
NDTIFF_TYPES = {0: "uint8", 1: "uint16", 3: "uint16", 4: "uint16", 5: "uint16", 6: "uint16"}


def ndtiff_index(path: Path) -> Path | None:
    """The index file of the NDTiff recording that a folder or file belongs to; None if there is none."""
    folder = path if path.is_dir() else path.parent
    for place in (folder, folder / "Full resolution"):
        if (place / NDTIFF_INDEX).is_file() and (path.is_dir() or place == folder):
            return place / NDTIFF_INDEX
    return None


def ndtiff_table(index: Path) -> tuple[PlaneTable, Path]:
    """The planes of an NDTiff recording, and the first of its files. Raises `SourceError`."""
    _check_index(index)
    entries = list(tifffile.read_ndtiff_index(index))
    if not entries:
        raise SourceError(f"{index} names no images; copy the recording again")
    table = PlaneTable("NDTiff", positions=[], channels=[])
    time_axis = _time_axis(entries)
    there: dict[str, Path | None] = {}
    for axes, name, data, width, height, pixels, squeezed, text, length, _ in entries:
        if pixels not in NDTIFF_TYPES or squeezed:
            raise SourceError(
                f"{index} names images in colour or compressed, which are not read; convert them to greyscale TIFF"
            )
        check_size(index, height, width)
        shape, dtype = (height, width), NDTIFF_TYPES[pixels]
        if table.places and (shape, dtype) != (table.shape, table.dtype):
            raise SourceError(f"{index} names images of several sizes or types; save each of them separately")
        table.shape, table.dtype = shape, dtype
        if name not in there:
            member = index.parent / Path(name.replace("\\", "/")).name
            there[name] = member if member.is_file() else None
        where = _coordinates(axes, time_axis, table)
        times, heights = table.sizes.get(where.position, (0, 0))
        table.sizes[where.position] = max(times, where.t + 1), max(heights, where.z + 1)
        member_file = there[name]
        if member_file is not None:
            table.places[where] = Place(member_file, data=data, text=(text, length))
    table.missing = [name for name, file in there.items() if file is None]
    files = [file for file in there.values() if file is not None]
    if not files:
        raise SourceError(f"{table.missing[0]}, which {index} names, is missing; put both into one folder")
    keys = list(table.places)
    if (
        len(keys) > 1
        and keys[0].z == keys[1].z
        and keys[0].t != keys[1].t
        and len({key.z for key in keys}) > 1
    ):
        table.order = "ZTC"
    return _from_zero(table), files[0]


def _check_index(index: Path) -> None:
    """Raise `SourceError` for an index that ends within an entry; the lengths in it are not trusted."""
    data, at, images = index.read_bytes(), 0, 0
    while at < len(data):
        end = at
        for _ in ("axes", "name of the file"):
            length = int.from_bytes(data[end : end + 4], "little")
            end += 4 + length
        end += NDTIFF_NUMBERS_BYTES
        if end > len(data):
            raise SourceError(
                f"{index} is damaged or truncated after {images} images; copy the recording again"
            )
        at, images = end, images + 1


def _time_axis(entries: list[Any]) -> str:
    """The time axis: the one of that name, else the only one without another meaning."""
    names = {name for entry in entries for name in entry[0]}
    if "time" in names:
        return "time"
    rest = sorted(names - {"z", "channel", "position", "row", "column"})
    return rest[0] if len(rest) == 1 else "time"


def _coordinates(axes: dict[str, Any], time_axis: str, table: PlaneTable) -> Coordinates:
    t, z = axes.get(time_axis, 0), axes.get("z", 0)
    if not isinstance(t, int) or not isinstance(z, int):
        raise SourceError(
            f"the index of the recording has a time or height that is not a number ({axes}); copy it again"
        )
    rest = [(name, value) for name, value in axes.items() if name not in {time_axis, "z", "channel"}]
    position = (
        str(rest[0][1]) if len(rest) == 1 else " ".join(f"{name}={value}" for name, value in rest) or "0"
    )
    channel = _number_of(table.channels, str(axes.get("channel", 0)))
    return Coordinates(_number_of(table.positions, position), channel, t, z)


def _number_of(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def _from_zero(table: PlaneTable) -> PlaneTable:
    """Shift the heights, which may begin below zero, so that the lowest is 0."""
    low = min((where.z for where in table.places), default=0)
    if low < 0:
        table.places = {
            Coordinates(where.position, where.channel, where.t, where.z - low): place
            for where, place in table.places.items()
        }
        table.sizes = {p: (times, heights - low) for p, (times, heights) in table.sizes.items()}
    return table
