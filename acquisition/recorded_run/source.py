"""The frames of a recorded run, with everything that was known about each when it was taken."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from acquisition.recorded_run.places import RecordedFiles, table_of
from acquisition.recorder.frame_table import FrameRow, FrameTable
from acquisition.recording import open_stack
from acquisition.source import SourceInfo
from stream.errors import SourceError
from stream.messages import Decisions, Frame, FrameInfo, ImageArray
from stream.safe_text import storable


class RecordedRun:
    """The `Source` of the frames of a recorded run.

    Frames keep their numbers, times, focus and set-points, so that what was lost or not recorded is a gap, as in
    the run. Only `run_id` is that of the new run, and `monotonic_ns` the time at which a frame is read (with
    `pace`: is due), on this computer's clock.

    With `decisions`, by frame number, only these frames are read, and each has the decisions of the run's detector.
    `rate_hz` and `pixel_size_um` replace what was recorded.
    """

    def __init__(
        self,
        files: RecordedFiles,
        *,
        run_id: str,
        decisions: Mapping[int, Decisions] | None = None,
        rate_hz: float | None = None,
        pixel_size_um: float | None = None,
        pace: bool = False,
    ) -> None:
        """Raises `SourceError` if images or frame table cannot be read or do not belong together."""
        table = table_of(files)
        self._run_id, self._pace = run_id, pace
        self._rate_hz, self._pixel_um = rate_hz, pixel_size_um
        self._decisions = decisions
        self._depth = depth_of(table.rows, files.table)
        self._stack = open_stack(files.images)
        found = self._stack.info
        images = found.planes // self._depth
        rows = [row for row in table.rows if row.index < images]
        if decisions is not None:
            rows = [row for row in rows if row.info.frame in decisions]
        if not rows:
            self._stack.close()
            raise SourceError(
                f"{files.images} has none of the frames that {files.table.name} names; use both as a pair"
            )
        self._rows = in_order(rows)
        self._first = self._rows[0].info
        self.recorded_by = table.run_id
        missing = len(table.rows) - len([row for row in table.rows if row.index < images])
        self.remarks: tuple[str, ...] = self._remarks(missing, images, table)
        title = f"{storable(files.images.name)} (run {storable(table.run_id)}, {len(self._rows)} frames)"
        self.info = SourceInfo(
            height=found.height,
            width=found.width,
            depth=self._depth,
            dtype=found.dtype,
            pixel_size_um=self._pixel_um or self._first.pixel_size_um,
            frame_rate_hz=rate_hz or rate_of(self._rows),
            frames=len(self._rows),
            name=storable(files.images.name),
            description="; ".join([title, *self.remarks]),
            z_step_um=math.nan if self._first.volume is None else self._first.volume.z_step_um,
        )
        self._next = 0
        self._skipped = missing if decisions is None else 0
        self._began_ns = 0
        self._stopped = False

    def _remarks(self, missing: int, images: int, table: FrameTable) -> tuple[str, ...]:
        told = []
        if images > len(table.rows):
            told.append(
                f"the frame table names {len(table.rows)} of the {images} images; the others are left out: a run "
                "that goes on, or a damaged table"
            )
        if missing:
            told.append(f"the last {missing} images that the frame table names are not in the file")
        if table.total_lost:
            told.append(f"{table.total_lost} frames are declared lost in the recording")
        if table.head.get("mode") == "events":
            told.append(f"only the frames around {len(table.events)} events were recorded")
        return tuple(told)

    @property
    def ended(self) -> bool:
        """Whether all frames have been read, or the recording was stopped."""
        return self._stopped or self._next >= len(self._rows)

    def start(self) -> None:
        """Start at the first frame; with `pace` the clock starts now."""
        self._began_ns = time.perf_counter_ns()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame; with `pace`, None if it is not due within `timeout_s`.

        Raises `SourceError` with its number if the image cannot be read.
        """
        if self.ended:
            return None
        row = self._rows[self._next]
        now_ns = time.perf_counter_ns()
        if self._pace:
            wait_s = 1e-9 * (self._due_ns(row.info) - now_ns)
            if wait_s > timeout_s:
                time.sleep(max(0.0, timeout_s))
                return None
            time.sleep(max(0.0, wait_s))
        image = self._pixels(row)
        self._count_on()
        return Frame(self._info(row.info), image)

    def _count_on(self) -> None:
        """Count the next frame as read, and those that are missing before it."""
        before = self._rows[self._next - 1].info.frame if self._next else -1
        self._skipped += self._rows[self._next].info.frame - before - 1
        self._next += 1

    def skip_to(self, index: int) -> None:
        """Go on at recorded frame `index`, counted from 0, as if those before had been read; their pixels are
        not.
        """
        while self._next < min(index, len(self._rows)):
            self._count_on()

    def _info(self, recorded: FrameInfo) -> FrameInfo:
        now_ns = time.perf_counter_ns()
        return replace(
            recorded,
            run_id=self._run_id,
            monotonic_ns=min(self._due_ns(recorded), now_ns) if self._pace else now_ns,
            time_s=self._time_s(recorded),
            pixel_size_um=self._pixel_um or recorded.pixel_size_um,
            decisions=None if self._decisions is None else self._decisions[recorded.frame],
        )

    def _time_s(self, recorded: FrameInfo) -> float:
        if self._rate_hz is None:
            return recorded.time_s
        return (recorded.camera_frame - self._first.camera_frame) / self._rate_hz

    def _due_ns(self, recorded: FrameInfo) -> int:
        return self._began_ns + round(1e9 * (self._time_s(recorded) - self._time_s(self._first)))

    def frames(self, timeout_s: float = 1.0) -> Iterator[Frame]:
        """All frames from the first one on, as `read` returns them. Raises `SourceError` like it."""
        self.start()
        while not self.ended:
            frame = self.read(timeout_s)
            if frame is not None:
                yield frame

    def image(self, number: int) -> ImageArray:
        """Image `number` (H, W), or volume (Z, H, W), of those that are read, counted from 0.

        Raises `SourceError` if it is damaged.
        """
        return self._pixels(self._rows[number])

    def _pixels(self, row: FrameRow) -> ImageArray:
        if row.info.volume is None:
            return self._stack.read(row.index).image
        first = row.index * self._depth
        image: ImageArray = np.stack([self._stack.read(first + k).image for k in range(self._depth)])
        return image

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True

    def pause(self) -> None:
        """Nothing to do: frames are read only on request."""

    def resume(self) -> None:
        """With `pace`, continue from here."""
        if self._next < len(self._rows):
            planned_s = self._time_s(self._rows[self._next].info) - self._time_s(self._first)
            self._began_ns = time.perf_counter_ns() - round(1e9 * planned_s)

    def counts(self) -> dict[str, int]:
        """`received` frames, and the numbers between them that were skipped.

        These are `not_in_the_run` where only the frames of the run's detector are read, else `not_recorded`.
        """
        skipped = "not_recorded" if self._decisions is None else "not_in_the_run"
        return {"received": self._next, "lost_in_camera": 0, skipped: self._skipped}

    def gauges(self) -> dict[str, float]:
        """A file has no queue."""
        return {}

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._stack.close()


def depth_of(rows: Sequence[FrameRow], table: Path) -> int:
    """Slices of the volumes of a recording; 1 if it has images. Raises `SourceError` unless all have as many."""
    depths = {1 if row.info.volume is None else len(row.info.volume.z_um) for row in rows}
    if len(depths) > 1:
        raise SourceError(f"{table} has volumes of {min(depths)} to {max(depths)} slices; it is damaged")
    return depths.pop()


def in_order(rows: list[FrameRow]) -> list[FrameRow]:
    """The rows of rising frame numbers; a frame that was stored twice, around two events, comes once."""
    kept: list[FrameRow] = []
    for row in rows:
        if not kept or row.info.frame > kept[-1].info.frame:
            kept.append(row)
    return kept


def rate_of(rows: list[FrameRow]) -> float:
    """Frames of the camera per second, from the median time between two; NaN where it is not known."""
    steps = [
        (after.info.time_s - before.info.time_s) / (after.info.camera_frame - before.info.camera_frame)
        for before, after in pairwise(rows)
        if after.info.camera_frame > before.info.camera_frame
    ]
    typical = statistics.median(steps) if steps else math.nan
    return 1.0 / typical if typical > 0 else math.nan
