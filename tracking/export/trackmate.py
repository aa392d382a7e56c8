"""TrackMate's XML of tracks (its action "Export tracks to XML file"): positions by track, nothing else.

Read by `importTrackMateTracks.m`, which comes with Fiji, and by whatever reads that export; a track is a
`particle`, a row a `detection` with the frame number as `t`. Without depth, z is 0, as in TrackMate's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracking.export.by_track import by_track
from tracking.trajectory_reader import Trajectories


def write_trackmate(path: Path, trajectories: Trajectories) -> None:
    """Write all tracks; `frameInterval` is the median time between frames, in seconds."""
    tracks = by_track(trajectories)
    frame, x, y = trajectories.frame, trajectories.x_um, trajectories.y_um
    z = np.nan_to_num(trajectories.z_um, nan=0.0)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<Tracks nTracks="{len(tracks.number)}" spaceUnits="micron" '
            f'frameInterval="{_frame_interval_s(trajectories):.9g}" timeUnits="sec" '
            f'generationDateTime="{trajectories.attributes.get("created", "")}" from="liveptv">\n'
        )
        for rows in tracks:
            columns = (frame[rows].tolist(), x[rows].tolist(), y[rows].tolist(), z[rows].tolist())
            spots = [
                f'    <detection t="{t}" x="{a:.4f}" y="{b:.4f}" z="{c:.4f}" />\n'
                for t, a, b, c in zip(*columns, strict=True)
            ]
            file.write(f'  <particle nSpots="{len(spots)}">\n{"".join(spots)}  </particle>\n')
        file.write("</Tracks>\n")


def _frame_interval_s(trajectories: Trajectories) -> float:
    frames = trajectories.frames
    if len(frames) < 2:
        return 1.0
    steps = np.diff(frames["time_s"]) / np.diff(frames["frame"].astype(np.int64))
    interval = float(np.nanmedian(steps)) if np.isfinite(steps).any() else 0.0
    return interval if interval > 0 else 1.0
