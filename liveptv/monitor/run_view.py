"""What the page shows of a run, kept up to date from what the run publishes. No sockets, no browser."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from liveptv.config import ChannelSettings
from liveptv.monitor.control_state import ControlState
from liveptv.monitor.detection_quality import DetectionQuality
from liveptv.monitor.images import SmallImage, small_image
from liveptv.monitor.running_profile import BINS, RunningProfile
from liveptv.reports.profile import laminar_flow
from liveptv.session.run_card import RunCard
from liveptv.session.run_status import lost_frames
from stream.messages import Detections, Frame, Message, StageState, Status, TrackFlag, Tracks

SERIES_PERIOD_S = 0.5
SERIES_LENGTH = 600
REMEMBERED_FRAMES = 64
EVENTS_KEPT = 400
QUIET_EVENTS = {"measured", "command", "answer", "process", "monitor", "commands"}
STAGES = ("acquire", "detect", "track", "write", "control")
FRESH_S = 2.0
DEPTH_MEMORY = 0.05


@dataclass(frozen=True, slots=True)
class Shown:
    """One camera image with its detections and the tracks alive in it."""

    number: int
    frame: Frame
    detections: Detections
    tracks: Tracks | None


class RunView:
    """Takes messages from any thread; `shown` is the newest image whose results are complete."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._found: OrderedDict[int, Detections] = OrderedDict()
        self._tracked: OrderedDict[int, Tracks] = OrderedDict()
        self._statuses: dict[str, Status] = {}
        self._heard_s: dict[str, float] = {}
        self._profile = RunningProfile()
        self._quality = DetectionQuality()
        self._numbers = 0
        self._image: tuple[int, SmallImage] | None = None
        self._depth_um: tuple[float, float] | None = None
        self._latest: Tracks | None = None
        self._paused = False
        self._control = ControlState()
        self.card: RunCard | None = None
        self.shown: Shown | None = None
        self.series: deque[list[float | None]] = deque(maxlen=SERIES_LENGTH)
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self.events_seen = 0
        self.over = ""
        self.gaps = 0

    def introduce(self, card: RunCard) -> None:
        """The run's card, as far as it is known."""
        with self._lock:
            channel = card.configuration.get("channel")
            factor = float((card.configuration.get("optics") or {}).get("refraction_factor", 1.0))
            if self.card is None:
                edges = None
                if channel:
                    floor_um, depth_um = float(channel["floor_um"]), float(channel["depth_um"])
                    edges = np.linspace(floor_um, floor_um + depth_um, BINS + 1)
                self._profile = RunningProfile(factor, edges)
                self._control = ControlState(card.configuration)
            self.card = card

    def take(self, message: Message) -> None:
        """Take anything that a run publishes."""
        with self._lock:
            if isinstance(message, Frame):
                _remember(self._frames, message.info.frame, message)
            elif isinstance(message, Detections):
                _remember(self._found, message.info.frame, message)
                self._quality.found(message)
                self._complete(message.info.frame)
            elif isinstance(message, Tracks):
                self._latest = message
                _remember(self._tracked, message.info.frame, message)
                self._profile.update(message)
                self._complete(message.info.frame)
            elif isinstance(message, Status):
                self._statuses[message.stage] = message
                self._heard_s[message.stage] = time.monotonic()
                if message.stage == "detect":
                    self._quality.heard(message, time.monotonic())

    def _complete(self, number: int) -> None:
        if number not in self._frames or number not in self._found:
            return
        tracks = self._tracked.get(number)
        expects_tracks = self.card is not None and bool(self.card.track)
        if tracks is None and expects_tracks:
            return
        self._numbers += 1
        frame = self._frames.pop(number)
        self.shown = Shown(self._numbers, frame, self._found[number], tracks)

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
            if kind in QUIET_EVENTS:
                return
            text = str(event.get("text", "")).split("\n", maxsplit=1)[0]
            began_s = self.card.began_s if self.card is not None else float(event.get("wall_s", 0.0))
            self.events.append(
                {"s": round(float(event.get("wall_s", began_s)) - began_s, 2), "kind": kind, "text": text}
            )
            self.events_seen += 1

    def gone(self) -> None:
        """The session's process is gone; without a last word of its event log the run has failed."""
        if not self.over:
            self.happened({"kind": "lost", "text": "the session ended without a word", "wall_s": time.time()})
            self.over = "the session ended without a word; `liveptv recover` mends its trajectory file"

    def image(self, shown: Shown) -> SmallImage:
        """The small image of what is shown; made once, whoever asks."""
        if self._image is None or self._image[0] != shown.number:
            self._image = (shown.number, small_image(shown.frame))
        return self._image[1]

    def depth_range_um(self, shown: Shown) -> tuple[float, float] | None:
        """Depths that the colours run over: 2 to 98 % of the detections', slowly following them; None in 2D."""
        z_um = shown.detections.z_um
        z_um = z_um[np.isfinite(z_um)]
        if z_um.size >= 5:
            low, high = (float(value) for value in np.percentile(z_um, (2, 98)))
            before = self._depth_um
            if before is not None:
                low = min(low, before[0] + DEPTH_MEMORY * (low - before[0]))
                high = max(high, before[1] + DEPTH_MEMORY * (high - before[1]))
            self._depth_um = (low, max(high, low + 1.0))
        return self._depth_um

    def events_after(self, seen: int) -> tuple[int, list[dict[str, Any]]]:
        """How many events there have been, and those after the first `seen` that are still kept."""
        with self._lock:
            fresh = min(self.events_seen - seen, len(self.events))
            return self.events_seen, list(self.events)[len(self.events) - fresh :] if fresh > 0 else []

    def state(self) -> str:
        """One word for the run: waiting, starting, running, paused, ending, ended, failed."""
        states = {name: status.state for name, status in self._statuses.items()}
        if self.over:
            failed = StageState.FAILED in states.values() or self._has_failures()
            return "failed" if failed else "ended"
        if not states:
            return "waiting"
        if states.get("acquire") in {StageState.DRAINING, StageState.DONE}:
            return "ending"
        if states.get("acquire") is StageState.RUNNING:
            return "paused" if self._paused else "running"
        return "starting"

    def _has_failures(self) -> bool:
        return any(event["kind"] in {"lost", "kill"} for event in self.events)

    def sample(self) -> None:
        """Add a point to the series over time; called every half second."""
        with self._lock:
            if self.state() not in {"running", "paused", "ending"}:
                return
            latest, track = self._latest, self._statuses.get("track")
            fresh = latest is not None and time.perf_counter_ns() - latest.info.monotonic_ns < 1e9 * FRESH_S
            velocity = self._velocity(latest) if latest is not None and fresh else math.nan
            slots = float((self._configured("link") or {}).get("slots") or 64)
            values = (
                time.time() - (self.card.began_s if self.card is not None else 0.0),
                self._gauge("acquire", "frames_per_s"),
                self._gauge("detect", "particles"),
                self._gauge("track", "tracks"),
                self._gauge("track", "latency_ms"),
                float(sum(self._losses().values())),
                100 * self._gauge("acquire", "queue_detect") / slots,
                velocity,
            )
            if track is not None:
                self.series.append([_plain(value) for value in values])

    @staticmethod
    def _velocity(tracks: Tracks) -> float:
        seen = (tracks.flags.astype(np.int64) & int(TrackFlag.PREDICTED | TrackFlag.TENTATIVE)) == 0
        vx = tracks.vx_um_s[seen]
        vx = vx[np.isfinite(vx)]
        return float(np.median(vx)) if vx.size else math.nan

    def _configured(self, section: str) -> Any:
        return self.card.configuration.get(section) if self.card is not None else None

    def _gauge(self, stage: str, name: str) -> float:
        """A momentary value; NaN where unknown, and where the stage has fallen silent."""
        status = self._statuses.get(stage)
        if status is None or time.monotonic() - self._heard_s[stage] > FRESH_S:
            return math.nan
        return status.gauges.get(name, math.nan)

    def _losses(self) -> dict[str, int]:
        return lost_frames({name: status.counts for name, status in self._statuses.items()})

    def summary(self) -> dict[str, Any]:
        """All that changes slowly, JSON-able: state, stages, losses, series, profile, set-points, limits."""
        with self._lock:
            latest = self._latest
            info = None if latest is None else latest.info
            stages = [
                {
                    "name": name,
                    "state": str(status.state),
                    "received": status.counts.get("received", 0),
                    "sent": status.counts.get("sent", status.counts.get("frames", 0)),
                    "dropped": status.counts.get("dropped", 0),
                    "queue": _plain(status.gauges.get("queue", math.nan)),
                    "ms": _plain(status.gauges.get("detect_ms", status.gauges.get("step_ms", math.nan))),
                }
                for name in STAGES
                if (status := self._statuses.get(name)) is not None
            ]
            return {
                "state": self.state(),
                "why": self.over,
                "run": self.card.run_id if self.card is not None else "",
                "output": self.card.output if self.card is not None else "",
                "stages": stages,
                "losses": self._losses(),
                "frames": self._statuses["track"].counts.get("sent", 0) if "track" in self._statuses else 0,
                "frames_per_s": _plain(self._gauge("acquire", "frames_per_s")),
                "particles": _plain(self._gauge("detect", "particles")),
                "tracks": _plain(self._gauge("track", "tracks")),
                "latency_ms": _plain(self._gauge("track", "latency_ms")),
                "focus_um": _plain(info.focus_um if info is not None else math.nan),
                "flow_ul_s": _plain(info.flow_ul_s if info is not None else math.nan),
                "exposure_ms": _plain(info.exposure_ms if info is not None else math.nan),
                "limits": self._configured("limits") or {},
                "is_live": self._configured("microscope") is not None,
                "control": self._control.facts(self._statuses.get("control")),
                "series": list(self.series),
                "profile": self._profile_facts(),
                "detection": self._quality.facts(),
                "gaps": self.gaps,
            }

    def _profile_facts(self) -> dict[str, Any]:
        profile = self._profile.profile()
        facts: dict[str, Any] = {
            "over": self._profile.over,
            "since_s": _plain(self._profile.since_s),
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
                "height_um": _plains(laminar.height_um[::4]),
                "velocity_um_s": _plains(laminar.velocity_um_s[::4]),
            }
        return facts


def _remember(store: OrderedDict[int, Any], number: int, message: Message) -> None:
    store[number] = message
    while len(store) > REMEMBERED_FRAMES:
        store.popitem(last=False)


def _plain(value: float) -> float | None:
    return round(float(value), 5) if math.isfinite(value) else None


def _plains(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [_plain(value) for value in values]
