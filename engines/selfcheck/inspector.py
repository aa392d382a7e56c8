"""One look at a frame and what was found in it: all checks of the images, without threads or clocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engines.flatfield import FlatField
from engines.pixel_noise import pixel_noise
from engines.refine.arguments import FloatArray
from engines.refine.psf import FitModel
from engines.selfcheck.directions import Directions
from engines.selfcheck.dust import DustCheck
from engines.selfcheck.images import Found, ImageCheck
from engines.selfcheck.light import LightCheck
from stream.messages import DetectionFlag, Detections, FrameInfo

PER_LOOK = 10
"""Particles whose images are compared in a look: 50 a second at five looks, which costs a fortieth of a core."""
MEDIAN_STRIDE = 7
NOISE_SAMPLES = 20_000
DUST_PERIOD_S = 1.0
REHEARSED = 4  # particles of the image that is looked at before the first one


class Inspector:
    """Takes frames of one size with their detections; `look` returns what is sure since, each cause once."""

    def __init__(
        self, model: FitModel, pixel_size_um: float, flat_field: FlatField | None = None, seed: int = 0
    ) -> None:
        self._model = model
        self._flat_field = flat_field
        self._pixel_um = pixel_size_um
        self._directions = Directions(model)
        self._rng = np.random.default_rng(seed)
        self._shape: tuple[int, int] | None = None
        self._said: set[str] = set()
        self._dust_due_s = -np.inf

    def rehearse(self, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
        """Look at an empty image (H, W) in which particles are said to be, and forget it.

        The first look takes ten times as long as later ones: 130 ms for 1440 x 2560 px.
        """
        grey = np.iinfo(np.dtype(dtype)).max // 2
        middle_um = 0.5 * (self._model.z_min_um + self._model.z_max_um)
        row, table = Detections.COLUMNS.index, np.full((len(Detections.COLUMNS), REHEARSED), np.nan)
        for name, size in (("x_um", shape[1]), ("y_um", shape[0])):
            table[row(name)] = np.linspace(0, (size - 1) * self._pixel_um, REHEARSED + 2)[1:-1]
        table[row("z_um")], table[row("brightness")], table[row("flags")] = middle_um, 0.1 * grey, 0.0
        info = FrameInfo("rehearsal", 0, 0, 0.0, 0, 0.0, pixel_size_um=self._pixel_um)
        state = self._rng.bit_generator.state
        self.look(np.full(shape, grey, dtype), Detections(info, table), -np.inf)
        self._rng.bit_generator.state = state
        self._shape, self._dust_due_s = None, -np.inf
        self._said.clear()

    def _begin(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self.images = ImageCheck(self._directions, shape)
        self.light = LightCheck()
        self.dust = DustCheck()

    def look(self, image: npt.NDArray[Any], detections: Detections, now_s: float) -> list[str]:
        """Judge an image (H, W) of the camera and what was found in it; `now_s` spaces the looks for dust."""
        shape = (int(image.shape[0]), int(image.shape[1]))
        if shape != self._shape:
            self._begin(shape)
        seen = image.astype(np.float32)
        if self._flat_field is not None:
            flat = self._flat_field
            seen = (seen - flat.dark) * flat.factor * np.float32(flat.grey_values)
        background = max(float(np.median(seen[::MEDIAN_STRIDE, ::MEDIAN_STRIDE])), 1e-6)
        sign = np.float32(-1.0 if self._model.polarity == "dark" else 1.0)
        contrast = sign * (seen / np.float32(background) - np.float32(1.0))
        noise = pixel_noise(contrast, max(1, contrast.size // 4 // NOISE_SAMPLES))
        level = max(noise**2, 1.0 / 12.0 / background**2) / (self._model.read + self._model.shot)
        theta = self._local(detections, background)
        fitted = (detections.flags.astype(np.int64) & DetectionFlag.REDUCED == 0) & np.isfinite(theta).all(
            axis=1
        )
        fitted &= (theta[:, 2] > self._model.z_min_um) & (theta[:, 2] < self._model.z_max_um)
        alone = self.images.alone(theta)
        alone = alone[fitted[alone]]
        if alone.size:
            some = self._rng.choice(alone, min(PER_LOOK, alone.size), replace=False)
            variances = self._model.read * level, self._model.shot * level
            self.images.add(contrast, theta[some], variances, int(alone.size))
        self.light.add(background, theta[fitted, 3] * background, detections.info.exposure_ms)
        found = [*self.images.judge(), *self.light.judge()]
        if now_s >= self._dust_due_s:
            self._dust_due_s = now_s + DUST_PERIOD_S
            found += self.dust.add(contrast, *self._places(detections), noise)
        return self._first(found)

    def _places(self, detections: Detections) -> tuple[FloatArray, FloatArray]:
        """Where particles are, fitted or not, (N, 2: x, y) px, and how far their images reach (N,) px."""
        place = np.column_stack([detections.x_um, detections.y_um]) / self._pixel_um
        there = np.isfinite(place).all(axis=1)
        extent = self._model.extent_px.max(axis=1)
        nodes = self._model.z_first_um + self._model.z_step_um * np.arange(extent.size)
        reach = np.interp(detections.z_um, nodes, extent)
        return place[there], np.where(np.isfinite(reach), reach, extent.max())[there]

    def _local(self, detections: Detections, background: float) -> FloatArray:
        """Places and brightness (N, 4) as the PSF model has them."""
        x, y = detections.x_um / self._pixel_um, detections.y_um / self._pixel_um
        place = np.column_stack([x, y, detections.z_um])
        if self._model.field is not None:
            origin = self._model.origin_px(self._shape)[::-1]
            place[:, :2] += origin
            place = self._model.field.to_local(place)
            place[:, :2] -= origin
        peak = np.maximum(self._model.peak_at(place[:, 2]), 1e-9)
        return np.column_stack([place, detections.brightness / background / peak])

    def _first(self, found: list[Found]) -> list[str]:
        new = [one for one in found if one.name not in self._said]
        self._said.update(one.name for one in new)
        return [one.text for one in new]

    def facts(self) -> dict[str, object]:
        """JSON-able: the images against the calibration's, the light against that of the beginning, the dust."""
        if self._shape is None:
            return {}
        spots = [[round(x), round(y)] for x, y in self.dust.spots[:20]]
        return self.images.facts() | self.light.facts() | ({"dust_px": spots} if spots else {})
