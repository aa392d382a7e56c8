"""Writes a trajectory file that can be read while it grows and that survives the death of its writer.

Order of a commit: room on the disk, rows, what more is known of them, slices of volumes, events, and last the
entries of the frames, which are the commit mark (`commit_mark`). Once `commit` has returned, the death of this
process cannot cost the frames; a power cut can.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.errors import LivePTVError, OutputError
from stream.messages import FrameInfo, Tracks
from stream.writer_lock import WRITER, Claim
from tracking.trajectories.annotation import add_attributes
from tracking.trajectories.growing_file import GrowingFile
from tracking.trajectories.output_place import check_place, check_replaceable, is_full, reason
from tracking.trajectories.pending import Pending
from tracking.trajectories.precision import warmup
from tracking.trajectories.provenance import this_process, versions
from tracking.trajectories.relinking import AsLinked
from tracking.trajectories.replacement import Replacement
from tracking.trajectories.schema import (
    AXES,
    PIXEL_SIZE,
    SCHEMA,
    SCHEMA_VERSION,
    file_statistics,
)
from tracking.trajectories.second_place import CopyingOut, take_second_place
from tracking.trajectories.statistics import TrackCensus

LOOK_S = 1.0
"""Time between two checks that the file is still in its place, s. A check is a few calls to the system. Longer,
more of a run is at stake: after a file was cut short, what is committed until the next check is lost."""
UNFINISHED = "closed before the end of the run"


class TrajectoryWriter:
    """One trajectory file, open for writing; see `docs/files.md` for what is in it.

    `append` buffers, `commit` writes; what has not been committed when the process dies is not in the file.
    A file that is to be overwritten is replaced by the first commit of a frame, not before. If another program
    removes, replaces or damages the file during the run, writing continues in a second place: `path` is always
    the file that is written, and `moved` says why it changed.
    """

    def __init__(
        self, path: Path, *, run_id: str, attributes: Mapping[str, object], overwrite: bool = False
    ) -> None:
        """Create the file, with `attributes` at its root (dicts and lists are stored as JSON).

        Raises `OutputError` if the file exists and `overwrite` is false, is being written by another program, or
        cannot be created.
        """
        self.path = Path(path)
        check_place(self.path, overwrite)
        self._claim = Claim(self.path, f"run {run_id}", WRITER)
        self._run_id, self._attributes = run_id, dict(attributes)
        self._properties: list[str] = []
        self._pending = Pending(self._properties)
        self._census, self._linked = TrackCensus(), AsLinked()
        self._commits = self._elsewhere = 0
        self._newest = -1
        given = self._attributes.get("pixel_size_um")
        self._pixel_size_um = float(given) if isinstance(given, int | float) else None
        self._broken = self._finalized = False
        self._file: GrowingFile | None = None
        self._replacement = Replacement(self.path)
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

    @property
    def frames(self) -> int:
        """Frames committed to the file at `path`."""
        return self._file.frames if self._file is not None else 0

    @property
    def frames_elsewhere(self) -> int:
        """Frames committed to an earlier file of this run, which another program has damaged since."""
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
        return self._pending.rows

    def append(self, tracks: Tracks) -> None:
        """Take a frame's tracks for the next commit; the values are copied, rounded as `precision` says.

        Raises `OutputError` if the frame's number is not greater than the last one's.
        """
        if tracks.info.frame <= self._newest:
            raise OutputError(
                f"frame {tracks.info.frame} came after frame {self._newest}; the file needs them in order"
            )
        self._newest = tracks.info.frame
        self._note_pixel_size(tracks.info)
        self._pending.append(tracks)

    def _note_pixel_size(self, info: FrameInfo) -> None:
        size, before = info.pixel_size_um, self._pixel_size_um
        self._pixel_size_um = size
        if before is not None and size != before:
            text = f"{size:g} um a pixel from frame {info.frame} on"
            self.event(PIXEL_SIZE, text, frame=info.frame, pixel_size_um=size)

    def event(self, kind: str, text: str, **fields: object) -> None:
        """Add something that happened (a loss, the end of the stream) to the next commit."""
        self._pending.event(kind, text, fields)

    def commit(self) -> None:
        """Write everything appended; once this returns, the death of this process cannot cost it.

        Raises `OutputError` if there is no room or the disk fails; the file then stays as it was after the
        last commit, and nothing more can be added.
        """
        if not self._pending.has_frames and (not self._pending.has_events or self._file is None):
            return  # events alone do not replace an existing file
        if self._broken or self._finalized:
            raise OutputError(f"cannot add to {self.path}: it is closed, or a commit has failed before")
        self.look_after(now=True)
        while self._copying is not None:
            self.look_after()
        try:
            self._append()
        except (OSError, RuntimeError) as error:
            if (
                isinstance(error, LivePTVError)
                or is_full(error)
                or self._file is None
                or self._replacement.under_way
            ):
                self._broken = True
                self._undo_replacement()
                raise error if isinstance(error, LivePTVError) else self._failure(error) from error
            self._begin_anew(f"cannot be written ({reason(error)})")
            try:
                self._append()
            except (OSError, RuntimeError) as again:
                self._broken = True
                raise self._failure(again) from again
        self._pending = Pending(self._properties)

    def _append(self) -> None:
        if self._file is None:
            self._file = self._replacement.begin(lambda path: self._create(path, {}))
        start = self._file.rows
        file = self._file
        commit = self._pending.arrays(start, self._commits + 1, file.places, file.properties_named)
        self._file.append(commit)
        self._census.add(self._linked.take(commit.rows, commit.more, start))
        self._commits += 1
        self._replacement.complete()

    def _undo_replacement(self) -> None:
        """Restore the old file if the first commit of the new one failed."""
        if not self._replacement.under_way or self._file is None:
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        self._file.close_reserve()
        self._file = None
        self._replacement.undo()

    def look_after(self, *, now: bool = False) -> bool:
        """Check, once a second or `now`, that the file is still in its place; if not, continue in a second place.

        The contents of a file that was removed are copied out, some megabytes a call: True as long as there is
        more to copy. Raises `OutputError` if there is no second place either.
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
            self._file.continue_from(before)
        except (OSError, RuntimeError) as error:
            self._broken = True
            if self._copying is not None:
                self._copying.close()
            self._copying = None
            raise OutputError(
                f"cannot copy the frames of the removed file to {self.path}: {reason(error)}"
            ) from error
        return False

    def _begin_anew(self, what: str) -> None:
        """Continue in a new file, which gets what is not committed yet."""
        assert self._file is not None
        spoilt, old = self._file, self.path
        before = {"file": str(old), "frames": spoilt.frames, "why": what}

        def opened(path: Path) -> None:
            self._file = self._create(path, {"begun_in": before})

        self._go_to_second_place(what, opened)
        spoilt.let_go()
        self._elsewhere += spoilt.frames
        self._census, self._linked = TrackCensus(), AsLinked()

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
        """Commit what is pending, add `attributes`, statistics and `end_reason`, and close the file.

        After a failed commit the file is closed as it was before that commit. Without any frame, a file that was
        to be overwritten is not touched. Raises `OutputError` if the attributes cannot be written; the file can be
        opened then, without them.
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
                self._census.add(self._linked.rest())
                statistics = self._census.statistics() | file_statistics(table)
                sizes = self._file.sizes()
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
        """Finish the file, with `UNFINISHED` as its `end_reason`, unless `finalize` was called. Idempotent."""
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
            return OutputError(f"no space left for {self.path}; {safe}; free some space before the next run")
        return OutputError(f"cannot write {self.path}: {reason(error)}; {safe}")
