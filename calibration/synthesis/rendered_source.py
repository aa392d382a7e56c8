"""Training images drawn with the PSF model: at any position and depth, of any brightness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationError
from calibration.psf_model import PsfModel
from calibration.synthesis.canvas import Canvas
from calibration.synthesis.inputs import BackgroundModel, Distribution, NoiseModel
from calibration.synthesis.layout import Layout, Spread, positions
from calibration.synthesis.reach import EDGE_PX, LEAST_HALF_PX, reach_over_field
from calibration.synthesis.render import NO_MODES, Drawn, Spline, render
from calibration.synthesis.sources import HERE, Placed, Synthesis, View
from engines.refine.field import FieldModel

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]


LEAST_BRIGHTNESS = 1e-6
"""Below it, far beyond any particle's, there is no logarithm to hold within the calibration's."""


class Kind(NamedTuple):
    """A further kind of particles: its PSF model, its brightness, and a `unit`.

    The brightness is relative to that model's; times the `unit` it is relative to the first kind's.
    """

    model: PsfModel
    brightness: Distribution
    unit: float


class _Look(NamedTuple):
    model: PsfModel
    reach_px: FloatArray
    depth: Distribution
    brightness: Distribution
    unit: float


class Rendered(Synthesis):
    """Draws particles from a model; `brightness` is 1 and `depth` uniform over the model's range by default.

    `others` are further kinds of particles, drawn as often, at all depths of their models.

    Where the model has a field with modes, each particle is drawn with the spline of its place in the field; the
    truth is in local coordinates.
    """

    def __init__(
        self,
        model: PsfModel,
        noise: NoiseModel,
        background: BackgroundModel | None = None,
        layout: Layout | None = None,
        depth: Distribution | None = None,
        brightness: Distribution | None = None,
        exposure: Distribution | None = None,
        others: Sequence[Kind] = (),
    ) -> None:
        if model.half_px < LEAST_HALF_PX:
            raise CalibrationError(
                f"a PSF model of {2 * model.half_px + 1} pixels leaves no room for a soft edge: "
                f"make it {2 * LEAST_HALF_PX + 1} or more"
            )
        super().__init__(
            model.pixel_size_um, model.polarity, noise, background, 1, model.field_shape, exposure
        )
        self.model = model
        self.layout = layout or Layout()
        self.depth = depth or Distribution.uniform(model.z_min_um, model.z_max_um)
        last_um = model.z_first_um + (len(model.coefficients) - 1) * model.z_step_um
        low_um, high_um = self.depth.quantiles[0], self.depth.quantiles[-1]
        if low_um < model.z_first_um or high_um > last_um:
            raise CalibrationError(
                f"depths from {low_um:.4g} to {high_um:.4g} um are outside the PSF model, which covers "
                f"{model.z_first_um:.4g} to {last_um:.4g} um: narrow them"
            )
        self.brightness = brightness or Distribution.constant(1.0)
        self.reach_px = reach_over_field(model)
        self._looks = [_Look(model, self.reach_px, self.depth, self.brightness, 1.0)]
        for other in others:
            depth = Distribution.uniform(other.model.z_min_um, other.model.z_max_um)
            reach = reach_over_field(other.model)
            self._looks.append(_Look(other.model, reach, depth, other.brightness, other.unit))
        furthest = np.concatenate([look.reach_px for look in self._looks])
        self._spread = Spread.of(self.layout, furthest, model.half_px)
        self._margin_px = math.ceil(furthest.max()) + EDGE_PX

    def place(self, rng: np.random.Generator, canvas: Canvas, view: View = HERE) -> Placed:
        """Draw the particles of one image, as `Synthesis.place` says."""
        height, width = canvas.contrast.shape
        margin = self._margin_px
        first, second = self.layout.numbers(rng, (height + 2 * margin) * (width + 2 * margin))
        count = first + second
        kind = np.zeros(count, np.int64)
        if len(self._looks) > 1:
            kind = rng.integers(0, len(self._looks), count)
        z_um, brightness, half = np.empty(count), np.empty(count), np.empty((count, 2))
        for number, look in enumerate(self._looks):
            mine = kind == number
            z_um[mine] = look.depth.draw(rng, int(mine.sum()))
            brightness[mine] = look.brightness.draw(rng, int(mine.sum())) * view.brightness
            half[mine] = _reach_at(look, z_um[mine]) + EDGE_PX
        y, x = positions(rng, self.layout, self._spread, (height, width), margin, first, half).T.copy()
        for number, look in enumerate(self._looks):
            mine = slice(None) if len(self._looks) == 1 else kind == number
            self._draw(canvas, view, look, Drawn(x[mine], y[mine], z_um[mine], brightness[mine]))
            brightness[mine] *= look.unit
        return Placed(x, y, z_um, brightness, kind)

    def _draw(self, canvas: Canvas, view: View, look: _Look, drawn: Drawn) -> None:
        model, modes = look.model, NO_MODES
        if model.field is not None and len(model.field.modes):
            modes = model.field.modes
            x_px, y_px = drawn.x_px + view.x_px, drawn.y_px + view.y_px
            # more light makes an image of a particle brighter, but does not make it one of a larger particle
            own = drawn.brightness / view.brightness
            drawn = drawn._replace(weights=_weights(model.field, x_px, y_px, own))
        spline = Spline(model.coefficients, model.z_first_um, model.z_step_um, look.reach_px, modes)
        render(canvas.contrast, spline, drawn)


def _reach_at(look: _Look, z_um: FloatArray) -> FloatArray:
    node = np.floor((z_um - look.model.z_first_um) / look.model.z_step_um).astype(np.int64)
    node = np.clip(node, 0, len(look.reach_px) - 2)
    return np.maximum(look.reach_px[node], look.reach_px[node + 1])


def _weights(field: FieldModel, x_px: FloatArray, y_px: FloatArray, brightness: FloatArray) -> Float32Array:
    """Weights (N, M) of the modes at places (N,) in the field, beyond its edge those of the edge, by brightness."""
    height, width = field.shape
    u, v = field.place(np.clip(x_px, -0.5, width - 0.5), np.clip(y_px, -0.5, height - 0.5))
    b = np.log(np.maximum(brightness, LEAST_BRIGHTNESS))
    return field.weights_at(u, v, b).astype(np.float32)
