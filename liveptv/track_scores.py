"""Scores of trajectories against true ones, read from files, for `liveptv evaluate`.

Trajectories are given by a column `track` (or `particle`) beside those of a detection table, or a trajectory file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from liveptv.tables.columns_option import Wanted
from liveptv.tables.reader import AS_IT_IS, COLUMNS, read_columns
from stream.errors import SourceError
from stream.hdf5_reading import schema_of
from stream.messages import NAN
from tracking.analysis.metrics import (
    LinkScores,
    TrackPoints,
    TrackScores,
    link_scores,
    nearest_tracks,
    track_scores,
)
from tracking.trajectories.file import read_trajectories
from tracking.trajectories.schema import SCHEMA

FloatArray = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

GATE = 1.0  # distances are in units of the gates that the user gives, so a match is at most 1 away


@dataclass(frozen=True, slots=True)
class TrajectoryScores:
    """`tracks` with distances in units of the gates, `links` between successive points that were found."""

    tracks: TrackScores
    links: LinkScores

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and numbers; what is not finite becomes None."""
        return {**self.tracks.to_dict(), **self.links.to_dict()}


def read_points(
    path: Path, wanted: Wanted = AS_IT_IS, say: Callable[[str], None] = log.info
) -> dict[str, npt.NDArray[Any]]:
    """The columns of a detection table, or of the counted rows of a trajectory file; `track` if there is one.

    `wanted` and `say` are those of `read_detection_table`. Raises `SourceError` if it cannot be read.
    """
    if is_trajectory_file(path):
        columns = read_trajectories(path).columns()
        return {name: np.asarray(values) for name, values in columns.items()}
    table = read_columns(path, wanted, say)
    rows = len(table["frame"])
    points = {name: table[name] if name in table else np.full(rows, NAN) for name in COLUMNS}
    if "track" in table:
        if not np.isfinite(table["track"]).all():
            raise SourceError(f"{path} has rows without a track number; every row needs one")
        points["track"] = table["track"]
    if "snr" in table:
        points["snr"] = table["snr"]
    return points


def is_trajectory_file(path: Path) -> bool:
    """Whether it is a trajectory file."""
    if path.suffix.lower() not in {".h5", ".hdf5"} or not path.is_file():
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(schema_of(file) == SCHEMA)
    except (OSError, RuntimeError):
        return True  # being written, or left open: its reader says which


def score_trajectories(
    truth: Mapping[str, npt.ArrayLike],
    found: Mapping[str, npt.ArrayLike],
    gate_xy_um: float,
    gate_z_um: float | None,
) -> TrajectoryScores | None:
    """Score the trajectories in `found` against those in `truth`; None if one of them has none.

    With `gate_z_um` None depth is ignored, otherwise points without a depth are left out.
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
