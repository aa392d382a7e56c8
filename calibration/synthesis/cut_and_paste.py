"""Training images from the scan's own pixels: cut-outs pasted onto a synthetic background.

Franchini & Krevor (2020), section 2.1.3. Cut-outs are moved by whole pixels only, so the truth, pasted pixel
plus the cut-out's own offset, is exact, and their noise stays white.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from calibration.errors import CalibrationError
from calibration.synthesis.canvas import Canvas, Light, Pasted, Stock, paste
from calibration.synthesis.choosing import Choice
from calibration.synthesis.inputs import BackgroundModel, Cutouts, Distribution, NoiseModel
from calibration.synthesis.layout import Layout, Spread, positions
from calibration.synthesis.reach import EDGE_PX, LEAST_HALF_PX, reach_of_kinds
from calibration.synthesis.sources import HERE, Placed, Synthesis, View

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_OUTSIDE_PIXELS = 200


class CutAndPaste(Synthesis):
    """Pastes cut-outs, those of each kind as often; the default `depth` is uniform over the depths that they have.

    `noise` must be the cut-outs' own. Where more cut-outs overlap than there are repeats, the noise is larger
    than the camera's (see `canvas`). A cut-out's own background, the median of its pixels outside the mask, is
    subtracted.

    In a field of view of `field_shape` (H, W) each particle is pasted from a cut-out that was seen near its place;
    the cut-outs then have their places.
    """

    def __init__(
        self,
        cutouts: Cutouts,
        noise: NoiseModel,
        background: BackgroundModel | None = None,
        layout: Layout | None = None,
        depth: Distribution | None = None,
        field_shape: tuple[int, int] | None = None,
        exposure: Distribution | None = None,
    ) -> None:
        if cutouts.half_px < LEAST_HALF_PX:
            least = 2 * LEAST_HALF_PX + 1
            raise CalibrationError(
                f"cut-outs of {2 * cutouts.half_px + 1} pixels leave no room for a soft edge: "
                f"cut {least} or more around each particle"
            )
        if field_shape is not None and cutouts.place_px is None:
            raise CalibrationError("cut-outs without places cannot be pasted by their place in the field")
        pixel_um, polarity = cutouts.pixel_size_um, cutouts.polarity
        super().__init__(pixel_um, polarity, noise, background, cutouts.repeats, field_shape, exposure)
        self._least_variance = 1 / cutouts.repeats
        self.cutouts = cutouts
        self.layout = layout or Layout()
        self.reach_px = reach_of_kinds(cutouts, noise)
        self.level = np.zeros(cutouts.z_um.size)
        _levels(cutouts.contrast, cutouts.scale, self.reach_px, self.level)
        kinds = [np.flatnonzero(cutouts.kind == kind) for kind in range(1 + int(cutouts.kind.max()))]
        if not all(rows.size for rows in kinds):
            raise CalibrationError("there are no cut-outs of one kind of particles; calibrate again")
        self._choices = [Choice.of(cutouts, self.reach_px, rows, field_shape, depth) for rows in kinds]
        self._spread = Spread.of(self.layout, self.reach_px, cutouts.half_px)
        self._margin_px = math.ceil(self.reach_px.max()) + EDGE_PX + 1

    def place(self, rng: np.random.Generator, canvas: Canvas, view: View = HERE) -> Placed:
        """Paste the particles of one image, as `Synthesis.place` says."""
        height, width = canvas.contrast.shape
        margin = self._margin_px
        first, second = self.layout.numbers(rng, (height + 2 * margin) * (width + 2 * margin))
        count, by_place = first + second, self.field_shape is not None
        kind = np.zeros(count, np.int64)
        if len(self._choices) > 1:
            kind = rng.integers(0, len(self._choices), count)
        target, reach, chosen = np.empty(count), np.empty((count, 2)), np.empty(count, np.int64)
        for number, choice in enumerate(self._choices):
            mine = kind == number
            target[mine] = choice.depth.draw(rng, int(mine.sum()))
            if by_place:
                reach[mine] = choice.reach_at(target[mine])
            else:
                chosen[mine] = choice.by_depth(rng, target[mine])
                reach[mine] = self.reach_px[chosen[mine]]
        # half a pixel more for the particle's own offset, and half for the rounding below
        half = reach + EDGE_PX + 1.0
        centres = positions(rng, self.layout, self._spread, (height, width), margin, first, half)
        row, column = np.rint(centres).astype(np.int64).T.copy()
        if by_place:
            x, y = column + view.x_px, row + view.y_px
            for number, choice in enumerate(self._choices):
                mine = kind == number
                chosen[mine] = choice.by_place(rng, target[mine], x[mine], y[mine])
        repeat = rng.integers(0, self.cutouts.repeats, chosen.size)
        cut, noise = self.cutouts, self.noise
        stock = Stock(cut.contrast, cut.scale, self.level, self.reach_px, cut.dx_px, cut.dy_px)
        light = Light(self.sign, 1.0, noise.read, noise.shot)
        paste(canvas, stock, light, Pasted(chosen, repeat, row, column, view.brightness))
        return Placed(
            column + cut.dx_px[chosen],
            row + cut.dy_px[chosen],
            cut.z_um[chosen],
            cut.brightness[chosen] * view.brightness,
            kind,
        )


@njit(cache=True, nogil=True)
def _levels(contrast: npt.NDArray[np.int16], scale: float, reach: FloatArray, level: FloatArray) -> None:
    """Median contrast (M,) of the pixels outside of each cut-out's mask; 0 where there are few of them."""
    repeats, size = contrast.shape[1], contrast.shape[2]
    half = size // 2
    outside = np.empty(size * size, np.float32)
    for n in range(level.size):
        count = 0
        far_y, far_x = reach[n, 0] + EDGE_PX, reach[n, 1] + EDGE_PX
        for i in range(size):
            for j in range(size):
                if abs(i - half) > far_y or abs(j - half) > far_x:
                    total = 0
                    for r in range(repeats):
                        total += contrast[n, r, i, j]
                    outside[count] = total
                    count += 1
        if count >= _OUTSIDE_PIXELS:
            level[n] = np.median(outside[:count]) * scale / repeats
