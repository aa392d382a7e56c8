"""`liveptv bench latency`: latency of the closed loop, from the camera to the first frame that shows a command.

An ordinary run on the simulated microscope, with a controller that sends a command every few frames. All times are
of one computer's clock; a frame's time starts when the core gets it from the camera. "camera -> command but
detection" is what the pipeline adds to the detector's own time per frame.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from acquisition.configuration import config_path
from liveptv.bench import latency_probe
from liveptv.bench.cpu_cost import CpuCost
from liveptv.config import Experiment, build_experiment
from liveptv.files import RunFiles
from liveptv.workflows.demo import make_width_curve
from liveptv.workflows.run import run_experiment
from stream.errors import LivePTVError
from stream.messages import Detections
from stream.monitor import MonitorSubscriber
from tracking.trajectories.control_record import read_control
from tracking.trajectories.file import TrajectoryFile

FloatArray = npt.NDArray[np.float64]

FLOW_UL_S = 0.0246  # about 150 um/s in the middle of the channel
WARM_UP_FRAMES = 60  # frames left out at the start, while caches fill
SHAPE = (512, 512)  # px, height and width
STAGES = (
    "camera -> detections",
    "detections -> tracks",
    "tracks -> command",
    "command -> executed",
    "executed -> first affected frame",
    "command -> acknowledged",
    "heartbeat -> acknowledged",
    "camera -> command but detection",
    "camera -> executed",
    "camera -> first affected frame",
)


@dataclass(frozen=True, slots=True, eq=False)
class Latency:
    """What was measured: ms by stage, (N,) each, and frames from the one decided on to the first affected."""

    stages_ms: dict[str, FloatArray]
    frames: npt.NDArray[np.int64]
    rate_hz: float
    lost: int
    shape: tuple[int, int] = SHAPE
    costs: tuple[dict[str, Any], ...] = ()
    detector: dict[str, int] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """A row a stage: `stage`, `p50_ms`, `p99_ms`, `max_ms`, `count`; the last also in frames."""
        rows: list[dict[str, Any]] = []
        for stage, values in self.stages_ms.items():
            p50, p99, worst = (float(value) for value in np.percentile(values, (50, 99, 100)))
            row = {"stage": stage, "p50_ms": p50, "p99_ms": p99, "max_ms": worst}
            rows.append({name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()})
            rows[-1]["count"] = len(values)
        p50, p99, worst = (int(value) for value in np.percentile(self.frames, (50, 99, 100), method="higher"))
        rows[-1] |= {"p50_frames": p50, "p99_frames": p99, "max_frames": worst, "rate_hz": self.rate_hz}
        return rows


def measure_latency(
    seconds: float,
    rate_hz: float,
    particles: int,
    say: Callable[[str], None],
    *,
    shape: tuple[int, int] = SHAPE,
    model: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> Latency:
    """Run the loop at `shape`, with `model`, or else the classical detector; `settings` are more of `[detector]`.

    Raises `LivePTVError` if the run fails.
    """
    with tempfile.TemporaryDirectory(prefix="liveptv-latency-") as folder:
        home = Path(folder)
        if model is None:
            model = home / "curve.h5"
            make_width_curve(model, say)
        detector = {"model": str(model), **(settings or {})}
        experiment = _experiment(home, detector, seconds, rate_hz, particles, shape)
        files = RunFiles.beside(experiment.run.output)
        with _DetectionTimes(experiment.session.monitor) as detected:
            cost = CpuCost(WARM_UP_FRAMES, lambda: detected.cpu_s)
            outcome = run_experiment(
                experiment, files, on_update=lambda _: None, on_note=say, beside=cost.beside
            )
        if not outcome.result.ok or not outcome.frames:
            raise LivePTVError(f"the run for the measurement failed: {'; '.join(outcome.result.failures)}")
        lost = sum(outcome.result.lost.values())
        latency = _latency(files.tracks, detected.at_ns, rate_hz, lost, shape)
        return replace(latency, costs=tuple(cost.rows()), detector=outcome.result.counts["detect"])


def _experiment(
    home: Path,
    detector: dict[str, Any],
    seconds: float,
    rate_hz: float,
    particles: int,
    shape: tuple[int, int],
) -> Experiment:
    text = config_path().read_text(encoding="utf-8")
    for name, value in (
        ("Width", shape[1]),
        ("Height", shape[0]),
        ("FrameRate", rate_hz),
        ("ParticlesPerFrame", particles),
    ):
        lines = text.splitlines()
        text = "\n".join(
            f"#py Property,Camera,{name},{value:g}" if f",Camera,{name}," in line else line for line in lines
        )
    config = home / "latency.cfg"
    config.write_text(text, encoding="utf-8")
    data: dict[str, Any] = {
        "run": {"seconds": seconds, "output": str(home / "latency.h5")},
        "microscope": {"config": str(config)},
        "limits": {"max_flow_ul_s": 2 * FLOW_UL_S, "safe_flow_ul_s": 0.0, "commands_per_s": 1000},
        "detector": detector,
        "controller": {"file": str(Path(latency_probe.__file__)), "options": {"flow_ul_s": FLOW_UL_S}},
        "session": {"monitor": f"tcp://127.0.0.1:{_free_port()}"},
    }
    return build_experiment(data, "the settings of the benchmark")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _DetectionTimes:
    """Notes when each frame's detections come from the detector's monitor, in a thread of its own."""

    def __init__(self, address: str) -> None:
        self.at_ns: dict[int, int] = {}
        self.cpu_s = 0.0
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        monitor = MonitorSubscriber(self._address, source="liveptv/detect/detections")
        while not self._over.is_set():
            message = monitor.receive(0.1)
            self.cpu_s = time.thread_time()
            if isinstance(message, Detections):
                self.at_ns[message.info.frame] = time.perf_counter_ns()
        monitor.close()

    def __enter__(self) -> _DetectionTimes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5.0)


def _latency(
    tracks: Path, detected_ns: dict[int, int], rate_hz: float, lost: int, shape: tuple[int, int]
) -> Latency:
    with TrajectoryFile(tracks) as file:
        frames = file.frames
    wall_s = dict(zip(frames["frame"].tolist(), frames["wall_s"].tolist(), strict=True))
    record = read_control(tracks)
    commands = {
        entry["command_id"]: entry
        for entry in record
        if entry["kind"] == "command" and entry["frame"] >= WARM_UP_FRAMES
    }
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    late: list[int] = []
    for answer in (entry for entry in record if entry["kind"] == "answer" and entry["first_frame"] >= 0):
        command = commands.get(answer["command_id"])
        if command is None or "executed_ms" not in answer or command["frame"] not in detected_ns:
            continue
        frame, first = command["frame"], answer["first_frame"]
        if first not in wall_s:
            continue  # dropped before the detector
        taken_ns, tracks_ns = command["measured"]["taken_ns"], command["measured"]["tracks_ns"]
        detections_ms = (detected_ns[frame] - taken_ns) / 1e6
        tracks_ms, command_ms = (tracks_ns - taken_ns) / 1e6, command["sent_ms"]
        shown_ms = 1e3 * (wall_s[first] - wall_s[frame])
        executed_ms = command_ms + answer["executed_ms"]
        values = (
            detections_ms,
            tracks_ms - detections_ms,
            command_ms - tracks_ms,
            answer["executed_ms"],
            shown_ms - executed_ms,
            answer["answered_ms"],
        )
        for stage, value in zip(STAGES, values, strict=False):
            found[stage].append(value)
        found["camera -> command but detection"].append(command_ms - command["measured"]["detector_ms"])
        found["camera -> executed"].append(executed_ms)
        found["camera -> first affected frame"].append(shown_ms)
        late.append(first - frame)
    found["heartbeat -> acknowledged"] = [
        entry["heartbeat_ms"]
        for entry in record
        if entry["kind"] == "measured" and "heartbeat_ms" in entry and entry["frame"] >= WARM_UP_FRAMES
    ]
    if not late or not found["heartbeat -> acknowledged"]:
        raise LivePTVError("too few commands were answered for a result; measure for longer")
    arrays = {stage: np.array(values) for stage, values in found.items()}
    return Latency(arrays, np.array(late), rate_hz, lost, shape)
