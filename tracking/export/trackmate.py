"""Writes a file of TrackMate (Fiji: Plugins > Tracking > Load a TrackMate file), without an image.

Each row is a spot whose quality is the confidence (without one -1, as of TrackMate's manual spots); each trajectory
is a track whose edges join its rows in order. Lengths are um, times s; without depth z is 0, as TrackMate does. The
spots' radius is for display only. Layout: TrackMate 7, `TmXmlReader`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TextIO
from xml.sax.saxutils import quoteattr

import numpy as np

from tracking.export.by_track import ByTrack, by_track
from tracking.trajectories.columns import Trajectories

VERSION = "7.11.1"
RADIUS_PX = 5.0
RADIUS_UM = 1.0
"""Radius of the circles that TrackMate draws, pixels, and um if the pixel size is not known. For display only."""
NO_QUALITY = -1.0

SPOT_FEATURES = (
    ("QUALITY", "Quality", "QUALITY", False),
    ("POSITION_X", "X", "POSITION", False),
    ("POSITION_Y", "Y", "POSITION", False),
    ("POSITION_Z", "Z", "POSITION", False),
    ("POSITION_T", "T", "TIME", False),
    ("FRAME", "Frame", "NONE", True),
    ("RADIUS", "Radius", "LENGTH", False),
    ("VISIBILITY", "Visibility", "NONE", True),
)
EDGE_FEATURES = (
    ("SPOT_SOURCE_ID", "Source spot ID", "NONE", True),
    ("SPOT_TARGET_ID", "Target spot ID", "NONE", True),
)
TRACK_FEATURES = (
    ("TRACK_INDEX", "Track index", "NONE", True),
    ("TRACK_ID", "Track ID", "NONE", True),
    ("NUMBER_SPOTS", "Number of spots in track", "NONE", True),
)


def write_trackmate(path: Path, trajectories: Trajectories) -> None:
    """Write all rows as spots, and all trajectories of two rows and more as tracks."""
    tracks = by_track(trajectories)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<TrackMate version="{VERSION}">\n'
            f"<Log>{_origin(trajectories)}</Log>\n"
            '<Model spatialunits="micron" timeunits="sec">\n'
        )
        _declare(file)
        _spots(file, trajectories)
        _tracks(file, tracks)
        file.write("</Model>\n")
        _settings(file, trajectories)
        file.write('<GUIState state="ConfigureViews" />\n</TrackMate>\n')


def _origin(trajectories: Trajectories) -> str:
    text = f"liveptv, run {trajectories.attributes.get('run_id', '?')}"
    return quoteattr(text).strip("\"'")


def _declare(file: TextIO) -> None:
    file.write("<FeatureDeclarations>\n")
    for group, features in (("Spot", SPOT_FEATURES), ("Edge", EDGE_FEATURES), ("Track", TRACK_FEATURES)):
        file.write(f"<{group}Features>\n")
        for key, name, dimension, whole in features:
            file.write(
                f'<Feature feature="{key}" name="{name}" shortname="{name}" dimension="{dimension}" '
                f'isint="{str(whole).lower()}" />\n'
            )
        file.write(f"</{group}Features>\n")
    file.write("</FeatureDeclarations>\n")


def _spots(file: TextIO, t: Trajectories) -> None:
    quality = np.nan_to_num(t.confidence, nan=NO_QUALITY)
    columns = [c.tolist() for c in (t.x_um, t.y_um, np.nan_to_num(t.z_um, nan=0.0), t.time_s, quality)]
    radius = _radius_um(t)
    frames, first = np.unique(t.frame, return_index=True)
    file.write(f'<AllSpots nspots="{len(t)}">\n')
    for frame, (start, stop) in zip(frames.tolist(), pairwise([*first.tolist(), len(t)]), strict=True):
        spots = [
            f'<Spot ID="{row}" name="ID{row}" QUALITY="{q:.4f}" POSITION_X="{x:.4f}" POSITION_Y="{y:.4f}" '
            f'POSITION_Z="{z:.4f}" POSITION_T="{s:.6f}" FRAME="{frame}" RADIUS="{radius:g}" VISIBILITY="1" />\n'
            for row, x, y, z, s, q in zip(
                range(start, stop), *(column[start:stop] for column in columns), strict=True
            )
        ]
        file.write(f'<SpotsInFrame frame="{frame}">\n{"".join(spots)}</SpotsInFrame>\n')
    file.write("</AllSpots>\n")


def _tracks(file: TextIO, tracks: ByTrack) -> None:
    linked = [
        (number, rows.tolist())
        for number, rows in zip(tracks.number.tolist(), tracks, strict=True)
        if len(rows) > 1
    ]
    file.write("<AllTracks>\n")
    for index, (number, rows) in enumerate(linked):
        edges = [f'<Edge SPOT_SOURCE_ID="{a}" SPOT_TARGET_ID="{b}" />\n' for a, b in pairwise(rows)]
        file.write(
            f'<Track name="Track_{number}" TRACK_INDEX="{index}" TRACK_ID="{number}" '
            f'NUMBER_SPOTS="{len(rows)}">\n{"".join(edges)}</Track>\n'
        )
    file.write("</AllTracks>\n<FilteredTracks>\n")
    file.writelines(f'<TrackID TRACK_ID="{number}" />\n' for number, _ in linked)
    file.write("</FilteredTracks>\n")


def _settings(file: TextIO, t: Trajectories) -> None:
    """The settings that TrackMate expects: the size of the image, and a manual detector and tracker."""
    pixel_um = float(t.attributes.get("pixel_size_um", 1.0))
    height, width = _image_shape(t, pixel_um)
    frames = int(t.frames["frame"][-1]) + 1 if len(t.frames) else 1
    file.write(
        "<Settings>\n"
        f'<ImageData filename="" folder="" width="{width}" height="{height}" nslices="1" '
        f'nframes="{frames}" pixelwidth="{pixel_um:g}" pixelheight="{pixel_um:g}" voxeldepth="1.0" '
        f'timeinterval="{_frame_interval_s(t):.9g}" />\n'
        f'<BasicSettings xstart="0" xend="{width - 1}" ystart="0" yend="{height - 1}" zstart="0" zend="0" '
        f'tstart="0" tend="{frames - 1}" />\n'
        f'<DetectorSettings DETECTOR_NAME="MANUAL_DETECTOR" RADIUS="{_radius_um(t):g}" />\n'
        f'<InitialSpotFilter feature="QUALITY" value="{2 * NO_QUALITY}" isabove="true" />\n'
        "<SpotFilterCollection />\n"
        '<TrackerSettings TRACKER_NAME="MANUAL_TRACKER" />\n'
        "<TrackFilterCollection />\n"
        "<AnalyzerCollection>\n<SpotAnalyzers />\n<EdgeAnalyzers />\n<TrackAnalyzers />\n</AnalyzerCollection>\n"
        "</Settings>\n"
    )


def _radius_um(t: Trajectories) -> float:
    return RADIUS_PX * float(t.attributes["pixel_size_um"]) if "pixel_size_um" in t.attributes else RADIUS_UM


def _image_shape(t: Trajectories, pixel_um: float) -> tuple[int, int]:
    """Height and width of the image in pixels; if not known, an image that contains all rows."""
    if "image_shape" in t.attributes:
        height, width = t.attributes["image_shape"][-2:]
        return int(height), int(width)
    if len(t) == 0:
        return 1, 1
    return int(t.y_um.max() / pixel_um) + 2, int(t.x_um.max() / pixel_um) + 2


def _frame_interval_s(trajectories: Trajectories) -> float:
    """The median time between frames; 1 s if there are no times."""
    frames = trajectories.frames
    if len(frames) < 2:
        return 1.0
    steps = np.diff(frames["time_s"]) / np.diff(frames["frame"].astype(np.int64))
    interval = float(np.nanmedian(steps)) if np.isfinite(steps).any() else 0.0
    return interval if interval > 0 else 1.0
