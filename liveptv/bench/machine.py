"""Limits of the computer itself, measured for comparison: matrix products and copies in memory."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

MATRIX = 1536  # rows and columns of the matrices; large enough to reach full speed
COPIED_BYTES = 64 << 20  # bytes copied; more than any cache holds
SECONDS = 0.4  # s for each measurement; the best of several repeats counts


@dataclass(frozen=True, slots=True)
class Limits:
    """Single-precision matrix products and copies in memory (bytes copied, not read plus written).

    Of one thread, and of all together.
    """

    threads: int
    sgemm_gflop_s: float
    sgemm_all_gflop_s: float
    copy_gb_s: float
    copy_all_gb_s: float


def measure_limits() -> Limits:
    """Measure for about two seconds; the best of several, because other programs can only slow it down."""
    threads = os.cpu_count() or 1
    a, b = np.random.default_rng(0).random((2, MATRIX, MATRIX), np.float32)
    out = np.empty_like(a)
    gflop = 2e-9 * MATRIX**3
    with threadpool_limits(1):
        one_s = best_s(lambda: np.matmul(a, b, out=out))
    with threadpool_limits(threads):
        all_s = best_s(lambda: np.matmul(a, b, out=out))
    pairs = [(np.ones(COPIED_BYTES, np.uint8), np.empty(COPIED_BYTES, np.uint8)) for _ in range(threads)]
    copy_s = best_s(lambda: np.copyto(pairs[0][1], pairs[0][0]))
    with ThreadPoolExecutor(threads) as pool:
        copies_s = best_s(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)))
    gigabytes = 1e-9 * COPIED_BYTES
    found = (gflop / one_s, gflop / all_s, gigabytes / copy_s, threads * gigabytes / copies_s)
    return Limits(threads, *(round(value, 1) for value in found))


def best_s(work: Callable[[], object], seconds: float = SECONDS) -> float:
    """The shortest time that `work` takes, over about `seconds`."""
    work()
    end_s, best = time.perf_counter() + seconds, np.inf
    while True:
        begun_s = time.perf_counter()
        work()
        now_s = time.perf_counter()
        best = min(best, now_s - begun_s)
        if now_s >= end_s:
            return float(best)


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory_mib() -> float:
    """The largest amount of memory that this process has used so far."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
