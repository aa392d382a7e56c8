"""How camera and focus drive take volumes together: by the camera's trigger, or step by step."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod

from acquisition.microscope.live import MicroscopeStream
from acquisition.volumes.assembler import Assembler, Volume
from acquisition.volumes.drive import ScanDrive
from acquisition.volumes.plan import VolumePlan
from acquisition.volumes.settings import VolumeSettings
from acquisition.volumes.slices import SliceStamp
from stream.errors import SourceError
from stream.messages import Frame

FAILED_IMAGES = (
    3  # images in a row that a stepped scan asks for and does not get before the camera has failed
)

Volumes = list[Volume[SliceStamp]]


class Pace:
    """When the next volume is due."""

    def __init__(self, per_s: float | None) -> None:
        self._period_s = 0.0 if per_s is None else 1 / per_s
        self._due_s = -math.inf

    def wait_s(self) -> float:
        """Time until then, s."""
        return self._due_s - time.monotonic()

    def started(self) -> None:
        """A volume starts now; one that is late delays the others."""
        now_s = time.monotonic()
        late_s = now_s - self._due_s
        self._due_s = (self._due_s if late_s < self._period_s else now_s) + self._period_s


class Scan(ABC):
    """Takes volumes by `plan`, which may be replaced before `begin`; used from one thread.

    `waits` says whether no image can come yet. A drive that has not moved for `stall_s` is blocked.
    """

    def __init__(
        self,
        images: MicroscopeStream,
        drive: ScanDrive,
        assembler: Assembler[SliceStamp],
        settings: VolumeSettings,
        plan: VolumePlan,
        stall_s: float,
    ) -> None:
        self.plan = plan
        self.waits = False
        self._images, self._drive, self._assembler, self._stall_s = images, drive, assembler, stall_s
        self._pace = Pace(settings.volumes_per_s)
        self._prepare(settings)

    @abstractmethod
    def _prepare(self, settings: VolumeSettings) -> None:
        """Take what this kind of scan needs of the settings; nothing is under way yet."""

    @abstractmethod
    def begin(self) -> None:
        """Start with the first slice of a volume."""

    @abstractmethod
    def act(self) -> Volumes:
        """Do what is due, without waiting for it; `waits` then says whether no image can come yet."""

    @abstractmethod
    def take(self, frame: Frame, exposed_ns: int) -> Volumes:
        """Take an image of the camera; returns the volumes that are complete with it."""

    @abstractmethod
    def quiet_s(self) -> float:
        """For how long the scan has nothing to do by itself, s."""


class SequencedScan(Scan):
    """The drive follows the camera's trigger through loaded positions: without an end, or start by start.

    Without an end the drive begins its positions again after the last one. With a pause between volumes, each is a
    start of its own; where the drive does not repeat its positions, each start takes as many volumes as it holds.
    """

    def _prepare(self, settings: VolumeSettings) -> None:
        self._volumes: int | None = None
        if settings.volumes_per_s is not None:
            self._volumes = 1
        elif not settings.drive_repeats:
            self._volumes = max(1, self._drive.longest // self.plan.images)
        self._taken = 0

    def begin(self) -> None:
        """Load the drive, start it and the camera."""
        self._taken = 0
        self._start()

    def _start(self) -> None:
        plan = self.plan
        if self._volumes is not None and not plan.upwards(self._taken):
            plan = self.plan.one_volume(self._taken) if self._volumes == 1 else self.plan.turned()
        self._images.halt()
        if not self._drive.start(plan, self._volumes or plan.volumes_per_cycle, self._stall_s):
            return
        images = None if self._volumes is None else self._volumes * plan.images
        self._assembler.begin(self._images.next_image, plan, self._volumes)
        self._pace.started()
        self._images.take(images)
        self._taken += self._volumes or 0

    def act(self) -> Volumes:
        """Start again, where camera and drive have come to the end of their positions."""
        self.waits = False
        if self._volumes is None or not self._images.rests:
            return []
        done = self._assembler.finish_all()
        if self._pace.wait_s() > 0:
            self.waits = True
        else:
            self._start()
        return done

    def take(self, frame: Frame, exposed_ns: int) -> Volumes:
        """Put an image in its place by the camera's number."""
        return self._assembler.take(frame.info.camera_frame, frame.image, SliceStamp(frame.info, exposed_ns))

    def quiet_s(self) -> float:
        """Until the next start."""
        if self._volumes is None:
            return math.inf
        return max(self._pace.wait_s(), 0.0) if self._images.rests else math.inf


class SteppedScan(Scan):
    """The program moves the drive to each slice, waits until it rests, and takes one image."""

    def _prepare(self, settings: VolumeSettings) -> None:
        self._settle_s = settings.settle_s
        self.waits = True
        self._index = self._numbered = self._failed = self._volume = 0
        self._state = "rest"
        self._since_s = 0.0
        self._position_um = math.nan

    def begin(self) -> None:
        """Go to the first slice."""
        self._images.halt()
        self._numbered += self._index
        self._index = self._failed = 0
        self._assembler.finish_all(cut=True)
        self._assembler.begin(self._numbered, self.plan)
        self._state = "rest"

    def act(self) -> Volumes:
        """Move the drive, or take an image once it rests."""
        self.waits = self._state != "image"
        now_s = time.monotonic()
        if self._state == "rest":
            self._go(now_s)
        elif self._state == "move":
            self._arrive(now_s)
        elif self._state == "settle" and now_s >= self._since_s + self._settle_s:
            self._position_um = self._drive.position_um()
            self._images.take(1)
            self._state, self.waits = "image", False
        elif self._state == "image" and self._images.rests:
            self._miss()
        return []

    def _go(self, now_s: float) -> None:
        if self._index % self.plan.images == 0:
            if self._pace.wait_s() > 0:
                return
            self._pace.started()
        target_um = self.plan.lowest_um + self.plan.heights_um[self.plan.place(self._index).slice]
        if self._drive.move(target_um):
            self._state, self._since_s = "move", now_s

    def _arrive(self, now_s: float) -> None:
        if not self._drive.moves():
            self._state, self._since_s = "settle", now_s
        elif now_s - self._since_s > self._stall_s:
            raise SourceError(f"the focus drive still moves after {self._stall_s:g} s; is it blocked?")

    def _miss(self) -> None:
        """The camera has ended without an image: the slice is missing."""
        self._failed += 1
        if self._failed >= FAILED_IMAGES:
            raise SourceError(f"the camera has taken none of the last {self._failed} images it was asked for")
        self._index += 1
        self._state = "rest"

    def take(self, frame: Frame, exposed_ns: int) -> Volumes:
        """Put the image in its place: that of the slice where the drive stands."""
        if self._state != "image":
            return []
        stamp = SliceStamp(frame.info, exposed_ns, self._position_um)
        number = self._numbered + self._index
        self._index += 1
        self._failed = 0
        self._state = "rest"
        return self._assembler.take(number, frame.image, stamp)

    def quiet_s(self) -> float:
        """Until the next volume is due; a drive that moves is looked after all the time."""
        if self._state == "image":
            return math.inf
        begins = self._state == "rest" and self._index % self.plan.images == 0
        return max(self._pace.wait_s(), 0.0) if begins else 0.0
