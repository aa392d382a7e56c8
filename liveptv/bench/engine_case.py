"""One case of `liveptv bench engine`, in a process of its own: an engine, its frames, its times."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.backends.registry import BACK_ENDS, BackEnd
from engines.engine import Engine
from engines.settings import BackEndName, DetectorSettings
from liveptv.bench.flow_case import measure_flow
from liveptv.bench.machine import peak_memory_mib
from stream.messages import Detections, Frame, FrameInfo

FEWEST = 12  # frames timed at least, for a median that one slow frame does not shift
MOST_PARTICLES = 50_000  # room for detections; more than in any case
LONGEST_S = 120.0  # s one frame may take, for a large network on a slow processor


@dataclass(frozen=True, slots=True)
class Case:
    """A case to measure. `frames` is a .npy file (N, H, W), used over and over; `name` is the model's.

    With `prediction` ("auto" or "off") the frames are those of a flow (`bench.flow_case`).
    """

    backend: BackEndName
    device: str
    precision: str
    model: Path
    name: str
    pixel_size_um: float
    frames: Path
    bright: Path | None
    particles: int = 0
    refine: bool = False
    workers: int = 1
    seconds: float = 3.0
    prediction: str = ""


def measure(case: Case) -> dict[str, Any]:
    """A row: frames/s and processor time with the engine kept full, latency with one frame at a time."""
    if case.backend == "torch" and case.device == "cpu":
        import torch

        torch.set_num_threads(1)
    images = np.load(case.frames)
    settings = DetectorSettings(
        model=case.model,
        backend=case.backend,
        device=case.device,
        precision="reduced" if case.precision == "reduced" else "full",
        workers=case.workers,
        refine=case.refine,
        bright=case.bright,
        max_particles=MOST_PARTICLES,
    )
    with closing(_back_end(case).open(settings, case.pixel_size_um, case.model)) as engine:
        _, height, width = images.shape
        engine.warmup(height, width, images.dtype)
        numbers = count()
        flow: dict[str, Any] = {}
        if case.prediction:
            tells = case.prediction == "auto"
            flow = measure_flow(engine, images, case.particles, case.pixel_size_um, case.seconds, tells=tells)
        _keep_full(engine, images, numbers, 0.0, 2 * case.workers)
        latency_ms = _one_at_a_time(engine, images, numbers, case.seconds / 2)
        frames, wall_s, cpu_s, found = _keep_full(engine, images, numbers, case.seconds, FEWEST)
        info = engine.info
    p50, p99, most = np.percentile(latency_ms, (50, 99, 100))
    row = {
        "backend": info.backend,
        "device": info.device,
        "model": case.name,
        "precision": info.details.get("precision", case.precision),
        "height": height,
        "width": width,
        "particles": case.particles,
        "refine": bool(info.details.get("refine", False)),
        "workers": case.workers,
        "frames_per_s": frames / wall_s,
        "cpu_ms_per_frame": 1e3 * cpu_s / frames,
        "latency_p50_ms": float(p50),
        "latency_p99_ms": float(p99),
        "latency_max_ms": float(most),
        "peak_memory_mib": peak_memory_mib(),
        "found_per_frame": found,
        "frames": frames,
    } | flow
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}


def _back_end(case: Case) -> BackEnd:
    return next(b for b in BACK_ENDS if (b.name, b.device) == (case.backend, case.device))


def _frame(images: npt.NDArray[Any], number: int) -> Frame:
    return Frame(FrameInfo("bench", number, number, 0.0, 0, 0.0), images[number % len(images)])


def _one_at_a_time(
    engine: Engine, images: npt.NDArray[Any], numbers: count[int], seconds: float
) -> list[float]:
    """Time in ms from handing over a frame to having its detections, with nothing else to do."""
    took_ms: list[float] = []
    end_s = time.perf_counter() + seconds
    while len(took_ms) < FEWEST or time.perf_counter() < end_s:
        begun_s = time.perf_counter()
        engine.submit(_frame(images, next(numbers)))
        while engine.pending:
            engine.results(LONGEST_S)
        took_ms.append(1e3 * (time.perf_counter() - begun_s))
    return took_ms


def _keep_full(
    engine: Engine, images: npt.NDArray[Any], numbers: count[int], seconds: float, fewest: int
) -> tuple[int, float, float, float]:
    """Frames, seconds, processor seconds of all threads, and particles a frame, with frames always waiting."""
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    given, results = 0, list[Detections]()
    while given < fewest or time.perf_counter() < begun_s + seconds:
        engine.submit(_frame(images, next(numbers)))
        given += 1
        results += engine.results(0.0)
    while engine.pending:
        results += engine.results(LONGEST_S)
    wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    return given, wall_s, cpu_s, float(np.mean([len(detections) for detections in results]))
