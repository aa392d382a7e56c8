"""Reads a file of another program, of whichever kind, and writes it as a trajectory file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stream.errors import SourceError
from stream.unfinished_files import written_beside
from tracking.imports import recognise as kinds
from tracking.imports.challenge import read_challenge
from tracking.imports.flowtracks import read_flowtracks_h5, read_flowtracks_zarr
from tracking.imports.geff import read_geff
from tracking.imports.imported import Assumed, Imported, ImportReport, write_imported
from tracking.imports.recognise import Recognised
from tracking.imports.trackmate import read_trackmate, read_trackmate_tracks
from tracking.imports.vtp import read_vtp

READERS: dict[str, Callable[[Path, Assumed], Imported]] = {
    kinds.TRACKMATE: read_trackmate,
    kinds.TRACKMATE_TRACKS: read_trackmate_tracks,
    kinds.VTP: read_vtp,
    kinds.CHALLENGE: read_challenge,
    kinds.FLOWTRACKS_H5: read_flowtracks_h5,
}
FOLDERS: dict[str, Callable[[Path, Assumed, str], Imported]] = {
    kinds.GEFF: read_geff,
    kinds.FLOWTRACKS_ZARR: read_flowtracks_zarr,
}


def read_foreign(path: Path, what: Recognised, assumed: Assumed) -> Imported:
    """The rows of a file that `recognise` has recognised, but not a table. Raises `SourceError`."""
    if what.kind in FOLDERS:
        return FOLDERS[what.kind](path, assumed, what.inside)
    if what.kind not in READERS:
        raise SourceError(f"{path} is not a file of another program, or it is damaged")
    return READERS[what.kind](path, assumed)


def write_foreign(
    found: Imported, source: Path, output: Path, *, run_id: str, assumed: Assumed, overwrite: bool = False
) -> ImportReport:
    """Write the rows as a trajectory file, which appears once it is complete.

    Raises `SourceError` if there is no row, `OutputError` if it cannot be written.
    """
    if not len(found.frame):
        raise SourceError(f"{source} holds no particles; there is nothing to import")
    with written_beside(output, overwrite=overwrite) as part:
        report = write_imported(
            found, source, part, run_id=run_id, rate_hz=assumed.frame_rate_hz, overwrite=True
        )
    return ImportReport(output, report.format, report.rows, report.tracks, report.remarks)
