"""The account of a recording after its run: what is stored, and a declaration for whatever is not."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acquisition.recorder.frame_table import FrameTable, Lost, line, read_frame_table
from stream.errors import OutputError

NOT_WRITTEN = "it was on its way when the recorder ended"


@dataclass(frozen=True, slots=True)
class RecordingAccount:
    """Frames stored, and frames lost by why. `mode` is that of the recording: all, or events."""

    mode: str
    images: str
    frame_table: str
    stored: int
    lost: dict[str, int] = field(default_factory=dict)
    events: int = 0

    @property
    def total_lost(self) -> int:
        """All frames lost."""
        return sum(self.lost.values())

    def in_words(self) -> str:
        """For a user."""
        text = f"{self.stored} frames in {self.images}"
        if self.mode == "events":
            text += f", {self.events} event{'' if self.events == 1 else 's'}"
        whys = "; ".join(f"{count}: {why}" for why, count in self.lost.items())
        return f"{text}; {self.total_lost} not recorded ({whys})" if whys else f"{text}, none lost"

    def to_dict(self) -> dict[str, Any]:
        """As it is stored in the trajectory file's attribute `recording`."""
        return {
            "mode": self.mode,
            "images": self.images,
            "frame_table": self.frame_table,
            "stored": self.stored,
            "lost": dict(self.lost),
            "events": self.events,
        }


def account_of_recording(table: FrameTable, frame_table: str) -> RecordingAccount:
    """The account in a frame table."""
    lost: Counter[str] = Counter()
    for each in table.lost:
        lost[each.why] += each.count
    return RecordingAccount(
        str(table.head.get("mode", "all")),
        str(table.head.get("images", "")),
        frame_table,
        len(table.rows),
        dict(lost),
        len(table.events),
    )


def close_table(path: Path, run_id: str, received: int) -> RecordingAccount:
    """Declare in a frame table what a recorder that was lost did not: frames 0 to `received` - 1 must be in it.

    Nothing is added to a recording of events, and to one that is whole. Where the disk takes nothing more, the
    account has what the table has not. Raises `SourceError`, and `OutputError` if the table is of another run.
    """
    table = read_frame_table(path)
    if table.run_id != run_id:
        raise OutputError(f"{path} is of the run {table.run_id}, not of {run_id}: this run recorded nothing")
    missing = undeclared(table, received) if table.head.get("mode", "all") == "all" else []
    if missing:
        with contextlib.suppress(OSError), path.open("r+b") as file:
            file.truncate(file.read().rindex(b"\n") + 1)
            file.seek(0, os.SEEK_END)
            file.write(b"".join(map(line, missing)))
        table = replace(table, lost=(*table.lost, *missing))
    return account_of_recording(table, path.name)


def undeclared(table: FrameTable, received: int) -> list[Lost]:
    """The frames before `received` that are neither stored nor declared lost."""
    known = sorted(
        [(row.info.frame, row.info.frame) for row in table.rows]
        + [(lost.first, lost.last) for lost in table.lost]
    )
    found, next_frame = [], 0
    for first, last in [*known, (received, received)]:
        if first > next_frame and next_frame < received:
            found.append(Lost(next_frame, min(first, received) - 1, NOT_WRITTEN))
        next_frame = max(next_frame, last + 1)
    return found
