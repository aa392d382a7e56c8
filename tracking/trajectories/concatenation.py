"""Joins two trajectory files of one experiment: frames, tracks and times of the second continue the first's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stream.messages import Tracks
from tracking.trajectories.annotation import adding_to
from tracking.trajectories.control_record import read_control, store_control
from tracking.trajectories.playback import play
from tracking.trajectories.reader import TrajectoryFile
from tracking.trajectories.schema import PIXEL_SIZE
from tracking.trajectories.snapshot import GROUP as SNAPSHOT
from tracking.trajectories.writer import TrajectoryWriter

COMMIT_FRAMES = 2000
"""Frames of one commit of the joined file: bounds the memory (2,000 frames of 400 rows are 65 MB)."""
OF_THE_FILE = {"schema", "schema_version", "run_id", "created", "axes", "versions", "writer", "statistics"}
FRAME_FACTS = ("frame", "first_frame", "last_frame", "decided_on_frame")
TIME_FACTS = ("time_s", "at_time_s", "from_s")


def join(first: Path, second: Path, output: Path) -> None:
    """Write both into `output`, which may be one of them; it is replaced only once the new file is complete.

    Attributes are those of the second file; `joined` says at which frame each part begins. Raises `SourceError` if
    one cannot be read, `OutputError` if the new one cannot be written.
    """
    unfinished = output.with_name(f"{output.name}.joining")
    with TrajectoryFile(first) as one, TrajectoryFile(second) as other:
        attributes = other.attributes
        kept = {name: value for name, value in attributes.items() if name not in OF_THE_FILE}
        parts = list(one.attributes.get("joined", [])) or [_part(one, 0)]
        frames, tracks, time_s = _offsets(one, other)
        kept["joined"] = [*parts, _part(other, frames)]
        unfinished.unlink(missing_ok=True)
        writer = TrajectoryWriter(unfinished, run_id=attributes["run_id"], attributes=kept)
        with writer:
            _copy(one, writer, 0, 0, 0.0)
            _copy(other, writer, frames, tracks, time_s)
            writer.finalize({}, str(attributes.get("end_reason", "")))
        entries = read_control(first) + [_later(entry, frames, time_s) for entry in read_control(second)]
    if entries:
        store_control(unfinished, entries)
    copy_picture(second, unfinished)
    unfinished.replace(output)


def copy_events(file: TrajectoryFile, writer: TrajectoryWriter) -> None:
    """Copy the events of a file to that of a `writer`; those on pixel sizes it has noted itself."""
    for event in file.events():
        if event["kind"] == PIXEL_SIZE:
            continue
        facts = {name: value for name, value in event.items() if name not in {"kind", "text", "wall_s"}}
        facts.setdefault("happened_wall_s", event["wall_s"])
        writer.event(event["kind"], event["text"], **facts)


def copy_picture(source: Path, target: Path) -> None:
    """Copy the camera image that a finished file keeps, if it has one, to another finished file."""
    with h5py.File(source, "r", locking=False) as file:
        if SNAPSHOT in file:
            size = sum(dataset.nbytes for dataset in file[SNAPSHOT].values())
            with adding_to(target, size) as other:
                file.copy(SNAPSHOT, other)


def _part(file: TrajectoryFile, first_frame: int) -> dict[str, Any]:
    attributes = file.attributes
    return {
        "run_id": attributes["run_id"],
        "first_frame": first_frame,
        "frames": len(file.frames),
        "end_reason": attributes.get("end_reason", ""),
    }


def _offsets(one: TrajectoryFile, other: TrajectoryFile) -> tuple[int, int, float]:
    """What to add to the second file's frame numbers, track numbers and times."""
    if len(one.frames) == 0:
        return 0, 0, 0.0
    tracks = max((int(rows["track"].max()) + 1 for rows in one.stored_pieces() if len(rows)), default=0)
    last = one.frames[-1]
    time_s = 0.0
    if len(other.frames):
        first = other.frames[0]
        later_s = max(float(first["wall_s"] - last["wall_s"]), 1e-6)
        time_s = float(last["time_s"]) + later_s - float(first["time_s"])
    return int(last["frame"]) + 1, tracks, time_s


def _copy(file: TrajectoryFile, writer: TrajectoryWriter, frames: int, tracks: int, time_s: float) -> None:
    numbers = [Tracks.COLUMNS.index(name) for name in ("track", *Tracks.LINKED)]
    for count, message in enumerate(play(file), 1):
        info = message.info  # frames of two runs have no common decisions that a replay could take
        info = replace(info, frame=info.frame + frames, time_s=info.time_s + time_s, decisions=None)
        table = np.array(message.table)
        table[numbers] += tracks
        writer.append(replace(message, info=info, table=table))
        if count % COMMIT_FRAMES == 0:
            writer.commit()
    copy_events(file, writer)
    writer.commit()


def _later(entry: dict[str, Any], frames: int, time_s: float) -> dict[str, Any]:
    moved = dict(entry)
    for name in FRAME_FACTS:
        if isinstance(moved.get(name), int) and moved[name] >= 0:
            moved[name] += frames
    for name in TIME_FACTS:
        if isinstance(moved.get(name), float):
            moved[name] += time_s
    return moved
