"""Scores of trajectories against true ones, from the files that `liveptv evaluate` is given.

Trajectories are a column `track` (or `particle`) beside those of a detection table, or a trajectory file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from liveptv.csv_table import Rule, read_csv_columns
from liveptv.tables import read_detection_table
from stream.errors import SourceError
from tracking.export.table import pyarrow
from tracking.metrics import LinkScores, TrackPoints, TrackScores, link_scores, nearest_tracks, track_scores
from tracking.trajectory_file import read_trajectories
from tracking.trajectory_schema import SCHEMA

FloatArray = npt.NDArray[np.float64]

NAMES = ("track", "particle")
GATE = 1.0


@dataclass(frozen=True, slots=True)
class TrajectoryScores:
    """`tracks` with distances in units of the gates, `links` between successive points that were found."""

    tracks: TrackScores
    links: LinkScores

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and numbers; what is not finite becomes None."""
        return {**self.tracks.to_dict(), **self.links.to_dict()}


def read_points(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The columns of a detection table or of what counts in a trajectory file; `track` where there is one.

    Raises `SourceError` if it cannot be read.
    """
    if is_trajectory_file(path):
        columns = read_trajectories(path).columns()
        return {name: np.asarray(values) for name, values in columns.items()}
    columns = dict(read_detection_table(path).columns())
    name = _names(path)
    return columns | ({"track": name} if name is not None else {})


def is_trajectory_file(path: Path) -> bool:
    """Whether it is an HDF5 file with our trajectories."""
    if path.suffix.lower() not in {".h5", ".hdf5"} or not path.is_file():
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs.get("schema") == SCHEMA)
    except OSError:
        return True  # being written, or left open: its reader says which


def score_trajectories(
    truth: Mapping[str, npt.ArrayLike],
    found: Mapping[str, npt.ArrayLike],
    gate_xy_um: float,
    gate_z_um: float | None,
) -> TrajectoryScores | None:
    """Score the trajectories in `found` against those in `truth`; None where one of them has none.

    Depth plays no part where `gate_z_um` is None; points without a depth are left out where it does.
    """
    if "track" not in truth or "track" not in found:
        return None
    mine, theirs = (_points(table, gate_xy_um, gate_z_um) for table in (truth, found))
    rows, columns = nearest_tracks(mine, theirs, GATE)
    links = link_scores(mine.frame[rows], mine.track[rows], theirs.track[columns])
    return TrajectoryScores(track_scores(mine, theirs, GATE), links)


def _points(table: Mapping[str, npt.ArrayLike], gate_xy_um: float, gate_z_um: float | None) -> TrackPoints:
    gates = {"x_um": gate_xy_um, "y_um": gate_xy_um} | ({} if gate_z_um is None else {"z_um": gate_z_um})
    points = np.stack([np.asarray(table[name], np.float64) / gate for name, gate in gates.items()])
    known = np.isfinite(points).all(axis=0)
    track, frame = (np.asarray(table[name])[known] for name in ("track", "frame"))
    return TrackPoints.of(track, frame, points[:, known])


def _names(path: Path) -> FloatArray | None:
    """The numbers of the trajectories in the order of `read_detection_table`, None without such a column."""
    columns = _READERS[path.suffix.lower()](path)
    for name in NAMES:
        if name in columns:
            order = np.argsort(columns["frame"], kind="stable")
            numbers: FloatArray = np.asarray(columns[name], np.float64)[order]
            if not np.isfinite(numbers).all():
                raise SourceError(f"{path} has rows without a number in {name}; give every point one")
            return numbers
    return None


def _from_csv(path: Path) -> dict[str, Any]:
    return dict(read_csv_columns(path, dict.fromkeys(("frame", *NAMES), Rule(whole=True)), ("frame",)))


def _from_parquet(path: Path) -> dict[str, Any]:
    _, parquet = pyarrow()
    present = [name for name in ("frame", *NAMES) if name in parquet.read_schema(path).names]
    table = parquet.read_table(path, columns=present)
    return {name: table[name].to_numpy() for name in present}


def _from_h5(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r", locking=False) as file:
        return {name: file[name][:] for name in ("frame", *NAMES) if name in file}


_READERS = {".csv": _from_csv, ".parquet": _from_parquet, ".h5": _from_h5}
