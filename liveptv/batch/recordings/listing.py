"""Recordings from a list: a text file of paths, or a table with settings of their own for some of them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from liveptv.batch.recordings.entry import Entry
from liveptv.batch.recordings.naming import checked, names_of
from stream.errors import ConfigurationError

SUFFIXES = (".txt", ".csv", ".tsv", ".lst")
SHORT = {
    "pixel_size_um": "recording.pixel_size_um",
    "frame_rate_hz": "recording.frame_rate_hz",
    "axes": "recording.axes",
    "z_step_um": "recording.z_step_um",
    "model": "detector.model",
    "bright": "detector.bright",
    "dark": "detector.dark",
}
"""Columns that stand for a setting; others are given as `section.key`."""
FILES = {"detector.model", "detector.bright", "detector.dark"}
MOST_BYTES = 100_000_000


def is_list(path: Path) -> bool:
    """Whether a path is a list of recordings, by its suffix."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_list(path: Path) -> list[Entry]:
    """The recordings of a list; paths are relative to its folder.

    A table has a line of names first, one of which is `recording`; the others are `name`, `pixel_size_um`,
    `frame_rate_hz`, `axes`, `z_step_um`, `model`, `bright`, `dark` or a setting `section.key`. Anything else is a
    path a line, without those that are empty or begin with #. Raises `ConfigurationError` with the line.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigurationError(f"{path} is no list of recordings: it has more than {MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not a UTF-8 text file") from error
    if "\0" in text:
        raise ConfigurationError(f"{path} is not a text file")
    header = text.partition("\n")[0]
    separator = next((mark for mark in "\t;," if mark in header), ",")
    columns = [column.strip().strip('"') for column in header.split(separator)]
    entries = _table(path, text, separator) if "recording" in columns else _lines(path, text)
    if not entries:
        raise ConfigurationError(f"{path} lists no recording")
    return _named(entries)


def _lines(path: Path, text: str) -> list[Entry]:
    found = [line.strip() for line in text.splitlines()]
    return [Entry(_absolute(path, line), "") for line in found if line and line[0] != "#"]


def _table(path: Path, text: str, separator: str) -> list[Entry]:
    entries = []
    rows = csv.DictReader(io.StringIO(text), delimiter=separator)
    names = [(name or "").strip() for name in rows.fieldnames or ()]
    for name in names:
        if name not in {"recording", "name", "", *SHORT} and "." not in name:
            raise ConfigurationError(
                f"{path}: the column {name!r} is not known; there are recording, name, {', '.join(SHORT)}, and "
                "settings as section.key"
            )
    for row in rows:
        given = {
            (key or "").strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str)
        }
        if not given.get("recording"):
            if any(given.values()):
                raise ConfigurationError(f"{path}, line {rows.line_num}: there is no recording")
            continue
        settings = []
        for key, value in given.items():
            setting = SHORT.get(key, key)
            if value and "." in setting:
                settings.append(f"{setting}={_absolute(path, value) if setting in FILES else value}")
        name = given.get("name", "")
        entries.append(
            Entry(_absolute(path, given["recording"]), checked(name) if name else "", tuple(settings))
        )
    return entries


def _absolute(path: Path, given: str) -> Path:
    return (path.parent / given).absolute()


def _named(entries: list[Entry]) -> list[Entry]:
    given = [entry.name.lower() for entry in entries if entry.name]
    if len(set(given)) < len(given):
        twice = next(name for name in given if given.count(name) > 1)
        raise ConfigurationError(f"two recordings of the list have the name {twice}; give each its own")
    names = names_of([entry.path for entry in entries])
    named = [
        entry if entry.name else replace(entry, name=name) for entry, name in zip(entries, names, strict=True)
    ]
    found = [entry.name.lower() for entry in named]
    taken = next((name for name in found if found.count(name) > 1), "")
    if taken:
        raise ConfigurationError(f"two recordings of the list would be called {taken}; give them other names")
    return named
