"""A watched folder as a source of a run, like a camera."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

from acquisition.foreign_notes import ForeignNotes
from acquisition.recorded_volumes.z_scale import AGREE, UnknownVoxelError
from acquisition.source import SourceInfo
from acquisition.source_settings import SourceSettings
from acquisition.source_voxels import in_settings
from acquisition.stacks.scales import pixel_size
from acquisition.stacks.timing import ASSUMED_HZ
from acquisition.watched_folder.file_clock import FileClock
from acquisition.watched_folder.folder_looks import FolderLooks
from acquisition.watched_folder.image_item import open_item
from acquisition.watched_folder.volumes_of_file import VolumeRules
from acquisition.watched_folder.watch import FolderWatch, Rules, WatchedImage
from stream.errors import SourceError
from stream.messages import Frame, FrameInfo
from stream.safe_text import storable

SILENT_S = 10.0  # without an image, s, after which the run says what it waits for
WAIT_S = 0.1  # s between two looks whether the user has ended a run that waits for its first image


def open_watched(
    settings: SourceSettings,
    *,
    run_id: str,
    model_pixel_size_um: Callable[[], float | None] = lambda: None,
    seconds: float | None = None,
    say: Callable[[str], None],
    is_abandoned: Callable[[], bool] = lambda: False,
    volumes: bool | None = None,
) -> Watched:
    """Wait for the first image of a folder, which tells size and type of all.

    `seconds` after its first image the source ends, also if no more come. `is_abandoned` ends the wait. `volumes`:
    whether the files hold volumes; None: those with a z axis do.

    Raises `SourceError` if the folder cannot be read, the wait is ended, or the voxels of volumes are not known.
    """
    assert settings.watch is not None
    folder = settings.watch
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder} to watch; make it, or compare source.watch")
    notes = ForeignNotes(say)
    rules = Rules(settings.existing == "take", settings.pattern, settings.missing_s, settings.settled_s)
    if settings.z_step_um is not None or "Z" in (settings.axes or ""):
        volumes = True
    reading = VolumeRules(volumes, settings.z_step_um, settings.pixel_size_um, model_pixel_size_um)
    opener = partial(open_item, axes=settings.axes, rules=reading)
    watch = FolderWatch(rules, opener, notes, time.monotonic)
    looks = FolderLooks(watch, folder, settings)
    try:
        say(f"watching {folder}: waiting for the first image")
        began_s = time.monotonic()
        while (image := looks.next_image()) is None:
            notes.flush()
            waited_s = time.monotonic() - began_s
            if is_abandoned():
                raise SourceError(f"the run was ended before an image was in {folder}")
            if looks.has_end or (settings.quiet_s is not None and waited_s > settings.quiet_s):
                why = watch.waits_for or "there is none"
                raise SourceError(f"no image could be taken from {folder}: {why}")
            time.sleep(min(WAIT_S, max(0.001, looks.quiet_s())))
        if image.volume is not None:
            reading.depth, reading.run_step_um = image.volume.slices, image.z_step_um
        return Watched(looks, image, notes, settings, run_id, model_pixel_size_um, seconds, say)
    except UnknownVoxelError as error:
        watch.close()
        raise SourceError(in_settings(str(error))) from error
    except BaseException:
        watch.close()
        raise


class Watched:
    """The `Source` of files that another program writes. `remarks` are lines for the user: what was assumed."""

    def __init__(
        self,
        looks: FolderLooks,
        first: WatchedImage,
        notes: ForeignNotes,
        settings: SourceSettings,
        run_id: str,
        model_pixel_size_um: Callable[[], float | None],
        seconds: float | None,
        say: Callable[[str], None],
    ) -> None:
        self._looks = looks
        self._notes = notes
        self._settings = settings
        self._run_id = run_id
        self._seconds = seconds
        self._say = say
        self._next: WatchedImage | None = first
        found, image = first.info, first.plane.image
        self._kind = (image.shape, image.dtype.name)
        size_um, remark = pixel_size(
            found.pixel_size_um,
            found.pixel_size_y_um,
            first.path.name,
            settings.pixel_size_um,
            model_pixel_size_um,
        )
        remark = remark.replace("--pixel-size", "source.pixel_size_um")
        said_hz = found.frame_rate_hz if found.frame_rate_hz > 0 else math.nan
        given_hz = settings.frame_rate_hz
        follows = given_hz is None and math.isfinite(first.plane.time_s)
        rate_hz = given_hz if given_hz is not None else said_hz
        self._clock = FileClock(rate_hz if math.isfinite(rate_hz) else ASSUMED_HZ, follows_files=follows)
        timing = ""
        if follows:
            timing = "times are those in the files"
        elif not math.isfinite(rate_hz):
            timing = f"{ASSUMED_HZ:g} frame/s assumed (source.frame_rate_hz)"
        series = looks.watch.series
        order = f"files {series.pattern}" if series is not None else ""
        if series is not None and not series.step:
            order += ", whose names have no counter: missing ones cannot be seen"
        told = (order, *found.remarks, remark, *map(in_settings, first.remarks), timing)
        self.remarks = tuple(text for text in told if text)
        folder = storable(str(settings.watch))
        self.info = SourceInfo(
            height=image.shape[-2],
            width=image.shape[-1],
            depth=1 if first.volume is None else first.volume.slices,
            z_step_um=first.z_step_um,
            dtype=image.dtype.name,
            pixel_size_um=size_um,
            frame_rate_hz=rate_hz,
            frames=None,
            name=storable(settings.watch.name) if settings.watch is not None else "",
            description="; ".join([f"the folder {folder}", *self.remarks]),
        )
        self._frame = self._other_size = 0
        self._first_s: float | None = None
        self._stopped = self._paused = self._over = self._is_silent = False

    @property
    def ended(self) -> bool:
        """Whether the end was asked for, or no image came for the time that the settings say."""
        self._notes.flush()
        if self._next is not None and not self._stopped:
            return False
        if not self._over:
            self._over = self._stopped or (not self._paused and self._is_over(time.monotonic()))
        return self._over

    def _is_over(self, now_s: float) -> bool:
        silent_s = self._looks.idle_s
        quiet_s, waits_for = self._settings.quiet_s, self._looks.watch.waits_for
        if self._looks.has_end:
            return True
        if quiet_s is not None and silent_s > quiet_s:
            self._say(f"no image for {quiet_s:g} s (source.quiet_s): the run ends")
            return True
        if self._first_s is not None and self._seconds is not None and now_s - self._first_s > self._seconds:
            return silent_s > self._settings.missing_s
        if silent_s > SILENT_S and not self._is_silent:
            self._is_silent = True
            self._say(f"no image for {SILENT_S:g} s{f' ({waits_for})' if waits_for else ''}: waiting")
        return False

    def start(self) -> None:
        """The run begins."""
        self._looks.idle_s = 0.0

    def quiet_s(self) -> float:
        """Until the next look into the folder, s; 0 if an image waits."""
        return 0.0 if self._next is not None else self._looks.quiet_s()

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame, or None."""
        if self._paused or self._stopped:
            return None
        image, self._next = self._next or self._looks.next_image(), None
        self._notes.flush()
        if image is None:
            time.sleep(min(timeout_s, max(0.0, self._looks.quiet_s())))
            return None
        if self._is_silent:
            self._is_silent = False
            self._say("images come again")
        if self._first_s is None:
            self._first_s = time.monotonic()
        frame = self._frame_of(image)
        self._next = self._looks.next_image()  # so that `quiet_s` and `ended` know
        return frame

    def _frame_of(self, image: WatchedImage) -> Frame | None:
        plane = image.plane
        time_s = self._clock.take(image.number, plane.time_s)
        if (plane.image.shape, plane.image.dtype.name) != self._kind:
            shape, kind = self._kind
            self._notes.tell(
                "other_size",
                f"{image.path.name} is {plane.image.shape} {plane.image.dtype.name}, the run has "
                f"{shape} {kind}: it is lost; start another run for another size",
            )
            self._other_size += 1
            return None
        if image.volume is not None and not math.isclose(image.z_step_um, self.info.z_step_um, rel_tol=AGREE):
            self._notes.tell(
                "other_step",
                f"the slices in {image.path.name} are {image.z_step_um:g} um apart, those of the run "
                f"{self.info.z_step_um:g} um: it is lost; start another run for another distance",
            )
            self._other_size += 1
            return None
        info = FrameInfo(
            run_id=self._run_id,
            frame=self._frame,
            camera_frame=image.number,
            time_s=time_s,
            monotonic_ns=time.perf_counter_ns(),
            wall_s=time.time(),
            camera_time_s=plane.time_s,
            focus_um=plane.focus_um,
            exposure_ms=plane.exposure_ms,
            pixel_size_um=self.info.pixel_size_um,
            volume=image.volume,
        )
        self._frame += 1
        return Frame(info, plane.image)

    def stop(self) -> None:
        """Take no more images. Idempotent."""
        if not self._stopped:
            self._stopped = True
            left = self._looks.watch.left(time.monotonic()) + (self._next is not None)
            if left:
                self._notes.count("left_in_folder", left)

    def pause(self) -> None:
        """Take no images until `resume`; they wait in the folder."""
        self._paused = True

    def resume(self) -> None:
        """Go on with the images that have been waiting."""
        self._paused, self._looks.idle_s = False, 0.0

    def counts(self) -> dict[str, int]:
        """`received`, `lost_in_folder` (missing by the numbers, or unreadable), and what was skipped, by reason."""
        lost = self._looks.watch.lost + self._other_size
        own = {"received": self._frame, "lost_in_camera": 0, "lost_in_folder": lost}
        return dict(self._notes.counts) | own

    def gauges(self) -> dict[str, float]:
        """A folder has no queue."""
        return {}

    def close(self) -> None:
        """Close the open file. Idempotent."""
        self._looks.watch.close()
        self._notes.flush()
