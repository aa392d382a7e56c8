"""Training images from a pipeline: drawn anew all the time, kept for a while, and laid side by side.

DeepTrack takes some ms to seconds for an image, a step of the training 0.2 s for 16 crops of 128 px. So images are
kept in a store in which the oldest is replaced; what comes after the microscope (noise, flips) is drawn anew more
often, as it costs little. Crops are laid out of such images without gaps, from a random place on: objects are
then everywhere in a crop, as in a camera's image, also where the pipeline has one in the middle of a small one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.deeptrack.contrast import contrast_of, peaks_of
from calibration.deeptrack.labels import objects_of
from calibration.deeptrack.recording import Drawn, Recorder, Symmetry, random_seed
from calibration.deeptrack.survey import Units, check_size
from calibration.errors import CalibrationError
from calibration.matching import nearest_neighbour
from calibration.synthesis.scene import Particles, Scene
from engines.network.model_card import Polarity

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
MOST_PIXELS = 1 << 23
"""Pixels in the store, 12 bytes each and as many for each further wavelength: 2,048 images of 64 px, 128 of 256."""
NOTHING = np.empty((0, 0))
AGAIN = 4
"""Crops for each of which an image is drawn again behind the microscope, a few ms."""


class Tile(NamedTuple):
    """An image as the network gets it, contrast (H, W), with its objects: x, y, z, brightness, kind, values."""

    contrast: Float32Array
    x_px: FloatArray
    y_px: FloatArray
    z_um: FloatArray
    brightness: FloatArray
    kind: npt.NDArray[np.int64]
    values: FloatArray

    def where(self, chosen: npt.NDArray[np.bool_]) -> Tile:
        """The same image with the objects that `chosen` (N,) marks."""
        _, *columns = self
        return Tile(self.contrast, *(column[chosen] for column in columns))  # type: ignore[arg-type]


class PipelineSource:
    """Images of a pipeline, as `calibration.synthesis.Source`; unlike others it keeps a store, so no two threads.

    With `keeps` the store lasts from call to call; without, each call draws all of its images.
    """

    def __init__(self, recorder: Recorder, units: Units, *, keeps: bool = True) -> None:
        self._recorder, self._units, self._keeps = recorder, units, keeps
        self._drawn: list[Drawn] = []
        self._tiles: list[Tile] = []
        self._oldest, self._owed = 0, 0.0
        height, width = units.shape
        self._most = max(units.first, MOST_PIXELS // (height * width))

    @property
    def pixel_size_um(self) -> float:
        """Of the images, in object space."""
        return self._units.pixel_size_um

    @property
    def polarity(self) -> Polarity:
        """Of the particles."""
        return self._units.polarity

    def draw(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        count: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> Scene:
        """Draw `count` images (H, W) of contrast, laid out of those of the pipeline.

        From the same states of `rng` and of the store come the same images. Raises `CalibrationError` for another
        pixel type, and what the pipeline raises.
        """
        if np.dtype(dtype) != np.float32:
            raise CalibrationError(f"images of a pipeline are float32, not {np.dtype(dtype)}")
        if not self._keeps:
            self._drawn, self._tiles, self._oldest = [], [], 0
        self._refresh(rng, count)
        images = np.empty((count, *shape), np.float32)
        parts: list[tuple[int, Tile]] = []
        for number, image in enumerate(images):
            parts += [(number, tile) for tile in self._lay(rng, image)]
        return _scene(images, parts, self.pixel_size_um)

    def _refresh(self, rng: np.random.Generator, crops: int) -> None:
        """Bring the store up to date for so many crops."""
        if not self._drawn:
            for _ in range(self._units.first):
                self._add(self._recorder.draw(random_seed(rng)))
            return
        self._owed += crops / self._units.every
        while self._owed >= 1:
            self._owed -= 1
            self._add(self._recorder.draw(random_seed(rng)))
        if not self._recorder.is_separable:
            return
        for place in rng.integers(len(self._drawn), size=max(1, crops // AGAIN)).tolist():
            self._tiles[place] = self._tile(self._recorder.draw_again(self._drawn[place], random_seed(rng)))

    def _add(self, drawn: Drawn) -> None:
        tile = self._tile(drawn)
        drawn.image = NOTHING  # the tile has it
        if not self._recorder.is_separable:
            drawn.views = []
        if len(self._drawn) < self._most:
            self._drawn.append(drawn)
            self._tiles.append(tile)
            return
        self._drawn[self._oldest], self._tiles[self._oldest] = drawn, tile
        self._oldest = (self._oldest + 1) % self._most

    def _tile(self, drawn: Drawn) -> Tile:
        units = self._units
        check_size(self._recorder.loaded, drawn.image.shape, units.shape)
        contrast = contrast_of(drawn.image, units.normalisation, units.sign)
        found = objects_of(drawn, units.terms, units.angles)
        counted = np.array([units.sources[number] >= 0 for number in found.source], np.bool_)
        brightness = peaks_of(contrast, found.x_px, found.y_px, units.reach_px) / units.peak_contrast
        kind = np.array([max(units.sources[number], 0) for number in found.source], np.int64)
        z_um = found.z_um if units.depth else np.zeros_like(found.z_um)
        values = found.values * np.array(units.factors)
        tile = Tile(contrast, found.x_px, found.y_px, z_um, brightness, kind, values)
        return tile.where(counted)

    def _turned(self, rng: np.random.Generator, tile: Tile) -> Tile:
        """The image as the optics would make it of a turned or mirrored sample."""
        mirror, upside_down, transpose = (rng.random(3) < 0.5).tolist()
        if self._units.symmetry is Symmetry.NONE:
            return tile
        height, width = tile.contrast.shape
        about_diagonal = transpose and self._units.symmetry is Symmetry.ALL and height == width
        return turned(tile, mirror, upside_down, about_diagonal)

    def _lay(self, rng: np.random.Generator, out: Float32Array) -> list[Tile]:
        """Fill `out` with tiles from a random place on; returns them, with their objects where they are in it."""
        (height, width), (tall, wide) = out.shape, self._units.shape
        laid = []
        for top in _starts(rng, height, tall):
            for left in _starts(rng, width, wide):
                tile = self._turned(rng, self._tiles[int(rng.integers(len(self._tiles)))])
                rows, columns = slice(max(top, 0), top + tall), slice(max(left, 0), left + wide)
                part = out[rows, columns]
                first_row, first_column = rows.start - top, columns.start - left
                part[:] = tile.contrast[
                    first_row : first_row + part.shape[0], first_column : first_column + part.shape[1]
                ]
                mine = tile.where(_inside(tile, first_row, first_column, part.shape))
                laid.append(mine._replace(x_px=mine.x_px + left, y_px=mine.y_px + top))
        return laid


def turned(tile: Tile, mirror: bool, upside_down: bool, transpose: bool) -> Tile:
    """An image and its places, mirrored left to right, upside down, and about its diagonal, in this order."""
    contrast, x, y = tile.contrast, tile.x_px, tile.y_px
    if mirror:
        contrast, x = contrast[:, ::-1], contrast.shape[1] - 1 - x
    if upside_down:
        contrast, y = contrast[::-1], contrast.shape[0] - 1 - y
    if transpose:
        contrast, x, y = contrast.T, y, x
    return tile._replace(contrast=contrast, x_px=x, y_px=y)


def _starts(rng: np.random.Generator, size: int, side: int) -> Sequence[int]:
    """Where tiles of a `side` begin that fill a `size`: one at random within it, as many as are needed."""
    if side >= size:
        return [-int(rng.integers(side - size + 1))]
    return range(-int(rng.integers(side)), size, side)


def _inside(tile: Tile, top: int, left: int, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    x, y = tile.x_px - left, tile.y_px - top
    inside: npt.NDArray[np.bool_] = (x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5)
    return inside


def _scene(images: Float32Array, parts: list[tuple[int, Tile]], pixel_size_um: float) -> Scene:
    frame = np.concatenate([np.full(tile.x_px.size, number) for number, tile in parts]).astype(np.int64)
    x, y, z, brightness, kind, values = (
        np.concatenate([tile[column] for _, tile in parts]) for column in range(1, len(Tile._fields))
    )
    nearest = np.full(x.size, np.inf)
    for number in np.unique(frame):
        mine = frame == number
        nearest[mine] = nearest_neighbour(np.column_stack([x[mine], y[mine]]))
    particles = Particles(frame, x, y, z, brightness, nearest, kind.astype(np.int64), values)
    return Scene(images, particles, particles.where(np.zeros(x.size, np.bool_)), pixel_size_um)
