"""Ctrl-C during a long call of a library that drops the exceptions of what it calls back."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from engines.tensorrt.aside import aside


class Library:
    """Calls back all the time, and drops every exception, until it is stopped."""

    def __init__(self, interrupted_after_s: float) -> None:
        self.finger = threading.Timer(interrupted_after_s, signal.raise_signal, [signal.SIGINT])
        self.stopped, self.ended, self.dropped = threading.Event(), False, 0

    def call(self) -> str:
        self.finger.start()
        while not self.stopped.is_set():
            try:
                self.back()
            except BaseException:  # noqa: BLE001 - that is the point
                self.dropped += 1
        time.sleep(0.2)
        self.ended = True
        return "done"

    def back(self) -> None:
        sum(range(1000))


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.01, 0.05, 0.3])
def test_ctrl_c_stops_the_call_and_is_raised_when_it_has_ended(after_s):
    library = Library(after_s)
    with pytest.raises(KeyboardInterrupt):
        aside(library.call, library.stopped.set)
    library.finger.join()
    assert library.ended
    assert not library.dropped


def test_the_result_or_the_error_is_that_of_the_call():
    assert aside(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 // 0)


def test_the_call_is_in_another_thread():
    assert aside(threading.current_thread) is not threading.current_thread()
