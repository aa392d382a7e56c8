"""Plays a trajectory file back frame by frame, as the tracker sent it: for another controller, or another file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stream.messages import FrameInfo, Tracks
from tracking.trajectories.decisions import decisions_of
from tracking.trajectories.more import as_columns, what_was_sent
from tracking.trajectories.reader import TrajectoryFile
from tracking.trajectories.schema import PIXEL_SIZE, ROW

FRAMES_AT_A_TIME = 1000
"""Frames that are read at once; bounds the memory (400 rows a frame: 32 MB)."""
STORED = tuple(name for name in Tracks.COLUMNS if name in (ROW.names or ()))


def play(file: TrajectoryFile) -> Iterator[Tracks]:
    """Every committed frame's tracks in order, predicted rows included.

    `age_frames` counts from the track's first row, and the pixel size is that of the frame. The commanded focus,
    which the file does not hold, is set to the one read back. Raises `SourceError` if rows cannot be read.
    """
    file.warn_of_damage()
    run_id, pixel_size_um = file.attributes["run_id"], float(file.attributes.get("pixel_size_um", 1.0))
    changes = pixel_sizes(file.events())
    frames = file.frames
    born = np.full(1024, -1, np.int64)
    for start in range(0, len(frames), FRAMES_AT_A_TIME):
        piece = frames[start : start + FRAMES_AT_A_TIME]
        first = int(piece["first_row"][0])
        last = int(piece["first_row"][-1] + piece["rows"][-1])
        rows = file.rows(first, last)
        entries = file.more(first, last)
        tables = file.properties(first, last)
        more = as_columns(entries, len(rows), first) | what_was_sent(entries, len(rows), first)
        for frame, volume in zip(piece, file.volumes(piece), strict=True):
            begin = int(frame["first_row"]) - first
            end = begin + int(frame["rows"])
            own = rows[begin:end]
            pixel_size_um = changes.get(int(frame["frame"]), pixel_size_um)
            info = FrameInfo(
                run_id=run_id,
                frame=int(frame["frame"]),
                camera_frame=int(frame["camera_frame"]),
                time_s=float(frame["time_s"]),
                monotonic_ns=0,
                wall_s=float(frame["wall_s"]),
                focus_um=float(frame["focus_um"]),
                focus_commanded_um=float(frame["focus_um"]),
                flow_ul_s=float(frame["flow_ul_s"]),
                exposure_ms=float(frame["exposure_ms"]),
                pixel_size_um=pixel_size_um,
                age_ms=float(frame["age_ms"]),
                decisions=decisions_of(frame),
                volume=volume,
            )
            number = own["track"].astype(np.int64)
            if len(number) and number.max() >= len(born):
                born = np.concatenate([born, np.full(max(len(born), int(number.max())), -1, np.int64)])
            new = number[born[number] < 0]
            born[new] = info.frame
            columns = {name: own[name] for name in STORED}
            columns |= {name: values[begin:end] for name, values in more.items()}
            columns["revised"] = np.where(columns["revised"] > 0, columns["revised"], np.nan)
            tracks = Tracks.from_columns(info, **columns, age_frames=info.frame - born[number])
            mean, detected = (properties.of(slice(begin, end)) for properties in tables)
            yield replace(tracks, properties=mean, detected=detected)


def pixel_sizes(events: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """The sizes of a pixel, um, by the frame from which each holds, where it changed during the run."""
    found = {}
    for event in events:
        frame, size = event.get("frame"), event.get("pixel_size_um")
        if (
            event["kind"] == PIXEL_SIZE
            and isinstance(frame, int)
            and isinstance(size, int | float)
            and size > 0
        ):
            found[frame] = float(size)
    return found
