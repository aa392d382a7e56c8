"""A recorded run frame by frame, as the tracker gave it: for another controller to look at, or another file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.messages import Command, FrameInfo, Tracks
from tracking.controllers import Controller
from tracking.trajectory_reader import TrajectoryFile
from tracking.trajectory_schema import ROW

FRAMES_AT_A_TIME = 1000
STORED = tuple(name for name in Tracks.COLUMNS if name in (ROW.names or ()))


def play(file: TrajectoryFile) -> Iterator[Tracks]:
    """Every committed frame's tracks in order, predicted rows included.

    `age_frames` counts from the track's first row. The commanded focus is taken to be the one read back. Raises
    `SourceError` if rows cannot be read.
    """
    file.warn_of_damage()
    run_id, pixel_size_um = file.attributes["run_id"], float(file.attributes.get("pixel_size_um", 1.0))
    frames = file.frames
    born = np.full(1024, -1, np.int64)
    for start in range(0, len(frames), FRAMES_AT_A_TIME):
        piece = frames[start : start + FRAMES_AT_A_TIME]
        first = int(piece["first_row"][0])
        rows = file.rows(first, int(piece["first_row"][-1] + piece["rows"][-1]))
        for frame in piece:
            begin = int(frame["first_row"]) - first
            own = rows[begin : begin + int(frame["rows"])]
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
            )
            number = own["track"].astype(np.int64)
            if len(number) and number.max() >= len(born):
                born = np.concatenate([born, np.full(max(len(born), int(number.max())), -1, np.int64)])
            new = number[born[number] < 0]
            born[new] = info.frame
            columns = {name: own[name] for name in STORED}
            yield Tracks.from_columns(info, **columns, age_frames=info.frame - born[number])


@dataclass(frozen=True, slots=True)
class Decision:
    """What a controller would have asked for, and what it had measured then."""

    frame: int
    time_s: float
    command: Command
    measured: dict[str, float]
    focus_um: float
    flow_ul_s: float

    def row(self) -> dict[str, Any]:
        """As a row of a table; `focus_um` and `flow_ul_s` are those that the recorded run had then."""
        return {
            "frame": self.frame,
            "time_s": self.time_s,
            "command": str(self.command.kind),
            "value": self.command.value,
            "at_time_s": self.command.at_time_s,
            "focus_um": self.focus_um,
            "flow_ul_s": self.flow_ul_s,
            **self.measured,
        }


def reconsider(file: TrajectoryFile, controller: Controller) -> Iterator[Decision]:
    """Show a recorded run to a controller: what it would have asked for.

    The run does not answer: what was asked for is not carried out, and no command is acknowledged. Whatever the
    controller raises comes through.
    """
    measured = getattr(controller, "measured", None)
    for tracks in play(file):
        for command in controller.update(tracks):
            info = tracks.info
            values = measured() if measured is not None else {}
            yield Decision(info.frame, info.time_s, command, values, info.focus_um, info.flow_ul_s)
