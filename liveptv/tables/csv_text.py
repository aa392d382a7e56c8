"""Opens a text table of any program: finds its encoding, its separator and its header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from stream.errors import SourceError

PROBE_BYTES = 1 << 16  # bytes read to find the encoding
MOST_LINE = 1 << 20  # characters of a line; a longer one is no table
MOST_LINES_BEFORE = 100  # lines before the header; programs write a few comments
SEPARATORS = (",", ";", "\t")
COMMENTS = ("#", "%")
MISSING = frozenset({"na", "n/a", "#n/a", "none", "null", "nil"})
NUMBER = re.compile(r"^[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?$")
UNIT = re.compile(r"^\(.*\)$|^\[.*\]$|^$")
TRACKMATE_MARK, MOST_ROWS_OF_NAMES = "POSITION_X", 3


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text: `names` of its columns, `units` by name where it has a row of them.

    The data begin with line `first_line`, from 1.
    """

    path: Path
    encoding: str
    separator: str
    names: list[str]
    first_line: int
    units: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def open(self) -> Iterator[TextIO]:
        """The file, at its first line of data."""
        with self.path.open(encoding=self.encoding, newline=None) as file:
            for _ in range(self.first_line - 1):
                file.readline(MOST_LINE)
            yield file


def open_text_table(path: Path) -> TextTable:
    """Find out how a table is written. Raises `SourceError` if it is no text, or has no header."""
    with path.open("rb") as raw:
        encoding = _encoding(path, raw.read(PROBE_BYTES))
    return _header(path, encoding)


def _encoding(path: Path, head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in head:
        for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
            if zeros.count(0) > len(zeros) // 2:
                return encoding
        raise SourceError(f"{path} is not text; a detection table is .csv, .parquet or .h5")
    return "utf-8-sig" if _is_utf8(path) else "latin-1"


def _is_utf8(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _header(path: Path, encoding: str) -> TextTable:
    try:
        with path.open(encoding=encoding) as file:
            return _read_header(path, encoding, file)
    except UnicodeError as error:
        raise SourceError(f"{path} is not text; a detection table is .csv, .parquet or .h5") from error


def _read_header(path: Path, encoding: str, file: TextIO) -> TextTable:
    comment, number, separator = "", 0, ""
    for line in iter(lambda: file.readline(MOST_LINE), ""):
        number += 1
        text = line.strip()
        if number == 1 and text.lower().startswith("sep=") and len(text) == 5:
            separator = text[4]  # Excel's own
        elif text.startswith(COMMENTS):
            comment = text.lstrip("".join(COMMENTS)).strip()
        elif text:
            break
        if number > MOST_LINES_BEFORE:
            raise SourceError(f"{path} has no header in its first {MOST_LINES_BEFORE} lines")
    else:
        raise SourceError(f"{path} is empty; a table begins with a line of column names")
    first, header = number + 1, line
    separator = separator or _separator(line)
    cells = split_line(f"{path}, line {number}", line, separator)
    if any(NUMBER.match(cell) for cell in cells):
        if not comment:
            raise SourceError(
                f"{path} has no header: line {number} is {line.strip()[:40]!r}; begin the file with a line of "
                "column names"
            )
        first, header = number, comment
        in_comment = _separator(comment)
        cells = split_line(
            f"{path}, line {number}", header, in_comment if in_comment in comment else separator
        )
        if len(cells) == 1:
            cells = header.split()
    units: dict[str, str] = {}
    if TRACKMATE_MARK in cells:
        more, units = _trackmate_rows(path, number, file, separator, cells)
        first += more
    return TextTable(path, encoding, separator, cells, first, units)


def _trackmate_rows(
    path: Path, number: int, file: TextIO, separator: str, names: Sequence[str]
) -> tuple[int, dict[str, str]]:
    """TrackMate's rows of long names, short names and units below its header: how many, and the units."""
    at = names.index(TRACKMATE_MARK)
    units: dict[str, str] = {}
    for more in range(MOST_ROWS_OF_NAMES):
        line = file.readline(MOST_LINE)
        cells = split_line(f"{path}, line {number + more + 1}", line, separator)
        if not line or at >= len(cells) or NUMBER.match(cells[at]):
            return more, units
        if all(UNIT.match(cell) for cell in cells):
            units = dict(zip(names, cells, strict=False))
    return MOST_ROWS_OF_NAMES, units


def _separator(line: str) -> str:
    """The separator of a header: that which it has most of, outside quotes; a comma where it has none."""
    bare = re.sub(r'"[^"]*"', "", line.rstrip("\r\n"))
    return max(SEPARATORS, key=bare.count)


def split_line(place: str, line: str, separator: str) -> list[str]:
    """The fields of a line. Raises `SourceError` if quotes are wrong."""
    try:
        text = line.rstrip("\r\n")
        rows = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=separator != "\t")
        return [cell.strip() for cell in next(rows, [])]
    except csv.Error as error:
        raise SourceError(f"{place}: {error}") from error
