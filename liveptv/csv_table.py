"""Reads columns of numbers from a CSV file, and says in which line a number is bad."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.errors import SourceError

FloatArray = npt.NDArray[np.float64]
BLOCK_BYTES = 16 << 20
MAX_FRAME = 2**32


@dataclass(frozen=True, slots=True)
class Rule:
    """What a column's numbers must be: `whole` from 0 on, or `finite`; else anything goes, NaN when empty."""

    whole: bool = False
    finite: bool = False

    def broken_by(self, value: float) -> bool:
        """Whether a number is not allowed."""
        if self.whole:
            return not (0 <= value < MAX_FRAME and value == int(value))
        return self.finite and not math.isfinite(value)

    def broken(self, values: FloatArray) -> npt.NDArray[np.bool_]:
        """Which of many numbers are not allowed."""
        broken: npt.NDArray[np.bool_]
        if self.whole:
            broken = ~((values >= 0) & (values < MAX_FRAME) & (values == np.floor(values)))
        else:
            broken = ~np.isfinite(values) if self.finite else np.zeros(len(values), np.bool_)
        return broken

    def __str__(self) -> str:
        return "a whole number from 0 on" if self.whole else "a finite number" if self.finite else "a number"


def read_csv_columns(path: Path, rules: Mapping[str, Rule], required: Sequence[str]) -> dict[str, FloatArray]:
    """Read those columns of `rules` that the file has; others are skipped, empty fields are NaN.

    Raises `SourceError` naming the column that is missing, or the line with a bad number.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = _cells(f"{path}, line 1", file.readline())
            check_columns(path, header, required)
            where = {name: header.index(name) for name in rules if name in header}
            blocks = [np.empty((0, len(where)))]
            line = 2
            while lines := file.readlines(BLOCK_BYTES):
                block = _parse(lines, list(where.values()))
                if block is None or any(rules[n].broken(block[:, i]).any() for i, n in enumerate(where)):
                    block = _parse_by_line(path, lines, line, where, rules)
                blocks.append(block)
                line += len(lines)
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not text in UTF-8; a detection table is .csv, .parquet or .h5"
        ) from error
    table = np.concatenate(blocks)
    return {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(where)}


def check_columns(path: Path, present: Sequence[str], required: Sequence[str]) -> None:
    """Raise `SourceError` if a required column is missing."""
    missing = [name for name in required if name not in present]
    if missing:
        shown = ", ".join(present)
        shown = shown if len(shown) < 200 else shown[:200] + " ..."
        raise SourceError(f"{path} has no column {' and no column '.join(missing)}; it has: {shown}")


def _parse(lines: list[str], where: list[int]) -> FloatArray | None:
    """The columns of these lines, fast; None if they are not plain numbers and empty fields."""
    text = "\n" + "".join(lines) + "\n"
    text = (
        text.replace(",,", ",nan,").replace(",,", ",nan,").replace(",\n", ",nan\n").replace("\n,", "\nnan,")
    )
    kept = [line for line in text.split("\n") if line and not line.isspace()]
    if not kept:
        return np.empty((0, len(where)))
    try:
        block = np.loadtxt(kept, delimiter=",", usecols=where, ndmin=2, comments=None, quotechar='"')
    except ValueError:
        return None
    return block if len(block) == len(kept) else None


def _parse_by_line(
    path: Path, lines: list[str], first_line: int, where: Mapping[str, int], rules: Mapping[str, Rule]
) -> FloatArray:
    """What `_parse` does, for whatever people write into such a file; raises for the first line that is bad."""
    rows = [
        _parse_line(f"{path}, line {number}", line, where, rules)
        for number, line in enumerate(lines, first_line)
        if line.strip()
    ]
    return np.array(rows, np.float64).reshape(len(rows), len(where))


def _parse_line(place: str, line: str, where: Mapping[str, int], rules: Mapping[str, Rule]) -> list[float]:
    cells = _cells(place, line)
    values = []
    for name, index in where.items():
        if index >= len(cells):
            raise SourceError(f"{place}: {len(cells)} fields, none for {name}")
        cell = cells[index]
        try:
            value = float(cell) if cell else math.nan
            bad = rules[name].broken_by(value)
        except ValueError:
            bad = True
        if bad:
            given = f"'{cell[:40]}'" if cell else "empty"
            raise SourceError(f"{place}: {name} is {given}, not {rules[name]}")
        values.append(value)
    return values


def _cells(place: str, line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line.rstrip("\n")], skipinitialspace=True), [])]
    except csv.Error as error:
        raise SourceError(f"{place}: {error}") from error
