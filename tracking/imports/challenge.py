"""Reads XML of the Particle Tracking Challenge (Chenouard et al. 2014): its truth, and the results handed in.

Positions are in pixels and slices from the centre of the first voxel, times in frames. Icy, TrackMate and others
write the same layout, with or without an outer `<root>`, and the facts in upper or lower case.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.errors import SourceError
from stream.hdf5_reading import reading
from tracking.imports.imported import Assumed, Imported
from tracking.imports.xml_reading import MalformedError, number, parse, whole

CONTENT = "TrackContestISBI2012"
OUTER = "root"
FACTS = ("scenario", "snr", "density")
HEAD_BYTES = 65_536


@dataclass(slots=True)
class ChallengeTracks:
    """Rows (N,) of a file: `track` and `frame`, `position` (N, 3) x and y in pixels, z in slices; its `facts`."""

    track: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]
    position: npt.NDArray[np.float64]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def has_depth(self) -> bool:
        """Whether any particle has a z; that of images is 0 throughout."""
        return bool(self.position[:, 2].any())


def is_challenge(path: Path) -> bool:
    """Whether an XML file is of the challenge; only its beginning is read."""
    seen: list[str] = []

    def start(tag: str, _: dict[str, str]) -> None:
        seen.append(tag)
        if len(seen) == 2:
            raise _EnoughError

    with suppress(_EnoughError, SourceError):
        parse(path, start, most_bytes=HEAD_BYTES)
    return seen[:1] == [CONTENT] or seen == [OUTER, CONTENT]


def read_tracks(path: Path) -> ChallengeTracks:
    """The tracks of a file in pixels and slices. Raises `SourceError`."""
    found = _Content()
    with reading(path):
        parse(path, found.start)
    if not found.is_there:
        raise SourceError(f"{path} is not of the Particle Tracking Challenge: it has no <{CONTENT}>")
    position = np.array(found.position, np.float64).reshape(-1, 3)
    if not np.isfinite(position).all():
        raise SourceError(f"{path}: a detection has a position that is not finite; remove it")
    return ChallengeTracks(
        np.array(found.track, np.int64), np.array(found.frame, np.int64), position, found.facts
    )


def read_challenge(path: Path, assumed: Assumed) -> Imported:
    """The tracks in um, given the size of a pixel, which the challenge's files do not state.

    Slices are taken to lie as far apart as pixels, as the challenge's measures take them, and this is said.
    Raises `SourceError`, also where the size of a pixel is not given.
    """
    found = read_tracks(path)
    if assumed.length_um is None:
        raise SourceError(f"{path}: lengths are in pixels; give --pixel-size")
    position = found.position * assumed.length_um
    remarks: tuple[str, ...] = ()
    z_um = position[:, 2]
    if found.has_depth:
        remarks = (f"z is in slices; they are taken to be {assumed.length_um:g} um apart, as pixels are",)
    else:
        z_um = np.full(len(position), np.nan)
    columns: dict[str, npt.NDArray[Any]] = {"x_um": position[:, 0], "y_um": position[:, 1], "z_um": z_um}
    return Imported(
        format="Particle Tracking Challenge",
        frame=found.frame,
        track=found.track,
        columns=columns,
        attributes={"pixel_size_um": assumed.length_um, **found.facts},
        remarks=remarks,
    )


class _EnoughError(Exception):
    """Ends the reading of a file's beginning."""


class _Content:
    """Collects the detections, a track for each `<particle>`."""

    def __init__(self) -> None:
        self.is_there = False
        self.facts: dict[str, str] = {}
        self.track, self.frame = array("q"), array("q")
        self.position = array("d")
        self._number = -1

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take an element."""
        if tag == "particle":
            self._number += 1
        elif tag == "detection":
            if self._number < 0:
                raise MalformedError("a detection is in no <particle>")
            self.track.append(self._number)
            self.frame.append(whole(attributes, "t"))
            z = number(attributes, "z") if "z" in attributes else 0.0
            self.position.extend((number(attributes, "x"), number(attributes, "y"), z))
        elif tag == CONTENT:
            self.is_there = True
            lower = {name.lower(): value for name, value in attributes.items()}
            self.facts = {name: lower[name][:100] for name in FACTS if name in lower}
