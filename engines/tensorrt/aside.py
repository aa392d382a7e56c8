"""Long calls of TensorRT's, in a thread of their own.

A signal is handled between two steps of Python's main thread. Were that in one of TensorRT's calls back (a message, a
step of a build), the `KeyboardInterrupt` would end inside TensorRT, which drops it, and Ctrl-C would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")

LOOK_S = 0.1
"""Between two looks for Ctrl-C, which on Windows does not end a wait; a fifth of the shortest build."""


def aside(work: Callable[[], Result], stop: Callable[[], None] = lambda: None) -> Result:
    """The result of `work`, done in a thread. Where the wait for it is interrupted, `stop` is called first.

    An interruption is raised when the work has ended: nothing of it goes on behind the caller's back.
    """
    with ThreadPoolExecutor(1, "tensorrt") as pool:
        running = pool.submit(work)
        try:
            while not running.done():
                wait([running], LOOK_S)
        except BaseException:
            stop()
            raise
        return running.result()
