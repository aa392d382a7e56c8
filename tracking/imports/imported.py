"""What was read from another program's file, and writing it as a trajectory file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.errors import SourceError
from stream.messages import FLAGS, FrameInfo, TrackFlag, Tracks
from tracking.trajectories.compression import pack
from tracking.trajectories.schema import ATTRIBUTES
from tracking.trajectories.writer import TrajectoryWriter

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

OF_FRAMES = ("time_s", "focus_um", "flow_ul_s", "exposure_ms")
"""Columns that belong to a row's frame."""
OF_ROWS = tuple(name for name in Tracks.COLUMNS if name not in {"track", "age_frames", "revised"})
KEPT_ATTRIBUTES = (
    "pixel_size_um",
    "image_shape",
    "image_dtype",
    "frame_rate_hz",
    "refraction_factor",
    "refraction",
    "notes",
)
"""Attributes of a liveptv file that hold for its rows wherever they are; the others were those of the run."""
LARGEST_FRAME = 0xFFFFFFFF
LONGEST_GAP = 100_000
"""Frames without a row that are written as empty ones; a longer gap is one that nobody recorded."""
COMMIT_ROWS = 1 << 16
"""Rows between commits, 5 MB: few enough calls, little memory."""


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object of unknown origin; empty if it is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Assumed:
    """What the user says of a file that does not say it itself; None: nothing.

    `length_um` is the size of its unit of length, um; `frame_rate_hz` the frames per second.
    """

    length_um: float | None = None
    frame_rate_hz: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """Rows (N,) of another program's file, in any order: frame, track, and `columns` in our units by our names.

    `format` says what the file is, `attributes` are those of a liveptv file that it carries, `remarks` what was
    decided in reading it, `left_out` what it holds that a trajectory file does not.
    """

    format: str
    frame: IntArray
    track: IntArray
    columns: dict[str, npt.NDArray[Any]]
    frame_interval_s: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import wrote, and what was decided and left out, a line each."""

    output: Path
    format: str
    rows: int
    tracks: int
    remarks: tuple[str, ...]


def write_imported(
    found: Imported,
    source: Path,
    output: Path,
    *,
    run_id: str,
    rate_hz: float | None,
    overwrite: bool = False,
) -> ImportReport:
    """Write a trajectory file of the rows, packed. Times that the file lacks follow from `rate_hz`.

    Raises `SourceError` for rows that no trajectory file can have, `OutputError` if it cannot be written.
    """
    remarks = list(found.remarks)
    order = np.argsort(found.frame, kind="stable")
    frame, track = found.frame[order], _track_numbers(found.track[order], remarks)
    _check(source, found, frame, track)
    columns = {name: values for name, values in found.columns.items() if name in OF_ROWS}
    frames = _Frames(frame, order, {n: found.columns[n] for n in OF_FRAMES if n in found.columns})
    interval_s = 1.0 / rate_hz if rate_hz else found.frame_interval_s
    if interval_s is None and not frames.has_times and len(frame):
        interval_s = 1.0
        remarks.append("1 frame/s assumed (--frame-rate); times depend on it")
    if found.left_out:
        remarks.append(f"not read, because a trajectory file does not have it: {', '.join(found.left_out)}")
    attributes = _attributes(found, source, remarks, interval_s)
    with TrajectoryWriter(output, run_id=run_id, attributes=attributes, overwrite=overwrite) as writer:
        for message in _messages(order, track, columns, frames, interval_s, run_id, attributes):
            writer.append(message)
            if writer.pending_rows > COMMIT_ROWS:
                writer.commit()
        writer.finalize({}, f"imported from {source.name}")
    pack(output)
    return ImportReport(output, found.format, len(frame), len(np.unique(track)), tuple(remarks))


def _track_numbers(track: IntArray, remarks: list[str]) -> IntArray:
    """The numbers as they are; anew, in order, if they are negative or too large for a table by number."""
    if not track.size or (track.min() >= 0 and track.max() < 10_000_000 + 16 * track.size):
        return track
    _, anew = np.unique(track, return_inverse=True)
    remarks.append("tracks are numbered anew, because their numbers are negative or too large")
    return anew.astype(np.int64)


def _check(source: Path, found: Imported, frame: IntArray, track: IntArray) -> None:
    if frame.size and (frame[0] < 0 or frame[-1] >= LARGEST_FRAME):
        raise SourceError(
            f"{source}: frames run from {frame[0]} to {frame[-1]}; they must be 0 to 4294967294"
        )
    by = np.lexsort((track, frame))
    twice = by[1:][(np.diff(frame[by]) == 0) & (np.diff(track[by]) == 0)]
    if twice.size:
        raise SourceError(
            f"{source}: track {track[twice[0]]} has two rows in frame {frame[twice[0]]}; a trajectory has one"
        )
    for name in ("x_um", "y_um"):
        if not np.isfinite(found.columns[name]).all():
            raise SourceError(f"{source}: some rows have no {name.removesuffix('_um')}; remove them first")


class _Frames:
    """The frames that are written, and what is known of each: `time_s` and so on, NaN where unknown."""

    def __init__(self, frame: IntArray, order: IntArray, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """`frame` (N,) of the rows in order of frames; `columns` are of rows that `order` puts in this order."""
        self.numbers, first = np.unique(frame, return_index=True)
        self.first = np.append(first, len(frame))
        self._columns = {name: values[order[first]].astype(np.float64) for name, values in columns.items()}
        times = self._columns.get("time_s")
        self.has_times = times is not None and bool(np.isfinite(times).any())

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        """Number, first and last row of each frame from the first to the last, and its place (-1: no rows)."""
        previous = None
        for place, number in enumerate(self.numbers.tolist()):
            if previous is not None and number - previous <= LONGEST_GAP:
                for empty in range(previous + 1, number):
                    yield empty, 0, 0, -1
            yield number, int(self.first[place]), int(self.first[place + 1]), place
            previous = number

    def times_s(self, interval_s: float | None) -> _Times:
        """The time of each frame."""
        known = self._columns.get("time_s") if interval_s is None or self.has_times else None
        return _Times(self.numbers, known, interval_s)

    def value(self, name: str, place: int) -> float:
        """What is known of a frame; NaN without rows."""
        values = self._columns.get(name)
        return float(values[place]) if values is not None and place >= 0 else float("nan")


class _Times:
    """Times of frames: as stored; between and beyond those, in even steps."""

    def __init__(self, numbers: IntArray, known: FloatArray | None, interval_s: float | None) -> None:
        finite = np.isfinite(known) if known is not None else np.zeros(len(numbers), np.bool_)
        self._at = numbers[finite].astype(np.float64)
        self._time = known[finite] if known is not None else np.empty(0)
        self._interval = interval_s or 1.0
        if interval_s is None and len(self._at) > 1:
            self._interval = float(np.median(np.diff(self._time) / np.diff(self._at)))

    def of(self, frame: int) -> float:
        """The time of a frame, s."""
        if not len(self._at):
            return frame * self._interval
        if frame < self._at[0]:
            return float(self._time[0] - (self._at[0] - frame) * self._interval)
        if frame > self._at[-1]:
            return float(self._time[-1] + (frame - self._at[-1]) * self._interval)
        return float(np.interp(frame, self._at, self._time))


def _messages(
    order: IntArray,
    track: IntArray,
    columns: Mapping[str, npt.NDArray[Any]],
    frames: _Frames,
    interval_s: float | None,
    run_id: str,
    attributes: Mapping[str, Any],
) -> Iterator[Tracks]:
    times = frames.times_s(interval_s)
    pixel_um = float(attributes.get("pixel_size_um", 1.0))
    nan = float("nan")
    for number, start, stop, place in frames:
        focus_um = frames.value("focus_um", place)
        info = FrameInfo(
            run_id=run_id,
            frame=number,
            camera_frame=number,
            time_s=times.of(number),
            monotonic_ns=0,
            wall_s=nan,
            focus_um=focus_um,
            focus_commanded_um=focus_um,
            flow_ul_s=frames.value("flow_ul_s", place),
            exposure_ms=frames.value("exposure_ms", place),
            pixel_size_um=pixel_um,
            age_ms=nan,
        )
        rows = order[start:stop]
        part = {name: values[rows] for name, values in columns.items()}
        part[FLAGS] = np.nan_to_num(part.get(FLAGS, np.zeros(stop - start)))
        if "detection" not in part:
            measured = (part[FLAGS].astype(np.int64) & TrackFlag.PREDICTED) == 0
            part["detection"] = np.where(measured, np.cumsum(measured) - 1, -1)
        yield Tracks.from_columns(info, track=track[start:stop], **part)


def _attributes(
    found: Imported, source: Path, remarks: Sequence[str], interval_s: float | None
) -> dict[str, Any]:
    """What the file carries of a liveptv file and holds here too, and where the rows come from."""
    attributes: dict[str, Any] = {}
    for name in KEPT_ATTRIBUTES:
        if name in found.attributes:
            try:
                attributes[name] = ATTRIBUTES[name].read(found.attributes[name])
            except (ValueError, TypeError, RecursionError):
                continue
    if interval_s and "frame_rate_hz" not in attributes:
        attributes["frame_rate_hz"] = 1.0 / interval_s
    attributes["source"] = f"{source.name} ({found.format})"
    attributes["imported"] = {
        "file": source.name,
        "format": found.format,
        "remarks": list(remarks),
        "attributes": found.attributes,
    }
    return attributes
