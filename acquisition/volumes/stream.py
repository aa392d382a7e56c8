"""A microscope as a source of volumes: the focus drive scans, and the camera's images are put into volumes."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from acquisition.microscope.live import MicroscopeStream
from acquisition.microscope.microscope import Microscope
from acquisition.settings import LimitsSettings, MicroscopeSettings
from acquisition.source import SourceInfo
from acquisition.volumes.assembler import Account, Assembler, Volume
from acquisition.volumes.drive import ScanDrive
from acquisition.volumes.plan import VolumePlan, plan_volumes
from acquisition.volumes.scan import Scan, SequencedScan, SteppedScan
from acquisition.volumes.settings import VolumeSettings
from acquisition.volumes.slices import SliceStamp, volume_frame
from acquisition.volumes.steering import VolumeFocus
from stream.messages import Frame

IDLE_S = 0.001  # s between looks while the drive moves or the scan pauses: adds as much to each step
UNSEEN = (
    "; slices are numbered by Micro-Manager, which does not see images lost in the camera or its driver: set "
    "microscope.frame_number_key to the camera's own counter"
)

log = logging.getLogger(__name__)


class VolumeStream:
    """Volumes (Z, H, W) of a running camera while its focus drive scans, as a `Source`.

    Slices are in order of rising focus and numbered by the camera's own image numbers, so that a lost image leaves
    its slice empty (`FrameInfo.volume.missing`) and shifts no other. `camera_frame` counts volumes; gaps in it are
    lost volumes, also in `lost_in_camera`. `steering` stands in for the focus drive where commands are executed:
    the whole plan moves, between two volumes. Once something else moves the drive (the safe state), the scan stops
    until `resume` or a command moves the plan. `exposed_ns` is a lower bound of the start of the first exposure of
    the last volume read.
    """

    def __init__(
        self,
        microscope: Microscope,
        settings: MicroscopeSettings,
        volume: VolumeSettings,
        limits: LimitsSettings,
        *,
        run_id: str,
        report: Callable[[str], None] = log.warning,
    ) -> None:
        """Checks the plan against the limits and the drive before anything is loaded or moved.

        Raises `ConfigurationError` for a plan outside the limits or beyond the drive, `SourceError` if a device
        fails.
        """
        self._scope = microscope
        self._settings = volume
        self._report = report
        plan = plan_volumes(volume, limits, microscope.read_focus())
        drive = ScanDrive(microscope, volume, plan)
        if not drive.sequenced:
            plan = replace(plan, settling=0, lag_up_um=0.0, lag_down_um=0.0)
        images = MicroscopeStream(
            microscope, settings, run_id=run_id, report=report, first_number=volume.first_image_number
        )
        self._images = images
        self._drive = drive
        shape = (images.info.height, images.info.width)
        self._assembler: Assembler[SliceStamp] = Assembler(shape, images.info.dtype, volume.needed_slices)
        kind: type[Scan] = SequencedScan if drive.sequenced else SteppedScan
        self._scan = kind(images, drive, self._assembler, volume, plan, settings.stall_s)
        self.steering = VolumeFocus(plan, limits)
        counts_itself = microscope.core.isPyDevice(microscope.camera) or settings.frame_number_key is not None
        unseen = "" if counts_itself or not drive.sequenced else UNSEEN
        self.info: SourceInfo = _info(images.info, volume, plan, drive, unseen)
        self._ready: deque[Frame] = deque()
        self._exposed: deque[int] = deque()
        self._frame = 0
        self._delivered = 0
        self._resets = 0
        self._scanning = self._paused = self._stopped = self._closed = False
        images.where = lambda: f"volume {self._frame}"
        self.exposed_ns = 0

    @property
    def plan(self) -> VolumePlan:
        """The plan that holds now."""
        return self._scan.plan

    @property
    def ours_changes(self) -> bool:
        """Whether changes of devices now are our own, not from outside."""
        return self._images.ours_changes

    @ours_changes.setter
    def ours_changes(self, ours: bool) -> None:
        self._images.ours_changes = ours

    @property
    def ended(self) -> bool:
        """Whether the camera was stopped and every volume has been read."""
        return self._stopped and not self._ready and self._images.ended

    def start(self) -> None:
        """Start the camera and the scan. Raises `SourceError` if they cannot."""
        self._images.begin()
        self._begin_scan()

    def _begin_scan(self) -> None:
        begins_ns = time.perf_counter_ns()
        target_um = self.steering.wanted_um
        if target_um is not None:
            self._scan.plan = self._scan.plan.moved_to(target_um)
        self._drive.claim()
        self._scanning = True
        self._scan.begin()
        self.steering.moved(self._scan.plan.lowest_um, begins_ns)

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next volume, or None. Raises `SourceError` if camera or drive fail or deliver nothing."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            if self._ready:
                self.exposed_ns = self._exposed.popleft()
                self._delivered += 1
                return self._ready.popleft()
            remaining_s = deadline_s - time.monotonic()
            idles = not self._step(max(remaining_s, 0.0)) and not self._ready
            if self._ready:
                continue
            if remaining_s <= 0 or self.ended or self._rests:
                return None
            if idles:
                time.sleep(min(IDLE_S, remaining_s))

    def _step(self, timeout_s: float) -> bool:
        """Do what is due and take an image; returns whether there was something to do or to wait for."""
        if self._scanning and self._drive.taken:
            self._suspend()
        elif self._wakes or (self._moves and self._assembler.between):
            self._halt()
            self._begin_scan()
        if self._scanning:
            self._keep(self._scan.act())
            if self._scan.waits:
                return False
        frame = self._images.read(timeout_s)
        if self._images.counter_resets > self._resets:
            self._resets = self._images.counter_resets
            self._after_reset()
            return True
        if frame is not None:
            self._keep(self._scan.take(frame, self._images.exposed_ns))
        if self._stopped and self._images.ended:
            self._keep(self._assembler.finish_all(cut=True))
        return True

    def _keep(self, volumes: list[Volume[SliceStamp]]) -> None:
        for volume in volumes:
            frame, exposed_ns = volume_frame(volume, self._frame)
            self._frame += 1
            self._ready.append(frame)
            self._exposed.append(exposed_ns)

    def _suspend(self) -> None:
        self._halt()
        self._report(
            f"from about volume {self._frame} on: the focus was moved by something else, and the scan has stopped; "
            "resume, or move the focus"
        )

    def _after_reset(self) -> None:
        self._report(
            f"from about volume {self._frame} on: the camera's counter fell back, so the places of its images are "
            "not known; the scan is started again"
        )
        self._keep(self._assembler.finish_all(cut=True))  # what waits in the buffer has no place either
        if self._scanning:
            self._halt()
            self._begin_scan()

    def _halt(self) -> None:
        """Stop camera and drive; what has been taken can still be read."""
        self._scanning = False
        try:
            self._images.halt()
        finally:
            self._drive.stop()

    def stop(self) -> None:
        """Stop camera and drive; volumes that are complete can still be read. Idempotent."""
        self._stopped, self._scanning = True, False
        try:
            self._images.stop()
        finally:
            self._drive.stop()

    def pause(self) -> None:
        """Stop camera and drive until `resume`; the volume under way is not finished."""
        self._paused = self.steering.sleeps = True
        self._halt()

    def resume(self) -> None:
        """Scan again, after a pause or after something else has moved the drive."""
        if not self._stopped and not self._scanning:
            self._paused = self.steering.sleeps = False
            self._begin_scan()

    def announce(self, call: Callable[[], None]) -> None:
        """Have `call` called, in the camera's thread, after each image, where the camera can do that."""
        self._images.announce(call)

    def watch_with(self, look: Callable[[int], None]) -> None:
        """Have `look` called with the number of the next volume when the devices are read."""
        self._images.watch_with(lambda _image: look(self._frame))

    def quiet_s(self) -> float:
        """For how long there is nothing to `read`, s."""
        if self._ready:
            return 0.0
        if not self._scanning:
            return 0.0 if self._wakes else self._images.quiet_s()
        own_s = self._scan.quiet_s()
        return own_s if self._images.rests else min(own_s, self._images.quiet_s())

    @property
    def _moves(self) -> bool:
        """Whether the plan is to be moved."""
        return self._scanning and self.steering.wanted_um is not None

    @property
    def _wakes(self) -> bool:
        """Whether a scan that was ended by something else is to begin again, by a command to move the plan."""
        asleep = self._scanning or self._paused or self._stopped
        return not asleep and self.steering.wanted_um is not None

    @property
    def _rests(self) -> bool:
        """Whether nothing comes without a command."""
        return not self._scanning and not self._stopped and self._images.rests

    def devices_changed(self) -> int:
        """Read everything that commands can change; it holds from now on. Returns now (`perf_counter_ns`)."""
        return self._images.devices_changed()

    def now_s(self) -> float:
        """Now on the clock of the frames' `time_s`, s."""
        return self._images.now_s()

    def counts(self) -> dict[str, int]:
        """`received` volumes and those `lost_in_camera` (none or too few of their slices came); if above 0 also
        `partial`, `unfinished` and `left_in_buffer` volumes, `slices_lost`, `slices_dropped` (came, but their
        volume was lost or unfinished), `settling_images`, `surplus_images` and `counter_resets`.
        """
        account = self._assembler.account
        images = self._images.counts()
        counts = {"received": self._delivered, "lost_in_camera": account.lost}
        rare = {
            "partial": account.partial,
            "unfinished": account.unfinished,
            "slices_lost": account.slices_lost,
            "slices_dropped": account.slices_dropped,
            "settling_images": account.settling,
            "surplus_images": account.surplus,
            "left_in_buffer": len(self._ready) + images.get("left_in_buffer", 0) // self.plan.images,
            "counter_resets": images.get("counter_resets", 0),
        }
        return counts | {name: count for name, count in rare.items() if count}

    @property
    def account(self) -> Account:
        """What became of every image and volume."""
        return self._assembler.account

    def gauges(self) -> dict[str, float]:
        """`buffer`: volumes waiting in the camera's buffer."""
        return {name: value / self.plan.images for name, value in self._images.gauges().items()}

    def close(self) -> None:
        """Stop camera and drive. Idempotent."""
        if not self._closed:
            self._closed = True
            self._stopped, self._scanning = True, False
            try:
                self._images.close()
            finally:
                self._drive.stop()


def _info(
    images: SourceInfo,
    volume: VolumeSettings,
    plan: VolumePlan,
    drive: ScanDrive,
    unseen: str,
) -> SourceInfo:
    ways = {"both": "up and down in turn", "up": "upwards", "down": "downwards"}[plan.direction]
    how = (
        "sequenced" if drive.sequenced else "stepped" + (f" ({drive.why_stepped})" * bool(drive.why_stepped))
    )
    rate_hz = images.frame_rate_hz / plan.images if drive.sequenced else math.nan
    if volume.volumes_per_s is not None:
        rate_hz = volume.volumes_per_s if math.isnan(rate_hz) else min(volume.volumes_per_s, rate_hz)
    return replace(
        images,
        depth=plan.slices,
        z_step_um=plan.z_step_um,
        frame_rate_hz=rate_hz,
        description=f"volumes of {plan.slices} slices, {plan.z_step_um:g} um apart, from {plan.lowest_um:g} to "
        f"{plan.highest_um:g} um, {ways}, {how}; {images.description}{unseen}",
    )
