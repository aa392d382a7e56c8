"""Names of image files, taken to pieces: the numbers in them, and the words that say what they count."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

STAMP = re.compile(
    r"(?<![0-9])([0-9]{4})[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12][0-9]|3[01])[-_ T.]*"
    r"([01][0-9]|2[0-3])[-_:.h]?([0-5][0-9])[-_:.m]?([0-5][0-9])(?:[-_:.,s]?([0-9]{6}|[0-9]{3}))?(?![0-9])"
)
"""A date and a time of day, as Basler's and other programs write them into names."""
OLD_MICROMANAGER = re.compile(r"img_(?P<t>[0-9]{9})_(?P<channel>.*)_(?P<z>[0-9]{3})", re.IGNORECASE)
COPY = re.compile(r"(?P<stem>.*?)(?: *\([0-9]+\)|[ _-]+[0-9]+)", re.DOTALL)
"""What a program appends to a name that is taken."""
NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class ImageName:
    """A name in pieces: `texts` around the `digits`; `words` are the letters just before them.

    `numbers` are the digits' values, `stamps` say which are a date with a time (in us, of months of 32 days).
    """

    path: Path
    texts: tuple[str, ...]
    digits: tuple[str, ...]
    numbers: tuple[int, ...]
    words: tuple[str, ...]
    stamps: tuple[bool, ...]

    def pattern(self, fixed: int | None = None) -> str:
        """The name with `*` for its numbers, but for number `fixed`."""
        parts = [digits if place == fixed else "*" for place, digits in enumerate(self.digits)]
        pieces = [text + part for text, part in zip(self.texts, [*parts, ""], strict=True)]
        return ("".join(pieces) + self.path.suffix).lower()


def parse_name(path: Path) -> ImageName:
    """Take a name to pieces. Letters count as small ones."""
    old = OLD_MICROMANAGER.fullmatch(path.stem)
    if old is not None:
        # the channel's name in the middle may hold numbers of its own
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
    """A time that rises with the calendar's."""
    year, month, day, hour, minute, second = (int(stamp[group]) for group in range(1, 7))
    seconds = ((((year * 12 + month) * 32 + day) * 24 + hour) * 60 + minute) * 60 + second
    return seconds * 10**6 + int((stamp[7] or "0").ljust(6, "0"))


def with_decimals(names: list[ImageName]) -> list[ImageName]:
    """`t0.05`, `t0.10` ... have one number, not two, where all have as many digits behind the point."""
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
    """`frame.tif` beside `frame (1).tif`, `frame (2).tif` ... is the one before the first; else nothing."""
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
