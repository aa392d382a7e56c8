"""Compares two trajectory files, some frames at a time, so that files of any length can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from liveptv.comparing.detections import DetectionDifference, pairs_of
from liveptv.comparing.settings import made_differently
from liveptv.comparing.tracks import TrackDifference
from stream.messages import TrackFlag
from stream.particle_properties import OF_DETECTION
from stream.volume_info import VolumeInfo
from tracking.trajectories.control_record import read_control
from tracking.trajectories.reader import TrajectoryFile
from tracking.trajectories.schema import NO_DECISIONS, RecordArray

ROWS_AT_A_TIME = 200_000
"""Rows of both files together that are compared at once: 16 MB, and a search tree of some 50 MB."""
WITHIN_PX = 2.0
"""Distance in the plane within which two detections are one particle, where none is given. The fit moves what a
network has found by less (docs/network.md); twice as much joins neighbours in dense samples."""
TIMES = ("age_ms", "wall_s", "commit")
"""Columns of a frame that say when it was processed, not what was found in it."""
PLACES = ("first_row", "first_slice", "slice_rows")
"""Columns of a frame that say where in the file its rows and slices are."""
DECISIONS = ("opened", "replaced", "predicted_from", "fit", "fit_credit", "turns_from", "learnt_from")


def compare(first: Path, second: Path, within_um: float | None = None) -> dict[str, Any]:
    """What differs between two trajectory files, JSON-able; see docs/replay.md.

    Detections of a frame are one particle if they are each other's nearest and at most `within_um` apart, by
    default two pixels of the first file. Raises `SourceError` if a file cannot be read.
    """
    with TrajectoryFile(first) as a, TrajectoryFile(second) as b:
        about_a, about_b = a.attributes, b.attributes
        reach_um = within_um or WITHIN_PX * float(about_a.get("pixel_size_um", 1.0))
        detections, tracks = DetectionDifference(), TrackDifference()
        identical = len(a.frames) == len(b.frames)
        for rows, others, same in _pieces(a, b):
            identical &= same
            pairs = pairs_of(rows, others, reach_um)
            detections.add(rows, others, pairs)
            tracks.add(rows, others, pairs)
        return {
            "a": str(first),
            "b": str(second),
            "identical_rows": identical,
            **made_differently(about_a, about_b),
            "replay_of": [about_a.get("replay_of"), about_b.get("replay_of")],
            "frames": frames_difference(a.frames, b.frames),
            "within_um": reach_um,
            "detections": detections.to_dict(),
            "tracks": tracks.to_dict(),
            "commands": commands_difference(read_control(first), read_control(second)),
        }


def _pieces(a: TrajectoryFile, b: TrajectoryFile) -> Iterator[tuple[RecordArray, RecordArray, bool]]:
    """Some frames at a time: the detections (ROW) of both, and whether all that is stored is the same."""
    at_a = at_b = 0
    while at_a < len(a.frames) or at_b < len(b.frames):
        until = min(_until(a.frames, at_a), _until(b.frames, at_b))
        to_a, to_b = (int(np.searchsorted(file.frames["frame"], until, side="right")) for file in (a, b))
        rows_a, more_a = _stored(a, at_a, to_a)
        rows_b, more_b = _stored(b, at_b, to_b)
        frames_a, frames_b = a.frames[at_a:to_a], b.frames[at_b:to_b]
        same = _is_same(frames_a, frames_b, TIMES + DECISIONS + PLACES)
        same = same and _are_the_same_volumes(a.volumes(frames_a), b.volumes(frames_b))
        same = same and rows_a.tobytes() == rows_b.tobytes() and more_a.tobytes() == more_b.tobytes()
        same = same and _properties(a, at_a, to_a) == _properties(b, at_b, to_b)
        yield _detected(rows_a), _detected(rows_b), same
        at_a, at_b = to_a, to_b


def _until(frames: RecordArray, at: int) -> int:
    """The number of the last frame of a piece that begins at an entry; beyond the end, as far as the other goes."""
    if at >= len(frames):
        return np.iinfo(np.int64).max
    rows = np.cumsum(frames["rows"][at : at + ROWS_AT_A_TIME], dtype=np.int64)
    last = max(int(np.searchsorted(rows, ROWS_AT_A_TIME // 2)), 1)
    return int(frames["frame"][min(at + last, at + len(rows)) - 1])


def _rows_of(file: TrajectoryFile, begin: int, end: int) -> tuple[int, int]:
    """The rows of entries `begin` to `end` of the table of frames."""
    if begin == end:
        return 0, 0
    first, last = file.frames[begin], file.frames[end - 1]
    return int(first["first_row"]), int(last["first_row"] + last["rows"])


def _properties(file: TrajectoryFile, begin: int, end: int) -> dict[str, bytes]:
    """What is known of the particles of frames beside place, brightness and class, by column."""
    mean, detected = file.properties(*_rows_of(file, begin, end))
    columns = mean.columns() | detected.columns(OF_DETECTION)
    return {name: column.tobytes() for name, column in columns.items() if np.isfinite(column).any()}


def _stored(file: TrajectoryFile, begin: int, end: int) -> tuple[RecordArray, RecordArray]:
    start, stop = _rows_of(file, begin, end)
    more = file.more(start, stop).copy()
    more["row"] -= np.uint64(start)
    return file.rows(start, stop), more


def _detected(rows: RecordArray) -> RecordArray:
    detected: RecordArray = rows[rows["flags"] & int(TrackFlag.PREDICTED) == 0]
    return detected


def _is_same(a: RecordArray, b: RecordArray, but: tuple[str, ...]) -> bool:
    names = [name for name in a.dtype.names or () if name not in but]
    return len(a) == len(b) and all(
        np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f") for name in names
    )


def _are_the_same_volumes(a: Iterable[VolumeInfo | None], b: Iterable[VolumeInfo | None]) -> bool:
    """Whether all slices are the same; where one file does not know them, they do not differ."""
    return all(None in (one, other) or one == other for one, other in zip(a, b, strict=True))


def frames_difference(a: RecordArray, b: RecordArray) -> dict[str, Any]:
    """Frames (FRAME) that both files have and that one has, and in how many common ones decisions differ.

    Where one file does not know of decisions (an import, an older version), they do not differ.
    """
    common, at_a, at_b = np.intersect1d(a["frame"], b["frame"], return_indices=True)
    left, right = a[at_a], b[at_b]
    other = np.zeros(len(common), np.bool_)
    for name in DECISIONS[2:]:  # the number of the engine is only a name
        differs = left[name] != right[name]
        if left[name].dtype.kind == "f":
            differs &= ~(np.isnan(left[name]) & np.isnan(right[name]))
        other |= differs
    other &= (left["fit"] != NO_DECISIONS) & (right["fit"] != NO_DECISIONS)
    return {
        "common": len(common),
        "only_a": len(a) - len(common),
        "only_b": len(b) - len(common),
        "other_decisions": int(other.sum()),
    }


def commands_difference(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Any]:
    """Commands that controllers have given: how many, how many are the same, and the first frame that differs."""
    one, other = ([_command(entry) for entry in log if entry["kind"] == "command"] for log in (a, b))
    same = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        same += 1
    rest = [command["decided_on_frame"] for commands in (one, other) for command in commands[same : same + 1]]
    return {"a": len(one), "b": len(other), "same": same, "first_difference": min(rest) if rest else None}


def _command(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = ("command", "value", "property", "decided_on_frame", "at_time_s")
    return {name: entry.get(name) for name in names} | {"decided_on_frame": entry.get("decided_on_frame", -1)}
