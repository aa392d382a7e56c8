"""Blocks of overlapping particles fitted in batches by torch: the equations of `refine.block`, many at a time.

Each block is a rectangle of the frame in a larger window of a common size, where pixels beyond it have weight 0.
Spline, damping and criteria to stop are the same, so the results are the same but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.cuda.psf_images import PsfImages, inside
from engines.refine.joint_fit import (
    CHANCE,
    CONVERGED,
    FIRST_DAMPING,
    LARGEST_STEP_PX,
    LARGEST_STEP_UM,
    LEAST_DAMPING,
    LEAST_RAISED_DAMPING,
    LESS_DAMPING,
    MORE_DAMPING,
    MOST_DAMPING,
    NOT_CONVERGED,
    SINGULAR,
    SMALL_GAIN,
)
from engines.refine.normal_equations import GROUND, LEAST_PIVOT
from engines.refine.rendering import BOX, A, Z

PARAMETERS = 4
"""Of a particle: x, y, z, brightness."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A batch of B blocks of up to n particles, in windows of H x W pixels.

    `data` and `weight` (B, H, W) float32, the weight 0 beyond a block; `corner` (B, 2) and `extent` (B, 2) first
    row and column in the frame, rows and columns; `theta` (B, n, 4) and `boxes` (B, n, `BOX`); `present` (B, n);
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
    """Images of a batch's particles at some parameters, and the residual of the data."""

    def __init__(self, images: PsfImages, blocks: Blocks, theta: Tensor, ground: Tensor | None) -> None:
        count, n = blocks.present.shape
        shape = (blocks.data.shape[1], blocks.data.shape[2])
        corner = blocks.corner[:, None].expand(-1, n, -1).reshape(-1, 2)
        particles, boxes = theta.reshape(-1, PARAMETERS), blocks.boxes.reshape(-1, BOX)
        drawn = images.draw(particles, boxes, corner, shape)
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
        """Both sides of (4), (B, P, P) and (B, P): x, y, z, brightness of each particle, and the plane's three."""
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


def _unlike(chi: Tensor, blocks: Blocks, size: int) -> Tensor:
    """What `refine.joint_fit` has: the reduced chi-square (B,) where it is beyond chance, else 1."""
    free = ((blocks.weight > 0).sum(dim=(1, 2)) - size).clamp(min=1).to(chi.dtype)
    reduced = chi / free
    return torch.where(reduced > 1.0 + CHANCE * torch.sqrt(2.0 / free), reduced, torch.ones_like(reduced))


def fit_blocks(images: PsfImages, blocks: Blocks, iterations: int) -> Fitted:
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
        small = SMALL_GAIN * _unlike(now.chi, blocks, matrix.shape[1])
        settled = ((step * right).sum(dim=1) < small) & ~singular
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
        lower_damping = (damping * LESS_DAMPING).clamp(min=LEAST_DAMPING)
        higher_damping = (damping * MORE_DAMPING).clamp(min=LEAST_RAISED_DAMPING)
        damping = torch.where(better, lower_damping, higher_damping)
        matrix_now, right_now = now.equations(blocks, images.range_um)
        matrix = torch.where(better[:, None, None], matrix_now, matrix)
        right = torch.where(better[:, None], right_now, right)
        settled |= moves & (scale == 1.0) & (change.abs() < small)
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
        own_pixels = inside(boxes[:, k], corner, shape)
        pixels = own_pixels.sum(dim=(1, 2)).to(matrix.dtype)
        chi = (squares * own_pixels).sum(dim=(1, 2), dtype=matrix.dtype)
        reduced = chi / (pixels - PARAMETERS - GROUND).clamp(min=1)
        found = torch.stack([reduced, pixels], dim=1)
        done.fit[place, k] = torch.where(fine[:, :, 0, 0], found, torch.nan)
