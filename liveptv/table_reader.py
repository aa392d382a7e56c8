"""Reads detection tables: one row a particle and frame, as .csv, .parquet or .h5."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from liveptv.csv_table import FloatArray, Rule, check_columns, read_csv_columns
from stream.errors import SourceError
from stream.messages import NAN, Detections, FrameInfo
from tracking.export.table import pyarrow

COLUMNS = ("frame", *Detections.COLUMNS)
REQUIRED = ("frame", "x_um", "y_um")
RULES = {name: Rule(whole=name == "frame", finite=name in {"x_um", "y_um"}) for name in COLUMNS}

LONGEST_GAP = 100_000

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DetectionTable:
    """Columns of a detection table, (N,) each, in order of frames; what the file did not have is NaN."""

    frame: IntArray
    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray
    sigma_x_um: FloatArray
    sigma_y_um: FloatArray
    sigma_z_um: FloatArray
    brightness: FloatArray
    confidence: FloatArray

    def __len__(self) -> int:
        return len(self.frame)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name: `pandas.DataFrame(table.columns())`."""
        return {name: getattr(self, name) for name in COLUMNS}


def read_detection_table(path: Path) -> DetectionTable:
    """Read a table of detections, or of true positions; only `frame`, `x_um` and `y_um` must be there.

    Raises `SourceError` if it cannot be read, a column is missing, or a number is bad (with its line).
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise SourceError(f"{path} is no detection table; those end in {', '.join(READERS)}")
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        columns = reader(path)
    except SourceError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(f"cannot read {path}: {reason}") from error
    _check_values(path, columns)
    rows = len(columns["frame"])
    order = np.argsort(columns["frame"], kind="stable")
    values = {name: columns[name][order] if name in columns else np.full(rows, NAN) for name in COLUMNS}
    return DetectionTable(values.pop("frame").astype(np.int64), **values)


def iter_detections(table: DetectionTable, frame_rate_hz: float, run_id: str) -> Iterator[Detections]:
    """The table as messages, from its first frame to its last; frames without rows are empty messages.

    Raises `SourceError` for a gap of more than `LONGEST_GAP` frames.
    """
    if len(table) == 0:
        return
    first, last = int(table.frame[0]), int(table.frame[-1])
    columns = np.stack([getattr(table, name) for name in Detections.COLUMNS])
    gap = np.diff(table.frame)
    if gap.size and int(gap.max()) > LONGEST_GAP:
        at = int(gap.argmax())
        raise SourceError(
            f"frame {table.frame[at + 1]} follows frame {table.frame[at]}: more than {LONGEST_GAP} frames "
            "without a particle cannot be tracked; are these frame numbers?"
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
        yield Detections(info, np.ascontiguousarray(columns[:, start:stop]))
        start = stop


def _read_csv(path: Path) -> dict[str, FloatArray]:
    return read_csv_columns(path, RULES, REQUIRED)


def _read_parquet(path: Path) -> dict[str, FloatArray]:
    pa, parquet = pyarrow()
    try:
        present = parquet.read_schema(path).names
        check_columns(path, present, REQUIRED)
        table = parquet.read_table(path, columns=[name for name in COLUMNS if name in present])
        return {
            name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in table.column_names
        }
    except pa.ArrowException as error:
        raise SourceError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def _read_h5(path: Path) -> dict[str, FloatArray]:
    with h5py.File(path, "r") as file:
        check_columns(path, list(file), REQUIRED)
        present = [name for name in COLUMNS if name in file]
        try:
            columns = {name: np.asarray(file[name][:], np.float64) for name in present}
        except (TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"{path}: {', '.join(present)} are not all columns of numbers") from error
    if len({values.shape for values in columns.values()}) != 1 or columns["frame"].ndim != 1:
        raise SourceError(f"{path}: its columns are not of one length")
    return columns


READERS: dict[str, Callable[[Path], dict[str, FloatArray]]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".h5": _read_h5,
}


def _check_values(path: Path, columns: dict[str, FloatArray]) -> None:
    for name, values in columns.items():
        broken = RULES[name].broken(values)
        if broken.any():
            row = int(np.argmax(broken))
            raise SourceError(f"{path}, row {row} (from 0): {name} is {values[row]:g}, not {RULES[name]}")
