"""Images of moving particles of the shipped network's PSF model, and what a tracker would predict of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from engines.network.engine import NetworkEngine
from engines.network.model import OnnxModel
from engines.refine.field import FieldModel
from engines.refine.presence import put_all
from engines.refine.psf import FitModel
from liveptv.models import SHIPPED_MODEL
from stream.messages import Detections, Frame, FrameInfo, Predictions

FloatArray = npt.NDArray[np.float64]
PIXEL_UM, PERIOD_S, GREY = 0.8, 0.04, 180.0
FIELD = (396, 604)
REGIONS = [FIELD, (320, 480), (440, 652)]
"""The field of `uneven_psf`, the middle of it, and images that go beyond it."""


def shipped_psf() -> FitModel:
    psf = OnnxModel(SHIPPED_MODEL).psf()
    assert psf is not None
    return psf


def uneven_psf() -> FitModel:
    """The shipped PSF model on a tilted and curved focal surface, with a walk."""
    psf = shipped_psf()
    varying = replace(
        FieldModel.flat(FIELD, psf.coefficients.shape),
        walk_per_um=np.array([[6e-5, 0.0], [0.0, 4e-5]]),
        surface_um=np.array([0.0, 7.0, -4.0, 12.0, 1.0, 9.0]),
    )
    return replace(psf, field=varying)


def info(number: int, focus_um: float = 0.0) -> FrameInfo:
    return FrameInfo(
        "run", number, number, PERIOD_S * number, 0, 0.0, focus_um=focus_um, pixel_size_um=PIXEL_UM
    )


def contrast_of(psf: FitModel, particles: FloatArray, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The image of particles (N, 4: x px, y px, z um, relative brightness), without noise."""
    total = np.zeros(shape, np.float32)
    put_all(
        total, np.ascontiguousarray(particles), np.ones(len(particles), np.bool_), 1.0, psf.for_kernels(shape)
    )
    return total


def camera_image(
    psf: FitModel, contrast: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    noise = np.sqrt(psf.shot * np.maximum(1 - contrast, 0.05)) * rng.standard_normal(contrast.shape)
    return np.clip(np.rint(GREY * (1 - contrast + noise)), 0, 255).astype(np.uint8)


@dataclass
class Flow:
    """Particles that move to the right, the faster the nearer to the middle of the depths.

    `particles` (N, 4) are places in the sample: where the PSF model's field, if it has one, shows them elsewhere.
    """

    psf: FitModel
    shape: tuple[int, int] = (320, 480)
    count: int = 25
    seed: int = 0
    number: int = 0
    particles: FloatArray = field(init=False)
    velocity_px: FloatArray = field(init=False)
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        height, width = self.shape
        low, high = [20, 20, -190, 0.9], [width - 20, height - 20, 190, 1.1]
        self.particles = self.rng.uniform(low, high, (self.count, 4))
        self.velocity_px = np.zeros((self.count, 3))
        self.velocity_px[:, 0] = 0.3 + 2.0 * (1 - (self.particles[:, 2] / 220) ** 2)

    def step(self) -> None:
        self.particles[:, :3] += self.velocity_px
        self.number += 1

    def frame(self, more: FloatArray | None = None, light: npt.ArrayLike = 0.0) -> Frame:
        """The frame of now, with `more` particles (N, 4); `light` is what the background has less, relatively."""
        shown = self.particles if more is None else np.vstack([self.particles, more])
        contrast = contrast_of(self.psf, self.seen(shown), self.shape) + np.asarray(light, np.float32)
        return Frame(info(self.number), camera_image(self.psf, contrast, self.rng))

    def seen(self, particles: FloatArray) -> FloatArray:
        """Particles (N, 4) where the image shows them; images of another size than the field are its middle."""
        field, out = self.psf.field, particles.copy()
        if field is not None:
            (height, width), (tall, wide) = self.shape, field.shape
            begin = np.array([(wide - width) / 2, (tall - height) / 2, 0.0])
            out[:, :3] = field.to_local(particles[:, :3] + begin) - begin
        return out

    def predictions(
        self, sigma: tuple[float, float, float] = (0.15, 0.15, 1.0), more: FloatArray | None = None
    ) -> Predictions:
        """What a tracker knows after the frame of now: all particles to `sigma` (px, px, um), and `more` (N, 4)."""
        shown, velocity = self.particles, self.velocity_px
        if more is not None:
            shown = np.vstack([shown, more])
            velocity = np.vstack([velocity, np.zeros((len(more), 3))])
        n, row = len(shown), Predictions.COLUMNS.index
        table = np.zeros((len(Predictions.COLUMNS), n))
        off = self.rng.standard_normal((n, 3)) * sigma
        table[row("track")] = np.arange(n)
        for axis, (name, unit) in enumerate((("x", PIXEL_UM), ("y", PIXEL_UM), ("z", 1.0))):
            place = (shown[:, axis] + off[:, axis]) * unit
            table[row("height_um" if name == "z" else f"{name}_um")] = place
            table[row(f"v{name}_um_s")] = velocity[:, axis] * unit / PERIOD_S
            table[row(f"pp_{name}")] = (sigma[axis] * unit) ** 2
        table[row("brightness")] = shown[:, 3] * self.psf.peak_at(self.seen(shown)[:, 2]) * GREY
        table[row("hits")], table[row("kind")] = 10, np.nan
        return Predictions(info(self.number), table)


def detect(engine: NetworkEngine, frame: Frame, predicted: Predictions | None = None) -> Detections:
    """The detections in one frame."""
    engine.submit(frame, predicted)
    found: list[Detections] = []
    while engine.pending:
        found += engine.results(60.0)
    return found[0]
