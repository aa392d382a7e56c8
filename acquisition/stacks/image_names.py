"""Parses names of image files: the numbers in them, and the words that tell what the numbers count."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

STAMP = re.compile(
    r"(?<![0-9])([0-9]{4})[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12][0-9]|3[01])[-_ T.]*"
    r"([01][0-9]|2[0-3])[-_:.h]?([0-5][0-9])[-_:.m]?([0-5][0-9])(?:[-_:.,s]?([0-9]{6}|[0-9]{3}))?(?![0-9])"
)
"""A date with a time of day, as Basler's and other programs write it into names."""
CLOCK = re.compile(r"([01]?[0-9]|2[0-3])([-_.: ]|h)([0-5][0-9])([-_.: ]|m)([0-5][0-9])")
"""A time of day without a date; the two separators must be the same, or `h` and `m`."""
CLOCK_ALONE = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9])")
"""The same without separators; it counts as a time if a date precedes it."""
EVEN = 3
"""If numbers are times of day, the step into the next minute is at most this many median steps."""
OLD_MICROMANAGER = re.compile(r"img_(?P<t>[0-9]{9})_(?P<channel>.*)_(?P<z>[0-9]{3})", re.IGNORECASE)
COPY = re.compile(r"(?P<stem>.*?)(?: *\([0-9]+\)|[ _-]+[0-9]+)", re.DOTALL)
"""The number that a program appends to a name that already exists."""
NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class ImageName:
    """A parsed name: `texts` around the `digits`; `words` are the letters just before these.

    `numbers` are the values of the digits, `stamps` tell which are a date with a time (in us, with months of 32
    days).
    """

    path: Path
    texts: tuple[str, ...]
    digits: tuple[str, ...]
    numbers: tuple[int, ...]
    words: tuple[str, ...]
    stamps: tuple[bool, ...]

    def pattern(self, fixed: int | None = None) -> str:
        """The name with `*` for its numbers, except for number `fixed`."""
        parts = [digits if place == fixed else "*" for place, digits in enumerate(self.digits)]
        pieces = [text + part for text, part in zip(self.texts, [*parts, ""], strict=True)]
        return ("".join(pieces) + self.path.suffix).lower()


def parse_name(path: Path) -> ImageName:
    """Parse a name; case does not matter."""
    old = OLD_MICROMANAGER.fullmatch(path.stem)
    if old is not None:
        # the channel name in the middle may contain numbers
        digits = (old["t"], old["z"])
        texts = ("img_", f"_{old['channel'].lower()}_", "")
        return ImageName(path, texts, digits, (int(old["t"]), int(old["z"])), ("time", "z"), (False, False))
    stem, at = path.stem, 0
    texts_found: list[str] = []
    matches: list[re.Match[str]] = []
    stamps: list[bool] = []
    while (number := NUMBER.search(stem, at)) is not None:
        stamp = STAMP.search(stem, at)
        is_stamp = stamp is not None and stamp.start() <= number.start()
        match = stamp if stamp is not None and is_stamp else number
        texts_found.append(stem[at : match.start()].lower())
        matches.append(match)
        stamps.append(is_stamp)
        at = match.end()
    return ImageName(
        path=path,
        texts=(*texts_found, stem[at:].lower()),
        digits=tuple(match[0] for match in matches),
        numbers=tuple(
            _microseconds(match) if stamp else int(match[0])
            for match, stamp in zip(matches, stamps, strict=True)
        ),
        words=tuple(_word(text) for text in texts_found),
        stamps=tuple(stamps),
    )


def _word(text: str) -> str:
    found = re.search(r"([a-z]+)[ _=-]*$", text)
    return found[1] if found else ""


def _microseconds(stamp: re.Match[str]) -> int:
    """A number in us that increases with the date and time."""
    year, month, day, hour, minute, second = (int(stamp[group]) for group in range(1, 7))
    seconds = ((((year * 12 + month) * 32 + day) * 24 + hour) * 60 + minute) * 60 + second
    return seconds * 10**6 + int((stamp[7] or "0").ljust(6, "0"))


def with_times(names: list[ImageName]) -> list[ImageName]:
    """Join `12-00-07`, `12h00m07s`, and `120007` behind a date, to one number if all names have it.

    Numbers with the same separators that count something else (`01-00-12`: position, channel, frame) are left
    alone: they jump where a time would step into the next minute.
    """
    for column in range(len(names[0].numbers)):
        for columns in (3, 1):
            found = [_clock_us(name, column, columns) for name in names]
            if None in found:
                continue
            times = [time or 0 for time in found]
            if columns == 1 or _is_clock(names, column, times):
                return [
                    _with_time(name, column, columns, time) for name, time in zip(names, times, strict=True)
                ]
    return names


def _clock_us(name: ImageName, column: int, columns: int) -> int | None:
    """The time of day, us, in this many numbers from `column` on; None if they are not one."""
    if column + columns > len(name.numbers) or any(name.stamps[column : column + columns]):
        return None
    if columns == 1:
        found = CLOCK_ALONE.fullmatch(name.digits[column])
        parts = found.groups() if found is not None and _is_behind_date(name, column) else None
    else:
        one, other = name.texts[column + 1 : column + 3]
        text = f"{name.digits[column]}{one}{name.digits[column + 1]}{other}{name.digits[column + 2]}"
        found = CLOCK.fullmatch(text)
        is_time = found is not None and (one == other or one + other == "hm")
        parts = (found[1], found[3], found[5]) if found is not None and is_time else None
    if parts is None:
        return None
    hour, minute, second = map(int, parts)
    return ((hour * 60 + minute) * 60 + second) * 10**6


def _is_behind_date(name: ImageName, column: int) -> bool:
    """Whether the numbers before a column are a date: 240131, 31012024, 31 01 2024 and the like."""
    before = name.digits[max(column - 3, 0) : column]
    if not before or re.fullmatch(r"[-_ .t]+", name.texts[column]) is None:
        return False
    if len(before[-1]) in {6, 8}:
        text = before[-1]
    elif len(before) == 3 and sorted(map(len, before)) in ([2, 2, 2], [2, 2, 4]):
        text = "".join(before)
    else:
        return False
    shapes = ((2, 2, 2),) if len(text) == 6 else ((4, 2, 2), (2, 2, 4))
    for shape in shapes:
        first, middle = shape[0], shape[0] + shape[1]
        parts = sorted(int(part) for part in (text[:first], text[first:middle], text[middle:]))
        if 1 <= parts[0] <= 12 and 1 <= parts[1] <= 31:
            return True
    return False


def _is_clock(names: list[ImageName], column: int, times: list[int]) -> bool:
    """Whether numbers that look like a time of day are one: by their separators, or without a jump per minute."""
    if names[0].texts[column + 1] in {"h", ":"}:
        return True
    if not any(len({name.numbers[c] for name in names}) > 1 for c in (column, column + 1)):
        return False
    ordered = sorted(set(times))
    steps = [after - before for before, after in pairwise(ordered)]
    into = [
        step
        for step, before, after in zip(steps, ordered, ordered[1:], strict=False)
        if before // 60_000_000 != after // 60_000_000
    ]
    middle = sorted(steps)[len(steps) // 2] if steps else 0
    return bool(into) and min(into) <= EVEN * middle


def _with_time(name: ImageName, column: int, columns: int, time_us: int) -> ImageName:
    last = column + columns
    digits = "-".join(name.digits[column:last])
    if last < len(name.digits) and name.texts[last] in {".", ","} and len(name.digits[last]) in {3, 6}:
        time_us += int(name.digits[last].ljust(6, "0"))
        digits += f".{name.digits[last]}"
        last += 1
    return replace(
        name,
        texts=(*name.texts[: column + 1], *name.texts[last:]),
        digits=(*name.digits[:column], digits, *name.digits[last:]),
        numbers=(*name.numbers[:column], time_us, *name.numbers[last:]),
        words=(*name.words[: column + 1], *name.words[last:]),
        stamps=(*name.stamps[:column], True, *name.stamps[last:]),
    )


def with_decimals(names: list[ImageName]) -> list[ImageName]:
    """Join `t0.05`, `t0.10` ... to one number if all have the same number of decimals."""
    for column in range(len(names[0].numbers) - 1):
        widths = {len(name.digits[column + 1]) for name in names}
        plain = not any(names[0].stamps[column : column + 2])
        if names[0].texts[column + 1] == "." and len(widths) == 1 and plain:
            return with_decimals([_joined(name, column) for name in names])
    return names


def _joined(name: ImageName, column: int) -> ImageName:
    digits = f"{name.digits[column]}.{name.digits[column + 1]}"
    number = int(name.digits[column] + name.digits[column + 1])
    rest = column + 2
    return replace(
        name,
        texts=(*name.texts[: column + 1], *name.texts[rest:]),
        digits=(*name.digits[:column], digits, *name.digits[rest:]),
        numbers=(*name.numbers[:column], number, *name.numbers[rest:]),
        words=(*name.words[: column + 1], *name.words[rest:]),
        stamps=(*name.stamps[: column + 1], *name.stamps[rest:]),
    )


def unnumbered_first(groups: list[list[ImageName]]) -> list[ImageName]:
    """Put `frame.tif` before `frame (1).tif`, `frame (2).tif` ...; empty if the names are not like that."""
    lone, rest = sorted(groups, key=len)[0], sorted(groups, key=len)[-1]
    first = min(rest, key=lambda name: name.numbers)
    if len(groups) > 2 or len(lone) > 1 or not first.numbers or first.numbers[-1] < 1:
        return []
    for name in rest:
        found = COPY.fullmatch(name.path.stem)
        if found is None or found["stem"].lower() != lone[0].path.stem.lower():
            return []
    return [replace(first, path=lone[0].path, numbers=(*first.numbers[:-1], first.numbers[-1] - 1)), *rest]


def matches(path: Path, pattern: str) -> bool:
    """Whether a name fits a pattern, in which `*` stands for anything."""
    pieces = (re.escape(piece) for piece in pattern.lower().split("*"))
    return re.fullmatch(".*".join(pieces), path.name.lower(), re.DOTALL) is not None
