"""Fit of the PSF model to one trace, pixel by pixel, for particles cut by the image's edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.alignment.misfit import middle
from calibration.alignment.start import vertex
from calibration.psf_model import BY_X, BY_Y, BY_Z, VALUE, PsfModel

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

STEPS = 8
"""Most Gauss-Newton steps; 4 are typical."""
MAX_STEP_PX = 1.0
"""Largest step in the plane, px."""
MAX_STEP_UM = 10.0
"""Largest step in depth, um: a few steps of the scan."""
SETTLED = 0.02
"""Last step, um and px, at which the fit ends. Gauss-Newton steps shrink fast, so the remaining error is far
smaller."""


@dataclass(frozen=True, slots=True)
class TraceFit:
    """Brightness, depth (focus at which it is at model depth 0), offset.

    `residual`, `power` are sums of squares of `pixels` in the middle of the images: residuals and model.
    """

    brightness: float
    z_um: float
    dx_px: float
    dy_px: float
    residual: float
    power: float
    pixels: int
    settled: bool

    def misfit(self, noise_variance: float) -> float:
        """The part of the images' power that the model does not explain, beyond noise."""
        return max(self.residual - self.pixels * noise_variance, 0.0) / max(self.power, 1e-30)


def coarse_depth(
    contrast: Float32Array, inside: npt.NDArray[np.bool_], focus_um: FloatArray, model: PsfModel
) -> float:
    """Depth at which a trace (K, P, P) agrees best with the model's images, on a grid of the scan's steps."""
    step_um = float(np.median(np.diff(focus_um)))
    grid_um = np.arange(model.z_min_um, model.z_max_um, abs(step_um))
    images = model.images(grid_um, half_px=contrast.shape[1] // 2) * inside
    products = contrast.reshape(len(contrast), -1) @ images.reshape(len(images), -1).T
    power = np.einsum("jpq,jpq->j", images, images, dtype=np.float64)
    candidates = np.arange(focus_um[0] + grid_um[0], focus_um[-1] + grid_um[-1], abs(step_um))
    scores = np.full(candidates.size, -np.inf)
    for place, z_um in enumerate(candidates):
        node = np.round((z_um - focus_um - grid_um[0]) / abs(step_um)).astype(int)
        seen = (node >= 0) & (node < grid_um.size)
        if seen.sum() * 3 < min(len(focus_um), grid_um.size):
            continue
        rows = np.flatnonzero(seen)
        shared = power[node[seen]].sum()
        scores[place] = products[rows, node[seen]].sum() / np.sqrt(max(shared, 1e-30))
    best = int(np.argmax(scores))
    return float(candidates[best] + vertex(scores, best) * abs(step_um))


def fit_trace(
    contrast: Float32Array,
    inside: npt.NDArray[np.bool_],
    focus_um: FloatArray,
    model: PsfModel,
    *,
    z_um: float,
    dx_px: float,
    dy_px: float,
) -> TraceFit:
    """Least squares over all pixels (P, P) that are inside and all planes (K,) that the model covers."""
    brightness = 1.0
    half = contrast.shape[1] // 2
    mask = inside.astype(np.float32)
    central = middle(half) & inside
    left, power, pixels, settled = np.inf, 0.0, 1, False
    for step in range(STEPS):
        depth = z_um - focus_um
        seen = np.flatnonzero((depth >= model.z_min_um) & (depth <= model.z_max_um))
        if seen.size < 3:
            break
        shown = model.images_and_gradients(depth[seen], dx_px, dy_px, half_px=half) * mask
        data = (contrast[seen] * mask).astype(np.float64)
        parts = [VALUE, BY_Z, BY_X, BY_Y]
        design = shown[:, parts].transpose(1, 0, 2, 3).reshape(4, -1).astype(np.float64)
        if step == 0:
            brightness = float(design[0] @ data.ravel() / max(design[0] @ design[0], 1e-30))
        residual = data.ravel() - brightness * design[0]
        where = np.broadcast_to(central, data.shape).ravel()
        left = float((residual[where] ** 2).sum())
        power = float(brightness**2 * (design[0, where] ** 2).sum())
        pixels = int(where.sum())
        design[1:] *= brightness
        change, *_ = np.linalg.lstsq(design @ design.T, design @ residual, rcond=None)
        if settled:
            break
        brightness += float(change[0])
        limit = np.array([MAX_STEP_UM, MAX_STEP_PX, MAX_STEP_PX])
        moved = np.clip(change[1:], -limit, limit)
        z_um, dx_px, dy_px = z_um + float(moved[0]), dx_px + float(moved[1]), dy_px + float(moved[2])
        settled = abs(moved[0]) < SETTLED and float(np.abs(moved[1:]).max()) < SETTLED
    return TraceFit(brightness, z_um, dx_px, dy_px, left, power, pixels, settled)
