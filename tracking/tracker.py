"""The online tracker: one call for each frame links its detections to tracks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stream.messages import Detections, FrameInfo, Predictions, Tracks
from stream.volume_info import VolumeInfo
from tracking import kalman
from tracking.as_detected import note_detected
from tracking.flow_tracker import FlowTracker
from tracking.frame_clock import FrameClock
from tracking.kinds import TrackKinds
from tracking.properties import TrackProperties
from tracking.settings import TrackerSettings
from tracking.switching.tracker import SwitchingTracker


class OnlineTracker:
    """Links the detections of successive frames into tracks.

    The first frame with particles decides between 3D (at least half of them have a depth) and 2D, for the
    whole run. In 3D a detection without depth is ignored and counted, as is, in either case, one whose x or y
    is not finite or absurd (10 m). In 2D depths are not used and come out as NaN.

    A frame whose number is not greater than the last one's is ignored and counted as a repeated frame. Elapsed
    frames and times are `tracking.frame_clock`'s; a track ends when it was not detected for more than
    `max_gap_frames` camera frames, so a longer loss of frames ends all tracks. Where only every k-th frame is
    tracked lately, frames in between do not count. A tentative track ends at its first miss.

    Depths are tracked as height, focus + z, so that a focus move does not look like motion; a frame without
    focus reading counts as not moved. `counts` holds `born`, `ended`, `linked`, `missed` (predicted rows),
    `duplicates` (repeated frames; the key is stored in files) and `ignored` (detections), and, where there are
    any, the frames with displacements beyond what links can resolve (`unresolved`, see
    `tracking.displacements`).

    Where detections have a second depth, on the other side of focus, the motion of a track decides between the two
    (`tracking.sides`, mode flow), now and for earlier rows; `counts` then holds how often (`revised`). Rows have
    the class of particle that most of the track's detections say (`tracking.kinds`), and the mean of each property
    that detections have (`tracking.properties`).

    Where motion switches (`tracking.switching`), the links of a frame are decided once more when the next one is
    known: rows then say under which number the track's last row was sent (`track_before`), and `counts` holds how
    often (`relinked`).

    Tracks that are second detections of another's particle are flagged as soon as that is clear, see
    `tracking.second_detections.finder`; `second_detections` of them were in the last frame.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self.counts = dict.fromkeys(("born", "ended", "linked", "missed", "duplicates", "ignored"), 0)
        self._clock = FrameClock(settings.frame_rate_hz)
        self._flow = FlowTracker(settings, self._clock, self.counts)
        self._switching: SwitchingTracker | None = None
        self._switches: bool | None = None
        self._kinds = TrackKinds()
        self._properties = TrackProperties()
        self._last: FrameInfo | None = None
        self._axes = 0
        self._focus_um = 0.0

    @property
    def alive(self) -> int:
        """Tracks alive after the last step, tentative ones included."""
        return self._flow.alive if self._switching is None else self._switching.alive

    @property
    def axes(self) -> int:
        """3 or 2; 0 before the first particle."""
        return self._axes

    @property
    def changes(self) -> int:
        """How often the flow has changed as a whole."""
        return self._flow.changes

    @property
    def second_detections(self) -> int:
        """Tracks of the last frame that are second detections."""
        return self._flow.second_detections

    @property
    def diffusion_um2_s(self) -> float:
        """The in-plane diffusion coefficient that the filter works with; NaN before it has one."""
        return self._flow.diffusion_um2_s if self._switching is None else self._switching.diffusion_um2_s

    @property
    def remark(self) -> str:
        """One line once particles are seen to move farther between frames than links can resolve; else ""."""
        return self._flow.remark

    def warmup(self) -> None:
        """Compile everything a live run needs (seconds at first, then from numba's cache).

        What volumes need is compiled only where the settings say that motion is switching: see `warmup_switching`.
        """
        if self.settings.motion == "switching":
            self.warmup_switching()
            return
        rng = np.random.default_rng(0)
        for mode in ("flow", "hungarian"):
            scratch = OnlineTracker(self.settings.model_copy(update={"mode": mode}))
            for frame in range(self.settings.confirm_hits + 3):
                info = FrameInfo("warmup", frame, frame, float(frame), 0, 0.0)
                x, y, z = rng.uniform(0.0, 100.0, (3, 40))
                sides = {"z_other_um": -z, "p_other": 0.1, "kind": 0.0, "p_kind": 0.9} if frame else {}
                scratch.step(Detections.from_columns(info, x_um=x, y_um=y, z_um=z, **sides))
            scratch.predictions()
            if mode == "flow":
                scratch.follow_any_change()

    def warmup_switching(self) -> None:
        """The same for particles that switch between Brownian and directed motion, as in volumes."""
        rng = np.random.default_rng(0)
        changes = {"mode": "flow", "motion": "switching"}
        scratch = OnlineTracker(self.settings.model_copy(update=changes))
        volume = VolumeInfo((0.0, 1.0, 2.0), (0.0, 0.1, 0.2), (1,))
        places = rng.uniform(0.0, 10.0, (3, 60))
        for frame in range(20):  # a crowd, in which links are decided anew
            info = FrameInfo("warmup", frame, frame, float(frame), 0, 0.0, volume=volume)
            x, y, z = places = places + rng.normal(0.0, 1.0, (3, 60))
            scratch.step(Detections.from_columns(info, x_um=x, y_um=y, z_um=z, kind=0.0, p_kind=0.9))
        scratch.predictions()

    def step(self, detections: Detections) -> Tracks:
        """Link one frame; returns a row for each live track, in order of track number.

        A repeated or earlier frame gives an empty table and changes nothing.
        """
        info = detections.info
        if not self._clock.advance(info):
            self.counts["duplicates"] += 1
            return Tracks.empty(info)
        self._last = info
        if abs(info.focus_um) < kalman.FARTHEST_UM:
            self._focus_um = float(info.focus_um)
        self._decide(detections)
        if not self._switches:
            tracks = self._flow.step(detections, self._focus_um)
        elif self._switching is None:  # volumes without a particle so far
            self.counts["ignored"] += len(detections)
            return Tracks.empty(info)
        else:
            tracks = self._switching.step(detections, self._clock, self._focus_um)
        self._kinds.write(tracks.table, detections.table)
        note_detected(tracks.table, detections.table)
        return self._properties.write(tracks, detections)

    def _decide(self, detections: Detections) -> None:
        """Decide by the first frame with a place between 3D and 2D, and whether motion is switching."""
        if self._axes:
            return
        placed, axes = _placed(detections)
        is_volume = detections.info.volume is not None
        if self._switches is None and (is_volume or axes):
            is_volume |= bool(np.isfinite(detections.time_offset_s[placed]).any())
            wanted = self.settings.motion
            switches = wanted == "switching" or (wanted == "auto" and is_volume)
            self._switches = self.settings.mode == "flow" and switches
        if not axes:
            return
        self._axes = axes
        if self._switches:
            self._switching = SwitchingTracker(self.settings, axes, self.counts)
        else:
            self._flow.begin(axes)

    def follow_any_change(self) -> None:
        """Compile for a live run what follows a change of the whole flow."""
        self._flow.follow_any_change()

    def finish(self) -> None:
        """End all live tracks and count them."""
        self.counts["ended"] += self.alive
        self._flow.finish()
        if self._switching is not None:
            self._switching.finish()

    def predictions(self) -> Predictions:
        """What is known of the tracks after the last step; empty in 2D, without filter, and for switching motion.

        Tentative tracks, flagged so, are among them from their second detection on, once the noise is learnt.
        A track that is a second detection of another's particle is flagged so. Changes nothing. Raises `ValueError`
        before the first step.
        """
        if self._last is None:
            raise ValueError("there are no predictions before the first frame; call `step` first")
        return self._flow.predictions(replace(self._last, focus_um=self._focus_um))


def _placed(detections: Detections) -> tuple[npt.NDArray[np.bool_], int]:
    """Which detections of a first frame have a place, and whether in 3D or in 2D; 0: none has one."""
    usable: npt.NDArray[np.bool_] = np.asarray(
        (np.abs(detections.table[:2]) < kalman.FARTHEST_UM).all(axis=0)
    )
    if not usable.any():
        return usable, 0
    with_depth = np.abs(detections.z_um) < kalman.FARTHEST_UM
    return (usable & with_depth, 3) if with_depth[usable].mean() >= 0.5 else (usable, 2)
