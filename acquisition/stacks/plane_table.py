"""The location of each plane of a recording in its files, and the selection of the planes of one video."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from acquisition.stacks.claimed_size import check_count
from acquisition.stacks.video_choice import CHANNELS_OR_TIMES, Choice, choose, listed
from stream.errors import SourceError

SPARSE, MOST_HOLES = 10_000, 100
"""A grid with more places than this, and than this many per existing image, is damaged metadata."""
KEYS = ("position", "series", "channel", "z")


@dataclass(frozen=True, slots=True)
class Place:
    """Location of a plane: the IFD with this number, or at this byte (`offset`), or plain pixels at byte `data`.

    `text` are first byte and length of the metadata (JSON) of the plane, for plain pixels.
    """

    file: Path
    ifd: int = -1
    offset: int = 0
    data: int = 0
    text: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Indices of a plane: position (or series), channel, time and height."""

    position: int
    channel: int
    t: int
    z: int


@dataclass(slots=True)
class PlaneTable:
    """All planes of a recording. `sizes` are (times, heights) of each position according to the metadata.

    `order` has the letters of time, height and channel; the last one changes fastest. `missing` are files of the
    recording that do not exist; `next_file` is the name that the next one would have. `own` are the positions in
    the file that was opened.
    """

    kind: str
    places: dict[Coordinates, Place] = field(default_factory=dict)
    positions: list[str] = field(default_factory=lambda: ["0"])
    channels: list[str] = field(default_factory=lambda: ["0"])
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    order: str = "TZC"
    key: str = "position"
    missing: list[str] = field(default_factory=list)
    next_file: str = ""
    own: set[int] = field(default_factory=set)
    shape: tuple[int, int] = (0, 0)
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The planes of one video in order, None for one that is missing within volumes.

    `at` are the (t, z) of each, `axes` and `lead` their axes and lengths. `lost_before` and `lost_after` are planes
    in missing files before the first one and after the last; `absent` are planes missing although no file is.
    `single`: the file has no other position, channel or height. `notes` are for the user.
    """

    planes: tuple[Place | None, ...]
    at: tuple[tuple[int, int], ...]
    axes: str
    lead: tuple[int, ...]
    lost_before: int
    lost_after: int
    absent: int
    position: int
    channel: int
    single: bool
    notes: tuple[str, ...]


def select(path: Path, table: PlaneTable, choice: Choice, *, all_channels: bool = False) -> Chosen:
    """The planes selected by `choice`. Raises `SourceError`, with the names, if it is ambiguous.

    With `all_channels` the channels are an axis (C) of the video, whose meaning the user gives.
    """
    choice.refuse_rest(path, (*KEYS, "files") if path.is_dir() else KEYS)
    if not table.places:
        raise SourceError(f"{path} contains no images")
    position = _position(path, table, choice)
    channels = sorted({where.channel for where in table.places if where.position == position})
    names = [table.channels[c] if c < len(table.channels) else str(c) for c in channels]
    if all_channels and len(channels) > 1:
        return _with_channels(path, table, position)
    channel = channels[choose(path, "channel", names, choice.get("channel"), CHANNELS_OR_TIMES)]
    found = {
        (where.t, where.z): place
        for where, place in table.places.items()
        if (where.position, where.channel) == (position, channel)
    }
    heights = sorted({z for _, z in found})
    given = choice.get("z")
    if given is not None:
        height = heights[choose(path, "z", [str(z) for z in heights], given)]
        found = {(t, z): place for (t, z), place in found.items() if z == height}
    times = max(t for t, _ in found) + 1
    depth = 1 if given is not None else max(heights) + 1
    promised = table.sizes.get(position, (times, depth))
    all_times, all_heights = max(promised[0], times), max(promised[1], depth) if given is None else 1
    check_count(path, all_times * all_heights)
    if times * depth > SPARSE + MOST_HOLES * len(found):
        raise SourceError(
            f"{path} has {len(found)} images for {times} times and {depth} heights; it is damaged"
        )
    if times == 1 or depth == 1:
        at = sorted(found)
        axes = "" if len(at) == 1 else "T" if depth == 1 else "Z"
        lead: tuple[int, ...] = (len(at),) if axes else ()
    else:
        at = [(t, z) for t in range(times) for z in range(depth)]
        axes, lead = "TZ", (times, depth)
        if table.order.index("Z") < table.order.index("T"):
            at = [(t, z) for z in range(depth) for t in range(times)]
            axes, lead = "ZT", (depth, times)
    while found.get(at[-1]) is None:
        at.pop()
    absent = all_times * all_heights - len(found)
    lost_after = all_times - times if depth == 1 and table.missing else 0
    return Chosen(
        planes=tuple(found.get(where) for where in at),
        at=tuple(at),
        axes=axes,
        lead=lead,
        lost_before=at[0][0] if depth == 1 else 0,
        lost_after=lost_after,
        absent=0 if table.missing else absent,
        position=position,
        channel=channel,
        single=len(table.positions) == len(channels) == len(heights) == 1 and depth == 1,
        notes=_notes(table, absent, all_times * all_heights),
    )


def _with_channels(path: Path, table: PlaneTable, position: int) -> Chosen:
    """All planes of a position in the order of the file, with the channels as an axis."""
    found = {where: place for where, place in table.places.items() if where.position == position}
    sizes = {axis: max(_along(where, axis) for where in found) + 1 for axis in table.order}
    axes = "".join(axis for axis in table.order if sizes[axis] > 1)
    order = sorted(found, key=lambda where: tuple(_along(where, axis) for axis in table.order))
    lead = tuple(sizes[axis] for axis in axes)
    if math.prod(lead) != len(order):
        raise SourceError(f"{path} lacks images for some channels, times or heights; choose one channel")
    return Chosen(
        planes=tuple(found[where] for where in order),
        at=tuple((where.t, where.z) for where in order),
        axes=axes,
        lead=lead,
        lost_before=0,
        lost_after=0,
        absent=0,
        position=position,
        channel=0,
        single=False,
        notes=_notes(table, 0, len(order)),
    )


def _along(where: Coordinates, axis: str) -> int:
    return where.t if axis == "T" else where.z if axis == "Z" else where.channel


def _position(path: Path, table: PlaneTable, choice: Choice) -> int:
    """The position: that of a file with a single one, else the chosen one."""
    present = sorted({where.position for where in table.places})
    given = choice.get("position", "series")
    if given is None and len(table.own) == 1:
        return next(iter(table.own))
    names = [table.positions[p] if p < len(table.positions) else str(p) for p in present]
    counts = [sum(where.position == p for where in table.places) for p in present]
    about = f" with {listed([str(count) for count in counts])} images" if len(set(counts)) > 1 else ""
    return present[choose(path, table.key, names, given, about)]


def _notes(table: PlaneTable, absent: int, promised: int) -> tuple[str, ...]:
    if table.missing:
        verb = "is" if len(table.missing) == 1 else "are"
        lost = (
            f"{absent} of {promised} images are lost" if absent > 0 else "no image of this video is affected"
        )
        return (
            f"{listed(table.missing)} {verb} missing: {lost}; put all files of the recording into one folder",
        )
    if absent > 0 and table.next_file:
        return (
            f"{promised} images were planned, {promised - absent} exist: the recording was stopped early, or "
            f"its file {table.next_file} is missing",
        )
    return ()
