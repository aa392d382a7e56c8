"""Conditions on the tracks of each frame that ask the recorder to keep the frames around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stream.messages import Command, CommandKind, Tracks
from stream.property_range import PropertyRange, in_range
from tracking.control.controllers.measuring import BoolArray, FloatArray, heights_um, of_kind

LONGEST_REPEAT_S = 1.0
"""Longest time between two requests of a condition that lasts, s; half of what is kept afterwards where that is
less, so that the event does not end in between. Fewer requests would end an event of one late result early."""
AXES = "xyz"
ALL = PropertyRange()


class Condition(Protocol):
    """Something that can be seen in the tracks of a frame."""

    def update(self, tracks: Tracks) -> list[Command]:
        """The requests to keep frames that these tracks give reason for."""
        ...


def request(sender: str, why: str, frame: int) -> Command:
    """A request to keep the frames around `frame`."""
    return Command(CommandKind.RECORD, why, decided_on_frame=frame, sender=sender)


@dataclass(frozen=True, slots=True)
class Region:
    """Lower and upper edges in x, y and height, um; None: no edge. `kind` None: particles of every class.

    `chosen` are the particles in the range of a property, all without one.
    """

    edges_um: Sequence[tuple[float | None, float | None]]
    min_track_frames: int = 5
    kind: int | None = None
    min_p_kind: float = 0.9
    chosen: PropertyRange = ALL


class ParticleEnters:
    """Asks when a track is seen in the region that was seen outside before, once for each track."""

    sender = "record.on.particle_enters"
    why = "a particle has entered the region"

    def __init__(self, region: Region) -> None:
        self._region = region
        low, high = zip(*region.edges_um, strict=True)
        self._low = np.array([-math.inf if edge is None else edge for edge in low])[:, None]
        self._high = np.array([math.inf if edge is None else edge for edge in high])[:, None]
        self._is_bounded = np.isfinite(self._low) | np.isfinite(self._high)
        self._outside = np.zeros(1024, np.bool_)
        self._entered = np.zeros(1024, np.bool_)

    def update(self, tracks: Tracks) -> list[Command]:
        """One request where any track has entered."""
        seen = tracks.counted
        numbers = tracks.track[seen].astype(np.int64)
        if not len(numbers):
            return []
        self._make_room(int(numbers.max()) + 1)
        place = np.stack([tracks.x_um[seen], tracks.y_um[seen], heights_um(tracks)[seen]])
        inside, is_known = self._inside(place)
        counts = (tracks.age_frames[seen] + 1 >= self._region.min_track_frames) & of_kind(
            tracks, self._region.kind, self._region.min_p_kind
        )[seen]
        counts &= in_range(tracks, self._region.chosen)[seen]
        new = inside & counts & self._outside[numbers] & ~self._entered[numbers]
        self._outside[numbers[is_known & ~inside]] = True
        self._entered[numbers[new]] = True
        return [request(self.sender, self.why, tracks.info.frame)] if new.any() else []

    def _inside(self, place_um: FloatArray) -> tuple[BoolArray, BoolArray]:
        """Whether each place (3, N) is inside, and whether that is known (a height is not, in 2D)."""
        within = (place_um >= self._low) & (place_um <= self._high)
        inside: BoolArray = (within | ~self._is_bounded).all(axis=0)
        is_known: BoolArray = (np.isfinite(place_um) | ~self._is_bounded).all(axis=0)
        return inside, is_known

    def _make_room(self, needed: int) -> None:
        if needed > self._outside.size:
            more = max(needed, 2 * self._outside.size) - self._outside.size
            self._outside = np.pad(self._outside, (0, more))
            self._entered = np.pad(self._entered, (0, more))


@dataclass(frozen=True, slots=True)
class Band:
    """A band of the median velocity along an axis, um/s; None: no edge. Fewer than `min_tracks` are not judged."""

    axis: str = "x"
    min_um_s: float | None = None
    max_um_s: float | None = None
    for_s: float = 0.0
    min_tracks: int = 5

    def in_words(self) -> str:
        """The band with its unit."""
        low, high = self.min_um_s, self.max_um_s
        if low is not None and high is not None:
            return f"{low:g} to {high:g} um/s"
        return f"{low:g} um/s and more" if low is not None else f"{high:g} um/s and less"


class VelocityLeaves:
    """Asks at the first frame from which on the velocity was outside the band for `for_s`, and while it stays.

    `after_s` is for how long the recorder keeps what follows a request.
    """

    sender = "record.on.velocity_leaves"

    def __init__(self, band: Band, after_s: float) -> None:
        self._band = band
        self._low = -math.inf if band.min_um_s is None else band.min_um_s
        self._high = math.inf if band.max_um_s is None else band.max_um_s
        self._row = AXES.index(band.axis)
        self._repeat_s = min(LONGEST_REPEAT_S, after_s / 2)
        self._left: tuple[int, float] | None = None
        self._asked_s = -math.inf
        self.why = f"the velocity along {band.axis} is outside {band.in_words()}"

    def update(self, tracks: Tracks) -> list[Command]:
        """One request, or none."""
        seen = tracks.counted
        velocity = (tracks.vx_um_s, tracks.vy_um_s, tracks.vz_um_s)[self._row][seen]
        velocity = velocity[np.isfinite(velocity)]
        if len(velocity) < self._band.min_tracks:
            return []
        info = tracks.info
        if self._low <= float(np.median(velocity)) <= self._high:
            self._left = None
            return []
        is_new = self._left is None
        if self._left is None:
            self._left = (info.frame, info.time_s)
            self._asked_s = -math.inf
        frame, since_s = self._left
        if info.time_s - since_s < self._band.for_s or info.time_s - self._asked_s < self._repeat_s:
            return []
        is_first = is_new or math.isinf(self._asked_s)
        self._asked_s = info.time_s
        return [request(self.sender, self.why, frame if is_first else info.frame)]
