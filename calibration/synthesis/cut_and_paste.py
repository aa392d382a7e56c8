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
from calibration.synthesis.inputs import BackgroundModel, Cutouts, Distribution, NoiseModel
from calibration.synthesis.layout import Layout, Spread, positions
from calibration.synthesis.nearby import choose_nearby
from calibration.synthesis.reach import EDGE_PX, LEAST_HALF_PX, reach_of_cutouts
from calibration.synthesis.sources import HERE, Placed, Synthesis, View

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LIKE_DEPTHS = 200
_LIKE_NEAR = 40
"""Where place counts too, depths within a fortieth of the range are alike, so that there is a choice of places; the
truth is a cut-out's own depth in any case."""
_OUTSIDE_PIXELS = 200
_NEAR = 0.15
"""Distance over the longer side of the field within which particles look alike. Weights of degree 2 change by less
than a third of their range over it; half of it leaves 50 beads no choice, twice it mixes edge and middle."""


class CutAndPaste(Synthesis):
    """Pastes cut-outs; the default `depth` is uniform over the depths that they have.

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
        super().__init__(pixel_um, polarity, noise, background, cutouts.repeats, field_shape)
        self.cutouts = cutouts
        self.layout = layout or Layout()
        self.reach_px = reach_of_cutouts(cutouts, noise)
        self.level = np.zeros(cutouts.z_um.size)
        _levels(cutouts.contrast, cutouts.scale, self.reach_px, self.level)
        self._by_depth = np.argsort(cutouts.z_um, kind="stable")
        self._depths_um = cutouts.z_um[self._by_depth]
        self._reach_by_depth = self.reach_px[self._by_depth]
        self._places_px = None if cutouts.place_px is None else cutouts.place_px[self._by_depth]
        self.depth = depth or Distribution.uniform(self._depths_um[0], self._depths_um[-1])
        self._spread = Spread.of(self.layout, self.reach_px, cutouts.half_px)
        self._margin_px = math.ceil(self.reach_px.max()) + EDGE_PX + 1

    def place(self, rng: np.random.Generator, canvas: Canvas, view: View = HERE) -> Placed:
        """Paste the particles of one image, as `Synthesis.place` says."""
        height, width = canvas.contrast.shape
        margin = self._margin_px
        first, second = self.layout.numbers(rng, (height + 2 * margin) * (width + 2 * margin))
        target = self.depth.draw(rng, first + second)
        by_place = self.field_shape is not None
        chosen = np.empty(0, np.int64) if by_place else self._choose(rng, target)
        reach = self._reach_at(target) if by_place else self.reach_px[chosen]
        # half a pixel more for the particle's own offset, and half for the rounding below
        half = reach + EDGE_PX + 1.0
        centres = positions(rng, self.layout, self._spread, (height, width), margin, first, half)
        row, column = np.rint(centres).astype(np.int64).T.copy()
        if by_place:
            chosen = self._choose_near(rng, target, column + view.x_px, row + view.y_px)
        repeat = rng.integers(0, self.cutouts.repeats, chosen.size)
        cut, noise = self.cutouts, self.noise
        stock = Stock(cut.contrast, cut.scale, self.level, self.reach_px, cut.dx_px, cut.dy_px)
        light = Light(self.sign, 1.0, noise.read, noise.shot)
        paste(canvas, stock, light, Pasted(chosen, repeat, row, column))
        return Placed(
            column + cut.dx_px[chosen], row + cut.dy_px[chosen], cut.z_um[chosen], cut.brightness[chosen]
        )

    def _choose(self, rng: np.random.Generator, target: FloatArray) -> IntArray:
        """Cut-outs (N,) whose depths are nearly the ones that are wanted, any of those at like depth."""
        like_um = (self._depths_um[-1] - self._depths_um[0]) / _LIKE_DEPTHS
        low = np.searchsorted(self._depths_um, target - like_um, side="left")
        high = np.searchsorted(self._depths_um, target + like_um, side="right")
        place = low + (rng.random(target.size) * (high - low)).astype(np.int64)
        alone = high == low
        place[alone] = _nearest(self._depths_um, target[alone])
        chosen: IntArray = self._by_depth[place]
        return chosen

    def _choose_near(
        self, rng: np.random.Generator, target: FloatArray, x: IntArray, y: IntArray
    ) -> IntArray:
        """As `_choose`, for particles at x, y (N,) in the field, of those that were seen near there."""
        assert self.field_shape is not None
        assert self._places_px is not None
        like_um = (self._depths_um[-1] - self._depths_um[0]) / _LIKE_NEAR
        wanted = np.column_stack([target, x, y])
        near_px = _NEAR * max(self.field_shape)
        place = choose_nearby(
            self._depths_um, self._places_px, wanted, like_um, near_px, rng.random(target.size)
        )
        chosen: IntArray = self._by_depth[place]
        return chosen

    def _reach_at(self, z_um: FloatArray) -> FloatArray:
        """Reach (N, 2) at depths (N,)."""
        reach = self._reach_by_depth
        return np.stack([np.interp(z_um, self._depths_um, reach[:, axis]) for axis in (0, 1)], axis=1)


def _nearest(rising: FloatArray, values: FloatArray) -> IntArray:
    right = np.clip(np.searchsorted(rising, values), 1, max(1, rising.size - 1))
    left = right - 1
    right = np.minimum(right, rising.size - 1)
    return np.where(values - rising[left] <= rising[right] - values, left, right)


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
