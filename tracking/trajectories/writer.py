"""Writes a trajectory file that can be read while it grows and is whole whenever its writer dies.

Order of a commit: room on the disk, rows, events, and last the entries of the frames, which are the commit
mark. What `commit` has returned for is safe against the death of this process, not against a power cut.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np

from stream.errors import LivePTVError, OutputError
from stream.messages import Tracks
from stream.writer_lock import WRITER, Claim
from tracking.trajectories.annotation import add_attributes
from tracking.trajectories.growing_file import GrowingFile
from tracking.trajectories.output_place import check_place, check_replaceable, is_full, reason
from tracking.trajectories.precision import rounded, warmup
from tracking.trajectories.provenance import this_process, versions
from tracking.trajectories.schema import (
    AXES,
    EVENTS,
    FRAME,
    FRAMES,
    ROW,
    ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    RecordArray,
    encode_event,
    file_statistics,
)
from tracking.trajectories.second_place import CopyingOut, take_second_place
from tracking.trajectories.statistics import TrackCensus

LOOK_S = 1.0  # between two looks at whether the file is still in its place
UNFINISHED = "closed before the end of the run"


class TrajectoryWriter:
    """One trajectory file, open for writing; see `docs/files.md` for what is in it.

    `append` buffers, `commit` writes; what has not been committed when the process dies is not in the file.
    A file that is to be replaced is replaced by the first commit of a frame, not before. If another program
    removes, replaces or spoils the file while it is written, writing continues in a second place, see `path`.
    """

    def __init__(
        self, path: Path, *, run_id: str, attributes: Mapping[str, object], overwrite: bool = False
    ) -> None:
        """Create the file, with `attributes` at its root (dicts and lists are stored as JSON).

        Raises `OutputError` if the file exists and is not to be overwritten, is being written by somebody else,
        or cannot be created.
        """
        self.path = Path(path)
        check_place(self.path, overwrite)
        self._claim = Claim(self.path, f"run {run_id}", WRITER)
        self._run_id, self._attributes = run_id, dict(attributes)
        self._rows: list[RecordArray] = []
        self._frames: list[tuple[Any, ...]] = []
        self._events: list[bytes] = []
        self._census = TrackCensus()
        self._commits = self._elsewhere = 0
        self._newest = -1
        self._broken = self._finalized = False
        self._file: GrowingFile | None = None
        self._aside: Path | None = None
        self._copying: CopyingOut | None = None
        self._looked_s = time.monotonic()
        self.moved: list[str] = []
        try:
            warmup()
            if self.path.exists():
                check_replaceable(self.path)
            else:
                self._file = self._create(self.path, {})
        except BaseException as error:
            self._claim.release()
            if isinstance(error, OSError) and not isinstance(error, LivePTVError):
                raise self._failure(error) from error
            raise

    def _create(self, path: Path, more: Mapping[str, object]) -> GrowingFile:
        own: dict[str, object] = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "run_id": self._run_id,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "axes": AXES,
            "versions": versions(),
            "writer": this_process(),
        }
        return GrowingFile(path, {**own, **self._attributes, **more})

    def _replace(self) -> GrowingFile:
        """Put the old file aside and create the new one in its place; the old one is back if that fails."""
        aside = self.path.with_name(f"{self.path.name}.{uuid4().hex[:8]}.replaced")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return self._create(self.path, {})
        try:
            made = self._create(self.path, {})
        except BaseException:
            aside.rename(self.path)
            raise
        self._aside = aside
        return made

    @property
    def frames(self) -> int:
        """Frames committed to the file at `path`."""
        return self._file.frames if self._file is not None else 0

    @property
    def frames_elsewhere(self) -> int:
        """Frames committed to an earlier file of this run, which another program has spoilt since."""
        return self._elsewhere

    @property
    def rows(self) -> int:
        """Rows committed to the file at `path`."""
        return self._file.rows if self._file is not None else 0

    @property
    def newest_frame(self) -> int:
        """Number of the last frame appended, -1 before the first."""
        return self._newest

    @property
    def failed(self) -> bool:
        """Whether a commit has failed; the file then takes no more."""
        return self._broken

    @property
    def pending_rows(self) -> int:
        """Rows appended and not yet committed."""
        return sum(map(len, self._rows))

    def append(self, tracks: Tracks) -> None:
        """Take a frame's tracks for the next commit; the values are copied, as finely as `row_precision` says.

        Raises `OutputError` if the frame's number is not greater than the last one's.
        """
        if tracks.info.frame <= self._newest:
            raise OutputError(
                f"frame {tracks.info.frame} came after frame {self._newest}; the file needs them in order"
            )
        self._newest = tracks.info.frame
        rows = np.empty(len(tracks), ROW)
        for name in Tracks.COLUMNS:
            if name in ROW.fields:  # type: ignore[operator]
                rows[name] = rounded(name, getattr(tracks, name))
        info = tracks.info
        rows["frame"] = info.frame
        self._rows.append(rows)
        self._frames.append(
            (
                info.frame, info.camera_frame, info.time_s, info.wall_s, info.focus_um, info.flow_ul_s,
                info.exposure_ms, 0, len(rows), 0,
            )
        )  # fmt: skip

    def event(self, kind: str, text: str, **fields: object) -> None:
        """Note something that happened (a loss, a command, its answer) for the next commit."""
        self._events.append(encode_event(time.time(), kind, text, fields))

    def commit(self) -> None:
        """Write everything appended; once it returns, that survives the death of this process.

        Raises `OutputError` if there is no room or the disk fails; the file then stays as it was after the
        last commit, and takes no more.
        """
        if not self._frames and (not self._events or self._file is None):
            return  # what is to be replaced is replaced by frames, not by events
        if self._broken or self._finalized:
            raise OutputError(f"{self.path} is closed or has failed before; nothing can be added to it")
        self.look_after(now=True)
        while self._copying is not None:
            self.look_after()
        try:
            self._append()
        except (OSError, RuntimeError) as error:
            if isinstance(error, LivePTVError) or is_full(error) or self._file is None or self._aside:
                self._broken = True
                self._put_back()
                raise error if isinstance(error, LivePTVError) else self._failure(error) from error
            self._begin_anew(f"cannot be written ({reason(error)})")
            try:
                self._append()
            except (OSError, RuntimeError) as again:
                self._broken = True
                raise self._failure(again) from again
        self._rows, self._frames, self._events = [], [], []

    def _append(self) -> None:
        if self._file is None:
            self._file = self._replace()
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, ROW)
        frames = np.array(self._frames, FRAME)
        events = np.frombuffer(b"".join(self._events), np.uint8)
        frames["first_row"] = self._file.rows + np.cumsum(frames["rows"], dtype=np.uint64) - frames["rows"]
        frames["commit"] = self._commits + 1
        self._file.append(rows, events, frames)
        self._census.add(rows)
        self._commits += 1
        aside, self._aside = self._aside, None
        if aside is not None:
            aside.unlink(missing_ok=True)

    def _put_back(self) -> None:
        """Give the old file its name again, where the new one did not get as far as its first frame."""
        aside, self._aside = self._aside, None
        if aside is None or self._file is None:
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        self._file.close_reserve()
        self._file = None
        aside.replace(self.path)

    def look_after(self, *, now: bool = False) -> bool:
        """See, once a second or `now`, whether the file is still in its place, and go on elsewhere if it is not.

        What a file without a name holds is copied out, some megabytes a call: True as long as there is more to
        copy. Raises `OutputError` if there is no other place either.
        """
        if self._copying is not None:
            return self._copy_on()
        if self._file is None or self._finalized or not (now or time.monotonic() - self._looked_s > LOOK_S):
            return False
        self._looked_s = time.monotonic()
        what, contents_lost = self._file.damage()
        if not what:
            return False
        if contents_lost:
            self._begin_anew(what)
            return False
        self._begin_to_copy(what)
        return True

    def _begin_to_copy(self, what: str) -> None:
        assert self._file is not None
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        descriptor = self._file.take_descriptor()
        self._file.close_reserve()

        def opened(path: Path) -> None:
            self._copying = CopyingOut(os.dup(descriptor), path)

        try:
            self._go_to_second_place(what, opened)
        finally:
            os.close(descriptor)

    def _copy_on(self) -> bool:
        assert self._copying is not None
        assert self._file is not None
        try:
            if self._copying.step():
                return True
            before, self._copying = self._file, None
            self._file = GrowingFile(self.path, None)
            self._file.rows, self._file.frames, self._file.event_bytes = (
                before.rows, before.frames, before.event_bytes
            )  # fmt: skip
        except (OSError, RuntimeError) as error:
            self._broken = True
            if self._copying is not None:
                self._copying.close()
            self._copying = None
            raise OutputError(
                f"what is in the lost file cannot be copied to {self.path}: {reason(error)}"
            ) from error
        return False

    def _begin_anew(self, what: str) -> None:
        """Go on in a new file, with what is not committed yet."""
        assert self._file is not None
        spoilt, old = self._file, self.path
        before = {"file": str(old), "frames": spoilt.frames, "why": what}

        def opened(path: Path) -> None:
            self._file = self._create(path, {"begun_in": before})

        self._go_to_second_place(what, opened)
        spoilt.let_go()
        self._elsewhere += spoilt.frames
        self._census = TrackCensus()

    def _go_to_second_place(self, what: str, open_there: Callable[[Path], None]) -> None:
        try:
            claim, path = take_second_place(self.path, what, f"run {self._run_id}", open_there)
        except OutputError:
            self._broken = True
            raise
        text = f"{self.path} {what}; the run continues in {path}"
        self._claim.release()
        self._claim, self.path = claim, path
        self.moved.append(text)
        self.event("moved", text)

    def finalize(self, attributes: Mapping[str, object], end_reason: str) -> None:
        """Commit what is left, add `attributes`, statistics and `end_reason`, and close the file.

        After a commit that failed, what it could not write is left out and the file is closed as it is. A file
        that was to be replaced is left alone if there was no frame. Raises `OutputError` if even that cannot be
        written; the file still opens then, without them.
        """
        if self._finalized:
            return
        failure: OutputError | None = None
        if not self._broken:
            try:
                self.commit()
                while self._copying is not None:
                    self.look_after()
            except OutputError as error:
                failure = error
        try:
            if self._file is not None:
                table = self._file.table_of_frames()
                statistics = self._census.statistics() | file_statistics(table)
                sizes = {ROWS: self._file.rows, FRAMES: self._file.frames, EVENTS: self._file.event_bytes}
                self._file.close()
                add_attributes(
                    self.path, {**attributes, "statistics": statistics, "end_reason": end_reason}, sizes
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise failure or self._failure(error) from error
        finally:
            self._finalized = True
            if self._file is not None:
                self._file.close_reserve()
            self._claim.release()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Finish the file if nobody has, saying so in its `end_reason`. Idempotent."""
        self.finalize({}, UNFINISHED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failure(self, error: BaseException) -> OutputError:
        safe = f"{self.frames} frames are safe in it"
        if self._file is None:
            return OutputError(f"cannot create {self.path}: {reason(error)}")
        with contextlib.suppress(OSError, RuntimeError):
            what, _ = self._file.damage()
            safe = f"it {what}" if what else safe
        if is_full(error):
            return OutputError(f"no space left for {self.path}; {safe}; free some before the next run")
        return OutputError(f"cannot write {self.path}: {reason(error)}; {safe}")
