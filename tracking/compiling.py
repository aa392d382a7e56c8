"""Compiling the tracker on a new installation in two processes at a time, so that the first frame comes sooner.

`OnlineTracker.warmup` compiles everything in the order of a frame, on one core, in some 20 s. Meanwhile another
process compiles what comes last, from the end; numba then finds it in its cache. A kernel that both compile at the
same time is compiled twice, with the same result.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np

from tracking.flow_change import apply_factor, find_astray, most_votes
from tracking.process_noise import learn_rates
from tracking.sides.columns import align, extend, take_seconds, write
from tracking.sides.two_branches import begin, predict, resolve

Kernel = Any
"""A numba dispatcher."""

START = "import sys; sys.path[:] = {path!r}; from tracking.compiling import compile_last; compile_last()"


def last_kernels() -> list[tuple[Kernel, tuple[Any, ...]]]:
    """The kernels that `OnlineTracker.warmup` compiles last, from the end, with arguments of the types they get."""
    f1, f2 = np.zeros(1), np.zeros((2, 2))
    i1, i2 = np.zeros(1, np.int64), np.zeros((1, 1), np.int64)
    n1, b1 = np.zeros(1, np.int32), np.zeros(1, np.bool_)
    part = np.zeros((4, 4))[::2, ::2]
    found, flow = (f2, f2, n1, f2), (f2, f2, i1)
    return [
        (most_votes, (f2, b1, part, part, 0, 0.0, 0.0, 0.0, 0)),
        (apply_factor, (f2, 0, 0, 0.0, 0.0)),
        (learn_rates, (f2, f2, 0, 0, (f1, f1, f1, f1), 0.0, 0.0, f1, f1)),
        (write, (f2, 0, f2, found, 0, f2, 0.0)),
        (begin, (f2, 0, f2, i2, 0, f2, found, 0, f2, flow, f1, 0, 0.0)),
        (resolve, (f2, f2, 0, n1, found, f2, flow, f1, 0, 0.0, 0)),
        (find_astray, (f2, i2, n1, (f2, f2), (0, 0, 0, 0.0, 0), b1, b1)),
        (predict, (f2, 0, 0.0, f1, f1)),
        (extend, (f2, 0, i2, 0)),
        (align, (f2, 0, i2, 0)),
        (take_seconds, (found, 0, 0.0, f2)),
    ]


def compile_last() -> None:
    """Compile them, or find them compiled."""
    typeof: Any = numba.typeof
    for kernel, arguments in last_kernels():
        kernel.compile(tuple(typeof(argument) for argument in arguments))


def is_new() -> bool:
    """Whether nothing is kept of the longest of them, so that another process is worth starting."""
    folder = resolve.stats.cache_path
    return folder is not None and not any(Path(folder).glob(f"*.{resolve.py_func.__name__}-*.nbi"))


@contextmanager
def last_compiled_beside() -> Iterator[None]:
    """While the tracker is warmed up, on a new installation, another process compiles from the end."""
    if not is_new():
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(path=sys.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what it cannot compile, the tracker compiles, or says why not
    )
    try:
        yield
    finally:
        process.kill()  # what it has compiled is kept
        process.wait()
