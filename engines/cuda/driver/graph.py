"""Work captured in a CUDA graph through the driver, with a stream and an event of its own."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack, suppress
from functools import partial

from engines.cuda.device import WARM_RUNS, Work
from engines.cuda.driver.api import CudaError, DriverApi
from engines.cuda.driver.context import Context, attempt

NON_BLOCKING = 1
"""Of a stream: it does not wait for the default stream, nor that for it."""
BLOCKING_SYNC, DISABLE_TIMING = 1, 2
"""Of an event: a thread that waits for it sleeps; it takes no time stamps, which would cost some."""
THREAD_LOCAL = 1
"""Of a capture: what other threads do meanwhile does not spoil it."""


class DriverGraph:
    """Work done `WARM_RUNS` times, then captured. Raises `CudaError` where that fails, leaving nothing behind."""

    def __init__(self, context: Context, work: Work) -> None:
        self._context, self._started = context, False
        api = context.api
        with context.current(), ExitStack() as undo:
            self._stream = api.handle("cuStreamCreate", NON_BLOCKING)
            undo.callback(_freed, api, "cuStreamDestroy_v2", self._stream)
            self._done = api.handle("cuEventCreate", BLOCKING_SYNC | DISABLE_TIMING)
            undo.callback(_freed, api, "cuEventDestroy_v2", self._done)
            undo.callback(_freed, api, "cuStreamSynchronize", self._stream)
            for _ in range(WARM_RUNS):
                work(self._stream)
            api("cuStreamSynchronize", self._stream)
            graph = self._captured(work)
            try:
                self._graph = api.handle("cuGraphInstantiateWithFlags", graph, 0)
            finally:
                _freed(api, "cuGraphDestroy", graph)
            undo.callback(_freed, api, "cuGraphExecDestroy", self._graph)
            undo.pop_all()
        # the work is held there: what it reads and writes has to last as long as the graph
        end = partial(_end, api, self._graph, self._done, self._stream, work)
        self._end = context.own(self, end)

    def _captured(self, work: Work) -> int:
        api = self._context.api
        with self._context.capturing():
            api("cuStreamBeginCapture_v2", self._stream, THREAD_LOCAL)
            try:
                work(self._stream)
            except BaseException:
                # the end of a spoiled capture is an error as well, but that of `work` says why
                with suppress(CudaError):
                    _freed(api, "cuGraphDestroy", self._end_of_capture())
                raise
            return self._end_of_capture()

    def _end_of_capture(self) -> int:
        graph = ctypes.c_uint64()
        self._context.api("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        return graph.value

    def start(self) -> None:
        """Launch the graph. Raises `CudaError` where the GPU fails."""
        api, self._started = self._context.api, False
        if not self._end.alive:
            raise RuntimeError("the work recorded on the GPU was closed before")
        with self._context.current():
            api("cuGraphLaunch", self._graph, self._stream)
            api("cuEventRecord", self._done, self._stream)
        self._started = True

    def wait(self) -> None:
        """Sleep, without the interpreter's lock, until it is done. Raises `CudaError` where the GPU failed."""
        if not (self._started and self._end.alive):
            raise RuntimeError("nothing was started that could be waited for")
        with self._context.current():
            self._context.api("cuEventSynchronize", self._done)

    def close(self) -> None:
        """Wait for what was started and free all of it. Idempotent."""
        self._end()


def _end(api: DriverApi, graph: int, done: int, stream: int, _work: Work) -> None:
    _freed(api, "cuStreamSynchronize", stream)
    _freed(api, "cuGraphExecDestroy", graph)
    _freed(api, "cuEventDestroy_v2", done)
    _freed(api, "cuStreamDestroy_v2", stream)


def _freed(api: DriverApi, name: str, handle: int) -> None:
    attempt(partial(api, name, handle))
