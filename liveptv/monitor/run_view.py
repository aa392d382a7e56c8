"""What the page shows of a run, kept up to date from what the run publishes. No sockets, no browser."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from liveptv.config import ChannelSettings
from liveptv.monitor.control_state import ControlState
from liveptv.monitor.detection_quality import DetectionQuality
from liveptv.monitor.images import SmallImage
from liveptv.monitor.latest_image import LatestImage, Shown
from liveptv.monitor.recorded_events import KIND as EVENT
from liveptv.monitor.recorded_events import RecordedEvents
from liveptv.monitor.running_flow import RunningFlow
from liveptv.monitor.running_profile import RunningProfile
from liveptv.monitor.stage_statuses import FRESH_S, StageStatuses, plain
from liveptv.monitor.two_sides import TwoSides
from liveptv.reports.drawings import THEORY_STEP
from liveptv.reports.profile import BINS, MIN_LENGTH, laminar_flow
from liveptv.reports.property_results import of_particles
from liveptv.session.link_rules import SLOTS
from liveptv.session.run_card import RunCard
from liveptv.session.self_check import checks_of, in_words
from stream.errors import LinkError
from stream.messages import Detections, Frame, Message, Status, TrackFlag, Tracks
from tracking.control.record import FLOW
from tracking.physics.diffusion.settings import DiffusionSettings
from tracking.physics.live.running_diffusion import RunningDiffusion

SERIES_PERIOD_S = 0.5
SERIES_LENGTH = (
    600  # samples: five minutes, as the page's caption says; each is sent again with every summary
)
EVENTS_KEPT = 400  # a late viewer gets these; the whole log is in the run's file
QUIET_EVENTS = {"measured", "command", "answer", "process", "monitor", "commands", FLOW}


class RunView:
    """Takes messages and events from any thread; `summary` and `shown` are what a page is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images = LatestImage()
        self._stages = StageStatuses()
        self._profile = RunningProfile()
        self._flow = RunningFlow()
        self._diffusion = RunningDiffusion()
        self._quality = DetectionQuality()
        self._sides = TwoSides()
        self._control = ControlState()
        self._recorded = RecordedEvents()
        self._latest: Tracks | None = None
        self._paused = False
        self.card: RunCard | None = None
        self.series: deque[list[float | None]] = deque(maxlen=SERIES_LENGTH)
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self.events_seen = 0
        self._proposed = ""
        self.over = ""
        self.gaps = 0

    def introduce(self, card: RunCard) -> None:
        """Take the run's card, as far as it is known."""
        with self._lock:
            channel = card.configuration.get("channel")
            factor = float((card.configuration.get("optics") or {}).get("refraction_factor", 1.0))
            if self.card is None:
                edges = None
                if channel:
                    floor_um, depth_um = factor * float(channel["floor_um"]), float(channel["depth_um"])
                    edges = np.linspace(floor_um, floor_um + depth_um, BINS + 1)
                self._profile = RunningProfile(factor, edges)
                known = DiffusionSettings.model_validate(card.configuration.get("diffusion") or {})
                self._diffusion = RunningDiffusion(factor, with_map=known.asked_for)
                self._control = ControlState(card.configuration)
                self._recorded = RecordedEvents(card.configuration)
            self.card = card

    def take(self, message: Message) -> None:
        """Take anything that a run publishes."""
        with self._lock:
            if isinstance(message, Frame | Detections | Tracks):
                expects_tracks = self.card is not None and bool(self.card.track)
                self._images.take(message, expects_tracks=expects_tracks)
            if isinstance(message, Detections):
                self._quality.found(message)
            elif isinstance(message, Tracks):
                self._latest = message
                self._profile.update(message)
                self._diffusion.update(message)
                self._sides.add(message)
            elif isinstance(message, Status):
                self._stages.heard(message)
                if message.stage == "detect":
                    self._quality.heard(message, time.monotonic())

    @property
    def shown(self) -> Shown | None:
        """The newest image whose results are complete."""
        return self._images.shown

    def image(self, shown: Shown) -> SmallImage:
        """The image of `shown` for browsers."""
        return self._images.small(shown)

    def depth_range_um(self, shown: Shown) -> tuple[float, float] | None:
        """Depths that the colours span; None in 2D."""
        return self._images.depth_range_um(shown)

    def happened(self, event: dict[str, Any]) -> None:
        """Take an entry of the event log."""
        kind = event.get("kind")
        with self._lock:
            if kind == "end":
                failures = event.get("failures") or []
                self.over = "; ".join(failures) or str(event.get("text") or "done")
            if kind == "wish" and event.get("accepted") and event.get("command") in {"pause", "resume"}:
                self._paused = event["command"] == "pause"
            if kind == "controller":
                self._control.happened(event)
            if kind == FLOW:
                try:
                    self._flow.happened(event)
                except LinkError as error:
                    event = {**event, "kind": (kind := "note"), "text": str(error)}
            if kind == EVENT:
                self._recorded.happened(event)
            if kind == "recalibration" and event.get("proposed"):
                self._proposed = str(event.get("text", ""))
            if kind in QUIET_EVENTS:
                return
            text = str(event.get("text", "")).split("\n", maxsplit=1)[0]
            began_s = self.card.began_s if self.card is not None else float(event.get("wall_s", 0.0))
            self.events.append(
                {"s": round(float(event.get("wall_s", began_s)) - began_s, 2), "kind": kind, "text": text}
            )
            self.events_seen += 1

    def gone(self) -> None:
        """The session's process has ended; if its event log has no `end`, the run has failed."""
        if not self.over:
            text = "the session's process ended unexpectedly"
            self.happened({"kind": "lost", "text": text, "wall_s": time.time()})
            self.over = f"{text}; `liveptv recover` repairs its trajectory file"

    def events_after(self, seen: int) -> tuple[int, list[dict[str, Any]]]:
        """How many events there have been, and those after the first `seen` that are still kept."""
        with self._lock:
            fresh = min(self.events_seen - seen, len(self.events))
            return self.events_seen, list(self.events)[len(self.events) - fresh :] if fresh > 0 else []

    def state(self) -> str:
        """One word for the run: waiting, starting, running, paused, ending, ended, failed."""
        failed = any(event["kind"] in {"lost", "kill"} for event in self.events)
        return self._stages.state(over=bool(self.over), failed=failed, paused=self._paused)

    def sample(self) -> None:
        """Add a point to the series over time; called every half second."""
        with self._lock:
            if self.state() not in {"running", "paused", "ending"}:
                return
            latest = self._latest
            fresh = latest is not None and time.perf_counter_ns() - latest.info.monotonic_ns < 1e9 * FRESH_S
            velocity = _median_velocity(latest) if latest is not None and fresh else math.nan
            slots = float((self._configured("link") or {}).get("slots") or SLOTS)
            gauge = self._stages.gauge
            values = (
                time.time() - (self.card.began_s if self.card is not None else 0.0),
                gauge("acquire", "frames_per_s"),
                gauge("detect", "particles"),
                gauge("track", "tracks"),
                gauge("track", "latency_ms"),
                float(sum(self._stages.losses().values())),
                100 * gauge("acquire", "queue_detect") / slots,
                velocity,
            )
            if self._stages.of("track") is not None:
                self.series.append([plain(value) for value in values])

    def _configured(self, section: str) -> Any:
        return self.card.configuration.get(section) if self.card is not None else None

    def summary(self) -> dict[str, Any]:
        """All that changes slowly, JSON-able: state, stages, losses, series, profile, set-points, limits."""
        with self._lock:
            info = None if self._latest is None else self._latest.info
            gauge, track = self._stages.gauge, self._stages.of("track")
            return {
                "state": self.state(),
                "why": self.over,
                "run": self.card.run_id if self.card is not None else "",
                "output": self.card.output if self.card is not None else "",
                "stages": self._stages.table(),
                "losses": self._stages.losses(),
                "frames": track.counts.get("sent", 0) if track is not None else 0,
                "frames_per_s": plain(gauge("acquire", "frames_per_s")),
                "particles": plain(gauge("detect", "particles")),
                "tracks": plain(gauge("track", "tracks")),
                "latency_ms": plain(gauge("track", "latency_ms")),
                "focus_um": plain(info.focus_um if info is not None else math.nan),
                "flow_ul_s": plain(info.flow_ul_s if info is not None else math.nan),
                "exposure_ms": plain(info.exposure_ms if info is not None else math.nan),
                "limits": self._configured("limits") or {},
                "is_live": self._configured("microscope") is not None,
                "control": self._control.facts(self._stages.of("control")),
                "recorded": self._recorded.facts(),
                "series": list(self.series),
                "profile": self._profile_facts(),
                "flow": self._flow.facts(math.nan if info is None else info.flow_ul_s),
                "diffusion": self._diffusion_facts(),
                "properties": self._property_facts(),
                "detection": self._quality.facts(),
                "checks": self._checks(),
                "proposed": self._proposed,
                "sides": self._sides_in_words(track),
                "gaps": self.gaps,
            }

    def _diffusion_facts(self) -> dict[str, Any]:
        facts = dict(self._diffusion.facts())
        known = DiffusionSettings.model_validate(self._configured("diffusion") or {})
        third = None if facts["um2_s"] is None else known.third(facts["um2_s"], facts["error_um2_s"])
        if third is not None:
            facts["third"] = {
                "name": third.quantity,
                "value": plain(third.value),
                "error": plain(third.standard_error),
                "unit": third.unit,
            }
        return facts

    def _property_facts(self) -> list[dict[str, Any]]:
        """Histograms of the properties over the confirmed tracks that are alive."""
        if self._latest is None or not self._latest.properties.names:
            return []
        unfit = TrackFlag.SECOND_DETECTION | TrackFlag.TENTATIVE
        counts = (self._latest.flags.astype(np.int64) & int(unfit)) == 0
        return [
            {
                "name": one.name,
                "edges": _plains(one.edges),
                "counts": one.counts.astype(int).tolist(),
                "tracks": one.tracks,
                "words": one.in_words(),
            }
            for one in of_particles(self._latest.properties.of(counts))
        ]

    def _checks(self) -> list[dict[str, str]]:
        statuses = [self._stages.of(stage) for stage in ("detect", "track")]
        return in_words(checks_of(status.gauges for status in statuses if status is not None))

    def _sides_in_words(self, track: Status | None) -> str:
        found = self._sides.sides(0 if track is None else track.counts.get("revised", 0))
        return "" if found is None else found.in_words()

    def _profile_facts(self) -> dict[str, Any]:
        profile = self._profile.profile()
        facts: dict[str, Any] = {
            "over": self._profile.over,
            "since_s": plain(self._profile.since_s),
            "min_length": MIN_LENGTH,
            "tracks": int(profile.tracks.sum()),
            "height_um": _plains(profile.height_um),
            "velocity_um_s": _plains(profile.velocity_um_s),
            "error_um_s": _plains(profile.standard_error_um_s),
        }
        channel, card = self._configured("channel"), self.card
        known = channel and card is not None and card.image_shape and math.isfinite(self._profile.flow_ul_s)
        if known and card is not None and card.image_shape and self._profile.over == "height":
            attributes = {"image_shape": card.image_shape, "pixel_size_um": card.pixel_size_um}
            laminar = laminar_flow(
                ChannelSettings.model_validate(channel), self._profile.flow_ul_s, attributes
            )
            facts["theory"] = {
                "height_um": _plains(laminar.height_um[::THEORY_STEP]),
                "velocity_um_s": _plains(laminar.velocity_um_s[::THEORY_STEP]),
            }
        return facts


def _median_velocity(tracks: Tracks) -> float:
    """Median velocity along x of the detected, confirmed tracks, um/s; NaN without any."""
    detected = (tracks.flags.astype(np.int64) & int(TrackFlag.PREDICTED | TrackFlag.TENTATIVE)) == 0
    vx = tracks.vx_um_s[detected]
    vx = vx[np.isfinite(vx)]
    return float(np.median(vx)) if vx.size else math.nan


def _plains(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [plain(value) for value in values]
