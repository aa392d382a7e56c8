"""The truth of a simulated sequence: the true position of every visible particle, as CSV."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from acquisition.physics.rendering import Sight, in_sight
from acquisition.simulated.world import Particles
from stream.errors import OutputError

TRUTH_COLUMNS = ("frame", "particle", "x_um", "y_um", "z_um", "height_um", "vx_um_s", "vy_um_s", "time_s")
PARTICLE_COLUMNS = ("particle", "x_um", "y_um", "height_um")
_FLUSH_S = 0.5  # s between two flushes of the file
NONE = Particles(0.0, np.empty(0, np.int64), *(np.empty(0),) * 6)
Describe = Callable[[Particles], Mapping[str, npt.NDArray[np.float64]]]


class TruthFile:
    """Writes the visible particles of each frame; an existing file is replaced.

    `frame` is the frame number of the camera. Frames lost in the camera have no rows. `describe` gives further
    columns of the particles, always the same ones.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], optics: Sight, describe: Describe = lambda _: {}
    ) -> None:
        self.path, self._shape, self._optics, self._describe = path, shape, optics, describe
        try:
            self._file: TextIO = path.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise OutputError(
                f"the truth file {path} cannot be written ({error.strerror}); choose another TruthFile"
            ) from error
        self._flushed_s = time.monotonic()
        self._write(",".join((*TRUTH_COLUMNS, *describe(NONE))) + "\n")

    def add(self, frame: int, particles: Particles) -> None:
        """Write the rows of one frame; they reach the disk within half a second of further frames."""
        p = particles
        seen = in_sight(p.x_um, p.y_um, p.z_um, self._shape, self._optics)
        columns = (p.x_um, p.y_um, p.z_um, p.height_um, p.vx_um_s, p.vy_um_s)
        more = [values[seen].tolist() for values in self._describe(p).values()]
        ends = zip(*more, strict=True) if more else [()] * int(seen.sum())
        rows = zip(p.identity[seen].tolist(), *(c[seen].tolist() for c in columns), ends, strict=True)
        self._write(
            "".join(
                f"{frame},{i},{x:.4f},{y:.4f},{z:.4f},{h:.4f},{vx:.4f},{vy:.4f},{p.time_s:.6f}"
                + "".join("," if math.isnan(value) else f",{value:.6g}" for value in end)
                + "\n"
                for i, x, y, z, h, vx, vy, end in rows
            )
        )
        now = time.monotonic()
        if now - self._flushed_s >= _FLUSH_S:
            self._file.flush()
            self._flushed_s = now

    def close(self) -> None:
        """Write the rest and close. Idempotent."""
        self._file.close()

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            raise OutputError(
                f"the truth file {self.path} cannot be written ({error.strerror}); free some space"
            ) from error


def write_particles(path: Path, particles: Particles) -> None:
    """Write all particles, at any depth and also around the image; an existing file is replaced.

    A particle is in the mid-plane when the focus is at its `height_um`.
    """
    p = particles
    rows = zip(p.identity.tolist(), p.x_um.tolist(), p.y_um.tolist(), p.height_um.tolist(), strict=True)
    lines = [",".join(PARTICLE_COLUMNS), *(f"{i},{x:.4f},{y:.4f},{height:.4f}" for i, x, y, height in rows)]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the particles' positions cannot be written to {path} ({error.strerror}); choose another ParticlesFile"
        ) from error
