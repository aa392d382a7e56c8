"""Converts a trajectory file to the format that the output's suffix or the user names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ConfigurationError, OutputError
from stream.unfinished_files import written_beside
from tracking.export.challenge import write_challenge
from tracking.export.flowtracks import write_flowtracks_h5, write_flowtracks_zarr
from tracking.export.folder import folder_beside
from tracking.export.geff import write_geff
from tracking.export.rerun_recording import write_rerun
from tracking.export.source import Exported
from tracking.export.table import write_csv, write_parquet
from tracking.export.trackmate import write_trackmate
from tracking.export.vtp import write_vtp
from tracking.trajectories.reader import TrajectoryFile

Write = Callable[[Path, Exported], list[str]]
"""Writes the rows to a path and returns what the format does not hold, in words."""

WRITERS: dict[str, Write] = {
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".xml": write_trackmate,
    ".vtp": write_vtp,
    ".geff": write_geff,
    ".rrd": write_rerun,
    "flowtracks": write_flowtracks_h5,
    "flowtracks, Zarr": write_flowtracks_zarr,
    "challenge": write_challenge,
}
PROGRAMS = {
    "trackmate": ".xml",
    "paraview": ".vtp",
    "rerun": ".rrd",
    "geff": ".geff",
    "flowtracks": "flowtracks",
    "challenge": "challenge",
}
FOLDERS = (".geff", "flowtracks, Zarr")
AMBIGUOUS = {
    ".h5": ", which may be several formats: --to flowtracks writes flowtracks' HDF5",
    ".hdf5": ", which may be several formats: --to flowtracks writes flowtracks' HDF5",
    ".zarr": ", which may be several formats: give --to geff or --to flowtracks",
}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote, and `lost`: what of the trajectory file the format does not hold, in words."""

    output: Path
    format: str
    rows: int
    tracks: int
    lost: tuple[str, ...] = ()


def export(
    path: Path,
    output: Path,
    *,
    to: str | None = None,
    overwrite: bool = False,
    include_predicted: bool = False,
    include_flagged: bool = False,
) -> ExportReport:
    """Write the trajectories of `path` to `output` in another format.

    Rows are left out as in `read_trajectories`; if predicted or flagged rows are included, tables have a column
    `flags`. Depths are on the side of focus that was decided last. The output appears only once it is complete.
    Memory does not grow with the number of rows, but for four bytes a row where rows are ordered by track.

    Parameters
    ----------
    path
        The trajectory file.
    output
        The file to write; a folder for GEFF.
    to
        The format: a suffix, or the name of a program (`PROGRAMS`); by default the suffix of `output`.
    overwrite
        Replace an existing output.
    include_predicted, include_flagged
        As in `read_trajectories`.

    Raises
    ------
    ConfigurationError
        If the format is not known or needs a package that is not installed.
    OutputError
        If the output exists or cannot be written.
    SourceError
        If the file cannot be read.
    """
    output = Path(output)
    suffix = format_of(output, to)
    _check_output(Path(path), output, overwrite)
    with TrajectoryFile(path) as file, _beside(output, suffix, overwrite) as part:
        source = Exported(file, include_predicted=include_predicted, include_flagged=include_flagged)
        lost = WRITERS[suffix](part, source)
        contents = source.contents
    return ExportReport(output, suffix.lstrip("."), contents.rows, contents.tracks, tuple(lost))


def format_of(output: Path, to: str | None = None) -> str:
    """The format, as a suffix. Raises `ConfigurationError` if it is not known."""
    wanted = output.suffix.lower() if to is None else to.lower()
    suffix = PROGRAMS.get(wanted, f".{wanted.lstrip('.')}")
    if suffix == "flowtracks" and output.suffix.lower() == ".zarr":
        return "flowtracks, Zarr"
    if suffix not in WRITERS:
        suffixes = ", ".join(name for name in WRITERS if name.startswith("."))
        hint = AMBIGUOUS.get(suffix, "")
        raise ConfigurationError(
            f"cannot export to '{wanted or output.name}'{hint}; known formats are {suffixes} and "
            f"{', '.join(PROGRAMS)}"
        )
    return suffix


def _beside(output: Path, suffix: str, overwrite: bool) -> AbstractContextManager[Path]:
    beside = folder_beside if suffix in FOLDERS else written_beside
    return beside(output, overwrite=overwrite)


def _check_output(path: Path, output: Path, overwrite: bool) -> None:
    if overwrite and output.exists() and path.exists() and output.samefile(path):
        raise OutputError(f"cannot write {output}: it is the file to export; choose another name")
