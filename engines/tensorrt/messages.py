"""TensorRT's log messages and build progress, passed on."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

KEPT_MESSAGES = 5
"""Last errors that are repeated in an error of ours."""
LONGEST = 160
"""Characters of an error of TensorRT's in a line of ours."""
PLACE = re.compile(r"\bIn \w+ at \S+:\d+")
"""Where in its source an error is from; the log has it."""
Progress = Callable[[str, int, int], None]
"""Called with each step: its name, steps done, steps in total."""


class Messages:
    """Passes TensorRT's messages on to the log, and keeps the last errors.

    There is one for a module (`messages_of`): while anything of TensorRT's lives, it ignores every logger but the
    first that it got.
    """

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        levels = {
            trt.ILogger.Severity.INTERNAL_ERROR: logging.INFO,  # they are in an error of ours
            trt.ILogger.Severity.ERROR: logging.INFO,
            trt.ILogger.Severity.WARNING: logging.WARNING,
            trt.ILogger.Severity.INFO: logging.DEBUG,
        }
        errors: deque[str] = deque(maxlen=KEPT_MESSAGES)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                level = levels.get(severity)
                if level is not None:
                    log.log(level, "TensorRT: %s", msg)
                if level == logging.INFO:
                    errors.append(" ".join(PLACE.sub("", msg).split()))

        self.logger = Logger()
        self._errors = errors

    def errors(self) -> str:
        """The last errors in one line."""
        return "; ".join(self._errors) or "no reason given"

    def first(self) -> str:
        """The first error, cut off where it is long."""
        return next(iter(self._errors), "no reason given")[:LONGEST]

    def forget(self) -> None:
        """Drop the errors so far, before something that may add its own."""
        self._errors.clear()


_MESSAGES: dict[int, Messages] = {}


def messages_of(trt: Any) -> Messages:
    """Those of a module, always the same ones."""
    if id(trt) not in _MESSAGES:
        _MESSAGES[id(trt)] = Messages(trt)  # which keeps the module, and so its number
    return _MESSAGES[id(trt)]


def monitor_of(trt: Any, progress: Progress) -> Any:
    """A monitor that reports a build to `progress`; `stop` ends it, as does a `KeyboardInterrupt` of `progress`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False
            self._steps: dict[str, int] = {}

        def stop(self) -> None:
            self.stopped = True

        def _tell(self, phase: str, done: int) -> None:
            try:
                progress(phase, done, self._steps.get(phase, 0))
            except KeyboardInterrupt:  # must not pass through the library
                self.stopped = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._steps.pop(phase_name, 0))

    return Monitor()
