"""Writes tables of tracks as CSV or Parquet: one row for each track and frame, in order of frames."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from stream.errors import ConfigurationError
from stream.particle_properties import unit_of
from tracking.export.source import Exported
from tracking.trajectories.schema import ROW_COLUMNS, to_json

FORMATS = {
    "frame": "%d",
    "x_um": "%.4f",
    "y_um": "%.4f",
    "z_um": "%.4f",
    "sigma_x_um": "%.4f",
    "sigma_y_um": "%.4f",
    "sigma_z_um": "%.4f",
    "brightness": "%.6g",
    "confidence": "%.4f",
    "track": "%d",
    "time_s": "%.6f",
    "vx_um_s": "%.4f",
    "vy_um_s": "%.4f",
    "vz_um_s": "%.4f",
}
MORE_FORMATS = {
    "z_other_um": "%.4f",
    "p_other": "%.4f",
    "p_side": "%.4f",
    "chi_square": "%.4f",
    "kind": "%.0f",
    "p_kind": "%.4f",
    "time_offset_s": "%.6f",
    "revised": "%d",
}
"""Of the columns that a table has only where something is known."""
PROPERTY_FORMAT = "%.7g"  # single precision, which files keep of properties
UNITS = (
    {column.name: column.unit for column in ROW_COLUMNS} | {"time_s": "s"} | dict.fromkeys(MORE_FORMATS, "1")
)
UNITS["z_other_um"] = "um"
UNITS["time_offset_s"] = "s"
LOST_IN_TABLES = (
    "attributes",
    "errors of velocities",
    "frames without particles",
    "focus, flow and exposure of frames",
    "events",
)
BLOCK_ROWS = 50_000
"""Rows that are turned into text at once; bounds the memory (some tens of MB) without a loss of speed."""


def table_columns(flags: bool, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of a track table's columns, in order; of those that only some rows have, the `known` ones."""
    more = tuple(name for name in MORE_FORMATS if name in set(known))
    return (*FORMATS, *more, "flags") if flags else (*FORMATS, *more)


def _columns_of(source: Exported) -> tuple[str, ...]:
    names = table_columns(source.has_flags, source.known)
    return (*names, *source.properties)


def write_csv(path: Path, source: Exported) -> list[str]:
    """Write a table with a header; NaN is an empty field, lengths are given to 0.1 nm."""
    names = _columns_of(source)
    line = ",".join({**FORMATS, **MORE_FORMATS, "flags": "%d"}.get(name, PROPERTY_FORMAT) for name in names)
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(",".join(names) + "\n")
        for piece in source.pieces():
            for start in range(0, len(piece), BLOCK_ROWS):
                block = [piece.column(name)[start : start + BLOCK_ROWS].tolist() for name in names]
                text = "\n".join([line % row for row in zip(*block, strict=True)])
                file.write(text.replace("nan", "") + "\n")
    return list(LOST_IN_TABLES)


def write_parquet(path: Path, source: Exported) -> list[str]:
    """Write a table with a row group for each piece; the metadata hold units and the file's attributes."""
    pa, parquet = pyarrow()
    writer = None
    try:
        for piece in source.pieces():
            columns = {name: piece.column(name) for name in _columns_of(source)}
            if writer is None:
                fields = [
                    pa.field(
                        name,
                        pa.from_numpy_dtype(values.dtype),
                        metadata={"unit": UNITS.get(name, unit_of(name))},
                    )
                    for name, values in columns.items()
                ]
                schema = pa.schema(fields, metadata={"liveptv": to_json(piece.attributes)})
                writer = parquet.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(pa.table(list(columns.values()), schema=schema))
    finally:
        if writer is not None:
            writer.close()
    return [lost for lost in LOST_IN_TABLES if lost != "attributes"]


def pyarrow() -> tuple[ModuleType, ModuleType]:
    """`pyarrow` and `pyarrow.parquet`. Raises `ConfigurationError` that says how to install them."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigurationError(
            'Parquet needs the package pyarrow; pip install "liveptv[parquet]" or use .csv'
        ) from error
