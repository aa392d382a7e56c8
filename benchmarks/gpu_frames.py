"""Frames/s of an engine with frames always waiting, and its latency with frames at a camera's rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from engines.engine import Engine
from stream.messages import Frame

Row = dict[str, Any]
LOOK_S = 2e-4
"""s between two looks for results while the next frame is not due: what latency is measured to."""
ANSWER_S = 10.0


def throughput(engine: Engine, frames: Iterator[Frame], seconds: float) -> Row:
    """Frames/s and processor time with frames always waiting, and particles found on a frame."""
    given = found = 0
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    while not given or time.perf_counter() < begun_s + seconds:
        engine.submit(next(frames))
        given += 1
        found += sum(map(len, engine.results(0.0)))
    while engine.pending:
        found += sum(map(len, engine.results(ANSWER_S)))
    wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    return {
        "frames": given,
        "frames_per_s": given / wall_s,
        "cpu_ms_per_frame": 1e3 * cpu_s / given,
        "found_per_frame": found / given,
    }


def latency(engine: Engine, frames: Iterator[Frame], rate_hz: float, seconds: float) -> Row:
    """From when the camera has a frame until its detections are there, ms; `late` frames waited for the engine."""
    due_s: list[float] = []
    took_ms: list[float] = []

    def take(timeout_s: float) -> None:
        for _ in engine.results(timeout_s):
            took_ms.append(1e3 * (time.perf_counter() - due_s[len(took_ms)]))

    begun_s, late = time.perf_counter(), 0
    for number in range(max(2, int(rate_hz * seconds))):
        due_s.append(begun_s + number / rate_hz)
        while (left_s := due_s[-1] - time.perf_counter()) > 0:
            take(min(left_s, LOOK_S))
        engine.submit(next(frames))
        late += time.perf_counter() - due_s[-1] > 1 / rate_hz
    while engine.pending:
        take(ANSWER_S)
    p50, p99, most = map(float, np.percentile(took_ms, (50, 99, 100)))
    return {
        "latency_p50_ms": p50,
        "latency_p99_ms": p99,
        "latency_max_ms": most,
        "rate_hz": rate_hz,
        "late": int(late),
    }


def median_ms(work: Callable[[], object], times: int = 30) -> float:
    """The median time of `work`, ms."""
    took = []
    for _ in range(times):
        begun_s = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - begun_s))
    return float(np.median(took))
