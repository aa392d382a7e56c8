"""Micro-Manager's stacks: its TIFF in one or several files, by their index maps, and NDTiff, by its index.

A recording of more than 4 GB goes on in `NAME_1.ome.tif`, `NAME_2.ome.tif` ... Each file has an index map of its
own with channel, slice, frame, position and place of each image; the summary is the same in all.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from acquisition.stacks.claimed_size import check_size
from acquisition.stacks.library_errors import plain
from acquisition.stacks.plane_table import Coordinates, Place, PlaneTable
from acquisition.stacks.tiff_facts import micromanager_place
from stream.errors import SourceError

MARK = "_MMStack"
TAG = 51123
NDTIFF_INDEX = "NDTiff.index"
NDTIFF_VERSION = 2
"""From this version on a recording has an index file beside it."""
NDTIFF_NUMBERS_BYTES = 32
"""Bytes of the numbers that end an entry of an NDTiff index: offsets, sizes, kinds."""
NDTIFF_TYPES = {0: "uint8", 1: "uint16", 3: "uint16", 4: "uint16", 5: "uint16", 6: "uint16"}
INDEX_MAP_COLUMNS = 5
MOST_OF_A_KIND = 10**5
"""Channels, heights or positions of a recording; a plate of 1536 wells has fewer positions."""
SAME = ("UUID", "Prefix", "StartTime", "Frames", "Slices", "Channels", "Positions", "Width", "Height")
"""What the summaries of the files of one recording agree in."""
INDEXES = ("ChannelIndex", "SliceIndex", "FrameIndex", "PositionIndex")


def micromanager_table(path: Path, file: tifffile.TiffFile) -> PlaneTable | None:
    """The planes of the recording that `file` is a part of.

    Without a summary of Micro-Manager's, those of the file by the tags of its pages if they are of several
    positions, channels or heights; None where nothing says so.
    """
    if not file.is_micromanager:
        return None
    header = _header(file)
    summary = header.get("Summary")
    if header.get("MajorVersion", 0) >= NDTIFF_VERSION:
        return None
    if not isinstance(summary, dict):
        return _table_by_tags(path, file)
    own = _index_map(file, header)
    if not len(own):
        return _table_by_tags(path, file)
    _check_indices(path, own)
    table = PlaneTable("Micro-Manager", positions=_names(summary, own, 3), channels=_names(summary, own, 0))
    table.own = {int(position) for position in np.unique(own[:, 3])}
    maps = {path: own}
    for sibling in _siblings(path):
        other = _same_recording(sibling, summary)
        if other is not None:
            _check_indices(sibling, other)
        if other is not None and table.own & set(map(int, np.unique(other[:, 3]))):
            maps[sibling] = other
    members = sorted(maps, key=lambda member: int(maps[member][:, 2].min()))
    for member in members:
        _add(table, member, maps[member])
    rows = np.concatenate([maps[member] for member in members])
    table.order = _order(maps[members[0]])
    sizes = _size(summary, "Frames", rows[:, 2]), _size(summary, "Slices", rows[:, 1])
    table.sizes = dict.fromkeys(map(int, np.unique(rows[:, 3])), sizes)
    base, numbers = _parts([_split(member)[0] for member in members], begun=int(rows[:, 2].min()) == 0)
    suffix = path.name[len(_split(path)[0]) :]
    table.missing = [_part_name(base, n, suffix) for n in range(max(numbers)) if n not in numbers]
    table.next_file = _part_name(base, max(numbers) + 1, suffix)
    return table


def _check_indices(path: Path, rows: npt.NDArray[np.int64]) -> None:
    if rows[:, [0, 1, 3]].max() > MOST_OF_A_KIND:
        raise SourceError(
            f"the index of {path} names channels, heights or positions beyond all number; copy it again"
        )


def read_summary(file: tifffile.TiffFile) -> dict[str, Any]:
    """What Micro-Manager says of the whole recording; nothing where it says nothing."""
    summary = _header(file).get("Summary")
    return summary if isinstance(summary, dict) else {}


def _header(file: tifffile.TiffFile) -> dict[str, Any]:
    try:
        return dict(tifffile.read_micromanager_metadata(file.filehandle, {"Summary", "IndexMap"}))
    except (ValueError, OSError):
        return {}


def _index_map(file: tifffile.TiffFile, header: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Rows of channel, slice, frame, position, byte; by the pages where a recording has no map at its end."""
    rows = header.get("IndexMap")
    if rows is not None and len(rows):
        return np.asarray(rows, np.int64)
    found = []
    for page in file.pages:
        tags = getattr(page, "tags", None)
        tag = tags.get(TAG) if tags is not None else None
        facts = tag.value if tag is not None and isinstance(tag.value, dict) else {}
        if not all(isinstance(facts.get(name, 0), int) for name in INDEXES) or "FrameIndex" not in facts:
            return np.empty((0, INDEX_MAP_COLUMNS), np.int64)
        found.append([*(int(facts.get(name, 0)) for name in INDEXES), page.offset])
    return np.asarray(found, np.int64).reshape(-1, INDEX_MAP_COLUMNS)


def _table_by_tags(path: Path, file: tifffile.TiffFile) -> PlaneTable | None:
    """The planes of a file by what the tags of its pages say; None where they are all of one place."""
    said: list[dict[str, int | str]] = []
    offsets: list[int] = []
    for page in file.pages:
        tags = getattr(page, "tags", None)
        tag = tags.get(TAG) if tags is not None else None
        said.append(micromanager_place(tag.value) if tag is not None and isinstance(tag.value, dict) else {})
        offsets.append(page.offset)
    named = [_names_where_numbers_are_one(said, axis) for axis in ("position", "channel", "z")]
    several = [len({place for place in column if place is not None}) > 1 for column in named]
    if not any(several):
        return None
    for column, axis, is_several in zip(named, ("position", "channel", "height"), several, strict=True):
        if is_several and None in column:
            raise SourceError(
                f"page {column.index(None)} of {path} does not say of which {axis} it is, as the others do; copy "
                "it again"
            )
    ranks = [_ranks(column) for column in named]
    cells = list(zip(*ranks, strict=True))
    table = PlaneTable(
        "Micro-Manager",
        positions=_labels(said, "position", named[0], ranks[0]),
        channels=_labels(said, "channel", named[1], ranks[1]),
    )
    table.own = set(ranks[0])
    times = _times(cells, [place.get("t") for place in said])
    rows = [[c, z, t, p, at] for (p, c, z), t, at in zip(cells, times, offsets, strict=True)]
    _add(table, path, np.asarray(rows, np.int64))
    table.order = _order(np.asarray(rows, np.int64))
    return table


def _names_where_numbers_are_one(said: list[dict[str, int | str]], axis: str) -> list[int | str | None]:
    """What each page says of its place along an axis: a number, or the name where all numbers are the same."""
    numbers = [place.get(axis) for place in said]
    names = [place.get(f"{axis} name") for place in said]
    return (
        names
        if len({n for n in numbers if n is not None}) < len({n for n in names if n is not None})
        else numbers
    )


def _ranks(column: list[int | str | None]) -> list[int]:
    """The place of each value among all of them: numbers by their size, names as they come."""
    values = list(dict.fromkeys(column))
    if all(isinstance(value, int) for value in values):
        values.sort(key=lambda value: int(value or 0))
    return [values.index(value) for value in column]


def _labels(
    said: list[dict[str, int | str]], axis: str, column: list[int | str | None], ranks: list[int]
) -> list[str]:
    """Names of the positions or channels, their numbers where they have none of their own."""
    names: dict[int, str] = {}
    numbers: dict[int, str] = {}
    for place, value, rank in zip(said, column, ranks, strict=True):
        number = str(0 if value is None else value)
        names.setdefault(rank, str(place.get(f"{axis} name", number)))
        numbers.setdefault(rank, number)
    chosen = names if len(set(names.values())) == len(names) else numbers
    return [chosen[rank] for rank in sorted(chosen)]


def _times(cells: list[tuple[int, ...]], frames: list[int | str | None]) -> list[int]:
    """The time of each page: its frame's number, or its place among those of its cell where that is none.

    The numbers are those of frames where each is there once in a cell and several cells share them.
    """
    pairs = set(zip(cells, frames, strict=True))
    is_frame = all(isinstance(frame, int) and frame >= 0 for frame in frames) and len(pairs) == len(cells)
    if is_frame and len({frame for _, frame in pairs}) < len(pairs):
        return [int(frame or 0) for frame in frames]
    before: Counter[tuple[int, ...]] = Counter()
    times = []
    for cell in cells:
        times.append(before[cell])
        before[cell] += 1
    return times


def _add(table: PlaneTable, member: Path, rows: npt.NDArray[np.int64]) -> None:
    for channel, z, t, position, offset in rows.tolist():
        where = Coordinates(position, channel, t, z)
        before = table.places.get(where)
        if before is not None and before.file != member:
            raise SourceError(
                f"{before.file} and {member.name} hold the same images (frame {t}); one is a copy: move it away"
            )
        table.places[where] = Place(member, offset=offset)


def _siblings(path: Path) -> list[Path]:
    """Files beside it whose names say that they are parts of the same stack."""
    stem, suffix = _split(path)
    bases = {stem, re.sub(r"_\d+$", "", stem)}
    found = []
    for other in sorted(path.parent.iterdir()):
        name, end = _split(other)
        if other != path and end == suffix and (name in bases or re.sub(r"_\d+$", "", name) in bases):
            found.append(other)
    return found


def _split(path: Path) -> tuple[str, str]:
    found = re.fullmatch(r"(.*?)((?:\.ome)?\.tiff?)", path.name, re.IGNORECASE)
    return (found[1], found[2].lower()) if found else (path.name, "")


def _parts(stems: list[str], *, begun: bool) -> tuple[str, list[int]]:
    """The name of the first file, and the number of each part, 0 for the first; `begun`: frame 0 is there."""
    for base in sorted(stems, key=len):
        found = [re.fullmatch(re.escape(base) + r"(?:_(\d+))?", stem) for stem in stems]
        if all(found) and (begun or len(stems) > 1):
            return base, [int(part[1] or 0) for part in found if part]
    pieces = [re.fullmatch(r"(.*)_(\d+)", stem) for stem in stems]
    return (pieces[0][1] if pieces[0] else stems[0]), [int(part[2]) if part else 0 for part in pieces]


def _part_name(base: str, number: int, suffix: str) -> str:
    return f"{base}_{number}{suffix}" if number else f"{base}{suffix}"


def _same_recording(path: Path, summary: dict[str, Any]) -> npt.NDArray[np.int64] | None:
    try:
        with tifffile.TiffFile(path) as file:
            header = _header(file)
            other = header.get("Summary")
            if not isinstance(other, dict) or any(other.get(key) != summary.get(key) for key in SAME):
                return None
            rows = _index_map(file, header)
    except Exception as error:
        raise SourceError(f"{path}, a part of the recording, cannot be read: {plain(error)}") from error
    return rows if len(rows) else None


def _names(summary: dict[str, Any], rows: npt.NDArray[np.int64], column: int) -> list[str]:
    count = int(rows[:, column].max()) + 1
    said = summary.get("ChNames" if column == 0 else "StagePositions")
    names = []
    for number in range(max(count, len(said) if isinstance(said, list) else 0)):
        entry = said[number] if isinstance(said, list) and number < len(said) else None
        label = entry.get("Label") if isinstance(entry, dict) else entry
        names.append(label if isinstance(label, str) and label else str(number))
    return names if len(set(names)) == len(names) else [str(number) for number in range(len(names))]


def _size(summary: dict[str, Any], key: str, seen: npt.NDArray[np.int64]) -> int:
    said = summary.get(key)
    present = int(seen.max()) + 1
    return max(said, present) if isinstance(said, int) and not isinstance(said, bool) else present


def _order(rows: npt.NDArray[np.int64]) -> str:
    """Time changes faster than height where the second plane in the file is the first height at another time."""
    first = rows[(rows[:, 0] == rows[0, 0]) & (rows[:, 3] == rows[0, 3])]
    if len(first) < 2:
        return "TZC"
    return "ZTC" if first[1, 1] == first[0, 1] and len(np.unique(first[:, 1])) > 1 else "TZC"


def ndtiff_index(path: Path) -> Path | None:
    """The index of an NDTiff recording that a folder or a file belongs to; None if there is none."""
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
            raise SourceError(f"{index} names images in colour or compressed; convert them to grey TIFF")
        check_size(index, height, width)
        shape, dtype = (height, width), NDTIFF_TYPES[pixels]
        if table.places and (shape, dtype) != (table.shape, table.dtype):
            raise SourceError(f"{index} names images of several sizes or types; save one of them alone")
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
        raise SourceError(f"{index} is alone: {table.missing[0]} is missing; put them into one folder")
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
    """Raise `SourceError` for an index that ends in the middle of an image; lengths in it are not believed."""
    data, at, images = index.read_bytes(), 0, 0
    while at < len(data):
        end = at
        for _ in ("axes", "name of the file"):
            length = int.from_bytes(data[end : end + 4], "little")
            end += 4 + length
        end += NDTIFF_NUMBERS_BYTES
        if end > len(data):
            raise SourceError(
                f"{index} is damaged or cut short behind {images} images; copy the recording again"
            )
        at, images = end, images + 1


def _time_axis(entries: list[Any]) -> str:
    """The axis along which time passes: the one of that name, else the only one without a meaning of its own."""
    names = {name for entry in entries for name in entry[0]}
    if "time" in names:
        return "time"
    rest = sorted(names - {"z", "channel", "position", "row", "column"})
    return rest[0] if len(rest) == 1 else "time"


def _coordinates(axes: dict[str, Any], time_axis: str, table: PlaneTable) -> Coordinates:
    t, z = axes.get(time_axis, 0), axes.get("z", 0)
    if not isinstance(t, int) or not isinstance(z, int):
        raise SourceError(f"the index of the recording has no number for a time or a height ({axes})")
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
    """Heights may begin below zero."""
    low = min((where.z for where in table.places), default=0)
    if low < 0:
        table.places = {
            Coordinates(where.position, where.channel, where.t, where.z - low): place
            for where, place in table.places.items()
        }
        table.sizes = {p: (times, heights - low) for p, (times, heights) in table.sizes.items()}
    return table
