"""What an export writes of a row: names, units and meanings of its columns, and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stream.particle_properties import OF_DETECTION, SIGMA, unit_of
from tracking.export.source import VALUES, Contents, Exported
from tracking.trajectories.columns import Trajectories
from tracking.trajectories.schema import FRAME_COLUMNS, MORE_COLUMNS, ROW_COLUMNS, ColumnSpec

POSITION = ("x_um", "y_um", "z_um")
OF_FRAMES = ("focus_um", "flow_ul_s", "exposure_ms")
"""Columns of frames that are repeated for each row, where they hold anything."""

SPECS: dict[str, ColumnSpec] = {
    column.name: column for column in (*FRAME_COLUMNS, *MORE_COLUMNS, *ROW_COLUMNS)
}
EXCHANGED = ColumnSpec(
    "revised", "|u1", "1", "1: z_um and z_other_um were exchanged by a later decision on the side of focus"
)
SPECS |= {"kind": ColumnSpec("kind", "<f4", "1", SPECS["kind"].meaning), "revised": EXCHANGED}


def further(source: Exported) -> list[str]:
    """The columns beyond track, frame, time and position that hold anything, in order."""
    contents = source.contents
    own = [name for name in (*VALUES, *source.properties) if name not in POSITION and contents.has(name)]
    return own + [name for name in OF_FRAMES if np.isfinite(source.frames[name]).any() and contents.rows]


def values_of(piece: Trajectories, name: str) -> npt.NDArray[Any]:
    """A column of rows (N,), also one that belongs to their frames."""
    if name in OF_FRAMES:
        return piece.of_frame(name)
    return piece.column(name)


def spec_of(name: str) -> ColumnSpec:
    """Type, unit and meaning of a column; of a property of particles by its name."""
    if name in SPECS:
        return SPECS[name]
    of = name.removeprefix(SIGMA)
    what = (
        f"standard error of {of}"
        if of != name
        else "property of the particle, by the track's detections so far"
    )
    if of.startswith(OF_DETECTION):
        what += " by this row's own detection"
    return ColumnSpec(name, "<f4", unit_of(name), what)


def depth(contents: Contents) -> str:
    """Whether `all`, `some` or `no` rows have a depth."""
    if not contents.has("z_um"):
        return "no"
    return "some" if contents.partly("z_um") else "all"
