"""Writes a file of TrackMate (Fiji: Plugins > Tracking > Load a TrackMate file), without an image.

Each row is a spot whose quality is the confidence (without one -1, as of TrackMate's manual spots); each trajectory
is a track whose edges join its rows in order. Lengths are um, times s; without depth z is 0, as TrackMate does, and
`Z_KNOWN` says so. What else is known of a row are further features of the spot, named like the column. The spots'
radius is for display only. Layout: TrackMate 7, `TmXmlReader`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TextIO
from xml.sax.saxutils import escape

import numpy as np

from tracking.export.by_track import ByTrack
from tracking.export.columns import depth, further, spec_of, values_of
from tracking.export.source import Exported
from tracking.trajectories.columns import Trajectories

VERSION = "7.11.1"
RADIUS_PX = 5.0
RADIUS_UM = 1.0
"""Radius of the circles that TrackMate draws, pixels, and um if the pixel size is not known. For display only."""
NO_QUALITY = -1.0
ASSUMED = {"pixel_size_um": "size of a pixel assumed", "image_shape": "size of the image assumed"}
"""Stated in the log where the file does not know them, as TrackMate needs numbers."""

SPOT_FEATURES = (
    ("QUALITY", "Quality", "QUALITY", False),
    ("POSITION_X", "X", "POSITION", False),
    ("POSITION_Y", "Y", "POSITION", False),
    ("POSITION_Z", "Z", "POSITION", False),
    ("POSITION_T", "T", "TIME", False),
    ("FRAME", "Frame", "NONE", True),
    ("RADIUS", "Radius", "LENGTH", False),
    ("VISIBILITY", "Visibility", "NONE", True),
    ("LIVEPTV_TRACK", "Trajectory", "NONE", True),
)
Z_KNOWN = ("Z_KNOWN", "Z is known", "NONE", True)
DIMENSIONS = {"um": "LENGTH", "um/s": "VELOCITY", "grey values": "INTENSITY"}
EDGE_FEATURES = (
    ("SPOT_SOURCE_ID", "Source spot ID", "NONE", True),
    ("SPOT_TARGET_ID", "Target spot ID", "NONE", True),
)
TRACK_FEATURES = (
    ("TRACK_INDEX", "Track index", "NONE", True),
    ("TRACK_ID", "Track ID", "NONE", True),
    ("NUMBER_SPOTS", "Number of spots in track", "NONE", True),
)


def write_trackmate(path: Path, source: Exported) -> list[str]:
    """Write all rows as spots, and all trajectories of two rows and more as tracks.

    Returns what the format does not hold.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<TrackMate version="{VERSION}">\n'
            f"<Log>{_origin(source)}</Log>\n"
            '<Model spatialunits="micron" timeunits="sec">\n'
        )
        names = [name for name in further(source) if name != "confidence"]
        without_depth = depth(source.contents) != "all"
        _declare(file, [*SPOT_FEATURES, *[Z_KNOWN] * without_depth, *map(_feature, names)])
        _spots(file, source, names, without_depth)
        _tracks(file, source.by_track)
        file.write("</Model>\n")
        _settings(file, source)
        file.write('<GUIState state="ConfigureViews" />\n</TrackMate>\n')
    return ["frames without particles", "events", "attributes"]


def _feature(name: str) -> tuple[str, str, str, bool]:
    spec = spec_of(name)
    return name.upper(), name, DIMENSIONS.get(spec.unit, "NONE"), spec.dtype[1] in "iu"


def _origin(source: Exported) -> str:
    assumed = [text for name, text in ASSUMED.items() if name not in source.attributes]
    return escape("; ".join([f"liveptv, run {source.attributes.get('run_id', '?')}", *assumed]))


def _declare(file: TextIO, spot_features: list[tuple[str, str, str, bool]]) -> None:
    file.write("<FeatureDeclarations>\n")
    for group, features in (("Spot", spot_features), ("Edge", EDGE_FEATURES), ("Track", TRACK_FEATURES)):
        file.write(f"<{group}Features>\n")
        for key, name, dimension, whole in features:
            file.write(
                f'<Feature feature="{key}" name="{name}" shortname="{name}" dimension="{dimension}" '
                f'isint="{str(whole).lower()}" />\n'
            )
        file.write(f"</{group}Features>\n")
    file.write("</FeatureDeclarations>\n")


def _spots(file: TextIO, source: Exported, names: list[str], without_depth: bool) -> None:
    line = (
        '<Spot ID="%d" name="ID%d" QUALITY="%r" POSITION_X="%r" POSITION_Y="%r" POSITION_Z="%r" POSITION_T="%r" '
        f'FRAME="%d" RADIUS="{_radius_um(source):g}" VISIBILITY="1" LIVEPTV_TRACK="%d"'
        + ' Z_KNOWN="%d"' * without_depth
        + "".join(f' {name.upper()}="%{"d" if spec_of(name).dtype[1] in "iu" else "r"}"' for name in names)
        + " />\n"
    )
    file.write(f'<AllSpots nspots="{source.contents.rows}">\n')
    open_frame, row = None, 0
    for piece in source.pieces():
        for frame, part in _frames(piece):
            if frame != open_frame:
                file.write(
                    "</SpotsInFrame>\n" * (open_frame is not None) + f'<SpotsInFrame frame="{frame}">\n'
                )
                open_frame = frame
            rows = range(row, row + part.stop - part.start)
            columns = [
                values[part].tolist() for values in _columns(piece, [*["z_um"] * without_depth, *names])
            ]
            text = "".join([line % values for values in zip(rows, rows, *columns, strict=True)])
            file.write(text.replace('"nan"', '"NaN"').replace('inf"', 'Infinity"'))
            row = rows.stop
    file.write("</SpotsInFrame>\n" * (open_frame is not None) + "</AllSpots>\n")


def _columns(piece: Trajectories, names: list[str]) -> Iterator[np.ndarray]:
    yield np.nan_to_num(piece.confidence.astype(np.float64), nan=NO_QUALITY)
    yield from (piece.x_um, piece.y_um, np.nan_to_num(piece.z_um, nan=0.0), piece.time_s)
    yield from (piece.frame, piece.track)
    for name in names:
        yield np.isfinite(piece.z_um) if name == "z_um" else values_of(piece, name)


def _frames(piece: Trajectories) -> Iterator[tuple[int, slice]]:
    """The frames of a piece and their rows."""
    frames, first = np.unique(piece.frame, return_index=True)
    for frame, (start, stop) in zip(frames.tolist(), pairwise([*first.tolist(), len(piece)]), strict=True):
        yield frame, slice(start, stop)


def _tracks(file: TextIO, tracks: ByTrack) -> None:
    linked = np.diff(tracks.first) > 1
    file.write("<AllTracks>\n")
    index = 0
    for number, rows in zip(tracks.number.tolist(), tracks, strict=True):
        if len(rows) < 2:
            continue
        edges = [f'<Edge SPOT_SOURCE_ID="{a}" SPOT_TARGET_ID="{b}" />\n' for a, b in pairwise(rows.tolist())]
        file.write(
            f'<Track name="Track_{number}" TRACK_INDEX="{index}" TRACK_ID="{number}" '
            f'NUMBER_SPOTS="{len(rows)}">\n{"".join(edges)}</Track>\n'
        )
        index += 1
    file.write("</AllTracks>\n<FilteredTracks>\n")
    file.writelines(f'<TrackID TRACK_ID="{number}" />\n' for number in tracks.number[linked].tolist())
    file.write("</FilteredTracks>\n")


def _settings(file: TextIO, source: Exported) -> None:
    """The settings that TrackMate expects: the size of the image, and a manual detector and tracker."""
    interval_s = source.frame_interval_s if math.isfinite(source.frame_interval_s) else 1.0
    pixel_um = float(source.attributes.get("pixel_size_um", 1.0))
    height, width = _image_shape(source, pixel_um)
    frames = int(source.frames["frame"][-1]) + 1 if len(source.frames) else 1
    file.write(
        "<Settings>\n"
        f'<ImageData filename="" folder="" width="{width}" height="{height}" nslices="1" '
        f'nframes="{frames}" pixelwidth="{pixel_um!r}" pixelheight="{pixel_um!r}" voxeldepth="1.0" '
        f'timeinterval="{interval_s!r}" />\n'
        f'<BasicSettings xstart="0" xend="{width - 1}" ystart="0" yend="{height - 1}" zstart="0" zend="0" '
        f'tstart="0" tend="{frames - 1}" />\n'
        f'<DetectorSettings DETECTOR_NAME="MANUAL_DETECTOR" RADIUS="{_radius_um(source):g}" />\n'
        f'<InitialSpotFilter feature="QUALITY" value="{2 * NO_QUALITY}" isabove="true" />\n'
        "<SpotFilterCollection />\n"
        '<TrackerSettings TRACKER_NAME="MANUAL_TRACKER" />\n'
        "<TrackFilterCollection />\n"
        "<AnalyzerCollection>\n<SpotAnalyzers />\n<EdgeAnalyzers />\n<TrackAnalyzers />\n</AnalyzerCollection>\n"
        "</Settings>\n"
    )


def _radius_um(source: Exported) -> float:
    return (
        RADIUS_PX * float(source.attributes["pixel_size_um"])
        if "pixel_size_um" in source.attributes
        else RADIUS_UM
    )


def _image_shape(source: Exported, pixel_um: float) -> tuple[int, int]:
    """Height and width of the image in pixels; if not known, an image that contains all rows."""
    if "image_shape" in source.attributes:
        height, width = source.attributes["image_shape"][-2:]
        return int(height), int(width)
    largest = [source.contents.range.get(name, (0.0, 0.0))[1] / pixel_um for name in ("y_um", "x_um")]
    height, width = (max(int(value), -1) + 2 if source.contents.rows else 1 for value in largest)
    return height, width
