"""A folder in simulated time: files that grow, and what the watch takes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from acquisition.foreign_notes import ForeignNotes
from acquisition.stacks.stack import Plane, StackInfo
from acquisition.watched_folder.image_item import Opened
from acquisition.watched_folder.listing import Listing, Stamp
from acquisition.watched_folder.watch import FolderWatch, Rules, WatchedImage
from stream.errors import SourceError

FOLDER = Path("images")


@dataclass
class File:
    """`planes` whole images lie in it; `is_whole` is False while its head or last image is being written."""

    planes: int = 1
    is_whole: bool = True
    grows: bool = False
    version: int = 0

    @property
    def stamp(self) -> Stamp:
        return Stamp(100 * self.planes + 7 * (not self.is_whole), self.version)


class StackOfFile:
    """The images that were in a file when it was opened; each has the file's number and its own place."""

    damage = ""

    def __init__(self, path: Path, planes: int) -> None:
        self._path, self._planes = path, planes
        self.info = StackInfo(planes, 1, 2, "uint16")

    def read(self, index: int) -> Plane:
        assert index < self._planes
        number = int("".join(filter(str.isdigit, self._path.stem)) or 0)
        return Plane(np.array([[number, index]], np.uint16))

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Folder:
    """Files by name, the time, and a watch that looks every 0.1 s."""

    rules: Rules = field(default_factory=Rules)
    files: dict[str, File] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    now_s: float = 0.0
    said: list[str] = field(default_factory=list)
    taken: list[WatchedImage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes = ForeignNotes(self.said.append)
        self.watch = FolderWatch(self.rules, self.open_item, self.notes, lambda: self.now_s)

    def open_item(self, path: Path) -> Opened:
        file = self.files[path.name]
        if not file.is_whole and file.planes == 0:
            raise SourceError(f"{path.name} is not whole")
        return Opened(StackOfFile(path, file.planes), file.planes, file.grows)

    def put(self, *names: str, planes: int = 1, is_whole: bool = True, grows: bool = False) -> None:
        for name in names:
            version = self.files[name].version + 1 if name in self.files else 0
            self.files[name] = File(planes, is_whole, grows, version)

    def passes(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s - 1e-9:
            self.now_s = round(self.now_s + 0.1, 9)
            images = {FOLDER / name: file.stamp for name, file in self.files.items()}
            self.watch.look(Listing(images, self.foreign), self.now_s)
            while (image := self.watch.next_image(self.now_s)) is not None:
                self.taken.append(image)
            self.notes.flush()

    @property
    def contents(self) -> list[tuple[int, int]]:
        """(number of the file, place in it) of each image taken."""
        return [tuple(image.plane.image[0].tolist()) for image in self.taken]

    @property
    def numbers(self) -> list[int]:
        return [image.number for image in self.taken]

    @property
    def counts(self) -> dict[str, int]:
        return self.notes.counts
