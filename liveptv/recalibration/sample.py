"""A bounded sample of a run: some of its newest images, with their tracks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from calibration.recalibration.sightings import Recorded
from liveptv.recalibration.contrast import Contrasts
from stream.messages import Frame, Tracks

Float32Array = npt.NDArray[np.float32]

MOST_FRAMES = 60
"""Images kept. A particle at rest needs 8 of them; ten lone particles in each give the 600 that are fitted."""
MOST_BYTES = 128 << 20
"""Their memory: 64 images of 1 Mpx with 16 bits. Larger images show more particles, so that fewer are needed."""


class Sample:
    """The newest `frames_for` images of one shape and pixel size, each with the tracks of its frame."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Frame, Tracks]] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the images, (H, W); (0, 0) without any."""
        return self._kept[-1][0].image.shape if self._kept else (0, 0)

    @property
    def pixel_size_um(self) -> float:
        """Of the images; NaN without any."""
        return self._kept[-1][0].info.pixel_size_um if self._kept else float("nan")

    def add(self, frame: Frame, tracks: Tracks) -> None:
        """Keep a frame and its tracks; those of other images (another objective or region) are forgotten."""
        if frame.image.shape != self.shape or frame.info.pixel_size_um != self.pixel_size_um:
            self._kept.clear()
        self._kept.append((frame, tracks))
        while len(self._kept) > frames_for(frame.image.nbytes):
            self._kept.popleft()

    def recorded(self) -> Recorded:
        """The rows of all frames; `frame` counts the images that are kept, from 0."""
        parts = [_rows(number, tracks) for number, (_, tracks) in enumerate(self._kept)]
        pixel_um = self.pixel_size_um
        track, frame, x, y, z, sigma_x, sigma_y, sigma_z, focus, used = np.concatenate(parts, axis=1)
        return Recorded(
            track.astype(np.int64),
            frame.astype(np.int64),
            x / pixel_um,
            y / pixel_um,
            z,
            np.hypot(sigma_x, sigma_y) / np.sqrt(2) / pixel_um,
            sigma_z,
            focus,
            used > 0,
        )

    def images(self, contrasts: Contrasts) -> _Images:
        """The images for the estimate, by the numbers in `recorded`."""
        return _Images(list(self._kept), contrasts)


class _Images:
    def __init__(self, kept: list[tuple[Frame, Tracks]], contrasts: Contrasts) -> None:
        self._kept, self._contrasts = kept, contrasts

    def __call__(self, numbers: list[int]) -> Iterator[tuple[int, Float32Array, float, float]]:
        for number in numbers:
            contrast = self._contrasts(self._kept[number][0].image)
            if contrast is not None:
                yield number, *contrast


def frames_for(nbytes: int) -> int:
    """How many images of so many bytes are kept."""
    return max(1, min(MOST_FRAMES, MOST_BYTES // max(nbytes, 1)))


def _rows(number: int, tracks: Tracks) -> npt.NDArray[np.float64]:
    used = (tracks.flags == 0) & np.isfinite(tracks.z_um)  # others are neighbours only
    same = np.full((2, len(tracks)), [[number], [tracks.info.focus_um]], np.float64)
    return np.stack(
        [
            tracks.track,
            same[0],
            tracks.x_um,
            tracks.y_um,
            tracks.z_um,
            tracks.sigma_x_um,
            tracks.sigma_y_um,
            tracks.sigma_z_um,
            same[1],
            used.astype(np.float64),
        ]
    )
