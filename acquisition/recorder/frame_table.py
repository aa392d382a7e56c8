"""The frame table of a recording: a line of JSON for each stored image, each loss and each event.

It lies beside the images (`tracks.frames.jsonl`). The first line says what belongs together, by run id. A row is
written after its image, so that the image of every row is there; a torn last line, after a crash, is ignored, and
so are unknown keys and unknown lines.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from stream.errors import OutputError, SourceError
from stream.messages import FrameInfo
from stream.volume_info import VolumeInfo

VERSION = 1
MARK = "liveptv_recording"
LONGEST_LINE = 1 << 20  # bytes; a row has some 400, and a head that is longer is not ours
WHOLE = tuple(each.name for each in fields(FrameInfo) if each.type == "int")
ENDED = ("from_s", "to_s", "first_frame", "last_frame", "frames", "missing")
RECORDED = tuple(each.name for each in fields(FrameInfo) if each.name != "decisions")
"""What is known of a frame before it is detected in: no decisions."""
TEXT = tuple(each.name for each in fields(FrameInfo) if each.type == "str")


@dataclass(frozen=True, slots=True)
class FrameRow:
    """A stored image: its position in the image file, its event (None: every frame is kept), its `FrameInfo`."""

    index: int
    event: int | None
    info: FrameInfo


@dataclass(frozen=True, slots=True)
class Lost:
    """Frames `first` to `last` (numbers of `FrameInfo.frame`, both included) that should be here and are not."""

    first: int
    last: int
    why: str

    @property
    def count(self) -> int:
        """How many frames are lost."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class EventBegan:
    """An event around which frames are kept: who asked and why, at which frame and time (s, `FrameInfo.time_s`)."""

    event: int
    why: str
    sender: str
    frame: int
    time_s: float


@dataclass(frozen=True, slots=True)
class EventEnded:
    """The end of an event: the span of `FrameInfo.time_s` that it keeps, s, and what is stored of it.

    Its frames are those of that span, also where they are rows of an earlier event that overlaps it. `frames` of
    them are stored, from `first_frame` to `last_frame` (-1: none); `missing` are declared lost.
    """

    event: int
    from_s: float
    to_s: float
    first_frame: int
    last_frame: int
    frames: int
    missing: int


Entry = FrameRow | Lost | EventBegan | EventEnded


@dataclass(frozen=True, slots=True)
class FrameTable:
    """A frame table as read. `head` is its first line; `skipped` counts lines that could not be read."""

    head: dict[str, Any]
    rows: tuple[FrameRow, ...] = ()
    lost: tuple[Lost, ...] = ()
    events: tuple[EventBegan, ...] = ()
    ended: tuple[EventEnded, ...] = ()
    skipped: int = 0

    @property
    def run_id(self) -> str:
        """The run that recorded the images."""
        return str(self.head.get("run_id", ""))

    @property
    def total_lost(self) -> int:
        """Frames declared lost."""
        return sum(each.count for each in self.lost)


def head_line(run_id: str, trajectories: str, images: str, **more: Any) -> bytes:
    """The first line of a frame table. `trajectories` and `images`: names of the files beside it."""
    head = {MARK: VERSION, "run_id": run_id, "trajectories": trajectories, "images": images, **more}
    return msgspec.json.encode(head) + b"\n"


def line(entry: Entry) -> bytes:
    """An entry as a line; NaN is null, other floats round-trip."""
    return _ENCODER.encode(_plain(entry)) + b"\n"


def write(path: Path, head: bytes, entries: Iterable[Entry] = ()) -> None:
    """Write a whole frame table. Raises `OutputError` if the file exists or cannot be written."""
    writer = FrameTableWriter(path, head)
    try:
        writer.append(entries)
    finally:
        writer.close()


class FrameTableWriter:
    """Appends entries, each time with one write; what could not be written whole is taken back."""

    def __init__(self, path: Path, head: bytes, *, overwrite: bool = False) -> None:
        """Create the file with its first line. Raises `OutputError` if it exists or cannot be written."""
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
        try:
            self._file = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError as error:
            raise OutputError(f"{path} exists; choose another name or pass --overwrite") from error
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        self._length = 0
        self._put(head)

    def append(self, entries: Iterable[Entry]) -> None:
        """Append entries: all of them, or none and an `OutputError`."""
        data = b"".join(map(line, entries))
        if data:
            self._put(data)

    def _put(self, data: bytes) -> None:
        try:
            os.lseek(self._file, self._length, os.SEEK_SET)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # a torn line is ignored, and the next one overwrites it
                os.ftruncate(self._file, self._length)
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._length += len(data)

    def sync(self) -> None:
        """Wait until the lines are on the disk. Raises `OSError`."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file. Idempotent."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def read_frame_table(path: Path) -> FrameTable:
    """Read a frame table, also one that is being written. Raises `SourceError` if it is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    first, _, rest = data.partition(b"\n")
    head = _object(first)
    if head is None or head.get(MARK) != VERSION:
        raise SourceError(f"{path} is not a frame table of a recording (version {VERSION})")
    rows: list[FrameRow] = []
    lost: list[Lost] = []
    events: list[EventBegan] = []
    ended: list[EventEnded] = []
    whole, _, torn = rest.rpartition(b"\n")
    skipped = int(bool(torn))
    for text in whole.splitlines():
        entry = parse(text)
        if isinstance(entry, FrameRow) and entry.index == len(rows):
            rows.append(entry)
        elif isinstance(entry, Lost):
            lost.append(entry)
        elif isinstance(entry, EventBegan):
            events.append(entry)
        elif isinstance(entry, EventEnded):
            ended.append(entry)
        else:
            skipped += 1
    return FrameTable(head, tuple(rows), tuple(lost), tuple(events), tuple(ended), skipped)


def parse(text: bytes) -> Entry | None:
    """An entry from its line; None if it is none."""
    found = _object(text)
    if found is None:
        return None
    try:
        if "index" in found:
            event = found.get("event")
            row = FrameRow(
                _whole(found["index"]), None if event is None else _whole(event), _info(found["info"])
            )
            return row if row.index >= 0 else None
        if "lost" in found:
            first, last = found["lost"]
            lost = Lost(_whole(first), _whole(last), str(found.get("why", "")))
            return lost if lost.count > 0 else None
        if "ended" in found:
            return EventEnded(
                _whole(found["ended"]),
                _real(found.get("from_s")),
                _real(found.get("to_s")),
                *(_whole(found.get(name, -1)) for name in ("first_frame", "last_frame")),
                *(_whole(found.get(name, 0)) for name in ("frames", "missing")),
            )
        if "event" in found:
            return EventBegan(
                _whole(found["event"]),
                str(found.get("why", "")),
                str(found.get("sender", "")),
                _whole(found.get("frame", -1)),
                _real(found.get("time_s")),
            )
    except (TypeError, ValueError, KeyError, OverflowError, msgspec.ValidationError):
        return None
    return None


_ENCODER = msgspec.json.Encoder()


def _plain(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, FrameRow):
        return {"index": entry.index, "event": entry.event, "info": entry.info}
    if isinstance(entry, Lost):
        return {"lost": [entry.first, entry.last], "why": entry.why}
    if isinstance(entry, EventEnded):
        return {"ended": entry.event, **{name: getattr(entry, name) for name in ENDED}}
    return {
        "event": entry.event,
        "why": entry.why,
        "sender": entry.sender,
        "frame": entry.frame,
        "time_s": entry.time_s,
    }


def _object(text: bytes) -> dict[str, Any] | None:
    if len(text) > LONGEST_LINE:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _info(given: Mapping[str, Any]) -> FrameInfo:
    known = {name: given[name] for name in RECORDED if name in given}
    volume = known.pop("volume", None)
    values: dict[str, Any] = {
        name: _whole(value) if name in WHOLE else str(value) if name in TEXT else _real(value)
        for name, value in known.items()
    }
    return FrameInfo(**values, volume=None if volume is None else msgspec.convert(volume, VolumeInfo))


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _real(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)
