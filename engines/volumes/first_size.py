"""The size of a spot, estimated in a thread beside the run from one volume after another until one shows enough."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engines.volumes.detector import unchangeable
from engines.volumes.spot_size import Triple, estimate_spot_size

LIFE_S = 0.1
"""s between two signs of life while somebody waits; the session takes five a second."""


class Size(NamedTuple):
    """Standard deviations (z, y, x) of a spot in voxels, from how many `spots` of which `frame`."""

    sigma: Triple
    spots: int
    frame: int


class FirstSize:
    """Looks for the size of a spot. All methods belong to one thread; only `wait` keeps it waiting."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._found: Size | None = None
        self._error: Exception | None = None
        self.frame = -1
        """The frame that was given last; -1: none."""

    @property
    def is_seeking(self) -> bool:
        """Whether a volume is being looked at."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def found(self) -> Size | None:
        """What was found; None as long as nothing is. Raises what the estimate has raised."""
        if self.is_seeking:
            return None
        if self._error is not None:
            raise self._error
        return self._found

    def seek(self, frame: int, image: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> None:
        """Begin to look at a volume (Z, H, W), which is copied; none may be looked at already."""
        self.frame, image = frame, unchangeable(image.copy())

        def look() -> None:
            try:
                found = estimate_spot_size(image, missing)
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asks
                self._error = error
                return
            self._found = None if found is None else Size(*found, frame)

        # a daemon: a run that ends meanwhile does not wait for it
        self._thread = threading.Thread(target=look, name="spot size", daemon=True)
        self._thread.start()

    def wait(self, while_waiting: Callable[[], None]) -> Size | None:
        """What was found, once the volume has been looked at; `while_waiting` is called several times a second."""
        while self._thread is not None and self._thread.is_alive():
            while_waiting()
            self._thread.join(LIFE_S)
        return self.found
