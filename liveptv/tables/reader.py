"""Reads detection tables, ours and those of other programs: one row per particle and frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from liveptv.tables.columns_option import Wanted
from liveptv.tables.csv_columns import FloatArray, Rule, read_text_columns
from liveptv.tables.csv_text import open_text_table
from liveptv.tables.understanding import Reading, understand
from stream.errors import SourceError
from stream.hdf5_checks import NUMBERS, RECORDS, check_memory
from stream.hdf5_reading import dataset, find, open_hdf5, reading
from stream.hdf5_reading import values as values_of
from stream.messages import FLAGS, NAN, NO_PROPERTIES, DetectionFlag, Detections, FrameInfo, Properties
from tracking.export.table import pyarrow

log = logging.getLogger(__name__)

MEASURED = tuple(name for name in Detections.COLUMNS if name != FLAGS)
COLUMNS = ("frame", *MEASURED)
"""Columns that are read. Of the flags a table has none but `AT_END`: nothing is reduced in `liveptv detect`."""
AT_END = "at_end"
"""Column of a table that is written, where there is any such particle: 1 for `DetectionFlag.AT_END`, else 0."""
WRITTEN = (*COLUMNS, AT_END)
ALWAYS = tuple(name for name in COLUMNS if name not in Detections.MORE)
"""Those that every table has; the others are in it where at least one of their values is known."""
RULES = {name: Rule(whole=name == "frame", finite=name in {"x_um", "y_um"}) for name in COLUMNS} | {
    name: Rule(whole=True, optional=True) for name in ("track", "kind", AT_END)
}
RULES["snr"] = ANY_NUMBER = Rule()
AS_IT_IS = Wanted()

LONGEST_GAP = 100_000  # frames without a row; more are a sign that the column is not a frame number

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DetectionTable:
    """Columns of a detection table, (N,) each, in order of frames; what the file did not have is NaN.

    `properties` are those of the particles that have a value and a standard error in it (`radius_um`,
    `sigma_radius_um`).
    """

    frame: IntArray
    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray
    sigma_x_um: FloatArray
    sigma_y_um: FloatArray
    sigma_z_um: FloatArray
    brightness: FloatArray
    confidence: FloatArray
    z_other_um: FloatArray
    p_other: FloatArray
    chi_square: FloatArray
    kind: FloatArray
    p_kind: FloatArray
    time_offset_s: FloatArray
    properties: Properties = NO_PROPERTIES

    def __len__(self) -> int:
        return len(self.frame)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name, as a file has them: `pandas.DataFrame(table.columns())`."""
        return known({name: getattr(self, name) for name in COLUMNS}) | self.properties.columns()


def measured(detections: Detections) -> dict[str, FloatArray]:
    """The columns of a table but `frame`, (N,) each, copied."""
    flags = np.nan_to_num(detections.flags).astype(np.int64)
    at_end = (flags & DetectionFlag.AT_END > 0).astype(np.float64)
    own = {name: getattr(detections, name).copy() for name in MEASURED}
    properties = {name: values.copy() for name, values in detections.property_columns().items()}
    return {**own, AT_END: at_end, **properties}


def rule_of(name: str) -> Rule:
    """What the values of a column must be."""
    return RULES.get(name, ANY_NUMBER)


def known(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The columns that a table has: all of `ALWAYS`, and those of the others that hold anything."""

    def is_known(name: str, values: npt.NDArray[Any]) -> bool:
        if name == AT_END:
            return bool(np.any(values))
        return name not in Detections.MORE or not np.isnan(values).all()

    return {name: values for name, values in columns.items() if is_known(name, values)}


def read_detection_table(
    path: Path, wanted: Wanted = AS_IT_IS, say: Callable[[str], None] = log.info
) -> DetectionTable:
    """Read a table of detections, or of true positions: frame, x and y must be there; ours, or another program's.

    `wanted` is what the user says about its columns; `say` gets a line about how another program's table is read.
    Raises `SourceError` if it cannot be read, a column is missing or not clear, or a number is bad (with its line).
    """
    columns = read_columns(path, wanted, say)
    rows = len(columns["frame"])
    values = {name: columns[name] if name in columns else np.full(rows, NAN) for name in COLUMNS}
    further = {name: column for name, column in columns.items() if name not in RULES}
    properties = Properties.from_columns(further, rows) if further else NO_PROPERTIES
    return DetectionTable(values.pop("frame").astype(np.int64), **values, properties=properties)


def read_columns(
    path: Path, wanted: Wanted = AS_IT_IS, say: Callable[[str], None] = log.info
) -> dict[str, FloatArray]:
    """The columns that a table has, by our names, in order of frames; `track` too, NaN where a row has none.

    See `read_detection_table`.
    """
    path = Path(path)
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise SourceError(f"{path} is not a detection table; these end in {', '.join(OPENERS)}")
    if path.is_dir():
        raise SourceError(f"{path} is a folder, not a table")
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    with reading(path):
        with opener(path) as source:
            how = understand(path, source.names, wanted, source.units)
            if how.told:
                say(how.told)
            rules = {name: column.name for name, column in how.columns.items()}
            columns = source.read(rules)
        columns = _scaled(path, columns, how)
    order = np.argsort(columns["frame"], kind="stable")
    return {name: values[order] for name, values in columns.items()}


def _scaled(path: Path, columns: dict[str, FloatArray], how: Reading) -> dict[str, FloatArray]:
    """The columns in um and frames from 0."""
    found = {}
    for name, values in columns.items():
        column = how.columns[name]
        if name == "frame" and column.first and values.size and values.min() < column.first:
            raise SourceError(
                f"{path}: {column.name} is {values.min():g}, but frames should be counted from {column.first}; "
                f"pass --columns frame={column.name}[0] if they are counted from 0"
            )
        found[name] = (
            values * column.scale - column.first if (column.scale, column.first) != (1, 0) else values
        )
    if how.flat and "z_um" in found and not found["z_um"].any():
        del found["z_um"]
    return found


def iter_detections(
    table: DetectionTable, frame_rate_hz: float, run_id: str, name: str = "the table"
) -> Iterator[Detections]:
    """The table as messages, from its first frame to its last; frames without rows are empty messages.

    Raises `SourceError`, with the table's `name`, for a gap of more than `LONGEST_GAP` frames.
    """
    if len(table) == 0:
        return
    first, last = int(table.frame[0]), int(table.frame[-1])
    columns = np.stack([*(getattr(table, name) for name in MEASURED), np.zeros(len(table))])
    gap = np.diff(table.frame)
    if gap.size and int(gap.max()) > LONGEST_GAP:
        at = int(gap.argmax())
        raise SourceError(
            f"{name}: frame {table.frame[at + 1]} follows frame {table.frame[at]}, a gap of more than "
            f"{LONGEST_GAP} frames; check that this column is the frame number"
        )
    start = 0
    for frame in range(first, last + 1):
        stop = start + int(np.searchsorted(table.frame[start:], frame, side="right"))
        info = FrameInfo(
            run_id=run_id,
            frame=frame,
            camera_frame=frame,
            time_s=frame / frame_rate_hz,
            monotonic_ns=time.perf_counter_ns(),
            wall_s=NAN,
        )
        rows = slice(start, stop)
        yield Detections(info, np.ascontiguousarray(columns[:, rows]), table.properties.of(rows))
        start = stop


class _Source(Protocol):
    """An open table: the `names` of its columns, and the `units` that it gives beside them."""

    names: list[str]
    units: dict[str, str]

    def read(self, columns: Mapping[str, str]) -> dict[str, FloatArray]:
        """Columns by our name, given the file's; (N,) each, checked."""
        ...


class _Text:
    def __init__(self, path: Path) -> None:
        self._table = open_text_table(path)
        self.names, self.units = self._table.names, self._table.units

    def read(self, columns: Mapping[str, str]) -> dict[str, FloatArray]:
        """Columns by our name; one of the file's may stand for two of ours."""
        found = read_text_columns(self._table, {theirs: rule_of(ours) for ours, theirs in columns.items()})
        return {ours: found[theirs] for ours, theirs in columns.items()}


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._pa, self._parquet = pyarrow()
        self._path = path
        try:
            metadata = self._parquet.read_metadata(path)
            self._rows = metadata.num_rows
            self.names = list(self._parquet.read_schema(path).names)
        except self._pa.ArrowException as error:
            raise self._failure(error) from error
        self.units: dict[str, str] = {}

    def read(self, columns: Mapping[str, str]) -> dict[str, FloatArray]:
        """Columns by our name."""
        check_memory(self._rows * len(columns) * 8, str(self._path))
        wanted = list(dict.fromkeys(columns.values()))
        try:
            table = self._parquet.read_table(self._path, columns=wanted)
            found = {
                name: table[name].cast(self._pa.float64()).to_numpy(zero_copy_only=False) for name in wanted
            }
        except self._pa.ArrowException as error:
            raise self._failure(error) from error
        return _checked(self._path, {ours: found[theirs] for ours, theirs in columns.items()}, columns)

    def _failure(self, error: Exception) -> SourceError:
        return SourceError(f"cannot read {self._path}: {str(error).splitlines()[0]}")


class _Hdf5:
    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path, self._file = path, file
        records = [name for name in file if isinstance(find(file, name), h5py.Dataset)]
        tables = [name for name in records if find(file, name).dtype.names]
        self._table = None
        if len(tables) == 1 and not {"frame", "x_um"} <= set(records):
            self._table = dataset(file, tables[0], kinds=RECORDS, ndim=1)
        self.names = list(file) if self._table is None else list(self._table.dtype.names)
        self.units: dict[str, str] = {}

    def read(self, columns: Mapping[str, str]) -> dict[str, FloatArray]:
        """Columns by our name."""
        found = {}
        for name in dict.fromkeys(columns.values()):
            if self._table is None:
                values = self._column(name)
            else:
                values = self._table.fields(name)[:]
                if values.dtype.kind not in NUMBERS or values.ndim != 1:
                    raise SourceError(
                        f"{self._path}: the values of {name} are not numbers, but {values.dtype}"
                    )
            found[name] = np.asarray(values, np.float64)
        if len({values.shape for values in found.values()}) != 1:
            raise SourceError(f"{self._path}: its columns differ in length")
        return _checked(self._path, {ours: found[theirs] for ours, theirs in columns.items()}, columns)

    def _column(self, name: str) -> npt.NDArray[Any]:
        return values_of(self._file, name, ndim=1)


@contextmanager
def _open_hdf5(path: Path) -> Iterator[_Hdf5]:
    with open_hdf5(path) as file:
        yield _Hdf5(path, file)


OPENERS: dict[str, Callable[[Path], AbstractContextManager[_Source]]] = {
    ".csv": lambda path: nullcontext(_Text(path)),
    ".parquet": lambda path: nullcontext(_Parquet(path)),
    ".h5": _open_hdf5,
    ".hdf5": _open_hdf5,
    ".tsv": lambda path: nullcontext(_Text(path)),
    ".txt": lambda path: nullcontext(_Text(path)),
}


def _checked(path: Path, columns: dict[str, FloatArray], theirs: Mapping[str, str]) -> dict[str, FloatArray]:
    for name, values in columns.items():
        broken = rule_of(name).broken(values)
        if broken.any():
            row = int(np.argmax(broken))
            raise SourceError(
                f"{path}, row {row} (from 0): {theirs[name]} is {values[row]:g}, not {rule_of(name)}"
            )
    return columns
