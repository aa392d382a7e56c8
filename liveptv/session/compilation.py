"""Notices that a stage compiles, so that a long start can say why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

COMPILING = "compiling"
"""Gauge of a stage: 1 from the first kernel that it has to compile on, while it starts."""


@contextmanager
def noticing_compilation(notice: Callable[[], None]) -> Iterator[None]:
    """Call `notice` once, when numba begins to compile something that its cache does not have."""
    from numba.core import event

    class First(event.Listener):
        noticed = False

        def on_start(self, event: Any) -> None:
            if not self.noticed:
                self.noticed = True
                notice()

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", First()):
        yield
