"""Tracks to be written, and a process that writes them until it is killed.

As a script: `python trajectory_files.py FILE FRAMES ROWS [BYTES]` writes a frame at a time and prints the
number of each committed one; BYTES limits the size of files. It ends by saying how that went.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from stream.errors import OutputError
from stream.messages import FrameInfo, Tracks
from tracking.trajectories.file import TrajectoryWriter

FRAME_S = 0.05


def info(frame: int, **more) -> FrameInfo:
    return FrameInfo("run", frame, frame + 100, frame * FRAME_S, 0, 1e9 + frame * FRAME_S, **more)


def tracks(frame: int, numbers=3, flags=0, **more) -> Tracks:
    """Tracks at x = frame, y = track number, z = NaN unless given."""
    number = np.arange(numbers) if isinstance(numbers, int) else np.asarray(numbers)
    columns = {"x_um": float(frame), "y_um": number, "detection": np.arange(len(number)), **more}
    columns = {name: np.broadcast_to(values, number.shape) for name, values in columns.items()}
    flags = np.broadcast_to(flags, number.shape)
    return Tracks.from_columns(info(frame), track=number, flags=flags, **columns)


def write(path: Path, frames, attributes=None, **more) -> Path:
    """A finished file with these tracks, committed three frames at a time."""
    with TrajectoryWriter(path, run_id="run", attributes=attributes or {}, **more) as writer:
        for count, frame in enumerate(frames):
            writer.append(frame)
            if count % 3 == 2:
                writer.commit()
        writer.finalize({}, "done")
    return path


def limit_file_size(limit: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def main(path: str, frames: str, rows: str, limit: str = "0") -> None:
    if int(limit):
        limit_file_size(int(limit))
    writer = TrajectoryWriter(Path(path), run_id="run", attributes={"notes": "killed"})
    reason = "done"
    try:
        for frame in range(int(frames)):
            writer.append(tracks(frame, int(rows), z_um=float(frame)))
            writer.event("note", f"frame {frame}")
            writer.commit()
            print(frame, flush=True)  # noqa: T201 - what the test listens to
    except OutputError as error:
        reason = str(error)
    writer.finalize({}, reason)
    print(reason, flush=True)  # noqa: T201 - what the test listens to


if __name__ == "__main__":
    main(*sys.argv[1:])
