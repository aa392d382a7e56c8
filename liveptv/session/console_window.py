"""Windows: runs a function when the console window is closed, about 5 s before Windows ends the process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

CLOSED, LOGOFF, SHUTDOWN = 2, 5, 6  # CTRL_CLOSE_EVENT and the two after it, winbase.h

_kept: list[Any] = []


def before_it_closes(act: Callable[[], None]) -> None:
    """On Windows, call `act` in a thread of the system before this process is ended with its console.

    Other systems send SIGHUP, which a stage ignores and the session treats as a stop.
    """
    if sys.platform == "win32":
        _register(act)


def _register(act: Callable[[], None]) -> None:
    import ctypes
    from ctypes import wintypes

    def handle(event: int) -> bool:
        if event in {CLOSED, LOGOFF, SHUTDOWN}:
            act()
            return True
        return False

    windows: Any = ctypes  # what only Windows has
    handler = windows.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)(handle)
    _kept.append(handler)  # Windows calls it later: it must not be collected
    windows.windll.kernel32.SetConsoleCtrlHandler(handler, True)
