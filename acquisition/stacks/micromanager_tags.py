"""Micro-Manager files without an index map: their planes by the tags of the pages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import tifffile

from acquisition.stacks.plane_rows import add_rows, order_of
from acquisition.stacks.plane_table import PlaneTable
from acquisition.stacks.tiff_facts import micromanager_place
from stream.errors import SourceError

TAG = 51123


def table_by_tags(path: Path, file: tifffile.TiffFile) -> PlaneTable | None:
    """The planes of a file by the tags of its pages; None if all have the same position, channel and height."""
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
                f"page {column.index(None)} of {path} has no {axis} in its tags, unlike the others; copy "
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
    add_rows(table, path, np.asarray(rows, np.int64))
    table.order = order_of(np.asarray(rows, np.int64))
    return table


def _names_where_numbers_are_one(said: list[dict[str, int | str]], axis: str) -> list[int | str | None]:
    """The place of each page along an axis: its number, or its name if all numbers are the same."""
    numbers = [place.get(axis) for place in said]
    names = [place.get(f"{axis} name") for place in said]
    return (
        names
        if len({n for n in numbers if n is not None}) < len({n for n in names if n is not None})
        else numbers
    )


def _ranks(column: list[int | str | None]) -> list[int]:
    """The rank of each value: numbers by size, names in the order in which they appear."""
    values = list(dict.fromkeys(column))
    if all(isinstance(value, int) for value in values):
        values.sort(key=lambda value: int(value or 0))
    return [values.index(value) for value in column]


def _labels(
    said: list[dict[str, int | str]], axis: str, column: list[int | str | None], ranks: list[int]
) -> list[str]:
    """Names of the positions or channels, or their numbers if the names are not unique."""
    names: dict[int, str] = {}
    numbers: dict[int, str] = {}
    for place, value, rank in zip(said, column, ranks, strict=True):
        number = str(0 if value is None else value)
        names.setdefault(rank, str(place.get(f"{axis} name", number)))
        numbers.setdefault(rank, number)
    chosen = names if len(set(names.values())) == len(names) else numbers
    return [chosen[rank] for rank in sorted(chosen)]


def _times(cells: list[tuple[int, ...]], frames: list[int | str | None]) -> list[int]:
    """The time index of each page: its frame number, or its place among the pages of its cell.

    The numbers are used if each appears once in a cell and several cells share them.
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
