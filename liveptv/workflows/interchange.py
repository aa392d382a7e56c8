"""Converts between trajectory files and the files of other programs, in either direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from liveptv.files import refuse_to_replace
from liveptv.session.supervisor import new_run_id
from liveptv.tables.columns_option import Wanted
from liveptv.tables.reader import AS_IT_IS, read_columns
from stream.errors import ConfigurationError, OutputError, SourceError
from stream.hdf5_reading import reading
from stream.messages import FLAGS, TrackFlag
from stream.unfinished_files import check_folder_of
from tracking.export import export, format_of
from tracking.imports import Assumed, Imported, Recognised, read_foreign, recognise, write_foreign
from tracking.imports.imported import OF_FRAMES, OF_ROWS, json_object
from tracking.imports.recognise import OURS, TABLE

TRAJECTORY_FILES = (".h5", ".hdf5")
OUR_TABLE = {"track", "frame", "x_um", "y_um", "time_s"}
"""Columns by which an exported table of ours is known."""
LENGTH_UNITS_UM = {"um": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6}


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written, and `lost`: what of the trajectories the output does not hold, in words."""

    output: Path
    rows: int
    tracks: int
    lost: tuple[str, ...] = ()


def convert(
    path: Path,
    output: Path,
    *,
    to: str | None = None,
    overwrite: bool = False,
    include_predicted: bool = False,
    include_flagged: bool = False,
    frame_rate_hz: float | None = None,
    pixel_size_um: float | None = None,
    length_unit: str | None = None,
    wanted: Wanted = AS_IT_IS,
    say: Callable[[str], None] = lambda _: None,
) -> Converted:
    """Convert a trajectory file, or one of another program, to what `output` or `to` names.

    A file of another program becomes a trajectory file (`.h5`), and from there any other format. `say` gets a line
    for each thing that was decided in reading. `frame_rate_hz`, `pixel_size_um` and `length_unit` (um, nm, mm, m)
    are for files that do not state them. Raises `SourceError`, `OutputError` or `ConfigurationError`.
    """
    what = recognise(path)
    options = {"include_predicted": include_predicted, "include_flagged": include_flagged}
    if what.kind == OURS:
        report = export(path, output, to=to, overwrite=overwrite, **options)
        return Converted(output, report.rows, report.tracks, report.lost)
    assumed = Assumed(_length_um(pixel_size_um, length_unit), frame_rate_hz)
    refuse_to_replace(output, path)
    if to is None and output.suffix.lower() in TRAJECTORY_FILES:
        check_folder_of(output)
        if output.exists() and not overwrite:
            raise OutputError(f"{output} exists; choose another name or pass --overwrite")
        return _import(path, what, output, assumed, wanted, overwrite, say)
    format_of(output, to)
    check_folder_of(output)
    with TemporaryDirectory(prefix=f"{output.stem}.", suffix=".partial", dir=output.parent) as folder:
        between = Path(folder) / f"{path.stem or 'tracks'}.h5"
        _import(path, what, between, assumed, wanted, False, say)
        report = export(between, output, to=to, overwrite=overwrite, **options)
    return Converted(output, report.rows, report.tracks, report.lost)


def _import(
    path: Path,
    what: Recognised,
    output: Path,
    assumed: Assumed,
    wanted: Wanted,
    overwrite: bool,
    say: Callable[[str], None],
) -> Converted:
    found = (
        read_table(path, wanted, assumed, say) if what.kind == TABLE else read_foreign(path, what, assumed)
    )
    report = write_foreign(found, path, output, run_id=new_run_id(), assumed=assumed, overwrite=overwrite)
    for remark in report.remarks:
        say(f"{path.name}: {remark}")
    return Converted(output, report.rows, report.tracks)


def _length_um(pixel_size_um: float | None, length_unit: str | None) -> float | None:
    if length_unit is None:
        return pixel_size_um
    if pixel_size_um is not None:
        raise ConfigurationError("give either --pixel-size or --length-unit")
    if length_unit not in LENGTH_UNITS_UM:
        raise ConfigurationError(f"--length-unit is {length_unit!r}; it may be {', '.join(LENGTH_UNITS_UM)}")
    return LENGTH_UNITS_UM[length_unit]


def read_table(path: Path, wanted: Wanted, assumed: Assumed, say: Callable[[str], None]) -> Imported:
    """The rows of a table with track numbers, ours or another program's. Raises `SourceError`."""
    if wanted.pixel_size_um is None and assumed.length_um is not None:
        wanted = Wanted(wanted.columns, assumed.length_um, wanted.keep_pixels)
    columns: dict[str, npt.NDArray[np.float64]] = dict(read_columns(path, wanted, say))
    if "track" not in columns:
        raise SourceError(f"{path} has no column of tracks; `liveptv track` links its detections")
    frame, track = columns.pop("frame"), columns.pop("track")
    remarks = []
    alone = ~np.isfinite(track)
    if alone.any():
        columns[FLAGS] = np.where(alone, float(TrackFlag.TENTATIVE), 0.0)
        start = int(np.nanmax(track, initial=-1)) + 1
        track = np.where(alone, start + np.cumsum(alone) - 1, track)
        remarks.append(f"{np.count_nonzero(alone)} rows of no track are flagged tentative")
    more, attributes = _more_of_ours(path)
    columns |= more
    return Imported(
        format=f"table, {path.suffix.lower()}",
        frame=frame.astype(np.int64),
        track=track.astype(np.int64),
        columns={name: values for name, values in columns.items() if name in (*OF_ROWS, *OF_FRAMES)},
        attributes=attributes,
        remarks=tuple(remarks),
    )


def _more_of_ours(path: Path) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, Any]]:
    """Times, velocities and flags of a table that liveptv has exported, in order of frames, and its attributes.

    Nothing of another program's table.
    """
    suffix = path.suffix.lower()
    attributes: dict[str, Any] = {}
    if suffix not in {".csv", ".parquet"}:
        return {}, attributes
    with reading(path):
        wanted = {*OF_ROWS, *OF_FRAMES, "frame"}
        if suffix == ".csv":
            names = set(pd.read_csv(path, nrows=0, encoding_errors="replace").columns)
            if not names >= OUR_TABLE:
                return {}, attributes
            table = pd.read_csv(path, usecols=sorted(names & wanted))
        else:
            from tracking.export.table import pyarrow

            _, parquet = pyarrow()
            schema = parquet.read_schema(path)
            names = set(schema.names)
            if not names >= OUR_TABLE:
                return {}, attributes
            attributes = json_object((schema.metadata or {}).get(b"liveptv", b""))
            table = parquet.read_table(path, columns=sorted(names & wanted)).to_pandas()
        table = table.sort_values("frame", kind="stable")
        columns = {str(name): table[name].to_numpy(np.float64) for name in table.columns if name != "frame"}
    return columns, attributes
