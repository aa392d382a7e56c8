"""A recording under way: image file and frame table together, and what happens when the disk takes no more."""

from __future__ import annotations

import contextlib
import errno
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from acquisition.recorder.frame_table import Entry, FrameRow, FrameTableWriter, Lost
from acquisition.recorder.image_writer import ImageWriter
from acquisition.recorder.keeper import NOT_IN_TIME, Keep, Kept
from stream.errors import OutputError

AGAIN_S = 2.0
"""Time until a disk that took nothing is tried again, s. Each try loses a frame at most; a longer time only loses
more of them once somebody has made room."""
LOOK_S = 0.5
"""Time between two looks at the free space, s: at 2 GB/s, a very fast disk, 1 GB is written in between."""
SAY_S = 10.0  # s between two lines about frames that a slow disk loses
FULL = "the disk is full"
ROOM = 32
"""Images for which there must be room before a disk that was full is tried again, so that the recording does not
stop and go on for single ones: a second, for which somebody must have made room."""


class RecordingOutput:
    """Image file and frame table. A frame counts as stored once `commit` has made image and row visible.

    When the disk takes nothing (full, or an error), frames are declared lost until it does again; with `stops` that
    is an `OutputError`. A declaration that cannot be written waits in memory for the next commit.
    """

    def __init__(
        self,
        images: ImageWriter,
        table: FrameTableWriter,
        folder: Path,
        *,
        keep_free_bytes: float,
        image_bytes: int,
        stops: bool,
        tell: Callable[[str], None],
    ) -> None:
        """`tell` gets a line when the recording pauses and when it goes on."""
        self._images, self._table, self._folder = images, table, folder
        self._keep_free_bytes = keep_free_bytes
        self._room_bytes = ROOM * image_bytes
        self._is_full = False
        self._stops = stops
        self._tell = tell
        self._entries: list[Entry] = []
        self._next = 0
        self._why_not = ""
        self._again_s = 0.0
        self._look_s = 0.0
        self.kept = self.lost = 0
        self._too_late = 0
        self._say_s = -math.inf
        self._unsafe = ""

    @property
    def paused(self) -> str:
        """Why nothing is written at the moment; empty if it is."""
        return self._why_not

    @property
    def stored_bytes(self) -> int:
        """Bytes of the images as stored."""
        return self._images.stored_bytes

    @property
    def how(self) -> str:
        """How the images are stored."""
        return self._images.how

    def put(self, keep: Keep, hurried: bool = False) -> bool:
        """Take what a keeper handed on; whether that is a frame and was stored. `hurried`: more waits behind it.

        Raises `OutputError` only where the run is to stop.
        """
        if isinstance(keep, Kept):
            return self._append(keep, hurried)
        if isinstance(keep, Lost):
            self._declare(keep)
            self._say_too_late(keep)
            if self._stops and keep.why == NOT_IN_TIME:
                self._finish_and_raise(f"{keep.count} frames could not be recorded: {keep.why}")
        else:
            self._entries.append(keep)
        return False

    def _say_too_late(self, lost: Lost) -> None:
        """Tell at once that frames are lost before the recorder, and then now and then how many there are."""
        if lost.why != NOT_IN_TIME:
            return
        self._too_late += lost.count
        if time.monotonic() >= self._say_s:
            self._say_s = time.monotonic() + SAY_S
            self._tell(f"{self._too_late} frames could not be recorded so far: {NOT_IN_TIME}")

    def _append(self, kept: Kept, hurried: bool) -> bool:
        info = kept.frame.info
        if not self._takes():
            self._declare(Lost(info.frame, info.frame, self._why_not))
            return False
        try:
            self._images.append(kept.frame.image, info, hurried)
        except OSError as error:
            self._pause(_in_words(error))
            self._declare(Lost(info.frame, info.frame, self._why_not))
            return False
        if self._why_not:
            self._tell(f"the recording goes on: {self._folder} takes images again")
            self._why_not, self._is_full = "", False
        self._entries.append(FrameRow(self._next, kept.event, info))
        self._next += 1
        return True

    def _takes(self) -> bool:
        """Whether the disk takes images now, as far as is known; looks at its free space every now and then."""
        now_s = time.monotonic()
        if self._why_not and now_s < self._again_s:
            return False
        if self._why_not or now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            try:
                free = shutil.disk_usage(self._folder).free
            except OSError as error:
                self._pause(_in_words(error))
                return False
            if self._is_full and free < self._keep_free_bytes + self._room_bytes:
                self._again_s = now_s + AGAIN_S
                return False
            if free < self._keep_free_bytes:
                self._is_full = True
                self._pause(f"{FULL} up to the {self._keep_free_bytes / 1e6:.0f} MB of record.keep_free_mb")
                return False
        return True

    def _pause(self, why: str) -> None:
        is_new = not self._why_not
        self._is_full = self._is_full or why == FULL
        self._why_not = why
        self._again_s = time.monotonic() + AGAIN_S
        if is_new and self._stops:
            self._finish_and_raise(f"the images cannot be recorded in {self._folder}: {why}")
        if is_new:
            self._tell(
                f"the images are not recorded any more in {self._folder}: {why}; what is missing is declared in "
                f"{self._table.path.name}, and it is tried again every {AGAIN_S:g} s"
            )

    def _finish_and_raise(self, why: str) -> None:
        with contextlib.suppress(OSError):
            self.commit()
        raise OutputError(why)

    def _declare(self, lost: Lost) -> None:
        self.lost += lost.count
        last = self._entries[-1] if self._entries else None
        if isinstance(last, Lost) and last.why == lost.why and last.last + 1 == lost.first:
            self._entries[-1] = Lost(last.first, lost.last, lost.why)
        else:
            self._entries.append(lost)

    def commit(self) -> None:
        """Make what was put visible, images first. Raises `OutputError` only where the run is to stop."""
        if not self._entries:
            return
        try:
            self._images.commit()
        except OSError as error:
            self._take_back(_in_words(error))
        try:
            self._table.append(self._entries)
        except OSError as error:
            self._pause(_in_words(error))
            return
        self.kept = self._next
        self._entries.clear()

    def _take_back(self, why: str) -> None:
        """The images appended since the last commit are not visible: declare their frames lost."""
        entries, self._entries = self._entries, []
        self._next = self._images.images
        self._images.rollback()
        for entry in entries:
            if isinstance(entry, FrameRow) and entry.index >= self._next:
                self._declare(Lost(entry.info.frame, entry.info.frame, why))
            else:
                self._entries.append(entry)
        self._pause(why)

    def sync(self) -> None:
        """Wait until the disk has what is committed. May be called from another thread; never raises."""
        try:
            self._images.sync()
            self._table.sync()
        except OSError as error:
            self._unsafe = self._unsafe or _in_words(error)

    def look_at_sync(self) -> None:
        """Tell that the disk did not keep what it took. Raises `OutputError` only where the run is to stop."""
        if self._unsafe:
            why, self._unsafe = self._unsafe, ""
            first = f"images up to {self.kept} in {self._folder} may not be on the disk"
            self._tell(f"{why}: {first}")
            self._pause(why)

    def finish(self) -> None:
        """Write what is left and close both files. Raises `OutputError` if they could not be finished."""
        try:
            self.commit()
            if self._entries:
                count, path = len(self._entries), self._table.path
                raise OutputError(f"{count} lines of {path} could not be written: {self._why_not}")
            self._images.finish()
            self._table.sync()
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(
                f"the recording in {self._folder} is not finished: {_in_words(error)}"
            ) from error
        finally:
            self.close()

    def close(self) -> None:
        """Close both files as they are. Idempotent."""
        self._images.close()
        self._table.close()


def _in_words(error: OSError) -> str:
    if isinstance(error.__cause__, OSError):
        error = error.__cause__
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return FULL
    return f"the disk failed ({error.strerror or error})"
