"""A GPU's primary context, which all libraries of a process share, and the end of everything made in it.

What is made is freed when its owner is gone, or when the context is closed, the newest first. The garbage collector
may end an owner in any thread and at any time; in the midst of a capture freeing would spoil it, so it waits then.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from engines.cuda.driver.api import LOST, CudaError, DriverApi

log = logging.getLogger(__name__)

Free = Callable[[], None]
Ended: TypeAlias = "weakref.finalize[..., Any]"


class Context:
    """The first GPU's context. Raises `CudaError` where it cannot be had."""

    def __init__(self, api: DriverApi) -> None:
        self.api = api
        api("cuInit", 0)
        self.device: int = api.value(ctypes.c_int, "cuDeviceGet", 0)
        self._handle = api.handle("cuDevicePrimaryCtxRetain", self.device)
        # of this object, without a reference to it
        self._release = weakref.finalize(
            self, attempt, partial(api, "cuDevicePrimaryCtxRelease_v2", self.device)
        )
        self._release.atexit = False
        self._owned: dict[int, Ended] = {}
        self._lasting: set[int] = set()
        self._numbers = itertools.count()
        self._closed = False
        self._garbage: deque[tuple[int, Free]] = deque()
        self._capturing: set[int] = set()
        """Threads in the midst of a capture."""

    @contextmanager
    def current(self) -> Iterator[None]:
        """The context as this thread's. Raises `RuntimeError` after `close`."""
        if self._closed:
            raise RuntimeError("the GPU was closed before")
        with self._pushed():
            yield

    @contextmanager
    def _pushed(self) -> Iterator[None]:
        self.api("cuCtxPushCurrent_v2", self._handle)
        try:
            yield
        finally:
            attempt(partial(self.api.handle, "cuCtxPopCurrent_v2"))

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Nothing is freed in this thread meanwhile."""
        thread = threading.get_ident()
        self._capturing.add(thread)
        try:
            yield
        finally:
            self._capturing.discard(thread)
            self._collect()

    def own(self, owner: object, free: Free, *, lasting: bool = False) -> Ended:
        """Call `free` once, when `owner` is gone or the returned object is called; it must not refer to the owner.

        What is `lasting` outlives `close`: memory that somebody may still look at.
        """
        number = next(self._numbers)
        ended = weakref.finalize(owner, self._end, number, free)
        ended.atexit = False  # the end of the process frees everything, when libraries may be gone already
        self._owned[number] = ended
        if lasting:
            self._lasting.add(number)
        return ended

    def _end(self, number: int, free: Free) -> None:
        self._garbage.append((number, free))
        if threading.get_ident() not in self._capturing:
            self._collect()

    def _collect(self) -> None:
        while True:
            try:
                number, free = self._garbage.popleft()
            except IndexError:
                break
            attempt(partial(self._free, free))
            self._lasting.discard(number)
            self._owned.pop(number, None)
        if self._closed and not self._owned:
            self._release()

    def _free(self, free: Free) -> None:
        with self._pushed():
            free()

    def close(self) -> None:
        """Free everything but what is lasting; the context itself goes with the last of that. Idempotent."""
        self._closed = True
        for number, ended in reversed(list(self._owned.items())):
            if number not in self._lasting:
                ended()
        self._collect()


def attempt(call: Callable[[], object]) -> None:
    """Call what gives something back; a failure is only noted, since nothing can be done about it."""
    try:
        call()
    except CudaError as error:
        # a lost GPU fails every call, and was reported by the one that noticed
        level = logging.DEBUG if error.status in LOST else logging.WARNING
        # its text alone: the error would keep alive what its callers have, as long as somebody keeps the record
        log.log(level, "something on the GPU could not be freed: %s", str(error))
