"""Training images of a few objects that were seen: in any direction, a little larger or smaller, or brighter.

Objects are pasted as in `cut_and_paste`, but where only a few were seen the truth has to come from symmetry, and
the variety from what is alike: an object is the same wherever it is, in whatever direction it lies.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.synthesis.background import gaussian_field
from calibration.synthesis.canvas import Canvas, Light
from calibration.synthesis.inputs import Distribution, NoiseModel, Polarity
from calibration.synthesis.layout import Layout, Spread, positions
from calibration.synthesis.looks import Looks, Seen, draw_looks
from calibration.synthesis.scene import Scene
from calibration.synthesis.sources import HERE, Placed, Synthesis, View

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

AT_QUARTERS = 0.5
"""Part of the objects that are turned by whole quarters, as those lie that are aligned with the camera."""
LEAST_LIGHT = 1e-3
NO_DEPTH_SD = 0.3
"""Spread of the depths of objects that have none: at random, so that a network learns that it cannot tell them."""


class Surroundings(NamedTuple):
    """What is behind the objects.

    Largest contrast of uneven light (standard deviation) and the lengths in px over which it changes, from and to;
    contrast of structures that are no objects, and their lengths; most images have an eighth of both, or less.
    Images (K, H, W) of a real background in contrast, or none.
    """

    uneven: float
    uneven_px: tuple[float, float]
    clutter: float
    clutter_px: tuple[float, float]
    images: Float32Array | None = None


class Varied(Synthesis):
    """Draws objects that were seen, in every direction and mirrored.

    `peaks` (M,) are the contrasts of the looks' peaks over the mean one, which is the unit of brightness; `stretch`
    (M,) is by how much, as a natural logarithm, an object may be longer or shorter along each of two axes, `light`
    the distribution of brightness over that of the look. Images are divided by their median, as an engine does.
    """

    def __init__(
        self,
        looks: Looks,
        peaks: FloatArray,
        stretch: FloatArray,
        light: Distribution,
        noise: NoiseModel,
        surroundings: Surroundings,
        layout: Layout,
        pixel_size_um: float,
        polarity: Polarity,
    ) -> None:
        super().__init__(pixel_size_um, polarity, noise, None, 1)
        self.looks, self.peaks, self.stretch, self.light = looks, peaks, stretch, light
        self.surroundings, self.layout = surroundings, layout
        largest = float((looks.reach_px * np.exp(stretch)).max())
        self._spread = Spread(layout.near_variance_px2 or largest**2, layout.limit_px or 2.0 * largest)
        self._margin_px = math.ceil(largest)

    def draw(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        count: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> Scene:
        """Draw images as `Synthesis.draw` says, in contrast against their own median."""
        scene = super().draw(rng, shape, count, dtype)
        if scene.images.dtype.kind == "f":
            median = np.median(scene.images, axis=(1, 2), keepdims=True)
            light = np.maximum(1.0 + self.sign * median, LEAST_LIGHT).astype(np.float32)
            scene.images[:] = (scene.images + np.float32(self.sign) * (1.0 - light)) / light
        return scene

    def place(self, rng: np.random.Generator, canvas: Canvas, view: View = HERE) -> Placed:
        """Draw the objects of one image, as `Synthesis.place` says, and what is behind them."""
        shape, margin = canvas.contrast.shape, self._margin_px
        self._put_behind(rng, canvas)
        first, second = self.layout.numbers(rng, math.prod(size + 2 * margin for size in shape))
        count = first + second
        chosen = rng.integers(0, self.peaks.size, count)
        stretch = self.stretch[chosen]
        along, across = np.exp(stretch * rng.uniform(-1, 1, (2, count)))
        brightness = self.light.draw(rng, count)
        half = np.repeat((self.looks.reach_px[chosen] * np.exp(stretch))[:, None], 2, axis=1)
        y, x = positions(rng, self.layout, self._spread, shape, margin, first, half).T.copy()
        back = _back(rng, along, across)
        draw_looks(canvas, self.looks, Seen(chosen, x, y, brightness, back))
        z = rng.normal(0.0, NO_DEPTH_SD, count)
        return Placed(x, y, z, brightness * self.peaks[chosen], np.zeros(count, np.int64))

    def _put_behind(self, rng: np.random.Generator, canvas: Canvas) -> None:
        behind, contrast = self.surroundings, canvas.contrast
        shape = contrast.shape
        if behind.images is not None:
            contrast += self.sign * _part_of(rng, behind.images, shape)
        for strength, (low, high) in (
            (behind.uneven, behind.uneven_px),
            (behind.clutter, behind.clutter_px),
        ):
            if strength > 0:
                lengths = np.exp(rng.uniform(math.log(low), math.log(high), 2))
                contrast += np.float32(strength * rng.uniform(-1, 1) ** 3) * gaussian_field(
                    rng, shape, *lengths
                )

    def _light(self, rng: np.random.Generator, view: View) -> Light:
        """Noise that grows with the light as photons' does, not at all, or in between: a few crops cannot tell."""
        light = super()._light(rng, view)
        whole, part = light.read + light.shot, rng.random()
        return light._replace(read=(1 - part) * whole, shot=part * whole)


def _back(rng: np.random.Generator, along: FloatArray, across: FloatArray) -> FloatArray:
    """Matrices (N, 2, 2) from the image to a look that is stretched along two axes, mirrored or not, and turned."""
    count = along.size
    quarter = rng.random(count) < AT_QUARTERS
    angle = np.where(quarter, 0.5 * math.pi * rng.integers(0, 4, count), rng.uniform(0, 2 * math.pi, count))
    mirror = rng.choice([-1.0, 1.0], count)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    turn[:, 1] *= mirror[:, None]
    found: FloatArray = turn / np.stack([along, across], axis=1)[:, :, None]
    return found


def _part_of(rng: np.random.Generator, images: Float32Array, shape: tuple[int, ...]) -> Float32Array:
    """A part (H, W) of one of the images at random, turned and mirrored; small ones continue mirrored."""
    image = images[rng.integers(len(images))]
    if rng.random() < 0.5:
        image = image.T
    short = [max(0, size - have) for size, have in zip(shape, image.shape, strict=True)]
    if any(short):
        image = np.pad(image, [(0, n) for n in short], mode="symmetric")
    top, left = (rng.integers(0, have - size + 1) for have, size in zip(image.shape, shape, strict=True))
    part = image[top : top + shape[0], left : left + shape[1]]
    flip = rng.choice([-1, 1], 2)
    found: Float32Array = part[:: flip[0], :: flip[1]]
    return found
