"""What the first volumes tell of all, looked for in a thread beside the run until one of them shows enough."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from engines.volumes.detector import unchangeable

Found = TypeVar("Found")

LIFE_S = 0.1
"""s between two signs of life while somebody waits; the session takes five a second."""


class FirstVolume(Generic[Found]):
    """Looks at one volume at a time. All methods belong to one thread; only `wait` keeps it waiting."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._found: Found | None = None
        self._error: Exception | None = None
        self.frame = -1
        """The frame that was given last; -1: none."""

    @property
    def is_seeking(self) -> bool:
        """Whether a volume is being looked at."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def found(self) -> Found | None:
        """What was found; None as long as nothing is. Raises what the look has raised."""
        if self.is_seeking:
            return None
        if self._error is not None:
            raise self._error
        return self._found

    @property
    def has_looked(self) -> bool:
        """Whether a volume has been looked at to the end."""
        return self.frame >= 0 and not self.is_seeking

    def seek(
        self, frame: int, image: npt.NDArray[Any], look: Callable[[npt.NDArray[Any]], Found | None]
    ) -> None:
        """Begin to `look` at a volume (Z, H, W), which is copied; none may be looked at already."""
        self.frame, image = frame, unchangeable(image.copy())

        def work() -> None:
            try:
                self._found = look(image)
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asks
                self._error = error

        # a daemon: a run that ends meanwhile does not wait for it
        self._thread = threading.Thread(target=work, name="first volume", daemon=True)
        self._thread.start()

    def wait(self, while_waiting: Callable[[], None]) -> Found | None:
        """What was found, once the volume has been looked at; `while_waiting` is called several times a second."""
        while self._thread is not None and self._thread.is_alive():
            while_waiting()
            self._thread.join(LIFE_S)
        return self.found
