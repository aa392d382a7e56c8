"""Images of a PSF model and their derivatives in torch, many particles at a time: (1) in `refine.spline`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engines.refine.psf import FitModel
from engines.refine.rendering import BOTTOM, CELL, LEFT, RIGHT, TOP, X, Y, Z
from engines.refine.spline import TAPS


class PsfImages:
    """Draws images of a PSF model on a device."""

    def __init__(self, model: FitModel, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.nodes, self.size = model.coefficients.shape[:2]
        cells = model.cells.get()
        splines = (model.coefficients[None], cells.modes.astype(np.float32))
        self._flat = (
            torch.from_numpy(np.concatenate(splines)).to(self.device).reshape(len(cells.modes) + 1, -1)
        )
        self._weights = torch.from_numpy(cells.weights).to(self.device)
        self._first_um, self._step_um = model.z_first_um, model.z_step_um
        self.range_um = (model.z_min_um, model.z_max_um)

    def draw(
        self,
        theta: Tensor,
        boxes: Tensor,
        corner: Tensor,
        shape: tuple[int, int],
    ) -> Tensor:
        """Image and derivatives by x, y, z (M, 4, H, W) of particles (M, 4) in windows from `corner` (M, 2) on.

        They are 0 outside the particles' rectangles `boxes` (M, `rendering.BOX`).
        """
        tall, wide = shape
        depth = (theta[:, Z].clamp(*self.range_um) - self._first_um) / self._step_um
        base = depth.long().clamp(0, self.nodes - 2)
        by_depth, slope = _weights(depth - base)
        slope = slope / self._step_um
        half = self.size // 2
        start_y, start_x = half + corner[:, 0] - theta[:, Y], half + corner[:, 1] - theta[:, X]
        first_y, first_x = start_y.floor(), start_x.floor()
        rows, columns = (
            _mirror(first.long()[:, None] - 1 + torch.arange(n + TAPS - 1, device=self.device), self.size)
            for first, n in ((first_y, tall), (first_x, wide))
        )
        index = rows[:, :, None] * self.size + columns[:, None, :]
        weights = self._weights[boxes[:, CELL]]
        plane = torch.zeros(index.shape, device=self.device)
        plane_z = torch.zeros_like(plane)
        for tap in range(TAPS):
            place = index + (_mirror(base - 1 + tap, self.nodes) * self.size**2)[:, None, None]
            found = self._flat[0][place]
            for m in range(weights.shape[1]):
                found = found + weights[:, m, None, None] * self._flat[1 + m][place]
            plane += by_depth[:, tap, None, None].float() * found
            plane_z += slope[:, tap, None, None].float() * found
        wx, sx = (part.float() for part in _weights(start_x - first_x))
        wy, sy = (part.float() for part in _weights(start_y - first_y))
        value, by_x, by_z = _across(plane, wx, wide), -_across(plane, sx, wide), _across(plane_z, wx, wide)
        out = torch.stack(
            [_down(value, wy, tall), _down(by_x, wy, tall), -_down(value, sy, tall), _down(by_z, wy, tall)],
            dim=1,
        )
        return out * inside(boxes, corner, shape)[:, None]


def _weights(fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Cubic B-spline weights (M, 4) and their slopes, as `refine.spline.weights`."""
    t, s = fraction, 1.0 - fraction
    value = (s * s * s, 3 * t * t * t - 6 * t * t + 4, 3 * s * s * s - 6 * s * s + 4, t * t * t)
    slope = (-s * s, 3 * t * t - 4 * t, -3 * s * s + 4 * s, t * t)
    return torch.stack(value, dim=-1) / 6.0, torch.stack(slope, dim=-1) / 2.0


def _mirror(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index).clamp(0, size - 1)


def _across(plane: Tensor, weights: Tensor, wide: int) -> Tensor:
    parts = (weights[:, tap, None, None] * plane[:, :, tap : tap + wide] for tap in range(TAPS))
    return torch.stack(tuple(parts)).sum(dim=0)


def _down(plane: Tensor, weights: Tensor, tall: int) -> Tensor:
    parts = (weights[:, tap, None, None] * plane[:, tap : tap + tall] for tap in range(TAPS))
    return torch.stack(tuple(parts)).sum(dim=0)


def inside(boxes: Tensor, corner: Tensor, shape: tuple[int, int]) -> Tensor:
    """Whether pixels (M, H, W) of windows are in the rectangles (M, 4)."""
    rows = torch.arange(shape[0], device=boxes.device) + corner[:, :1]
    columns = torch.arange(shape[1], device=boxes.device) + corner[:, 1:]
    down = (rows >= boxes[:, TOP, None]) & (rows < boxes[:, BOTTOM, None])
    across = (columns >= boxes[:, LEFT, None]) & (columns < boxes[:, RIGHT, None])
    return down[:, :, None] & across[:, None, :]
