"""Long calls of TensorRT's, in a thread of their own.

A signal is handled between two steps of Python's main thread. If TensorRT has just called back there, with a
message or a step of a build, the `KeyboardInterrupt` ends inside TensorRT, which drops it, and Ctrl-C is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

Result = TypeVar("Result")

LOOK_S = 0.1
"""Between two looks for Ctrl-C, which on Windows does not end a wait; a fifth of the shortest build."""


def aside(work: Callable[[], Result], stop: Callable[[], None] = lambda: None) -> Result:
    """The result of `work`, done in a thread. Where the wait for it is interrupted, `stop` is called first.

    An interruption is raised when the work has ended: nothing of it goes on behind the caller's back.
    """
    begin, outcome = threading.Event(), Future[Result]()

    def run() -> None:
        begin.wait()
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            outcome.set_exception(error)

    try:
        threading.Thread(target=run, name="tensorrt").start()
        begin.set()
        _wait(outcome)
    except BaseException:
        stop()
        if not outcome.cancel():  # it has begun
            _wait(outcome)
        raise
    finally:
        begin.set()
    return outcome.result()


def _wait(outcome: Future[Result]) -> None:
    while not outcome.done():
        wait([outcome], LOOK_S)
