"""Micro-Manager's TIFF stacks, in one or several files, by their index maps.

A recording of more than 4 GB continues in `NAME_1.ome.tif`, `NAME_2.ome.tif` ... Each file has its own index map
with the channel, slice, frame, position and byte offset of each image; all have the same summary.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from acquisition.stacks.library_errors import plain
from acquisition.stacks.micromanager_tags import TAG, table_by_tags
from acquisition.stacks.plane_rows import add_rows, order_of
from acquisition.stacks.plane_table import PlaneTable
from stream.errors import SourceError

MARK = "_MMStack"
NDTIFF_VERSION = 2
"""From this version on a recording has an index file (NDTiff)."""
INDEX_MAP_COLUMNS = 5
MOST_OF_A_KIND = 10**5
"""Most channels, heights or positions of a recording; a plate has 1536 wells."""
SAME = ("UUID", "Prefix", "StartTime", "Frames", "Slices", "Channels", "Positions", "Width", "Height")
"""Keys of the summary that are equal in all files of one recording."""
INDEXES = ("ChannelIndex", "SliceIndex", "FrameIndex", "PositionIndex")


def micromanager_table(path: Path, file: tifffile.TiffFile) -> PlaneTable | None:
    """The planes of the recording that `file` belongs to.

    Without a Micro-Manager summary, the planes of the file by the tags of its pages if these name several
    positions, channels or heights; otherwise None.
    """
    if not file.is_micromanager:
        return None
    header = _header(file)
    summary = header.get("Summary")
    if header.get("MajorVersion", 0) >= NDTIFF_VERSION:
        return None
    if not isinstance(summary, dict):
        return table_by_tags(path, file)
    own = _index_map(file, header)
    if not len(own):
        return table_by_tags(path, file)
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
        add_rows(table, member, maps[member])
    rows = np.concatenate([maps[member] for member in members])
    table.order = order_of(maps[members[0]])
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
            f"the index of {path} has impossible numbers of channels, heights or positions; copy it again"
        )


def read_summary(file: tifffile.TiffFile) -> dict[str, Any]:
    """Micro-Manager's summary of the recording; empty if there is none."""
    summary = _header(file).get("Summary")
    return summary if isinstance(summary, dict) else {}


def _header(file: tifffile.TiffFile) -> dict[str, Any]:
    try:
        return dict(tifffile.read_micromanager_metadata(file.filehandle, {"Summary", "IndexMap"}))
    except (ValueError, OSError):
        return {}


def _index_map(file: tifffile.TiffFile, header: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Rows of channel, slice, frame, position, byte; from the pages if the file has no index map."""
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


def _siblings(path: Path) -> list[Path]:
    """Files in the same folder whose names suggest that they are parts of the same stack."""
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
    """The name of the first file, and the number of each part, 0 for the first; `begun`: frame 0 exists."""
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
