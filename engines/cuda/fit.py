"""Blocks of overlapping particles fitted in batches by torch: the arithmetic of `refine.block`, many at a time.

Each block is a rectangle of the frame in a larger one of a common size, where pixels beyond it weigh nothing.
Window by window it is the same spline, the same damping and the same ends, so the same particles come out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.refine.block import (
    CONVERGED,
    FIRST_DAMPING,
    LARGEST_STEP_PX,
    LARGEST_STEP_UM,
    MOST_DAMPING,
    NOT_CONVERGED,
    SINGULAR,
    SMALL_GAIN,
)
from engines.refine.normal_equations import GROUND
from engines.refine.psf import FitModel
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, A, X, Y, Z
from engines.refine.spline import TAPS

PARAMETERS = 4
LEAST_PIVOT = 1e-11


class ParticleImages:
    """The spline of a particle's image on a device."""

    def __init__(self, model: FitModel, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.nodes, self.size = model.coefficients.shape[:2]
        self._flat = torch.from_numpy(model.coefficients).to(self.device).reshape(-1)
        self._first_um, self._step_um = model.z_first_um, model.z_step_um
        self.range_um = (model.z_min_um, model.z_max_um)

    def draw(self, theta: Tensor, boxes: Tensor, corner: Tensor, shape: tuple[int, int]) -> Tensor:
        """Image and derivatives by x, y, z (M, 4, H, W) of particles (M, 4) in windows from `corner` (M, 2) on.

        They are 0 outside the particles' rectangles `boxes` (M, 4).
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
        plane = torch.zeros(index.shape, device=self.device)
        plane_z = torch.zeros_like(plane)
        for tap in range(TAPS):
            node = _mirror(base - 1 + tap, self.nodes)
            found = self._flat[index + (node * self.size**2)[:, None, None]]
            plane += by_depth[:, tap, None, None].float() * found
            plane_z += slope[:, tap, None, None].float() * found
        wx, sx = (part.float() for part in _weights(start_x - first_x))
        wy, sy = (part.float() for part in _weights(start_y - first_y))
        value, by_x, by_z = _across(plane, wx, wide), -_across(plane, sx, wide), _across(plane_z, wx, wide)
        out = torch.stack(
            [_down(value, wy, tall), _down(by_x, wy, tall), -_down(value, sy, tall), _down(by_z, wy, tall)],
            dim=1,
        )
        return out * _inside(boxes, corner, shape)[:, None]


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


def _inside(boxes: Tensor, corner: Tensor, shape: tuple[int, int]) -> Tensor:
    """Whether pixels (M, H, W) of windows are in the rectangles (M, 4)."""
    rows = torch.arange(shape[0], device=boxes.device) + corner[:, :1]
    columns = torch.arange(shape[1], device=boxes.device) + corner[:, 1:]
    down = (rows >= boxes[:, TOP, None]) & (rows < boxes[:, BOTTOM, None])
    across = (columns >= boxes[:, LEFT, None]) & (columns < boxes[:, RIGHT, None])
    return down[:, :, None] & across[:, None, :]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A batch of B blocks of up to n particles, in windows of H x W pixels.

    `data` and `weight` (B, H, W) float32, the weight 0 beyond a block; `corner` (B, 2) and `extent` (B, 2) first
    row and column in the frame, rows and columns; `theta` (B, n, 4) and `boxes` (B, n, 4); `present` (B, n);
    `prior` (B, 2), as `refine.block.fit_block` has it.
    """

    data: Tensor
    weight: Tensor
    corner: Tensor
    extent: Tensor
    theta: Tensor
    boxes: Tensor
    present: Tensor
    prior: Tensor

    def of(self, which: Tensor) -> Blocks:
        """Some of the blocks."""
        return Blocks(*(getattr(self, name)[which] for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """`theta` (B, n, 4), `covariance` (B, n, 4, 4), `fit` (B, n, 2: reduced chi-square, pixels), `state` (B,)."""

    theta: Tensor
    covariance: Tensor
    fit: Tensor
    state: Tensor


class _Trial:
    """Images of a batch's particles at some parameters, and what the data leave."""

    def __init__(self, images: ParticleImages, blocks: Blocks, theta: Tensor, ground: Tensor | None) -> None:
        count, n = blocks.present.shape
        shape = (blocks.data.shape[1], blocks.data.shape[2])
        corner = blocks.corner[:, None].expand(-1, n, -1).reshape(-1, 2)
        drawn = images.draw(theta.reshape(-1, PARAMETERS), blocks.boxes.reshape(-1, 4), corner, shape)
        self.images = drawn.reshape(count, n, PARAMETERS, *shape) * blocks.present[:, :, None, None, None]
        self.theta = theta
        bright = theta[:, :, A].float()
        left = blocks.data - torch.einsum("bn,bnhw->bhw", bright, self.images[:, :, 0])
        self.plane = _plane(blocks)
        if ground is None:
            counted = (blocks.weight > 0).float()
            mean = (left * counted).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)
            ground = torch.zeros(count, GROUND, dtype=theta.dtype, device=theta.device)
            ground[:, 0] = mean
        self.ground = ground
        self.residual = left - torch.einsum("bg,bghw->bhw", ground.float(), self.plane)
        chi = (blocks.weight * self.residual * self.residual).sum(dim=(1, 2), dtype=theta.dtype)
        surprise = blocks.prior[:, 1:] * (theta[:, :, A] - blocks.prior[:, :1]) ** 2 * blocks.present
        self.chi = chi + surprise.sum(dim=1)

    def equations(self, blocks: Blocks, range_um: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """Normal equations (B, P, P), (B, P) of the parameters x, y, z, brightness and the plane's three."""
        count, n = blocks.present.shape
        value, slopes = self.images[:, :, :1], self.images[:, :, 1:]
        bright = self.theta[:, :, A].float()[:, :, None, None, None]
        rows = torch.cat([slopes * bright, value], dim=2).reshape(count, n * PARAMETERS, -1)
        rows = torch.cat([rows, self.plane.reshape(count, GROUND, -1)], dim=1)
        weighed = rows * blocks.weight.reshape(count, 1, -1)
        matrix = torch.bmm(weighed, rows.transpose(1, 2)).to(self.theta.dtype)
        right = torch.bmm(weighed, self.residual.reshape(count, -1, 1))[..., 0].to(self.theta.dtype)
        place = torch.arange(n, device=self.theta.device) * PARAMETERS
        matrix[:, place + A, place + A] += blocks.prior[:, 1:]
        right[:, place + A] += blocks.prior[:, 1:] * (blocks.prior[:, :1] - self.theta[:, :, A])
        depth, push = self.theta[:, :, Z], right[:, place + Z]
        leaves = ((depth <= range_um[0]) & (push < 0)) | ((depth >= range_um[1]) & (push > 0))
        held = torch.zeros_like(right, dtype=torch.bool)
        held[:, place + Z] = leaves
        diagonal = torch.diagonal(matrix, dim1=1, dim2=2).clone()
        matrix = matrix.masked_fill(held[:, :, None] | held[:, None, :], 0.0)
        right = right.masked_fill(held, 0.0)
        absent = (~blocks.present).repeat_interleave(PARAMETERS, dim=1)
        absent = torch.nn.functional.pad(absent, (0, GROUND))
        kept = torch.where(held, diagonal, torch.diagonal(matrix, dim1=1, dim2=2))
        matrix.diagonal(dim1=1, dim2=2).copy_(torch.where(absent, torch.ones_like(kept), kept))
        return matrix, right.masked_fill(absent, 0.0)


def _plane(blocks: Blocks) -> Tensor:
    """1, columns and rows (B, 3, H, W), from -1 to 1 along the longer side of a block."""
    shape, device = blocks.data.shape[1:], blocks.data.device
    scale = (2.0 / blocks.extent.amax(dim=1).float())[:, None]
    down, across = (
        scale * (torch.arange(size, device=device) - 0.5 * (blocks.extent[:, axis, None].float() - 1.0))
        for axis, size in enumerate(shape)
    )
    ones = torch.ones_like(blocks.data)
    return torch.stack([ones, across[:, None, :] * ones, down[:, :, None] * ones], dim=1)


def _factor(matrix: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Lower factors of the damped matrices, and which are singular (B,)."""
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2)
    damped = matrix + torch.diag_embed(diagonal * damping[:, None])
    lower, info = torch.linalg.cholesky_ex(damped)
    pivots = torch.diagonal(lower, dim1=1, dim2=2) ** 2
    singular = (info > 0) | ~(pivots > LEAST_PIVOT * diagonal).all(dim=1)
    safe = torch.where(singular[:, None, None], torch.eye(matrix.shape[1], device=matrix.device), lower)
    return safe.to(matrix.dtype), singular


def fit_blocks(images: ParticleImages, blocks: Blocks, iterations: int) -> Fitted:
    """Fit a batch of blocks, as `refine.block.fit_block` fits one."""
    count, n = blocks.present.shape
    device = blocks.data.device
    state = torch.full((count,), NOT_CONVERGED, device=device)
    done = Fitted(
        blocks.theta.clone(),
        torch.full((count, n, PARAMETERS, PARAMETERS), torch.nan, dtype=blocks.theta.dtype, device=device),
        torch.full((count, n, 2), torch.nan, dtype=blocks.theta.dtype, device=device),
        state,
    )
    here = torch.arange(count, device=device)
    now = _Trial(images, blocks, blocks.theta, None)
    matrix, right = now.equations(blocks, images.range_um)
    damping = torch.full((count,), FIRST_DAMPING, dtype=blocks.theta.dtype, device=device)
    for _ in range(iterations):
        lower, singular = _factor(matrix, damping)
        step = torch.cholesky_solve(right[..., None], lower)[..., 0]
        settled = ((step * right).sum(dim=1) < SMALL_GAIN) & ~singular
        parts = step[:, : n * PARAMETERS].reshape(-1, n, PARAMETERS)
        limits = torch.tensor([LARGEST_STEP_PX, LARGEST_STEP_PX, LARGEST_STEP_UM], device=device)
        scale = (parts[..., :A].abs() / limits).amax(dim=(1, 2)).clamp(min=1.0)
        theta = now.theta + parts / scale[:, None, None]
        theta[..., Z] = theta[..., Z].clamp(*images.range_um)
        ground = now.ground + step[:, n * PARAMETERS :] / scale[:, None]
        trial = _Trial(images, blocks, theta, ground)
        change = trial.chi - now.chi
        moves = ~settled & ~singular
        better = (change < 0.0) & moves
        _take(now, trial, better)
        damping = torch.where(better, (damping * 0.1).clamp(min=1e-7), (damping * 10.0).clamp(min=1e-2))
        matrix_now, right_now = now.equations(blocks, images.range_um)
        matrix = torch.where(better[:, None, None], matrix_now, matrix)
        right = torch.where(better[:, None], right_now, right)
        settled |= moves & (scale == 1.0) & (change.abs() < SMALL_GAIN)
        hopeless = moves & ~settled & (change >= 0.0) & (damping > MOST_DAMPING)
        ended = settled | singular | hopeless
        if bool(ended.any()):
            ends = torch.where(singular, SINGULAR, torch.where(settled, CONVERGED, NOT_CONVERGED))
            _settle(done, here, now, blocks, matrix, ends, ended)
            on = ~ended
            if not bool(on.any()):
                return done
            here, blocks, matrix, right, damping = here[on], blocks.of(on), matrix[on], right[on], damping[on]
            _narrow(now, on)
    _settle(
        done, here, now, blocks, matrix, torch.full_like(here, NOT_CONVERGED), torch.ones_like(here).bool()
    )
    return done


MOVING = ("images", "theta", "ground", "residual", "chi")


def _take(now: _Trial, trial: _Trial, which: Tensor) -> None:
    for name in MOVING:
        was, new = getattr(now, name), getattr(trial, name)
        setattr(now, name, torch.where(which.reshape(-1, *(1,) * (was.ndim - 1)), new, was))


def _narrow(now: _Trial, which: Tensor) -> None:
    for name in (*MOVING, "plane"):
        setattr(now, name, getattr(now, name)[which])


def _settle(
    done: Fitted, here: Tensor, now: _Trial, blocks: Blocks, matrix: Tensor, ends: Tensor, ended: Tensor
) -> None:
    """Write down the blocks that have ended: parameters, standard errors and chi-square."""
    n = blocks.present.shape[1]
    lower, singular = _factor(matrix[ended], torch.zeros(int(ended.sum()), device=matrix.device))
    inverse = torch.cholesky_inverse(lower)
    ends = torch.where(singular, SINGULAR, ends[ended])
    place = here[ended]
    done.state[place] = ends
    done.theta[place] = now.theta[ended]
    own = [inverse[:, 4 * k : 4 * k + 4, 4 * k : 4 * k + 4] for k in range(n)]
    fine = (ends != SINGULAR)[:, None, None, None]
    done.covariance[place] = torch.where(fine, torch.stack(own, dim=1), torch.nan)
    boxes, corner = blocks.boxes[ended], blocks.corner[ended]
    shape = (blocks.data.shape[1], blocks.data.shape[2])
    squares = blocks.weight[ended] * now.residual[ended] ** 2
    for k in range(n):
        inside = _inside(boxes[:, k], corner, shape)
        pixels = inside.sum(dim=(1, 2)).to(matrix.dtype)
        misfit = (squares * inside).sum(dim=(1, 2), dtype=matrix.dtype)
        reduced = misfit / (pixels - PARAMETERS - GROUND).clamp(min=1)
        found = torch.stack([reduced, pixels], dim=1)
        done.fit[place, k] = torch.where(fine[:, :, 0, 0], found, torch.nan)
