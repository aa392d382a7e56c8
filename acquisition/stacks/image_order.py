"""Orders the images in a folder by the numbers in their names, and finds missing ones.

The number that differs from name to name is the frame number. Numbers behind a word (`position001`, `z003`, `ch2`)
count positions, heights and channels; a date with a time is one number. A gap in the frame numbers is a lost frame.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acquisition.stacks.image_names import (
    OLD_MICROMANAGER,
    ImageName,
    matches,
    parse_name,
    unnumbered_first,
    with_decimals,
    with_times,
)
from acquisition.stacks.plane_table import Coordinates, Place, PlaneTable
from acquisition.stacks.video_choice import choose, listed
from stream.errors import SourceError

SURE = {
    "position": "position", "pos": "position", "xy": "position", "site": "position", "well": "position",
    "fov": "position", "channel": "channel", "chan": "channel", "ch": "channel",
}  # fmt: skip
"""Words that never precede a frame number."""
LIKELY = {
    "p": "position", "s": "position", "series": "position", "c": "channel", "w": "channel",
    "z": "z", "slice": "z", "plane": "z", "focus": "z",
}  # fmt: skip
"""Words that tell what a number counts if it is not the only one that differs."""
MOSTLY = 0.5
"""A step between numbers that makes up at least this fraction of all is the step of the counter."""
NEIGHBOURS = 0.1
"""If at least this fraction of steps is 1, the numbers are a counter, however many are lost."""
DENSE = 2
"""The numbers of a counter span less than this many times their count."""


@dataclass(frozen=True, slots=True)
class SortedImages:
    """The images of a folder in a table; `first` is the number of the image at time index 0.

    `first` is None if the names have no counter: then gaps are unknown. `notes` are for the user.
    """

    table: PlaneTable
    first: int | None
    notes: tuple[str, ...] = ()


def sort_images(folder: Path, files: Sequence[Path], wanted: str | None = None) -> SortedImages:
    """Sort images by their names; `wanted` is a pattern, `a_*.tif`, or None.

    Raises `SourceError` if there are several series of images, or two images with the same number.
    """
    names = [parse_name(path) for path in files if wanted is None or matches(path, wanted)]
    if not names:
        raise SourceError(f"no image in {folder} matches {wanted}")
    groups: dict[tuple[str, ...], list[ImageName]] = defaultdict(list)
    for name in names:
        groups[name.texts].append(name)
    channels = list(groups) if all(OLD_MICROMANAGER.fullmatch(name.path.stem) for name in names) else []
    if len(groups) > 1 and not channels:
        names = unnumbered_first(list(groups.values())) or _one_series(
            folder, {found[0].pattern(): found for found in groups.values()}, wanted
        )
    return _table(folder, with_decimals(with_times(names)), channels, wanted)


def _one_series(folder: Path, groups: dict[str, list[ImageName]], wanted: str | None) -> list[ImageName]:
    patterns = sorted(groups)
    about = f" with {listed([str(len(groups[pattern])) for pattern in patterns])} images"
    return groups[patterns[choose(folder, "files", patterns, wanted if wanted in patterns else None, about)]]


def _table(
    folder: Path, names: list[ImageName], channels: list[tuple[str, ...]], wanted: str | None
) -> SortedImages:
    """Table of images whose names differ only in their numbers (and in the texts of `channels`)."""
    roles = _roles(names)
    cells: dict[tuple[str, str, int], list[ImageName]] = defaultdict(list)
    for name in names:
        channel = name.texts[1].strip("_") if channels else _digits(name, roles, "channel")
        height = next((name.numbers[c] for c, role in roles.items() if role == "z"), 0)
        cells[_digits(name, roles, "position"), channel, height].append(name)
    free = [c for c, role in roles.items() if role == "t"]
    order = _frame_numbers(list(cells.values()), free)
    if order is None:
        few = min(free, key=lambda c: len({name.numbers[c] for name in names}))
        groups: dict[str, list[ImageName]] = defaultdict(list)
        for name in names:
            groups[name.pattern(few)].append(name)
        return _table(folder, _one_series(folder, groups, wanted), channels, wanted)
    numbers, is_stamp = order
    first, step = _counter(sorted(set(numbers.values()))) if not is_stamp else (0, 0)
    rank = {value: place for place, value in enumerate(sorted(set(numbers.values())))}
    table = PlaneTable("folder")
    table.positions = sorted({position for position, _, _ in cells})
    table.channels = sorted({channel for _, channel, _ in cells})
    heights = sorted({height for _, _, height in cells})
    for (position, channel, height), members in cells.items():
        for name in members:
            value = numbers[name.path]
            where = Coordinates(
                table.positions.index(position),
                table.channels.index(channel),
                (value - first) // step if step else rank[value],
                heights.index(height),
            )
            if where in table.places:
                raise SourceError(
                    f"{table.places[where].file} and {name.path.name} have the same number; remove one of them"
                )
            table.places[where] = Place(name.path)
    return SortedImages(
        table, (first if step == 1 else 0) if step else None, _notes(step, len(rank), is_stamp)
    )


def _notes(step: int, count: int, is_stamp: bool) -> tuple[str, ...]:
    if is_stamp and count > 1:
        return ("the images are ordered by the times in their names, which do not show gaps",)
    if step > 1:
        return (f"the numbers of the images increase by {step}, which is taken as one frame",)
    if not step and count > 1:
        return ("the numbers of the images are not a counter; they give the order, but do not show gaps",)
    return ()


def _roles(names: list[ImageName]) -> dict[int, str]:
    """What the varying numbers count: `position`, `channel`, `z`, or `t` for all others."""
    words = names[0].words
    varying = [c for c in range(len(words)) if len({name.numbers[c] for name in names}) > 1]
    is_grid = "time" in words and "z" in words
    roles = {}
    for column in varying:
        role = SURE.get(words[column])
        unique = len({name.numbers[column] for name in names}) == len(names)
        if role is None and (is_grid or (len(varying) > 1 and not unique)):
            role = LIKELY.get(words[column])
        roles[column] = role or "t"
    return roles


def _digits(name: ImageName, roles: dict[int, str], role: str) -> str:
    return "_".join(name.digits[c] for c, found in roles.items() if found == role) or "0"


def _frame_numbers(cells: list[list[ImageName]], free: list[int]) -> tuple[dict[Path, int], bool] | None:
    """The frame number of each file, and whether it is a time of day; None if there are several series."""
    names = [name for cell in cells for name in cell]
    if not free:
        return dict.fromkeys((name.path for name in names), 0), False
    unique = [c for c in free if all(len({name.numbers[c] for name in cell}) == len(cell) for cell in cells)]
    shared = [c for c in free if c not in unique and not names[0].stamps[c]]
    counters = [c for c in unique if not names[0].stamps[c] and _agrees(cells, c, shared)]
    if counters:
        best = min(counters, key=lambda c: _span(names, c))
        _check_one_order(names, counters, best)
        return {name.path: name.numbers[best] for name in names}, False
    tuples = {name.path: tuple(name.numbers[c] for c in free) for name in names}
    if names[0].stamps[free[0]] and all(
        len({tuples[name.path] for name in cell}) == len(cell) for cell in cells
    ):
        rank = {found: place for place, found in enumerate(sorted(set(tuples.values())))}
        return {path: rank[found] for path, found in tuples.items()}, True
    return None


def _agrees(cells: list[list[ImageName]], counter: int, shared: list[int]) -> bool:
    """Whether the numbers that several images share never decrease in the order of a counter."""
    for cell in cells:
        ordered = sorted(cell, key=lambda name: name.numbers[counter])
        for before, after in itertools.pairwise(ordered):
            if any(before.numbers[c] > after.numbers[c] for c in shared):
                return False
    return True


def _span(names: list[ImageName], column: int) -> int:
    values = [name.numbers[column] for name in names]
    return max(values) - min(values)


def _check_one_order(names: list[ImageName], counters: list[int], best: int) -> None:
    """Raise `SourceError` if another counter gives another order."""
    for column in counters:
        if column == best or _span(names, column) >= DENSE * len(names):
            continue
        by_best = sorted(names, key=lambda name: name.numbers[best])
        if by_best != sorted(names, key=lambda name: name.numbers[column]):
            raise SourceError(
                f"two numbers in the names of the images in {names[0].path.parent} give different orders (as in "
                f"{names[0].path.name}); rename them so that one number counts"
            )


def _counter(values: list[int]) -> tuple[int, int]:
    """The first number and the step of a counter; step 0 if the numbers are not a counter."""
    if len(values) == 1:
        return values[0], 1
    steps = Counter(after - before for before, after in itertools.pairwise(values))
    step, times = steps.most_common(1)[0]
    if times >= MOSTLY * (len(values) - 1) and all(found % step == 0 for found in steps):
        return values[0], step
    is_counter = steps[1] >= NEIGHBOURS * (len(values) - 1) or values[-1] - values[0] < DENSE * len(values)
    return values[0], 1 if is_counter else 0
