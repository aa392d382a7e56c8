"""The first look at volumes, in a thread beside the run, at one after another until one shows enough particles."""

from __future__ import annotations

import threading
from collections.abc import Callable

from engines.volumes.first_look import FirstLook

LIFE_S = 0.1
"""s between two signs of life while somebody waits; the session takes five a second."""


class FirstSize:
    """Looks for the size of a spot and what else `first_look` says. All methods belong to one thread; only `wait`
    keeps it waiting."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._found: FirstLook | None = None
        self._error: Exception | None = None
        self.frame = -1
        """The frame that was given last; -1: none."""

    @property
    def is_seeking(self) -> bool:
        """Whether a volume is being looked at."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def found(self) -> FirstLook | None:
        """What was found; None as long as nothing is. Raises what the estimate has raised."""
        if self.is_seeking:
            return None
        if self._error is not None:
            raise self._error
        return self._found

    @property
    def has_looked(self) -> bool:
        """Whether a volume has been looked at to the end."""
        return self.frame >= 0 and not self.is_seeking

    def seek(self, frame: int, look: Callable[[], FirstLook | None]) -> None:
        """Begin to `look` at the volume of a `frame`; none may be looked at already."""
        self.frame = frame

        def run() -> None:
            try:
                self._found = look()
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asks
                self._error = error

        # a daemon: a run that ends meanwhile does not wait for it
        self._thread = threading.Thread(target=run, name="spot size", daemon=True)
        self._thread.start()

    def wait(self, while_waiting: Callable[[], None]) -> FirstLook | None:
        """What was found, once the volume has been looked at; `while_waiting` is called several times a second."""
        while self._thread is not None and self._thread.is_alive():
            while_waiting()
            self._thread.join(LIFE_S)
        return self.found
