"""Training images drawn with the PSF model: at any position and depth, of any brightness."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationError
from calibration.psf_model import PsfModel
from calibration.synthesis.canvas import Canvas
from calibration.synthesis.inputs import BackgroundModel, Distribution, NoiseModel
from calibration.synthesis.layout import Layout, Spread, positions
from calibration.synthesis.reach import EDGE_PX, LEAST_HALF_PX, reach_over_field
from calibration.synthesis.render import NO_MODES, NO_WEIGHTS, Drawn, Spline, render
from calibration.synthesis.sources import HERE, Placed, Synthesis, View
from engines.refine.field import FieldModel

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]


class Rendered(Synthesis):
    """Draws particles from a model; `brightness` is 1 and `depth` uniform over the model's range by default.

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
    ) -> None:
        if model.half_px < LEAST_HALF_PX:
            raise CalibrationError(
                f"a PSF model of {2 * model.half_px + 1} pixels leaves no room for a soft edge: "
                f"make it {2 * LEAST_HALF_PX + 1} or more"
            )
        super().__init__(model.pixel_size_um, model.polarity, noise, background, 1, model.field_shape)
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
        self._spread = Spread.of(self.layout, self.reach_px, model.half_px)
        self._margin_px = math.ceil(self.reach_px.max()) + EDGE_PX

    def place(self, rng: np.random.Generator, canvas: Canvas, view: View = HERE) -> Placed:
        """Draw the particles of one image, as `Synthesis.place` says."""
        height, width = canvas.contrast.shape
        margin, model = self._margin_px, self.model
        first, second = self.layout.numbers(rng, (height + 2 * margin) * (width + 2 * margin))
        z_um = self.depth.draw(rng, first + second)
        brightness = self.brightness.draw(rng, first + second)
        node = np.floor((z_um - model.z_first_um) / model.z_step_um).astype(np.int64)
        node = np.clip(node, 0, len(self.reach_px) - 2)
        half = np.maximum(self.reach_px[node], self.reach_px[node + 1]) + EDGE_PX
        y, x = positions(rng, self.layout, self._spread, (height, width), margin, first, half).T.copy()
        modes, weights = NO_MODES, NO_WEIGHTS
        if self.field_shape is not None and model.field is not None:
            modes, weights = model.field.modes, _weights(model.field, x + view.x_px, y + view.y_px)
        spline = Spline(model.coefficients, model.z_first_um, model.z_step_um, self.reach_px, modes)
        render(canvas.contrast, spline, Drawn(x, y, z_um, brightness, weights))
        return Placed(x, y, z_um, brightness)


def _weights(field: FieldModel, x_px: FloatArray, y_px: FloatArray) -> Float32Array:
    """Weights (N, M) of the modes at places (N,) in the field; beyond its edge those of the edge."""
    height, width = field.shape
    u, v = field.place(np.clip(x_px, -0.5, width - 0.5), np.clip(y_px, -0.5, height - 0.5))
    return field.weights_at(u, v).astype(np.float32)
