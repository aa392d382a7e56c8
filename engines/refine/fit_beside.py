"""The fit of a live run on a new installation: compiled by another process, while detection goes on without it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from engines.refine.compiling import compile_fit, is_compiled

FIT_WAITS = (
    "the fit is compiled beside the run, once per installation: until it joins, particles have the network's own "
    "positions and standard errors (liveptv warmup compiles it before a run)"
)
FIT_JOINED = "the fit has joined after {seconds:.0f} s: particles are fitted from now on"
FIT_FAILED = "the fit could not be compiled ({why}): particles are not fitted in this run; run liveptv warmup"
FIT_LOWEST = 19
"""Niceness of the process that compiles: it takes what the run leaves. Higher priority delays frames."""
START = "import sys; sys.path[:] = {path!r}; from engines.refine.compiling import main; main()"


class Compiler(Protocol):
    """A process that compiles the fit."""

    def wait(self) -> str:
        """Wait for its end; "" if the fit is compiled, else why it is not."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class FitBeside:
    """Says when the fit can be used. `ready` is set at once if it is compiled, else once it has been.

    `say` gets one line when the fit has to be waited for and one when it has joined or has failed, from the thread
    that calls `start` and `poll`. `start_compiler` starts the process, `load` loads its result into this one.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        is_there: Callable[[], bool] = is_compiled,
        start_compiler: Callable[[], Compiler] | None = None,
        load: Callable[[], None] = compile_fit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready = threading.Event()
        self._say, self._load, self._clock = say, load, clock
        self._is_there = is_there
        self._start_compiler = start_compiler or ProcessCompiler
        self._compiler: Compiler | None = None
        self._thread: threading.Thread | None = None
        self._began_s = 0.0
        self._ended = ""
        self._closed = False

    def start(self) -> None:
        """Load the fit, or have it compiled; returns at once in the second case. Later calls do nothing."""
        if self._thread is not None or self.ready.is_set():
            return
        if self._is_there():
            self._load()
            self.ready.set()
            return
        self._began_s = self._clock()
        try:
            self._compiler = self._start_compiler()
        except OSError as error:
            self._say(FIT_FAILED.format(why=error))
            return
        self._say(FIT_WAITS)
        self._thread = threading.Thread(target=self._join, args=(self._compiler,), daemon=True)
        self._thread.start()

    def _join(self, compiler: Compiler) -> None:
        why = compiler.wait()
        if self._closed:
            return
        if why:
            self._ended = FIT_FAILED.format(why=why)
            return
        self._load()
        self._ended = FIT_JOINED.format(seconds=self._clock() - self._began_s)
        self.ready.set()

    def poll(self) -> None:
        """Say, once, how the compilation has ended."""
        if self._ended:
            text, self._ended = self._ended, ""
            self._say(text)

    def close(self) -> None:
        """End the process, if it still runs: what it has compiled so far is kept. Idempotent."""
        self._closed = True
        if self._compiler is not None:
            self._compiler.stop()
        if self._thread is not None:
            self._thread.join()


class ProcessCompiler:
    """A process of the lowest priority that compiles the fit; it ends with this process, however that ends."""

    def __init__(self) -> None:
        lowest = int(getattr(subprocess, "IDLE_PRIORITY_CLASS", 0))  # of Windows
        self._process = subprocess.Popen(
            [sys.executable, "-c", START.format(path=sys.path)],
            stdin=subprocess.PIPE,  # it ends when this is closed
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            creationflags=lowest,
            start_new_session=sys.platform != "win32",
        )
        if sys.platform != "win32":
            os.setpriority(os.PRIO_PROCESS, self._process.pid, FIT_LOWEST)
            # Linux weighs sessions first (sched(7), autogroup), so that the line above alone would change nothing
            with contextlib.suppress(OSError):
                Path(f"/proc/{self._process.pid}/autogroup").write_text(str(FIT_LOWEST))

    def wait(self) -> str:
        """Wait for its end; "" if the fit is compiled, else the last line of the error."""
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            said = errors.read()
        status = self._process.wait()
        if status == 0:
            return ""
        lines = said.decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), f"exit status {status}")

    def stop(self) -> None:
        """End it. Idempotent."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
