"""The order of the files of a watched folder by the numbers in their names; those that belong nowhere are told."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from acquisition.foreign_notes import ForeignNotes
from acquisition.stacks.image_names import parse_name
from acquisition.watched_folder.numbering import ENOUGH, Key, Series, find_series, step_of


class Paths(Container[Path], Iterable[Path], Protocol):
    """The files that are there now."""


class FileOrder:
    """Sorts new files into a queue. `keys` are those dealt with last; `declared` counts those called missing."""

    def __init__(self, notes: ForeignNotes) -> None:
        self._notes = notes
        self.series: Series | None = None
        self.skipped: set[Path] = set()
        self.keys: deque[Key] = deque(maxlen=ENOUGH)
        self.declared = 0
        self._fresh: list[Path] = []
        self._queue: list[tuple[Key, Path]] = []
        self._told: set[str] = set()

    def came(self, path: Path) -> None:
        """A new file is there."""
        if path not in self.skipped:
            self._fresh.append(path)

    def key(self, path: Path) -> Key:
        """Where a file of the series stands."""
        found = None if self.series is None else self.series.key(path)
        return () if found is None else found

    def sort(self, there: Paths, dealt_with: list[Path], begun: Key | None) -> bool:
        """Sort the new files in, behind the one that was `begun` last; whether the series was decided again.

        Until a second file is dealt with it is: the name of one alone may mislead.
        """
        if not self._fresh:
            return False
        decided = len(dealt_with) <= 1 and self._decide(there, dealt_with)
        if decided and dealt_with:
            begun = self.key(dealt_with[0])
        self._sort_in(begun)
        return decided

    def _decide(self, there: Paths, dealt_with: list[Path]) -> bool:
        names = {*there, *dealt_with} - self.skipped
        found = find_series(sorted(names))
        if dealt_with and found.series.key(dealt_with[0]) is None:  # the larger series is another one
            return False
        self.series = found.series
        self._queue.clear()
        self._fresh = [path for path in names if path not in dealt_with]
        for other, count in found.others.items():
            taken = found.series.pattern
            self.once(
                "other_series",
                other,
                f"files like {other} ({count}) are skipped, those like {taken} are taken: source.pattern chooses",
            )
        return True

    def _sort_in(self, begun: Key | None) -> None:
        series = self.series
        assert series is not None
        for path in self._fresh:
            key = series.key(path)
            if key is None:
                pattern = parse_name(path).pattern()
                self.once("other_series", pattern, f"{path.name} does not fit {series.pattern}: skipped")
            elif begun is not None and key == begun:
                self._skip_repeated(path)
            elif begun is not None and key < begun:
                self.skipped.add(path)
                self._notes.tell("late", f"{path.name} came after its successors and counts as lost: skipped")
            else:
                heapq.heappush(self._queue, (key, path))
        self._fresh.clear()

    def _skip_repeated(self, path: Path) -> None:
        self.skipped.add(path)
        self._notes.tell("repeated", f"{path.name} has a number that was taken already: skipped")

    def peek(self, there: Container[Path], last: Key | None) -> tuple[Key, Path] | None:
        """The file that comes next, without those that have been removed or have the number of the `last`."""
        while self._queue:
            key, path = self._queue[0]
            if path in there and (last is None or key > last):
                return key, path
            heapq.heappop(self._queue)
            if path in there:
                self._skip_repeated(path)
        return None

    def pop(self) -> None:
        """Take the file that comes next out of the queue."""
        heapq.heappop(self._queue)

    def behind(self, there: Container[Path]) -> int:
        """How many files wait."""
        return sum(path in there for _, path in self._queue)

    def learn_step(self, there: Container[Path]) -> int | None:
        """If the numbers increase by more than 1 after all: how many were called missing wrongly; else None."""
        assert self.series is not None
        step = step_of([*self.keys, *(key for key, path in self._queue if path in there)])
        if step <= self.series.step:
            return None
        self.series = replace(self.series, step=step)
        text = f"the numbers of the files increase by {step}, which is taken as one frame"
        taken_back, self.declared = self.declared, 0
        if taken_back:
            text += f"; the {taken_back} that were called missing were none"
        self._notes.tell("step", text)
        return taken_back

    def once(self, kind: str, what: str, text: str) -> None:
        """Tell about each name or pattern once."""
        if what not in self._told:
            self._told.add(what)
            self._notes.tell(kind, text)
