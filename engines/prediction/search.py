"""A frame searched with a prediction: correct the expected particles, read what is left over, fit what is new.

The result is a function of the image, the predictions and the frame's number, and of nothing else.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.blocks import BLOCK_PX
from engines.prediction.assembly import SIGMA_Z, Merged, Prepared, Reading, merged
from engines.prediction.correction import Corrected, begin, correct, part_absent, usable
from engines.prediction.expected import Expected, expected_in
from engines.prediction.finds import at_edge, confirmed
from engines.prediction.residual import left_over
from engines.prediction.tiles import (
    MOST_READ,
    Rectangle,
    blocks_around,
    piece,
    pixels_read,
    rectangles,
)
from engines.refine.arguments import BoolArray, FloatArray
from engines.refine.presence import put_all
from engines.refine.refiner import Refiner
from engines.refine.rendering import X, Y, Z
from engines.refine.residual_bins import BIN_PX
from engines.refine.turns import Allowance
from stream.messages import Frame, Predictions

MOST_LOST = 0.25
"""Part of the predictions that may fail before the network reads the whole frame: the picture has changed. A few
percent fail as tracks end."""
SEARCHED_PX, MOST_SEARCHED_PX, SEARCHED_SIGMAS = 8.0, 48.0, 3.0
"""px around the prediction of a particle that is not believed that are searched beside three of its standard
deviations, and the most of it."""

Read = Callable[[list[Rectangle]], Reading]
"""Has the network read rectangles of blocks."""


class PredictedSearch:
    """Searches frames with predictions; several threads may use it at once, one frame each.

    `reach` is how many blocks of pixels around a rectangle the network needs.
    """

    def __init__(self, refiner: Refiner, pixel_size_um: float, reach: int) -> None:
        self._refiner, self._pixel_size_um, self._reach = refiner, pixel_size_um, reach
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def counts(self) -> dict[str, float]:
        """Totals so far: particles that were `predicted`, `searched` for, and `ghosts`; `frames`, the `whole` ones.

        `tiles_px` is the part of all pixels of these frames that the network has read.
        """
        with self._lock:
            found: dict[str, float] = {
                name: self._counts[name] for name in ("predicted", "searched", "ghosts", "frames", "whole")
            }
            found["tiles_px"] = round(self._counts["read_px"] / max(self._counts["frame_px"], 1), 4)
        return found

    def forget(self) -> None:
        """Forget what was counted so far."""
        with self._lock:
            self._counts.clear()

    def search(
        self,
        frame: Frame,
        image: npt.NDArray[Any],
        full_light: float | None,
        predicted: Predictions,
        read: Read,
        allowed: Allowance,
    ) -> npt.NDArray[np.float64] | None:
        """The table (columns, N) of the particles in a frame, local; None where it has to be searched as a whole.

        `image` (H, W) and `full_light` are those of `Refiner.refine`.
        """
        shape = (image.shape[0], image.shape[1])
        found: Merged | None = None
        pixels = image.size
        expected = expected_in(predicted, frame.info, shape, self._refiner.model, self._pixel_size_um)
        if expected is not None and _is_known(expected):
            prepared = Prepared(*self._refiner.prepare(image, full_light))
            corrected = self._corrected(prepared, expected)
            if corrected is not None:
                parts = self._parts(prepared, expected, corrected, frame.info.frame)
                reading = read(parts)
                pixels = reading.pixels
                if parts == [Rectangle(0, reading.read.shape[0], 0, reading.read.shape[1])]:
                    start = self._refiner.start(reading.table)
                    psf = self._refiner.model.for_kernels(shape)
                    corrected = confirmed(corrected, start, reading.table[SIGMA_Z], shape, psf)
                found = merged(self._refiner, prepared, corrected, reading, self._pixel_size_um, allowed)
                ghosts = int((corrected.ghost & (expected.missed == 0)).sum()) + found.ghosts
        with self._lock:
            self._counts.update(frames=1, frame_px=image.size, read_px=pixels)
            if found is None:
                self._counts["whole"] += 1
                return None
            searched = found.table.shape[1] - found.predicted
            self._counts.update(predicted=found.predicted, searched=max(searched, 0), ghosts=ghosts)
        return found.table

    def _corrected(self, prepared: Prepared, expected: Expected) -> Corrected | None:
        """The expected particles after their fit; None where too many are not where they should be."""
        contrast, total, light, noise = prepared
        model = self._refiner.model
        psf = model.for_kernels(contrast.shape)
        peak = np.maximum(model.peak_at(expected.place[:, Z]) * light, 1e-9)
        particles = begin(expected, expected.brightness / peak)
        if not particles.usable.any():
            return None
        total.fill(0)
        put_all(total, particles.theta, particles.usable, 1.0, psf)
        if part_absent(contrast, total, particles, psf) > MOST_LOST:
            return None
        variance = self._refiner.noise_of(noise)
        return correct(contrast, total, particles, expected, model, psf, variance, self._refiner.fit_all)

    def _parts(
        self, prepared: Prepared, expected: Expected, corrected: Corrected, frame: int
    ) -> list[Rectangle]:
        """What the network has to read of a frame of this number, which may be all of it."""
        height, width = prepared.contrast.shape
        blocks = (-(-height // BLOCK_PX), -(-width // BLOCK_PX))
        all_of_it = [Rectangle(0, blocks[0], 0, blocks[1])]
        seen = expected.missed == 0
        if (~corrected.believed & seen).sum() > MOST_LOST * seen.sum():
            return all_of_it
        bins = left_over(prepared.contrast, prepared.total, self._refiner.noise_of(prepared.noise))
        wanted = blocks_around(bins, BIN_PX, blocks)
        wanted |= _around(expected, ~corrected.believed & ~corrected.ghost, blocks)
        edge = at_edge(corrected.particles.theta, (height, width))
        wanted |= blocks_at(corrected.particles.theta, corrected.believed & edge, blocks)
        wanted |= piece(frame, blocks)
        parts = rectangles(wanted, self._reach)
        return all_of_it if pixels_read(parts, self._reach, blocks) > MOST_READ * height * width else parts


def _is_known(expected: Expected) -> bool:
    """Whether enough of the particles seen of late are predicted well enough for a fit to start there."""
    known, seen = usable(expected), expected.missed == 0
    return bool(known.any() and (known & seen).sum() >= (1.0 - MOST_LOST) * seen.sum())


def blocks_at(place: FloatArray, which: BoolArray, blocks: tuple[int, int]) -> BoolArray:
    """The blocks (h, w) that hold the places (N, 2 or more: x px, y px) of `which` (N,)."""
    out = np.zeros(blocks, np.bool_)
    at = np.clip(np.rint(place[which][:, [Y, X]]).astype(np.int64) // BLOCK_PX, 0, np.array(blocks) - 1)
    out[at[:, 0], at[:, 1]] = True
    return out


def _around(expected: Expected, which: BoolArray, blocks: tuple[int, int]) -> BoolArray:
    """The blocks (h, w) around the predictions `which` (N,)."""
    out = np.zeros(blocks, np.bool_)
    reach = np.minimum(SEARCHED_PX + SEARCHED_SIGMAS * expected.sigma[:, :2], MOST_SEARCHED_PX)
    low, high = expected.place[:, :2] - reach, expected.place[:, :2] + reach
    for i in np.flatnonzero(which):
        first = np.maximum(low[i] // BLOCK_PX, 0).astype(np.int64)
        last = np.maximum(high[i] // BLOCK_PX, 0).astype(np.int64) + 1
        out[first[Y] : last[Y], first[X] : last[X]] = True
    return out
