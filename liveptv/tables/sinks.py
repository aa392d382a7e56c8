"""The files that detection tables are written into: text, Parquet and HDF5, with columns that may become more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from liveptv.tables.reader import ALWAYS, AT_END, rule_of
from stream.messages import NAN
from stream.particle_properties import unit_of
from tracking.export.table import FORMATS, MORE_FORMATS, PROPERTY_FORMAT, UNITS, pyarrow

CHUNK_ROWS = 4096  # rows of an HDF5 chunk, 32 kB a column; smaller ones compress less

Columns = dict[str, npt.NDArray[Any]]
ALL_FORMATS = FORMATS | MORE_FORMATS | {AT_END: "%.0f"}


def _format_of(name: str) -> str:
    return ALL_FORMATS.get(name, PROPERTY_FORMAT)


def _unit_of(name: str) -> str:
    return "1" if name == AT_END else UNITS.get(name, unit_of(name))


class Sink(Protocol):
    """Where blocks of rows go."""

    def widen(self, names: tuple[str, ...]) -> None:
        """From now on have these columns, in this order; rows written before know nothing in the new ones."""
        ...

    def write(self, columns: Columns) -> None:
        """Add rows: all columns, in order."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class _CsvSink:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = ALWAYS
        self._begin()

    def _begin(self) -> None:
        self._file = self._path.open("w", encoding="ascii", newline="\n")
        self._file.write(",".join(self._names) + "\n")
        self._line = ",".join(_format_of(name) for name in self._names)

    def widen(self, names: tuple[str, ...]) -> None:
        self._file.close()
        narrow = _aside(self._path)
        before, self._names = self._names, names
        self._begin()
        with narrow.open(encoding="ascii", newline="\n") as old:
            next(old)
            for line in old:
                fields = dict(zip(before, line.rstrip("\n").split(","), strict=True))
                self._file.write(",".join(fields.get(name, "") for name in names) + "\n")
        narrow.unlink()

    def write(self, columns: Columns) -> None:
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        self._file.write("\n".join([self._line % row for row in rows]).replace("nan", "") + "\n")

    def close(self) -> None:
        self._file.close()


class _ParquetSink:
    def __init__(self, path: Path) -> None:
        self._pa, self._parquet = pyarrow()
        self._path = path
        self._begin(ALWAYS)

    def _begin(self, names: tuple[str, ...]) -> None:
        fields = [
            self._pa.field(
                name,
                self._pa.int64() if name == "frame" else self._pa.float64(),
                metadata={"unit": _unit_of(name)},
            )
            for name in names
        ]
        self._schema = self._pa.schema(fields)
        self._writer = self._parquet.ParquetWriter(self._path, self._schema, compression="zstd")

    def widen(self, names: tuple[str, ...]) -> None:
        self._writer.close()
        narrow = _aside(self._path)
        self._begin(names)
        with self._parquet.ParquetFile(narrow) as old:
            for group in range(old.num_row_groups):
                table = old.read_row_group(group)
                columns = {name: table[name].to_numpy() for name in table.column_names}
                nothing = np.full(table.num_rows, NAN)
                self.write({name: columns.get(name, nothing) for name in names})
        narrow.unlink()

    def write(self, columns: Columns) -> None:
        self._writer.write_table(self._pa.table(list(columns.values()), schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _H5Sink:
    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "w", libver=("v110", "v110"))
        self._file.attrs["schema"] = "liveptv-detections"
        self._rows = 0
        self.widen(ALWAYS)

    def widen(self, names: tuple[str, ...]) -> None:
        for name in names:
            if name in self._file:
                continue
            rule = rule_of(name)
            whole = rule.whole and not rule.optional
            dataset = self._file.create_dataset(
                name,
                (self._rows,),
                np.int64 if whole else np.float64,
                maxshape=(None,),
                chunks=(CHUNK_ROWS,),
                fillvalue=0 if whole else NAN,
                compression="gzip",
                shuffle=True,
            )
            dataset.attrs["unit"] = _unit_of(name)

    def write(self, columns: Columns) -> None:
        start = self._rows
        for name, values in columns.items():
            self._rows = start + len(values)
            dataset = self._file[name]
            dataset.resize((self._rows,))
            dataset[start:] = values

    def close(self) -> None:
        self._file.close()


def _aside(path: Path) -> Path:
    """Give a file that is written anew with more columns another name meanwhile."""
    return path.replace(path.with_name(f"{path.name}.narrow"))


SINKS: dict[str, Callable[[Path], Sink]] = {".csv": _CsvSink, ".parquet": _ParquetSink, ".h5": _H5Sink}
