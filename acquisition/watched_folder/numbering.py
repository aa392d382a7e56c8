"""Which number in the names of the files counts, decided from the first names; later names are held against it.

It follows `acquisition.stacks.image_order`, which sees all names of a finished folder at once.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acquisition.stacks.image_names import ImageName, parse_name
from acquisition.stacks.image_order import SURE

Key = tuple[int, ...]
Identity = tuple[object, ...]
ENOUGH = 4
"""Files from which another step than 1 between their numbers is believed, once a missing one was waited for: fewer
may just have one missing between any two."""


@dataclass(frozen=True, slots=True)
class Series:
    """The names of one series of files: same texts, and a number that counts, or several that give the order.

    `columns` are those numbers; `step` is the difference of consecutive ones (1 until several show another), 0 if
    they show no gaps.
    """

    identity: Identity
    columns: tuple[int, ...]
    step: int
    pattern: str

    def key(self, path: Path) -> Key | None:
        """Where a file stands in the order; None if it does not belong to the series."""
        name = parse_name(path)
        if identity_of(name) != self.identity:
            return None
        return tuple(name.numbers[column] for column in self.columns)


@dataclass(frozen=True, slots=True)
class Found:
    """The series that is taken, and the patterns of others with the number of their files."""

    series: Series
    others: dict[str, int] = field(default_factory=dict)


def identity_of(name: ImageName) -> Identity:
    """What all names of a series share: texts, kind of file, and numbers of a position or channel."""
    fixed = tuple(number for number, word in zip(name.numbers, name.words, strict=True) if word in SURE)
    return (name.texts, kind_of(name.path), name.stamps, fixed)


def kind_of(path: Path) -> str:
    """The kind of file by its suffix."""
    suffix = path.suffix.lower()
    return {".tiff": ".tif", ".jpeg": ".jpg"}.get(suffix, suffix)


def find_series(paths: Sequence[Path]) -> Found:
    """The largest series among the files (of several, the first by name), and the others."""
    groups: dict[Identity, list[ImageName]] = defaultdict(list)
    for path in sorted(paths):
        name = parse_name(path)
        groups[identity_of(name)].append(name)
    ranked = sorted(groups.values(), key=lambda names: (-len(names), names[0].path.name))
    others = {names[0].pattern(): len(names) for names in ranked[1:]}
    return Found(_series_of(ranked[0]), others)


def _series_of(names: list[ImageName]) -> Series:
    first = names[0]
    free = [column for column, word in enumerate(first.words) if word not in SURE]
    varying = [c for c in free if len({name.numbers[c] for name in names}) > 1]
    unique = [c for c in varying if len({name.numbers[c] for name in names}) == len(names)]
    counters = [c for c in unique if not first.stamps[c]]
    if len(names) == 1:
        counters = [c for c in free if not first.stamps[c]][-1:]
        varying = varying or free
    if counters:
        best = min(counters, key=lambda c: _span(names, c))
        return Series(identity_of(first), (best,), 1, first.pattern())
    return Series(identity_of(first), tuple(varying), 0, first.pattern())


def _span(names: list[ImageName], column: int) -> int:
    values = [name.numbers[column] for name in names]
    return max(values) - min(values)


def step_of(keys: Sequence[Key]) -> int:
    """What numbers that count increase by, if enough of them show it; else 1."""
    values = sorted({key[0] for key in keys})
    if len(values) < ENOUGH:
        return 1
    return math.gcd(*(after - before for before, after in itertools.pairwise(values)))
