"""Writes a recording for the Rerun viewer (`.rrd`, rerun.io): particles of each frame, and tracks as lines.

Entities: `particles` (points at each frame, coloured by height), `tracks` (lines, at all times), `count`
(particles in each frame). Timelines: `frame`, and `time` in s since the run began. Positions are um; the third
is the height, refraction factor times (focus + z), 0 where there is no depth.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from stream.errors import ConfigurationError, OutputError
from tracking.export.by_track import by_track
from tracking.export.source import Exported
from tracking.trajectories.columns import Trajectories

FloatArray = npt.NDArray[np.float64]

POINT_PX, LINE_PX = -4.0, -1.0  # negative radii are screen pixels
PARTICLES, TRACKS, COUNT = "particles", "tracks", "count"


def write_rerun(path: Path, source: Exported) -> list[str]:
    """Write particles, tracks and counts. Raises `ConfigurationError` without the package `rerun-sdk`."""
    rr = rerun()
    t = source.whole()
    positions = positions_um(t)
    colours = _by_height(positions[:, 2])
    recording = rr.RecordingStream("liveptv", recording_id=str(t.attributes.get("run_id") or path.stem))
    try:
        recording.save(str(path), default_blueprint=_blueprint())
        recording.log("/", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        _log_tracks(rr, recording, t, positions, colours)
        _log_frames(rr, recording, t, positions, colours)
        recording.flush()
    except RuntimeError as error:
        raise OutputError(f"{path} cannot be written by the Rerun SDK: {error}") from error
    finally:
        recording.disconnect()
    return ["all but positions at absolute height, tracks and counts"]


def positions_um(t: Trajectories) -> FloatArray:
    """x, y and absolute height of each row, (N, 3) um."""
    focus_um = np.nan_to_num(t.of_frame("focus_um")) if len(t) else np.empty(0)
    height = float(t.attributes.get("refraction_factor", 1.0)) * (focus_um + t.z_um)
    return np.stack([t.x_um, t.y_um, np.nan_to_num(height, nan=0.0)], axis=1)


def _log_tracks(rr: Any, recording: Any, t: Trajectories, positions: FloatArray, colours: Any) -> None:
    lines = [rows for rows in by_track(t) if rows.size > 1]
    if not lines:
        return
    strips = [positions[rows].astype(np.float32) for rows in lines]
    middle = np.array([rows[rows.size // 2] for rows in lines])
    recording.log(
        TRACKS, rr.LineStrips3D(strips, colors=colours[middle], radii=[LINE_PX] * len(strips)), static=True
    )


def _log_frames(rr: Any, recording: Any, t: Trajectories, positions: FloatArray, colours: Any) -> None:
    frames = t.frames["frame"].astype(np.int64)
    if not frames.size:
        return
    counts = np.searchsorted(t.frame, frames, side="right") - np.searchsorted(t.frame, frames)
    when = [
        rr.TimeColumn("frame", sequence=frames),
        rr.TimeColumn("time", duration=t.frames["time_s"].astype(np.float64)),
    ]
    points = rr.Points3D.columns(
        positions=positions.astype(np.float32), colors=colours, radii=np.full(len(t), POINT_PX)
    )
    recording.send_columns(PARTICLES, when, points.partition(counts))
    recording.send_columns(COUNT, when, rr.Scalars.columns(scalars=counts.astype(np.float64)))


def _by_height(height_um: FloatArray) -> npt.NDArray[np.uint8]:
    """Colours (N, 4) of the map viridis; 1 % of the heights at each end are saturated."""
    if not height_um.size:
        return np.empty((0, 4), np.uint8)
    low, high = np.percentile(height_um, (1, 99))
    part = (height_um - low) / max(high - low, 1e-9)
    found: npt.NDArray[np.uint8] = colormaps["viridis"](np.clip(part, 0, 1), bytes=True)
    return found


def _blueprint() -> Any:
    views = import_module("rerun.blueprint")
    space = views.Spatial3DView(origin="/", contents=[f"/{PARTICLES}", f"/{TRACKS}"], name="trajectories, um")
    count = views.TimeSeriesView(origin=f"/{COUNT}", name="particles in a frame")
    return views.Blueprint(views.Vertical(space, count, row_shares=[4, 1]), collapse_panels=True)


def rerun() -> ModuleType:
    """The package `rerun`. Raises `ConfigurationError` that says how to install it."""
    try:
        return import_module("rerun")
    except ImportError as error:
        raise ConfigurationError(
            'a recording for Rerun needs the package rerun-sdk; pip install "liveptv[viewer]" or use .csv'
        ) from error
