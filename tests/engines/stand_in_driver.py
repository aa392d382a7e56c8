"""The stand-in for NVIDIA's driver (`stand_in_driver.c`): built, loaded afresh for each test, and asked."""

from __future__ import annotations

import atexit
import ctypes
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("stand_in_driver.c")
KINDS = ("device", "host", "stream", "event", "graph", "exec", "module")
MODULE = b"stand-in module"
BODIES: list[object] = []
"""Of kernels; never let go of, as a stream of a lost device may still be in one when its test has ended."""
needs_gcc = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("gcc") is None, reason="needs gcc on Linux or macOS"
)
Body = ctypes.CFUNCTYPE(
    None,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_uint,
    ctypes.POINTER(ctypes.c_void_p),
)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="liveptv_stand_in_")  # until the process ends


@functools.cache
def _built() -> Path:
    folder = Path(_folder().name)
    options = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC", "-pthread")
    subprocess.run(["gcc", *options, "-o", str(folder / "driver.so"), str(SOURCE)], check=True)
    return folder / "driver.so"


def pointer_of(argument: int) -> int:
    """The address that an argument of a kernel holds."""
    return ctypes.c_uint64.from_address(argument).value


class StandIn:
    """One driver, of which nothing was asked so far."""

    def __init__(self, folder: Path) -> None:
        path = folder / f"driver{len(list(folder.iterdir()))}.so"
        shutil.copy(_built(), path)
        self.library = ctypes.CDLL(str(path))
        atexit.register(self.library.stand_in_settle)  # no thread may call back while Python ends
        for name in ("call", "done"):
            getattr(self.library, f"stand_in_{name}").restype = ctypes.c_char_p

    def __getattr__(self, name: str) -> int:
        """A count: `retained`, `reclaimed`, `illegal`, `depth`, `most_busy`, `call_count`, `done_count`."""
        if name.startswith("_"):
            raise AttributeError(name)
        found: int = getattr(self.library, f"stand_in_{name}")()
        return found

    @property
    def calls(self) -> list[str]:
        """What was called so far, in order, without the questions about errors."""
        return [self.library.stand_in_call(k).decode() for k in range(self.call_count)]

    @property
    def done(self) -> list[str]:
        """What the streams did so far: `copy`, `fill` and the names of kernels."""
        return [self.library.stand_in_done(k).decode() for k in range(self.done_count)]

    @property
    def alive(self) -> dict[str, int]:
        """What was made and not freed, by kind, without those of which there is none."""
        counts = {name: self.library.stand_in_alive(number) for number, name in enumerate(KINDS)}
        return {name: count for name, count in counts.items() if count}

    def made(self, kind: str) -> int:
        """How many were made so far."""
        found: int = self.library.stand_in_made(KINDS.index(kind))
        return found

    def fail(self, at: int, status: int) -> None:
        """Let the call number `at`, counted from 0, fail."""
        self.library.stand_in_fail(at, status)

    def fail_next(self, name: str, status: int) -> None:
        """Let all calls be as they are until one of `name` comes, which fails."""
        self.library.stand_in_fail_next(name.encode(), status)

    def lose(self, status: int) -> None:
        """Let every call fail from now on."""
        self.library.stand_in_lose(status)

    def lose_at(self, at: int, status: int) -> None:
        """Let every call fail from the one number `at` on."""
        self.library.stand_in_lose_at(at, status)

    def delay(self, us: int) -> None:
        """Let each copy, fill and kernel begin later."""
        self.library.stand_in_delay(us)

    def limit_memory(self, size: int) -> None:
        """Let there be so many bytes on the device."""
        self.library.stand_in_memory(ctypes.c_size_t(size))

    def devices(self, count: int, status: int = 0) -> None:
        """How many there are, and what starting says."""
        self.library.stand_in_devices(count, status)

    def put(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on a stream, as another library does."""
        body = Body(lambda *_: work())
        BODIES.append(body)
        assert self.library.stand_in_put(ctypes.c_void_p(stream), body), "no such stream"

    def kernel(self, name: str, body: Callable[..., None], sizes: Sequence[int]) -> None:
        """Have a kernel: `body(grid, block, shared, arguments)`, with the bytes of each argument."""
        function = Body(body)
        BODIES.append(function)
        self.library.stand_in_kernel(
            name.encode(), function, len(sizes), (ctypes.c_size_t * len(sizes))(*sizes)
        )
