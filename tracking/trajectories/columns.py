"""Rows of a trajectory file as arrays, one for each column, and the selection of rows that count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.messages import NO_PROPERTIES, Properties, TrackFlag, Tracks
from stream.particle_properties import OF_DETECTION, joined
from tracking.trajectories.schema import ROW, RecordArray
from tracking.trajectories.statistics import BoolArray

FloatArray = npt.NDArray[np.float64]
SingleArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Trajectories:
    """Rows of a trajectory file, (N,) each, in the order of frames; units are in the names.

    `time_s` is the exposure time of the row's frame; in a volume `time_s + time_offset_s` is the particle's own.
    What more is known of some rows is NaN for the others; rows that a later decision has put on the other side of
    focus have `revised` 1. `properties` are those of the particles (radius ...) by the track's detections so far,
    `detected` those by the row's own. `frames` is the table of all frames (see `FRAME_COLUMNS`), also of those
    without rows; `attributes` are the file's.
    """

    track: IntArray
    frame: IntArray
    time_s: FloatArray
    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray
    sigma_x_um: SingleArray
    sigma_y_um: SingleArray
    sigma_z_um: SingleArray
    vx_um_s: SingleArray
    vy_um_s: SingleArray
    vz_um_s: SingleArray
    sigma_vx_um_s: SingleArray
    sigma_vy_um_s: SingleArray
    sigma_vz_um_s: SingleArray
    brightness: SingleArray
    confidence: SingleArray
    detection: npt.NDArray[np.int32]
    flags: npt.NDArray[np.uint8]
    z_other_um: FloatArray
    p_side: SingleArray
    revised: npt.NDArray[np.uint8]
    kind: SingleArray
    p_kind: SingleArray
    time_offset_s: SingleArray
    frames: RecordArray
    attributes: dict[str, Any]
    properties: Properties = NO_PROPERTIES
    detected: Properties = NO_PROPERTIES

    def __len__(self) -> int:
        return len(self.track)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name: `pandas.DataFrame(trajectories.columns())`; what is known of no row is left out."""
        own = {
            name: getattr(self, name) for name in COLUMN_NAMES if name not in MORE_NAMES or self.knows(name)
        }
        return own | self.property_columns()

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column by its name, also one of a property of the particles."""
        found: npt.NDArray[Any] = (
            getattr(self, name) if name in COLUMN_NAMES else self.property_columns()[name]
        )
        return found

    def property_columns(self) -> dict[str, FloatArray]:
        """Properties of the particles with their standard errors, then those by each row's own detection."""
        return self.properties.columns() | self.detected.columns(OF_DETECTION)

    def knows(self, name: str) -> bool:
        """Whether a column that only some rows have holds anything."""
        values = getattr(self, name)
        return bool(values.any() if name == "revised" else np.isfinite(values).any())

    def of_frame(self, name: str) -> npt.NDArray[Any]:
        """A column of `frames` (`focus_um`, `flow_ul_s` ...) repeated for each row, (N,)."""
        column: npt.NDArray[Any] = self.frames[name]
        return column[np.searchsorted(self.frames["frame"], self.frame)]


NOT_COLUMNS = {"frames", "attributes", "properties", "detected"}
COLUMN_NAMES = tuple(f.name for f in fields(Trajectories) if f.name not in NOT_COLUMNS)
MORE_NAMES = Tracks.MORE


def collect(pieces: Iterable[Trajectories]) -> Trajectories:
    """Concatenate pieces of one file (at least one)."""
    parts = list(pieces)
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMN_NAMES}
    return Trajectories(
        **columns,
        frames=parts[0].frames,
        attributes=parts[0].attributes,
        properties=joined([part.properties for part in parts]),
        detected=joined([part.detected for part in parts]),
    )


def counting(rows: RecordArray, counted: BoolArray | None, include_predicted: bool) -> BoolArray:
    """Which rows (N,) count: measured ones (or all), of the tracks that count (`counted`, by number; None: all)."""
    kept = np.ones(len(rows), np.bool_)
    if not include_predicted:
        kept &= (rows["flags"] & TrackFlag.PREDICTED) == 0
    if counted is not None:
        kept &= counted[rows["track"]]
    return kept


def as_columns(
    rows: RecordArray,
    more: Mapping[str, Any],
    frames: RecordArray,
    attributes: dict[str, Any],
) -> Trajectories:
    """Stored rows (ROW) as columns, with `more` columns (N,) and the times of their frames."""
    stored = [name for name in COLUMN_NAMES if name in (ROW.names or ())]
    columns: dict[str, Any] = {name: np.ascontiguousarray(rows[name]) for name in stored}
    for name in ("track", "frame"):
        columns[name] = columns[name].astype(np.int64)
    time_s = frames["time_s"][np.searchsorted(frames["frame"], columns["frame"])]
    return Trajectories(time_s=time_s, **columns, **more, frames=frames, attributes=attributes)
