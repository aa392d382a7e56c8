"""The fit's kernel built by a C compiler from the source that a GPU gets, for a device that is the processor."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.cuda.fit.kernel import NAME, SOURCE, sources
from engines.cuda.fit.layout import THREADS

FLAGS = ("-x", "c", "-std=gnu11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
TALLIES = ("single", "double", "scratch_bytes", "shared_bytes", "model_bytes", "images", "steps")


def build(folder: Path, *flags: str) -> ctypes.CDLL:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    for name, text in sources().items():
        (folder / name).write_text(text)
    library = folder.resolve() / "fit_kernel.so"
    command = [compiler, *FLAGS, *flags, "-o", str(library), SOURCE, "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return ctypes.CDLL(str(library))


class Kernels:
    """The kernels of a `HostDevice`: those of a library, whose thread blocks run in `threads` threads."""

    def __init__(self, library: ctypes.CDLL, threads: int = 1) -> None:
        self.library, self.threads, self.launches = library, threads, 0
        self.pool = ThreadPoolExecutor(threads)

    def __call__(self, image: bytes, names: Sequence[str]) -> dict[str, SimpleNamespace]:
        assert image
        assert list(names) == [NAME]
        return {NAME: SimpleNamespace(launch=self.launch)}

    def launch(self, grid, block, shared_bytes, arguments, stream) -> None:
        assert (block, shared_bytes) == ((THREADS, 1, 1), 0)
        self.launches += 1
        call = getattr(self.library, NAME)
        call.restype = None
        pointers = [ctypes.c_void_p(argument.address) for argument in arguments]
        # thread blocks beyond those that run at the same time would find nothing left to do
        slots = range(min(grid[0], self.threads))
        list(self.pool.map(lambda slot: call(*pointers, ctypes.c_int(slot)), slots))


def tallies_of(library: ctypes.CDLL) -> dict[str, float]:
    """What a library built with -DCOUNT_WORK has done since this was asked last."""
    found = (ctypes.c_double * len(TALLIES))()
    library.read_tallies(found)
    return dict(zip(TALLIES, found, strict=True))
