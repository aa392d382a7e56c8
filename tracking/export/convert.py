"""Converts a trajectory file to the format that the output's suffix names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stream.errors import ConfigurationError, OutputError
from stream.unfinished_files import written_beside
from tracking.export.rerun_recording import write_rerun
from tracking.export.table import write_csv, write_parquet
from tracking.export.trackmate import write_trackmate
from tracking.export.vtp import write_vtp
from tracking.trajectories.columns import Trajectories, collect
from tracking.trajectories.reader import TrajectoryFile

Write = Callable[[Path, Iterator[Trajectories], bool, Sequence[str]], None]


def _whole(write: Callable[[Path, Trajectories], None]) -> Write:
    """A writer that needs all rows at once, because it orders them by track."""

    def write_whole(path: Path, pieces: Iterator[Trajectories], flags: bool, known: Sequence[str]) -> None:
        write(path, collect(pieces))

    return write_whole


WRITERS: dict[str, Write] = {
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".xml": _whole(write_trackmate),
    ".vtp": _whole(write_vtp),
    ".rrd": _whole(write_rerun),
}
PROGRAMS = {"trackmate": ".xml", "paraview": ".vtp", "rerun": ".rrd"}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote."""

    output: Path
    format: str
    rows: int
    tracks: int


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

    Parameters
    ----------
    path
        The trajectory file.
    output
        The file to write.
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
    wanted = output.suffix.lower() if to is None else to.lower()
    suffix = PROGRAMS.get(wanted, f".{wanted.lstrip('.')}")
    if suffix not in WRITERS:
        raise ConfigurationError(
            f"cannot export to '{wanted or output.name}'; known formats are {', '.join(WRITERS)} and "
            f"{', '.join(PROGRAMS)}"
        )
    _check_output(Path(path), output, overwrite)
    seen = _Seen()
    with TrajectoryFile(path) as file, written_beside(output, overwrite=overwrite) as part:
        pieces = file.trajectories(include_predicted=include_predicted, include_flagged=include_flagged)
        WRITERS[suffix](part, seen.watch(pieces), include_predicted or include_flagged, file.known())
    return ExportReport(output, suffix[1:], seen.rows, seen.tracks)


def _check_output(path: Path, output: Path, overwrite: bool) -> None:
    if overwrite and output.exists() and path.exists() and output.samefile(path):
        raise OutputError(f"cannot write {output}: it is the file to export; choose another name")


class _Seen:
    """Counts the rows and tracks that are exported."""

    def __init__(self) -> None:
        self.rows = 0
        self._tracks: set[int] = set()

    @property
    def tracks(self) -> int:
        return len(self._tracks)

    def watch(self, pieces: Iterator[Trajectories]) -> Iterator[Trajectories]:
        for piece in pieces:
            self.rows += len(piece)
            self._tracks.update(np.unique(piece.track).tolist())
            yield piece
