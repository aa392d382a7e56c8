"""Reads columns of numbers from a text table; errors name the line of a bad number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from liveptv.tables.csv_text import MISSING, TextTable, split_line
from stream.errors import SourceError

FloatArray = npt.NDArray[np.float64]
BLOCK_BYTES = 16 << 20  # bytes read at a time; only affects memory and speed
MAX_FRAME = 2**32  # larger numbers are no frame numbers; at 1000 frames/s they take 50 days
PROBED_LINES = 5000  # lines looked at for decimal commas; more only take longer
WITH_COMMA = re.compile(r"^[+-]?\d*,\d*([eE][+-]?\d+)?$")
GROUPED = re.compile(r"^[+-]?[1-9]\d{0,2}(,\d{3})+$")
UNGROUPED = re.compile(r"^[+-]?\d{4,}$")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a column's numbers must be: `whole` from 0 on, or `finite`; else anything goes, NaN when empty.

    `optional` ones may be empty though they are `whole`: the track of a particle that has none.
    """

    whole: bool = False
    finite: bool = False
    optional: bool = False

    def broken_by(self, value: float) -> bool:
        """Whether a number is not allowed."""
        if self.whole and not (self.optional and math.isnan(value)):
            return not (0 <= value < MAX_FRAME and value == int(value))
        return self.finite and not math.isfinite(value)

    def broken(self, values: FloatArray) -> npt.NDArray[np.bool_]:
        """Which of many numbers are not allowed."""
        broken: npt.NDArray[np.bool_]
        if self.whole:
            broken = ~((values >= 0) & (values < MAX_FRAME) & (values == np.floor(values)))
            if self.optional:
                broken &= ~np.isnan(values)
        else:
            broken = ~np.isfinite(values) if self.finite else np.zeros(len(values), np.bool_)
        return broken

    def __str__(self) -> str:
        return "a whole number from 0 on" if self.whole else "a finite number" if self.finite else "a number"


def read_text_columns(table: TextTable, rules: Mapping[str, Rule]) -> dict[str, FloatArray]:
    """Read the columns that `rules` names; empty fields are NaN.

    Raises `SourceError` naming the line with a bad number.
    """
    where = {name: table.names.index(name) for name in rules}
    blocks = [np.empty((0, len(where)))]
    try:
        with table.open() as file:
            line = table.first_line
            reader = _Lines(table, where, rules)
            while lines := file.readlines(BLOCK_BYTES):
                blocks.append(reader.numbers(lines, line))
                line += len(lines)
        numbers = np.concatenate(blocks)
    except UnicodeDecodeError as error:
        raise SourceError(f"{table.path} is not text throughout; a table is .csv, .parquet or .h5") from error
    except MemoryError as error:
        raise SourceError(f"{table.path} does not fit into this computer's memory; split it") from error
    return {name: np.ascontiguousarray(numbers[:, i]) for i, name in enumerate(where)}


class _Lines:
    """Turns lines into numbers: at once where they are plain, else one by one."""

    def __init__(self, table: TextTable, where: Mapping[str, int], rules: Mapping[str, Rule]) -> None:
        self.table, self.where, self.rules = table, where, rules
        self.fields = len(table.names)
        self.decimal_comma: bool | None = None

    def numbers(self, lines: list[str], first: int) -> FloatArray:
        """The numbers of some lines, of which the first has the number `first` in the file; (N, columns)."""
        if self.decimal_comma is None:
            self.decimal_comma = self._has_decimal_commas(lines, first)
        block = self._at_once(lines)
        if block is not None:
            rules = enumerate(self.rules.values())
            if not any(rule.broken(block[:, column]).any() for column, rule in rules):
                return block
        return self._one_by_one(lines, first)

    def _at_once(self, lines: list[str]) -> FloatArray | None:
        """The columns of these lines, fast; None if they are not plain numbers and empty fields."""
        separator = self.table.separator
        text = "".join(lines)
        if self.decimal_comma:
            if separator == ",":
                return None
            text = text.replace(",", ".")
        kept = [line for line in text.split("\n") if line and not line.isspace()]
        if not kept:
            return np.empty((0, len(self.where)))
        most = self.fields - 1
        if any(line.count(separator) > most for line in kept):
            return None
        doubled, missing = separator * 2, f"{separator}nan{separator}"
        text = "\n" + "\n".join(kept) + "\n"
        text = text.replace(doubled, missing).replace(doubled, missing)
        text = text.replace(f"{separator}\n", f"{separator}nan\n").replace(
            f"\n{separator}", f"\nnan{separator}"
        )
        try:
            block = np.loadtxt(
                text[1:-1].split("\n"),
                delimiter=separator,
                usecols=list(self.where.values()),
                ndmin=2,
                comments=None,
                quotechar='"',
            )
        except ValueError:
            return None
        return block if len(block) == len(kept) else None

    def _one_by_one(self, lines: list[str], first: int) -> FloatArray:
        """What `_at_once` does, for whatever people write into such a file; raises for the first bad line."""
        rows = [
            self._row(f"{self.table.path}, line {number}", line)
            for number, line in enumerate(lines, first)
            if line.strip()
        ]
        return np.array(rows, np.float64).reshape(len(rows), len(self.where))

    def _row(self, place: str, line: str) -> list[float]:
        cells = split_line(place, line, self.table.separator)
        values = []
        for name, index in self.where.items():
            if index >= len(cells):
                raise SourceError(f"{place}: {len(cells)} fields, none for {name}")
            cell = cells[index]
            value = _number(cell.replace(",", ".") if self.decimal_comma else cell)
            if value is None or self.rules[name].broken_by(value):
                given = f"'{cell[:40]}'" if cell else "empty"
                raise SourceError(f"{place}: {name} is {given}, not {self.rules[name]}")
            values.append(value)
        if any(cells[self.fields :]):
            advice = ""
            if self.table.separator == ",":
                advice = (
                    "; if commas are in its numbers, save it with points, or with semicolons between fields"
                )
            raise SourceError(f"{place}: {len(cells)} fields where the header has {self.fields}{advice}")
        return values

    def _has_decimal_commas(self, lines: Sequence[str], first: int) -> bool:
        """Whether commas in the numbers are decimal; raises where they may as well part thousands."""
        probed = list(self._probed(lines, first))
        with_comma = [(index, cell) for index, cell in probed if WITH_COMMA.match(cell)]
        if not with_comma:
            return False
        columns = {index for index, _ in with_comma}
        decimal = any(not GROUPED.match(cell) for _, cell in with_comma)
        ungrouped = any(index in columns and UNGROUPED.match(cell) for index, cell in probed)
        if not decimal and not ungrouped:
            raise SourceError(
                f"{self.table.path}: '{with_comma[0][1]}' may be a decimal number or thousands; save the table "
                "with decimal points and without separators of thousands"
            )
        return True

    def _probed(self, lines: Sequence[str], first: int) -> Iterable[tuple[int, str]]:
        for number, line in islice(enumerate(lines, first), PROBED_LINES):
            if not line.strip():
                continue
            cells = split_line(f"{self.table.path}, line {number}", line, self.table.separator)
            for index in self.where.values():
                if index < len(cells):
                    yield index, cells[index]


def _number(cell: str) -> float | None:
    """The number in a field, NaN for one that says that there is none, None for anything else."""
    if not cell or cell.lower() in MISSING:
        return math.nan
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
