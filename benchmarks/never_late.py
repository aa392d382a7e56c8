"""Are live results late? The demonstration, a camera that is far too fast, and stages that stand still.

The simulated microscope (768 x 512, 60 particles) runs in real time through the whole pipeline, with the classical
detector and with the network:

- `demo`: 30 frames/s. Age of the results after the start, and what was tracked.
- `overload`: the capacity is measured first (frames tracked per second, with a camera that is much faster). Then
  the camera runs at 3 and 10 times that. Age, its slope, memory of all processes and its slope, gaps between
  tracked frames, drops.
- `stops`: each stage is stopped (SIGSTOP) for 3 s in turn. Time after SIGCONT until results are within the limit.

The camera draws its frames on the same processor (`camera alone`), as a real one would not. So the figures of
`overload` are those of a computer that is busy besides.

    python benchmarks/never_late.py --seconds 120 --json benchmarks/results/never_late.json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from reporting import device, save

from acquisition.microscope.live import MicroscopeStream
from acquisition.microscope.microscope import Microscope
from acquisition.settings import MicroscopeSettings
from liveptv.config import Experiment, build_experiment
from liveptv.files import RunFiles
from liveptv.models import SHIPPED_MODEL
from liveptv.session.link_rules import default_age_limit_ms
from liveptv.session.run_status import Progress
from liveptv.workflows.demo import make_width_curve
from liveptv.workflows.run import RunOutcome, run_experiment
from tracking.trajectories.file import TrajectoryFile

STAGES = ("acquire", "detect", "track", "write", "control")
WARM_UP_S = 2.0  # s left out at the start, while caches fill
STOPPED_S, BETWEEN_S = 3.0, 6.0
FACTORS = (3.0, 10.0)
RATE_HZ = 30.0
GUESS_HZ = 150.0  # camera's rate while the capacity is measured: above that of two cores


class Memory:
    """Resident memory of this process and its children, MB, once a second while frames come.

    Shared memory counts once for each process that has it.
    """

    def __init__(self) -> None:
        self.at_s: list[float] = []
        self.mb: list[float] = []
        self._own = psutil.Process()

    def look(self) -> None:
        now_s = time.monotonic()
        if self.at_s and now_s - self.at_s[-1] < 1.0:
            return
        total = 0
        for process in (self._own, *self._own.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        self.at_s.append(now_s)
        self.mb.append(total / 1e6)

    def row(self) -> dict[str, float]:
        """Largest, and the slope over the second half of the run, without its last second, when processes end."""
        at_s, mb = np.array(self.at_s[:-1]), np.array(self.mb[:-1])
        late = at_s >= (at_s[0] + at_s[-1]) / 2
        return {
            "rss_max_mb": round(mb.max(), 1),
            "rss_slope_mb_min": round(60 * _slope(at_s[late], mb[late]), 2),
        }


def experiment(home: Path, detector: dict[str, Any], rate_hz: float, seconds: float | None) -> Experiment:
    """The demonstration's microscope at `rate_hz`."""
    properties = {"Camera.Exposure": min(0.55, 500 / rate_hz), "Camera.FrameRate": rate_hz}
    data: dict[str, Any] = {
        "run": {"output": str(home / "tracks.h5"), "overwrite": True, "seconds": seconds},
        "microscope": {"config": "simulated", "properties": properties},
        "limits": {"max_flow_ul_s": 0.1, "min_focus_um": 0.0, "max_focus_um": 300.0},
        "channel": {"width_um": 1000.0, "depth_um": 300.0},
        "detector": detector,
    }
    return build_experiment(data, "the benchmark")


def measure(
    settings: Experiment, act: Callable[[Progress, RunFiles], None] = lambda _progress, _files: None
) -> tuple[RunOutcome, np.ndarray[Any, Any], Memory]:
    """Run; returns the outcome, the table of frames and the memory while frames came."""
    files, memory, frames = RunFiles.beside(settings.run.output), Memory(), 0

    def update(progress: Progress) -> None:
        nonlocal frames
        if progress.frames > frames:
            frames = progress.frames
            memory.look()
        if progress.running_s > 0:
            act(progress, files)

    outcome = run_experiment(settings, files, on_update=update, on_note=lambda _: None)
    if not outcome.result.ok:
        raise SystemExit(f"a run failed: {'; '.join(outcome.result.failures)}")
    with TrajectoryFile(outcome.files.tracks) as file:
        return outcome, file.frames, memory


def ages(frames: np.ndarray[Any, Any], limit_ms: float) -> dict[str, Any]:
    """Age of the results after the start, ms, its slope, and the gaps between tracked frames."""
    late = frames["time_s"] > frames["time_s"][0] + WARM_UP_S
    age_ms, time_s = frames["age_ms"][late], frames["time_s"][late]
    gaps = np.diff(frames["frame"][late].astype(np.int64))
    p50, p99, most = np.percentile(age_ms, (50, 99, 100))
    return {
        "limit_ms": round(limit_ms, 1),
        "age_p50_ms": round(float(p50), 1),
        "age_p99_ms": round(float(p99), 1),
        "age_max_ms": round(float(most), 1),
        "age_slope_ms_min": round(60 * _slope(time_s, age_ms), 2),
        "gap_mean": round(float(gaps.mean()), 2),
        "gap_p99": float(np.percentile(gaps, 99)),
        "gap_max": int(gaps.max()),
        "gap_max_of_mean": round(float(gaps.max() / gaps.mean()), 2),
    }


def balance(outcome: RunOutcome) -> dict[str, Any]:
    """What became of the frames; `unaccounted` must be 0."""
    account = outcome.account
    declared = {where: count for where, count in account.lost.items() if not where.startswith("on their way")}
    return {
        "exposed": account.exposed,
        "tracked": account.in_file,
        "tracked_share": round(account.in_file / account.exposed, 4),
        "declared": declared,
        "unaccounted": account.exposed - account.in_file - sum(declared.values()),
    }


def demo(name: str, detector: dict[str, Any], home: Path, seconds: float) -> dict[str, Any]:
    outcome, frames, memory = measure(experiment(home, detector, RATE_HZ, seconds))
    limit_ms = default_age_limit_ms(RATE_HZ)
    return {"case": "demo", "detector": name} | ages(frames, limit_ms) | balance(outcome) | memory.row()


def overload(name: str, detector: dict[str, Any], home: Path, seconds: float) -> list[dict[str, Any]]:
    outcome, frames, _ = measure(experiment(home, detector, GUESS_HZ, 10.0))
    late = frames["time_s"] > frames["time_s"][0] + WARM_UP_S
    capacity_hz = float(np.count_nonzero(late) / np.ptp(frames["time_s"][late]))
    rows: list[dict[str, Any]] = [
        {"case": "capacity", "detector": name, "frames_per_s": round(capacity_hz, 2), "camera_hz": GUESS_HZ}
    ]
    for factor in FACTORS:
        rate_hz = round(factor * capacity_hz, 1)
        outcome, frames, memory = measure(experiment(home, detector, rate_hz, seconds))
        limit_ms = default_age_limit_ms(rate_hz)
        found = ages(frames, limit_ms)
        rows.append(
            {"case": f"overload {factor:g} x", "detector": name, "camera_hz": rate_hz, "seconds": seconds}
            | found
            | {"within_limit_and_a_frame": bool(found["age_p99_ms"] <= limit_ms + 1000 / rate_hz)}
            | balance(outcome)
            | memory.row()
        )
    return rows


class Stops:
    """Stops the stages one after the other; `continued` has the wall time of each SIGCONT."""

    def __init__(self) -> None:
        self.continued: dict[str, float] = {}
        self._due_s = WARM_UP_S + 2.0
        self._left = list(STAGES)

    def __call__(self, progress: Progress, files: RunFiles) -> None:
        if progress.running_s < self._due_s or not self._left:
            return
        stage = self._left.pop(0)
        self._due_s = progress.running_s + STOPPED_S + BETWEEN_S
        process = psutil.Process(_pid(files, stage))
        process.suspend()

        def resume() -> None:
            self.continued[stage] = time.time()
            process.resume()

        threading.Timer(STOPPED_S, resume).start()


def stops(name: str, detector: dict[str, Any], home: Path) -> list[dict[str, Any]]:
    stopped = Stops()
    seconds = WARM_UP_S + 2.0 + len(STAGES) * (STOPPED_S + BETWEEN_S)
    outcome, frames, _ = measure(experiment(home, detector, RATE_HZ, seconds), stopped)
    limit_ms = default_age_limit_ms(RATE_HZ)
    tracked_s = frames["wall_s"] + 1e-3 * frames["age_ms"]
    rows = []
    for stage, at_s in stopped.continued.items():
        after = (tracked_s >= at_s) & (tracked_s < at_s + BETWEEN_S - 0.5)
        fresh = after & (frames["age_ms"] <= limit_ms)
        first_s = float(tracked_s[fresh].min() - at_s) if fresh.any() else None
        old = after & (frames["age_ms"] > limit_ms)
        rows.append(
            {
                "case": f"{stage} stopped for {STOPPED_S:g} s",
                "detector": name,
                "limit_ms": limit_ms,
                "first_fresh_s": None if first_s is None else round(first_s, 3),
                "results_over_limit": int(np.count_nonzero(old)),
                "last_over_limit_s": round(float(tracked_s[old].max() - at_s), 3) if old.any() else 0.0,
                "frames_after": int(np.count_nonzero(after)),
            }
        )
    return [*rows, {"case": "stops, whole run", "detector": name} | balance(outcome)]


def camera_cpu_ms(rate_hz: float) -> float:
    """Processor time of the simulated camera and its reader for a frame, ms, in a process of nothing else."""
    microscope = Microscope(
        MicroscopeSettings(
            config="simulated", properties={"Camera.Exposure": 0.5, "Camera.FrameRate": rate_hz}
        )
    )
    stream = MicroscopeStream(microscope, MicroscopeSettings(config="simulated"), run_id="camera")
    stream.start()
    count, until_s, before_s = 0, time.monotonic() + 3.0, time.process_time()
    while time.monotonic() < until_s:
        count += stream.read(0.01) is not None
    took_s = time.process_time() - before_s
    stream.close()
    microscope.close()
    return round(1e3 * took_s / max(count, 1), 2)


def _pid(files: RunFiles, stage: str) -> int:
    import json

    for line in files.events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event.get("kind") == "process" and event.get("stage") == stage:
            return int(event["pid"])
    raise SystemExit(f"{stage} has no process")


def _slope(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    return float(np.polyfit(x - x[0], y, 1)[0]) if len(x) > 2 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="length of each overload, s")
    parser.add_argument("--demo-seconds", type=float, default=35.0)
    parser.add_argument("--only", nargs="+", choices=("demo", "overload", "stops"))
    parser.add_argument(
        "--detectors", nargs="+", choices=("classical", "network"), default=["classical", "network"]
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    print(f"{device()}; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else device())
    rows: list[dict[str, Any]] = [
        {"case": "camera alone", "camera_hz": 100.0, "cpu_ms": camera_cpu_ms(100.0)}
    ]

    def add(*new: dict[str, Any]) -> None:
        for row in new:
            rows.append(row)
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    with tempfile.TemporaryDirectory(prefix="never-late-") as folder:
        home = Path(folder)
        curve = home / "curve.h5"
        make_width_curve(curve, print)
        detectors = {"classical": {"model": str(curve)}, "network": {"model": str(SHIPPED_MODEL)}}
        cases = options.only or ("demo", "overload", "stops")
        for name in options.detectors:
            if "demo" in cases:
                add(demo(name, detectors[name], home, options.demo_seconds))
            if "overload" in cases:
                add(*overload(name, detectors[name], home, options.seconds))
            if "stops" in cases:
                add(*stops(name, detectors[name], home))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
