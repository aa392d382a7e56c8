"""Selects one of several recordings in a file or folder: `PATH::position=1,channel=GFP`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream.errors import SourceError

SEPARATOR = "::"
KEYS = ("position", "channel", "series", "z", "files")
CHANNELS_OR_TIMES = "; pass --axes TYX if they are times"
MOST_NAMES = 8
"""Names listed in an error before "and N more"."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The text behind `::`, by key; `dataset` if it is only a name, as of an HDF5 dataset."""

    given: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""

    def get(self, *keys: str) -> str | None:
        """The value of the first of these keys that was given; None if none was."""
        return next((self.given[key] for key in keys if key in self.given), None)

    def refuse_rest(self, path: Path, known: Sequence[str]) -> None:
        """Raise `SourceError` for a key that does not apply to this recording."""
        for key in self.given:
            if key not in known:
                raise SourceError(f"{path} has no {key} to choose; leave out {SEPARATOR}{key}=...")
        self.refuse_dataset(path)

    def refuse_dataset(self, path: Path) -> None:
        """Raise `SourceError` for a text behind `::` that is not one of the keys."""
        key, equals, _ = self.dataset.partition("=")
        if equals:
            raise SourceError(
                f"{key.strip()!r} in {path}{SEPARATOR}{self.dataset} is not a key; use one of "
                f"{', '.join(KEYS)}, as in {SEPARATOR}position=1,channel=0"
            )
        if self.dataset:
            raise SourceError(
                f"{path} has no dataset {self.dataset!r}; choose with {SEPARATOR}position=1 or {SEPARATOR}channel=0"
            )


def file_of(path: Path) -> Path:
    """The file or folder of a path, without the choice behind `::`."""
    return Path(str(path).partition(SEPARATOR)[0])


def name_of(path: Path) -> str:
    """The last part of a path, with the choice behind `::`."""
    _, separator, rest = str(path).partition(SEPARATOR)
    return file_of(path).name + separator + rest


def parse_choice(path: Path) -> Choice:
    """Parse the text behind `::`. Raises `SourceError` for a key given twice or without a value."""
    rest = str(path).partition(SEPARATOR)[2]
    dataset = ""
    if not any(rest.startswith(f"{key}=") for key in KEYS):
        dataset, comma, rest = rest.partition(",channel=")
        if not comma:
            return Choice(dataset=dataset)
        rest = f"channel={rest}"
    given: dict[str, str] = {}
    for part in rest.split(","):
        key, _, value = (text.strip() for text in part.partition("="))
        if key not in KEYS or not value or key in given:
            raise SourceError(
                f"{part!r} in {path} is not a valid choice; write for example {SEPARATOR}position=1,channel=0 "
                f"(keys: {', '.join(KEYS)}, each once)"
            )
        given[key] = value
    return Choice(given, dataset)


def choose(path: Path, key: str, names: Sequence[str], given: str | None, about: str = "") -> int:
    """The index of the chosen one of `names`; `given` is a name, a number, or None.

    Raises `SourceError`, with the names, if there are several and none is given, or `given` does not exist.
    """
    if given is None:
        if len(names) == 1:
            return 0
        raise SourceError(
            f"{path} contains {len(names)} {_plural(key)} ({listed(names)}){about}; choose one, as in "
            f'"{path}{SEPARATOR}{key}={_example(names, key)}"'
        )
    if given in names:
        return names.index(given)
    if given.isdigit():
        numbers = [int(name) if name.isdigit() else None for name in names]
        if int(given) in numbers:
            return numbers.index(int(given))
        if not any(name.isdigit() for name in names) and int(given) < len(names):
            return int(given)
    raise SourceError(f"{path} has no {key} {given!r}, only {listed(names)}")


@dataclass(frozen=True, slots=True)
class Channel:
    """The channel of an array to read: index `number` of `count` along the axis `axis`."""

    axis: int
    number: int
    count: int

    def without(self, sizes: Sequence[Any]) -> tuple[Any, ...]:
        """Sizes or names of all axes except that of the channels."""
        return (*sizes[: self.axis], *sizes[self.axis + 1 :])


def choose_channel(
    path: Path, shape: Sequence[int], axes: str, choice: Choice, named: Sequence[str] = ()
) -> Channel | None:
    """The chosen channel of an array; None without a channel axis (C). `named` are the names of the channels.

    Raises `SourceError` if there are several and none is chosen, or one is chosen and there are none.
    """
    given = choice.get("channel")
    if "C" not in axes or len(axes) != len(shape):
        if given is not None:
            choice.refuse_rest(path, tuple(key for key in KEYS if key != "channel"))
        return None
    axis = axes.index("C")
    count = shape[axis]
    sole = all(size == 1 for name, size in zip(axes, shape, strict=True) if name not in "CYX")
    names = list(named) if len(set(named)) == count else [str(number) for number in range(count)]
    return Channel(axis, choose(path, "channel", names, given, CHANNELS_OR_TIMES if sole else ""), count)


def listed(names: Sequence[str]) -> str:
    """The first names, for an error."""
    shown = ", ".join(names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _example(names: Sequence[str], key: str) -> str:
    name = names[-1 if len(names) == 2 and not (key == "channel" and names[0] == "0") else 0]
    return name if not any(sign in name for sign in ",: ") else str(names.index(name))


def _plural(key: str) -> str:
    return {"series": "series", "z": "heights", "files": "series of images"}.get(key, f"{key}s")
