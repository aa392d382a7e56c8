"""Prediction on against off in a simulated channel flow: speed, detections, tracks, events, replays, live runs.

Sequences are those of `moving_particles.py`, kept in the folder `--cache`. Engine and tracker run in one process;
frame i gets the tracker's predictions of frame i - LAG, as in a replay. Both ways see the same images, alternating
frame by frame, so that whatever else the computer does slows both. Scores are those of `prediction_scores.py`.

    python benchmarks/prediction.py flow --json benchmarks/results/prediction.json

- `flow`: 200 and 1,000 particles a frame at the paper's speed (0.02 spacings a frame) and at 0.15, 0.5 and 1.2.
  `ms` are processor and wall time of the engine with one worker, after the first `SETTLE` frames; of the tracker
  besides, its predictions included.
- `events`: what changes at frame 30, and frames until particles are found, and tracked, as before. "focus" jumps
  without a new reading of the focus, "focus announced" with one. At "births" half of the particles appear at once.
- `repeat`: three runs, with one and twice with two workers; all tables have to be the same, bit for bit. Also their
  frames/s.
- `live`: age of the results at 24 full frames/s, replayed, and the demonstration at 30 frames/s, see
  `prediction_live.py`; nothing else should run.

With `--json` the rows that were measured replace those of the same case of an earlier measurement.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from moving_particles import EVENT_FRAME, EVENTS, OPTICS, Flow, MovingParticles, sequence
from prediction_scores import (
    CONFIRM_FRAMES,
    detection_scores,
    ghost_tracks,
    pair,
    recovery,
    track_scores,
    tracked,
)
from reporting import save

from engines.engine import Engine
from engines.factory import open_engine
from engines.prediction_choice import LAG
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import Detections, Frame, Predictions, Tracks
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

SETTLE = 20  # first frames, in which tracks begin and the tracker learns how far to trust its predictions
SPACINGS = (0.02, 0.15, 0.5, 1.2)
PARTICLES = (200, 1000)
WAYS = {"off": "off", "on": "auto"}
QUICK_SHAPE = (720, 1280)
BEFORE_EVENT = 15  # the level before an event is that from this frame on


@dataclass
class Way:
    """An engine with its tracker, and what came of each frame."""

    predicts: bool
    engine: Engine
    tracker: OnlineTracker
    detections: list[Detections] = field(default_factory=list)
    tracks: list[Tracks] = field(default_factory=list)
    predictions: list[Predictions] = field(default_factory=list)
    engine_s: list[tuple[float, float]] = field(default_factory=list)
    tracker_s: list[float] = field(default_factory=list)

    @classmethod
    def opened(cls, name: str, shape: tuple[int, int], workers: int = 1, model: Path = SHIPPED_MODEL) -> Way:
        settings = DetectorSettings(
            workers=workers, backend="onnxruntime", self_check=False, prediction=WAYS[name]
        )
        engine = open_engine(settings, model=model, pixel_size_um=OPTICS.pixel_size_um)
        engine.warmup(*shape, np.dtype(np.uint8))
        tracker = OnlineTracker(TrackerSettings())
        tracker.warmup()
        return cls(name == "on", engine, tracker)

    def predicted_for(self, number: int) -> Predictions | None:
        return self.predictions[number - LAG] if self.predicts and number >= LAG else None

    def track(self, found: Detections) -> None:
        begun = time.process_time()
        self.detections.append(found)
        self.tracks.append(self.tracker.step(found))
        if self.predicts:
            self.predictions.append(self.tracker.predictions())
        self.tracker_s.append(time.process_time() - begun)

    def look(self, number: int, frame: Frame) -> None:
        """Detect and track one frame, and wait for it."""
        predicted = self.predicted_for(number)
        cpu, wall = time.process_time(), time.perf_counter()
        self.engine.submit(frame, predicted)
        found: list[Detections] = []
        while self.engine.pending:
            found += self.engine.results(60.0)
        self.engine_s.append((time.process_time() - cpu, time.perf_counter() - wall))
        self.track(found[0])

    def look_at_all(self, frames: Iterable[Frame]) -> float:
        """Detect and track with several frames at once; returns seconds."""
        begun = time.perf_counter()
        for number, frame in enumerate(frames):
            while self.predicts and len(self.predictions) <= number - LAG:
                self._collect()
            self.engine.submit(frame, self.predicted_for(number))
        while self.engine.pending:
            self._collect()
        return time.perf_counter() - begun

    def _collect(self) -> None:
        for found in self.engine.results(60.0):
            self.track(found)

    def costs(self) -> dict[str, Any]:
        """Time for a frame, ms, and what the engine says of its predictions."""
        late = 1e3 * np.array(self.engine_s[SETTLE:])
        start = 1e3 * np.array(self.engine_s[:SETTLE])
        row: dict[str, Any] = {
            "cpu_ms": round(float(late[:, 0].mean()), 2),
            "wall_ms": round(float(late[:, 1].mean()), 2),
            "cpu_ms_median": round(float(np.median(late[:, 0])), 2),
            "cpu_ms_at_first": round(float(start[:, 0].mean()), 2),
            "tracker_ms": round(1e3 * float(np.mean(self.tracker_s[SETTLE:])), 3),
        }
        return row | ({"prediction": self.engine.info.details["prediction"]} if self.predicts else {})


def follow(moving: MovingParticles, names: list[str]) -> dict[str, Way]:
    """All frames of a sequence with each of the ways, alternating."""
    ways = {name: Way.opened(name, moving.flow.shape) for name in names}
    for number in range(moving.flow.frames):
        frame = moving.frame(number)
        for name in names if number % 2 else reversed(names):
            ways[name].look(number, frame)
    for way in ways.values():
        way.engine.close()
    return ways


def flow_row(flow: Flow, cache: Path, names: list[str]) -> dict[str, Any]:
    """Costs and scores of one flow without events."""
    moving = sequence(flow, cache)
    row: dict[str, Any] = {
        "part": "flow",
        "shape": list(flow.shape),
        "particles": flow.particles,
        "spacings": flow.spacings,
        "frames": flow.frames,
        "seed": flow.seed,
        "fields": flow.fields,
    }
    for name, way in follow(moving, names).items():
        paired = pair(moving.truth, way.detections, way.tracks)
        row[name] = way.costs() | detection_scores(paired, moving.bound_um, SETTLE)
        row[name] |= track_scores(paired, way.tracks, SETTLE)
    if len(names) > 1:
        for which in ("cpu", "wall"):
            row[f"{which}_ratio"] = round(row["off"][f"{which}_ms"] / row["on"][f"{which}_ms"], 2)
        first = [row[name]["cpu_ms_at_first"] for name in ("off", "on")]
        row["cpu_ratio_at_first"] = round(first[0] / first[1], 2)
    return row


def event_row(flow: Flow, cache: Path, names: list[str]) -> dict[str, Any]:
    """Recovery from one event."""
    moving = sequence(flow, cache)
    row: dict[str, Any] = {"part": "events", "event": flow.event, "shape": list(flow.shape)}
    row |= {"particles": flow.particles, "spacings": flow.spacings, "seed": flow.seed, "fields": flow.fields}
    for name, way in follow(moving, names).items():
        paired = pair(moving.truth, way.detections, way.tracks)
        truth, found = moving.truth, paired.row >= 0
        ghosts = ghost_tracks(paired)
        cpu = 1e3 * np.array(way.engine_s)[:, 0]
        missed = [
            round(float(1 - found[truth.seen & (truth.frame == n)].mean()), 3)
            for n in range(EVENT_FRAME, min(EVENT_FRAME + 8, flow.frames))
        ]
        row[name] = {
            "found_after_frames": recovery(truth, found, EVENT_FRAME, BEFORE_EVENT),
            "tracked_after_frames": recovery(
                truth, tracked(paired), EVENT_FRAME, BEFORE_EVENT, CONFIRM_FRAMES
            ),
            "ghost_tracks_before": sum(at < EVENT_FRAME for at in ghosts),
            "ghost_tracks_after": sum(at >= EVENT_FRAME for at in ghosts),
            "missed_from_event": missed,
            "cpu_ms_from_event": [round(float(v), 1) for v in cpu[EVENT_FRAME : EVENT_FRAME + 8]],
            "before": detection_scores(paired.until(EVENT_FRAME), np.empty((0, 3)), SETTLE),
            "after": detection_scores(paired, np.empty((0, 3)), EVENT_FRAME + 5)
            | track_scores(paired, way.tracks, EVENT_FRAME),
        }
    return row


def repeat_row(flow: Flow, cache: Path, names: list[str]) -> dict[str, Any]:
    """Whether runs are the same, and frames/s of two workers."""
    moving = sequence(flow, cache)
    row: dict[str, Any] = {"part": "repeat", "particles": flow.particles, "spacings": flow.spacings}
    for name in names:
        runs, took = [], []
        for workers in (1, 2, 2):
            way = Way.opened(name, flow.shape, workers)
            took.append(way.look_at_all(moving.frame(number) for number in range(flow.frames)))
            way.engine.close()
            runs.append(way)
        same = [
            all(
                np.array_equal(mine.table, theirs.table, equal_nan=True)
                for kind in ("detections", "tracks")
                for mine, theirs in zip(getattr(runs[0], kind), getattr(run, kind), strict=True)
            )
            for run in runs[1:]
        ]
        row[name] = {
            "identical": same,
            "frames_per_s": [round(flow.frames / seconds, 2) for seconds in took],
            "workers": [1, 2, 2],
        }
    return row


def live_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """See `prediction_live`."""
    import prediction_live

    ways = {name: WAYS[name] for name in options.ways}
    flow = prediction_live.QUICK if options.quick else prediction_live.FULL
    more = options.cache, ways, options.workers, options.rounds, options.seconds, flow
    yield from prediction_live.latency_rows(*more)
    if options.demo_seconds > 0:
        yield from prediction_live.demo_rows(ways, options.demo_rounds, options.demo_seconds)


def _case(row: dict[str, Any]) -> list[Any]:
    """What a row is of."""
    kind = ("part", "event", "shape", "particles", "spacings", "seed", "fields", "case", "way")
    return [row.get(name) for name in kind]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("draw", "flow", "events", "repeat", "live"))
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS), help="what to compare")
    parser.add_argument("--particles", nargs="+", type=int, help="in a full frame")
    parser.add_argument("--spacings", nargs="+", type=float, help="mean displacements, in spacings a frame")
    parser.add_argument("--events", nargs="+", choices=EVENTS, default=list(EVENTS))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fields", action="store_true", help="particles far out of focus in the background")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each live replay, at most 20")
    parser.add_argument("--demo-seconds", type=float, default=20.0, help="of each demonstration; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="live replays of each way")
    parser.add_argument("--demo-rounds", type=int, default=2, help="demonstrations of each way")
    parser.add_argument("--workers", type=int, default=2, help="frames at a time in live replays")
    parser.add_argument(
        "--quick", action="store_true", help="pictures of 720 x 1280, a quarter of the particles"
    )
    parser.add_argument("--cache", type=Path, default=Path("runs/prediction"), help="folder of the sequences")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    shape = QUICK_SHAPE if options.quick else (1440, 2560)
    part = 4 if options.quick else 1
    whole = options.part in ("draw", "flow")
    speeds = options.spacings or (SPACINGS if whole else SPACINGS[1:2])
    counts = options.particles or (PARTICLES if whole else PARTICLES[:1])

    def flows(event: str = "") -> list[Flow]:
        return [
            Flow(shape, count // part, speed, options.frames, event, options.seed, options.fields)
            for count in counts
            for speed in speeds
        ]

    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    if options.part == "draw":
        for flow in flows() + [
            Flow(shape, 200 // part, SPACINGS[1], options.frames, e, options.seed) for e in options.events
        ]:
            print(flow.name, sequence(flow, options.cache).truth.seen.sum(), flush=True)
    elif options.part == "flow":
        for flow in flows():
            add(flow_row(flow, options.cache, options.ways))
    elif options.part == "events":
        for event in options.events:
            for flow in flows(event):
                add(event_row(flow, options.cache, options.ways))
    elif options.part == "repeat":
        for flow in flows():
            add(repeat_row(flow, options.cache, options.ways))
    else:
        for row in live_rows(options):
            add(row)
    if options.json is not None and rows:
        before = (
            json.loads(options.json.read_text(encoding="utf-8"))["rows"] if options.json.is_file() else []
        )
        anew = [_case(row) for row in rows]
        save(options.json, [row for row in before if _case(row) not in anew] + rows)


if __name__ == "__main__":
    main()
