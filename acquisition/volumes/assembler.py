"""Puts slices into the volumes to which they belong by their image numbers, and accounts for those that are
missing.

An image number says by itself where an image belongs, so a lost image leaves a gap and shifts nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from acquisition.volumes.plan import VolumePlan
from stream.messages import ImageArray

Stamp = TypeVar("Stamp")


@dataclass(frozen=True, slots=True, eq=False)
class Volume(Generic[Stamp]):
    """A volume: `image` (Z, H, W) with slices by rising focus; missing ones are 0 and have no stamp.

    `number` counts volumes from the start of the run, lost ones included, unfinished ones not; `place` is its
    number in `plan`.
    """

    number: int
    place: int
    plan: VolumePlan
    image: ImageArray
    stamps: tuple[Stamp | None, ...]

    @property
    def missing(self) -> tuple[int, ...]:
        """Slices without an image."""
        return tuple(k for k, stamp in enumerate(self.stamps) if stamp is None)

    @property
    def upwards(self) -> bool:
        """Whether the focus rose."""
        return self.plan.upwards(self.place)


@dataclass(slots=True)
class Account:
    """Totals. Every image that came is delivered, dropped, settling or surplus; every volume whole, partial or
    lost.

    `unfinished` volumes were cut short by a pause, a move of the focus or the end of the run; `lost` ones have too
    few slices or none. `slices_lost` are images that never came, of all volumes but the unfinished; `settling_lost`
    such that would have been thrown away; `slices_dropped` came, but their volume was lost or unfinished; `surplus`
    came after the last volume of a start.
    """

    whole: int = 0
    partial: int = 0
    lost: int = 0
    unfinished: int = 0
    slices: int = 0
    slices_lost: int = 0
    slices_dropped: int = 0
    settling: int = 0
    settling_lost: int = 0
    surplus: int = 0

    @property
    def images(self) -> int:
        """Images that came."""
        return self.slices + self.slices_dropped + self.settling + self.surplus


@dataclass(slots=True)
class _Sweep:
    """Images from number `first` on, taken after one start of camera and drive; `volumes` None: without an end."""

    first: int
    plan: VolumePlan
    volumes: int | None
    next_volume: int = 0
    next_image: int = 0


@dataclass(slots=True)
class _Open(Generic[Stamp]):
    place: int
    image: Any
    stamps: list[Stamp | None] = field(default_factory=list)


class Assembler(Generic[Stamp]):
    """Assembles volumes from numbered images, which come in order; one thread.

    A volume is handed over with its last slice; if that one is missing, with the first image behind it.
    """

    def __init__(self, shape: tuple[int, int], dtype: str, needed: int) -> None:
        """Images are (H, W) = `shape` of `dtype`; a volume with fewer than `needed` slices is lost."""
        self._shape, self._dtype, self._needed = shape, np.dtype(dtype), needed
        self._sweeps: deque[_Sweep] = deque()
        self._open: _Open[Stamp] | None = None
        self._number = 0
        self.account = Account()

    @property
    def between(self) -> bool:
        """Whether no slice of a volume has come of which others are awaited."""
        return self._open is None

    def begin(self, first_image: int, plan: VolumePlan, volumes: int | None = None) -> None:
        """Camera and drive are started: image `first_image` is the first one of `plan`.

        With `volumes`, the camera stops by itself after so many. Images of earlier starts may still come.
        """
        self._sweeps.append(_Sweep(first_image, plan, volumes))

    def take(self, number: int, image: ImageArray, stamp: Stamp) -> list[Volume[Stamp]]:
        """Put an image in its place; returns the volumes that are complete with it, in order.

        Raises `ValueError` without a start, or for an image that is not behind the last one.
        """
        done: list[Volume[Stamp]] = []
        while len(self._sweeps) > 1 and number >= self._sweeps[1].first:
            done += self.finish()
        if not self._sweeps:
            raise ValueError("an image came before camera and drive were started")
        sweep = self._sweeps[0]
        index = number - sweep.first
        if index < 0:  # taken before the start, and its place is not known
            self.account.surplus += 1
            return done
        if index < sweep.next_image:
            raise ValueError(f"image {number} came after image {sweep.first + sweep.next_image - 1}")
        place = sweep.plan.place(index)
        if sweep.volumes is not None and place.volume >= sweep.volumes:
            done += self._advance(sweep, sweep.volumes * sweep.plan.images)
            sweep.next_image = index + 1
            self.account.surplus += 1
            return done
        done += self._advance(sweep, index)
        sweep.next_image = index + 1
        if place.slice < 0:
            self.account.settling += 1
            return done
        if self._open is None:
            self._open = self._new(place.volume)
        self._open.image[place.slice] = image
        self._open.stamps[place.slice] = stamp
        if (index + 1) % sweep.plan.images == 0:
            done += self._close(sweep)
        return done

    def finish(self, *, cut: bool | None = None) -> list[Volume[Stamp]]:
        """The oldest start has ended and none of its images will come; returns the volumes that end with it.

        `cut` says whether the open volume was cut short; left out: it was, where the camera would have gone on.
        """
        if not self._sweeps:
            return []
        sweep = self._sweeps[0]
        done: list[Volume[Stamp]] = []
        is_cut = sweep.volumes is None if cut is None else cut
        if not is_cut and sweep.volumes is not None:
            done = self._advance(sweep, sweep.volumes * sweep.plan.images)
        self._drop_open(sweep)
        self._sweeps.popleft()
        return done

    def finish_all(self, *, cut: bool | None = None) -> list[Volume[Stamp]]:
        """All starts have ended and none of their images will come; see `finish`."""
        done: list[Volume[Stamp]] = []
        while self._sweeps:
            done += self.finish(cut=cut)
        return done

    def _new(self, place: int) -> _Open[Stamp]:
        slices = self._sweeps[0].plan.slices
        return _Open(place, np.empty((slices, *self._shape), self._dtype), [None] * slices)

    def _advance(self, sweep: _Sweep, index: int) -> list[Volume[Stamp]]:
        """Account for the images before `index` that did not come; returns the volume that ends with them."""
        done: list[Volume[Stamp]] = []
        images, settling = sweep.plan.images, sweep.plan.settling
        missed = range(sweep.next_image, index)
        if not missed:
            return done
        whole, part = divmod(index, images)
        began, begun_part = divmod(sweep.next_image, images)
        settled = (whole - began) * settling + min(part, settling) - min(begun_part, settling)
        self.account.settling_lost += settled
        self.account.slices_lost += len(missed) - settled
        sweep.next_image = max(sweep.next_image, index)
        if whole > sweep.next_volume:
            done = self._close(sweep)
            self.account.lost += whole - sweep.next_volume
            self._number += whole - sweep.next_volume
            sweep.next_volume = whole
        return done

    def _close(self, sweep: _Sweep) -> list[Volume[Stamp]]:
        """End the volume that is due, whole, partial or lost."""
        volume, self._open = self._open, None
        number, self._number = self._number, self._number + 1
        sweep.next_volume += 1
        stamps = () if volume is None else tuple(volume.stamps)
        there = sum(stamp is not None for stamp in stamps)
        if volume is None or there < self._needed:
            self.account.lost += 1
            self.account.slices_dropped += there
            return []
        for k, stamp in enumerate(stamps):
            if stamp is None:
                volume.image[k] = 0
        self.account.slices += there
        self.account.whole += there == len(stamps)
        self.account.partial += there < len(stamps)
        return [Volume(number, volume.place, sweep.plan, volume.image, stamps)]

    def _drop_open(self, sweep: _Sweep) -> None:
        """The open volume, if any of its images came or is known to be lost, was cut short."""
        volume, self._open = self._open, None
        awaited = sweep.volumes is None or sweep.next_volume < sweep.volumes
        if awaited and sweep.next_image > sweep.next_volume * sweep.plan.images:
            self.account.unfinished += 1
        if volume is not None:
            self.account.slices_dropped += sum(stamp is not None for stamp in volume.stamps)
