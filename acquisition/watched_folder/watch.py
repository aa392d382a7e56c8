"""Decides which image of a watched folder comes next, from what lies there at each moment.

It neither sleeps nor reads a clock: times are passed in, so that tests run in simulated time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from acquisition.foreign_notes import ForeignNotes
from acquisition.recorded_volumes.z_scale import UnknownVoxelError
from acquisition.stacks.image_names import matches
from acquisition.stacks.stack import Plane, StackInfo
from acquisition.watched_folder.file_order import FileOrder
from acquisition.watched_folder.image_item import Opened, OtherFilesNeededError
from acquisition.watched_folder.listing import Listing, Stamp
from acquisition.watched_folder.numbering import Key, Series
from stream.errors import LivePTVError, SourceError
from stream.volume_info import VolumeInfo

OPEN_AGAIN_S = 0.05  # s between two attempts to open a file that cannot be read yet, at least
HARDER = 2.0
"""A file that took t s to open is opened again after 2 t at the earliest: one of many pages takes long."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say: `existing` files at the start are taken or not; times in s."""

    takes_existing: bool = True
    pattern: str | None = None
    missing_s: float = 5.0
    settled_s: float = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class WatchedImage:
    """An image, our number of it, and the file that it is from with what that says about all its images.

    `volume` says how a volume was taken, None for an image; `z_step_um` and `remarks` are those of its file.
    """

    plane: Plane
    number: int
    path: Path
    info: StackInfo
    volume: VolumeInfo | None = None
    z_step_um: float = math.nan
    remarks: tuple[str, ...] = ()


@dataclass(slots=True)
class _Seen:
    """A file: its stamp, and since when it has had it."""

    stamp: Stamp
    since_s: float


@dataclass(slots=True)
class _Current:
    """The file whose images are being taken."""

    path: Path
    key: Key
    opened: Opened | None = None
    stamp: Stamp | None = None
    taken: int = 0
    why: str = ""
    tried_s: float = -math.inf
    cost_s: float = 0.0
    is_over: bool = False


class FolderWatch:
    """Give it `look`s; `next_image` then returns what can be taken. `lost` counts images that are missing.

    `open_item` opens a file and raises `SourceError` if it is not whole; `clock` tells how long that takes.
    """

    def __init__(
        self,
        rules: Rules,
        open_item: Callable[[Path], Opened],
        notes: ForeignNotes,
        clock: Callable[[], float],
    ) -> None:
        self._rules = rules
        self._open_item = open_item
        self._notes = notes
        self._clock = clock
        self._order = FileOrder(notes)
        self._number = -1
        self._lost = self._missing = 0
        self._seen: dict[Path, _Seen] = {}
        self._done: dict[Path, Stamp] = {}
        self._current: _Current | None = None
        self._last: Key | None = None
        self._gap_s: float | None = None
        self._has_looked = False

    @property
    def lost(self) -> int:
        """Images that are missing, at least; a missing file counts as one."""
        return self._lost + self._missing

    def look(self, listing: Listing, now_s: float) -> bool:
        """Take note of what lies in the folder now; whether a file that is not taken has come or changed."""
        changed = False
        for name in listing.foreign:
            self._order.once("foreign", name, f"{name} is no image that can be read: skipped")
        pattern = self._rules.pattern
        images = {
            path: stamp for path, stamp in listing.images.items() if pattern is None or matches(path, pattern)
        }
        if not self._has_looked:
            self._has_looked = True
            if not self._rules.takes_existing and images:
                self._order.skipped.update(images)
                self._notes.count("existing", len(images))
        for path, stamp in images.items():
            seen = self._seen.get(path)
            if seen is not None and seen.stamp == stamp:
                continue
            self._seen[path] = _Seen(stamp, now_s)
            if path in self._done:
                if self._done[path] != stamp:
                    self._done[path] = stamp
                    self._tell(
                        "rewritten",
                        f"{path.name} was written again after it was taken: it is not taken again",
                    )
                continue
            changed = True
            if seen is None:
                self._order.came(path)
        for path in [path for path in self._seen if path not in images]:
            del self._seen[path]
        self._sort()
        return changed

    def _sort(self) -> None:
        """Put new files in their place; while only one was begun, they may show another number that counts."""
        dealt_with = [*self._done, *([self._current.path] if self._current is not None else [])]
        begun = self._current.key if self._current is not None else self._last
        if not self._order.sort(self._seen, dealt_with, begun) or not dealt_with:
            return
        first = self._order.key(dealt_with[0])
        self._last = None if self._last is None else first
        if self._current is not None:
            self._current.key = first

    @property
    def series(self) -> Series | None:
        """The files that are taken; None before there is one."""
        return self._order.series

    def next_image(self, now_s: float) -> WatchedImage | None:
        """The next image that is whole and in order; None if there is none yet."""
        while self._current is not None or self._choose(now_s):
            image = self._from_current(now_s)
            if image is not None or self._current is not None:
                return image
        return None

    def left(self, now_s: float) -> int:
        """Files that are there and not taken: those behind the current one, and it until it has come to rest."""
        behind = self._order.behind(self._seen)
        current = self._current
        if current is None:
            return behind
        seen, opened = self._seen.get(current.path), current.opened
        settled = seen is None or now_s - seen.since_s >= self._rules.settled_s
        is_done = opened is not None and current.taken >= opened.planes and settled
        return behind + (not is_done)

    @property
    def waits_for(self) -> str:
        """What keeps the next image from being taken; "" if nothing is there."""
        if self._current is not None and self._current.why:
            return f"{self._current.path.name}: {self._current.why}"
        return "" if self._gap_s is None else "a number is missing"

    def _choose(self, now_s: float) -> bool:
        """Begin the file that comes next, if it is there or has been waited for; whether there is one."""
        found, series = self._order.peek(self._seen, self._last), self._order.series
        if found is None or series is None:
            self._gap_s = None
            return False
        key, path = found
        missing = 0
        if self._last is not None and series.step:
            missing = max(0, (key[0] - self._last[0] - 1) // series.step)
        if missing and self._last is not None:
            self._gap_s = now_s if self._gap_s is None else self._gap_s
            if now_s - self._gap_s < self._rules.missing_s:
                return False
            taken_back = self._order.learn_step(self._seen)
            if taken_back is not None:
                self._lost, self._gap_s = max(0, self._lost - taken_back), None
                return self._choose(now_s)
            first = self._last[0] + series.step
            which = f"number {first} is" if missing == 1 else f"numbers {first} to {key[0] - series.step} are"
            waited = f"after {self._rules.missing_s:g} s"
            self._notes.tell(
                "missing", f"{which} missing {waited} before {path.name}: {missing} lost", always=True
            )
            self._missing += missing
            self._order.declared += missing
        self._gap_s = None
        self._order.pop()
        self._current = _Current(path, key)
        return True

    def _from_current(self, now_s: float) -> WatchedImage | None:
        """The next image of the current file; it is given up or finished where that is due."""
        current = self._current
        assert current is not None
        seen = self._seen.get(current.path)
        if seen is None:
            self._finish(current, "" if current.taken else "was removed before it was taken")
            return None
        unchanged_s = now_s - seen.since_s
        settled = unchanged_s >= self._rules.settled_s
        patient = unchanged_s >= self._rules.settled_s + self._rules.missing_s
        if current.stamp != seen.stamp:
            self._open(current, seen, now_s, settled=settled)
        opened = current.opened
        if opened is not None and current.taken < opened.planes:
            if self._is_whole(
                current, opened, settled=settled and current.stamp == seen.stamp, patient=patient
            ):
                return self._take(current, opened, patient=patient)
            return None
        if current.taken == 0 and (current.is_over or patient):
            self._finish(current, f"cannot be read ({current.why or 'it has no images'})")
        is_at_rest = settled and current.stamp == seen.stamp and (patient or not current.why)
        if (
            current is self._current
            and current.taken
            and is_at_rest
            and self._order.peek(self._seen, self._last)
        ):
            self._finish(current, f"is not whole ({current.why})" if current.why else "")
        return None

    def _is_whole(self, current: _Current, opened: Opened, *, settled: bool, patient: bool) -> bool:
        """Whether the next image of a file is written for good: others follow, or the file has come to rest."""
        if (opened.damage and opened.together > 1) or not opened.is_whole(current.taken):
            return patient
        if opened.grows and opened.planes - current.taken > opened.together:
            return True
        return patient if opened.together > 1 else settled

    def _open(self, current: _Current, seen: _Seen, now_s: float, *, settled: bool) -> None:
        """Open a file that has changed, unless it was tried just now."""
        if now_s - current.tried_s < (
            OPEN_AGAIN_S if settled else max(OPEN_AGAIN_S, HARDER * current.cost_s)
        ):
            return
        current.tried_s = now_s
        before_s = self._clock()
        try:
            opened = self._open_item(current.path)
        except OtherFilesNeededError as error:
            current.is_over, current.why = True, str(error)
            return
        except UnknownVoxelError:
            raise  # no file can be read until the user gives it
        except LivePTVError as error:
            current.why = str(error)
            return
        finally:
            current.cost_s = self._clock() - before_s
        if current.opened is not None:
            current.opened.stack.close()
        current.opened, current.stamp, current.why = opened, seen.stamp, opened.damage
        if settled and opened.planes < current.taken:
            self._tell(
                "rewritten",
                f"{current.path.name} has fewer images than were taken of it: it was written again",
            )

    def _take(self, current: _Current, opened: Opened, *, patient: bool) -> WatchedImage | None:
        """Read the next image of an open file."""
        try:
            plane, volume = opened.read(current.taken)
        except SourceError as error:
            current.why = str(error)
            if not patient:
                current.stamp = None  # it is opened again
            elif opened.planes == 1:
                self._finish(current, f"cannot be read ({error})")
            else:
                self._tell("unreadable", f"{error}: it is lost")
                self._count(current, opened)
                self._lost += 1
            return None
        current.why = opened.damage
        self._count(current, opened)
        if not opened.grows:
            self._finish(current, "")
        own = opened.volumes
        about = (math.nan, ()) if own is None else (own.z_step_um, own.remarks)
        return WatchedImage(plane, self._number, current.path, opened.stack.info, volume, *about)

    def _count(self, current: _Current, opened: Opened) -> None:
        """Number the next image: the first of all by its file, each other one counted on, missing ones included."""
        if current.taken == 0:
            if self._number < 0:
                has_own = self.series is not None and self.series.step and opened.planes == 1
                self._number = (
                    current.key[0] // self.series.step if has_own and self.series is not None else 0
                )
            else:
                self._number += 1 + self._missing
            self._lost += self._missing
            self._missing = 0
        else:
            self._number += 1
        current.taken += 1

    def _finish(self, current: _Current, complaint: str) -> None:
        """Go on to the next file; a file of which nothing was taken is missing."""
        if complaint:
            self._tell("unreadable", f"{current.path.name} {complaint}")
        if current.opened is not None:
            current.opened.stack.close()
        seen = self._seen.get(current.path)
        self._done[current.path] = seen.stamp if seen is not None else Stamp(0, 0)
        self._missing += current.taken == 0
        self._last = current.key
        self._order.keys.append(current.key)
        self._current = None

    def tell_away(self, text: str) -> None:
        """Tell that the folder cannot be read."""
        self._tell("folder_away", text)

    def _tell(self, kind: str, text: str) -> None:
        self._notes.tell(kind, text)

    def close(self) -> None:
        """Close the open file."""
        if self._current is not None and self._current.opened is not None:
            self._current.opened.stack.close()
