"""Sources of training images: their interface, and the steps that all of them share.

An image is drawn in four steps: the source places particles (`layout`) on a canvas, far out-of-focus ones are
added (`background`), and the canvas is made an image with the camera's noise (`canvas`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationError
from calibration.matching import nearest_neighbour
from calibration.synthesis.background import add_background
from calibration.synthesis.canvas import Canvas, Light, Scale, develop
from calibration.synthesis.inputs import BackgroundModel, Distribution, NoiseModel, Polarity
from calibration.synthesis.scene import IntArray, Particles, Scene

FloatArray = npt.NDArray[np.float64]

PIXEL_TYPES = (np.dtype(np.float32), np.dtype(np.uint8), np.dtype(np.uint16))


class Source(Protocol):
    """Draws images with their exact truth. It has no state, so threads may share one."""

    @property
    def pixel_size_um(self) -> float:
        """Of the images, in object space."""
        ...

    @property
    def polarity(self) -> Polarity:
        """Of the particles."""
        ...

    def draw(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        count: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> Scene:
        """Draw `count` images (H, W): contrast in float32, or grey values in uint8 or uint16.

        From the same state of `rng` come the same images, in however many calls they are drawn. Raises
        `CalibrationError` for another pixel type or an empty image.
        """
        ...


class Placed(NamedTuple):
    """Particles (N,) that were put on a canvas, and their kinds."""

    x_px: FloatArray
    y_px: FloatArray
    z_um: FloatArray
    brightness: FloatArray
    kind: IntArray


class View(NamedTuple):
    """How an image is seen: where its first pixel lies in the field of view, and how bright its particles are.

    Their brightness is relative to what it is in the calibration.
    """

    x_px: int = 0
    y_px: int = 0
    brightness: float = 1.0


HERE = View()


class Synthesis(ABC):
    """The common part of all sources; a subclass places the particles on the canvas.

    `repeats` is how often the canvas's cut-outs were seen, 1 where particles come without noise. Without a
    background model there is nothing out of focus. Images are taken at any place in a field of view of
    `field_shape` (H, W) where particles look different from place to place, None where they do not. `exposure` is
    the brightness of an image's particles over the calibration's, drawn for every image; None: always 1.
    """

    def __init__(
        self,
        pixel_size_um: float,
        polarity: Polarity,
        noise: NoiseModel,
        background: BackgroundModel | None,
        repeats: int,
        field_shape: tuple[int, int] | None = None,
        exposure: Distribution | None = None,
    ) -> None:
        self._pixel_size_um: float = pixel_size_um
        self._polarity: Polarity = polarity
        self.noise, self.background = noise, background
        self._repeats = repeats
        self._least_variance = 0.0
        self.field_shape, self.exposure = field_shape, exposure

    @property
    def pixel_size_um(self) -> float:
        """Of the images, in object space."""
        return self._pixel_size_um

    @property
    def polarity(self) -> Polarity:
        """Of the particles."""
        return self._polarity

    @property
    def sign(self) -> float:
        """What contrast does to the brightness: -1 where particles are dark, +1 where bright."""
        return -1.0 if self._polarity == "dark" else 1.0

    def draw(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        count: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> Scene:
        """Draw `count` images (H, W), as `Source.draw` says."""
        pixel_type = np.dtype(dtype)
        if pixel_type not in PIXEL_TYPES:
            raise CalibrationError(
                f"images are float32, uint8 or uint16, not {pixel_type}: choose one of these"
            )
        if min(shape) < 1 or count < 0:
            raise CalibrationError(f"{count} images of {shape[0]} x {shape[1]} pixels cannot be drawn")
        images: npt.NDArray[Any] = np.empty((count, *shape), pixel_type)
        scale = Scale.of(pixel_type, self.sign, self.noise.grey)
        canvas = Canvas.empty(shape)
        white = np.empty(shape, np.float32)
        placed, views = [], []
        for image in images:
            canvas.clear()
            views.append(self._view(rng, shape))
            placed.append(self.place(rng, canvas, views[-1]))
            if self.background is not None:
                add_background(canvas.contrast, self.background, rng)
            light = self._light(rng, views[-1])
            rng.standard_normal(out=white, dtype=np.float32)
            develop(canvas, light, scale, self._repeats, white, image)
        origin = None
        if self.field_shape is not None:
            origin = np.array([(view.x_px, view.y_px) for view in views], np.int64).reshape(-1, 2)
        return _scene(images, placed, self._pixel_size_um, origin)

    @abstractmethod
    def place(self, rng: np.random.Generator, canvas: Canvas, view: View = HERE) -> Placed:
        """Place the particles of one image, seen so, on an empty canvas."""

    def _view(self, rng: np.random.Generator, shape: tuple[int, int]) -> View:
        """A view of this shape anywhere in the field, from the field's first pixel where it is no smaller."""
        brightness = 1.0 if self.exposure is None else float(self.exposure.draw(rng, 1)[0])
        if self.field_shape is None:
            return View(brightness=brightness)
        y, x = (
            int(rng.integers(0, max(whole - size, 0) + 1))
            for whole, size in zip(self.field_shape, shape, strict=True)
        )
        return View(x, y, brightness)

    def _light(self, rng: np.random.Generator, view: View) -> Light:
        noise = self.noise
        background = float(noise.background.draw(rng, 1)[0])
        variance = float(noise.level.draw(rng, 1)[0]) ** 2
        if self.exposure is not None:
            # the mean of a cut-out's repeats carries that much noise of its own, which cannot be taken off
            variance = max(variance, self._least_variance * view.brightness**2)
        return Light(self.sign, background, noise.read * variance, noise.shot * variance)


def _scene(
    images: npt.NDArray[Any], placed: list[Placed], pixel_size_um: float, origin_px: IntArray | None
) -> Scene:
    height, width = images.shape[1:]
    particles = Particles.joined(
        Particles(
            np.full(at.x_px.size, frame),
            *at[:-1],
            nearest_px=nearest_neighbour(np.column_stack([at.x_px, at.y_px])),
            kind=at.kind,
        )
        for frame, at in enumerate(placed)
    )
    x, y = particles.x_px, particles.y_px
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    return Scene(images, particles.where(inside), particles.where(~inside), pixel_size_um, origin_px)
