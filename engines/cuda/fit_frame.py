"""The blocks of a frame in batches: what `refine.frame.fit_frame` does one block after the other.

Blocks that touch are fitted in its order, in one round after another; those of a round are far from each other
and make up batches, of blocks of about one size. So the result is its result.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit

from engines.cuda.fit import Blocks, fit_blocks
from engines.cuda.psf_images import PsfImages
from engines.refine.arguments import (
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    Noise,
    Particles,
    Prior,
    Psf,
)
from engines.refine.frame import SWEEPS, take_out, vary_neighbours
from engines.refine.grouping import LARGEST_BLOCK, blocks_of, usable_boxes
from engines.refine.joint_fit import ITERATIONS, SINGULAR, weigh_block
from engines.refine.psf import FitModel
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, X, Y, boxes_of, put

SIZES_PX = (24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 1024)
"""px of a batch's windows: blocks are put into the next larger one, so that a frame makes few batches."""
MEMBERS = (1, 2, 3, LARGEST_BLOCK)
"""Particles for which the blocks of a batch have places."""
MARGIN_PX = 4
"""A rectangle may grow by so much on a side while its block is fitted."""
LARGEST_BATCH_PIXELS = 1 << 22
"""Pixels of all particles' windows in a batch at most, for about 0.3 GB of work space in single precision."""


class Scene(NamedTuple):
    """What a frame's fit is given: contrast and image of all particles (H, W), and the groups of `refine`."""

    frame: Float32Array
    total: Float32Array
    particles: Particles
    psf: Psf
    noise: Noise
    prior: Prior


class BatchedFit:
    """Fits frames' blocks on a device, those of one frame at a time; `refine.fitting.FitFrame`."""

    def __init__(self, model: FitModel, device: torch.device | str = "cpu") -> None:
        self._images = PsfImages(model, device)
        self._device = self._images.device
        self._lock = threading.Lock()

    def __call__(
        self,
        frame: Float32Array,
        total: Float32Array,
        particles: Particles,
        psf: Psf,
        noise: Noise,
        prior: Prior,
        wanted: BoolArray,
    ) -> None:
        """Do what `refine.frame.fit_frame` does, with its arguments."""
        with self._lock:
            self._fit_frame(Scene(frame, total, particles, psf, noise, prior), wanted)

    def _fit_frame(self, scene: Scene, wanted: BoolArray) -> None:
        total, theta, psf = scene.total, scene.particles.theta, scene.psf
        usable, state = scene.particles.usable, scene.particles.state
        boxes = usable_boxes(theta, usable, total.shape, psf)
        block, touches = blocks_of(boxes, usable)
        vary_neighbours(total, scene.particles, block, touches, wanted, psf)
        for sweep in range(SWEEPS):
            todo = []
            for members in _members(block, usable):
                if (sweep == 0 or touches[members].any()) and wanted[members].any():
                    todo.append(members)
            for blocks in rounds(todo, boxes):
                taken = np.concatenate(blocks)
                _take_out(total, scene.particles, taken, psf)
                boxes[taken] = boxes_of(theta[taken], total.shape, psf)
                for some in _batches(blocks, boxes):
                    self._fit(scene, boxes, some)
                _put_back(total, theta, taken, psf)
                alone = [m for m in blocks if len(m) > 1 and state[m[0]] == SINGULAR]
                for members in alone:  # each by itself in the next sweep
                    block[members], touches[members] = members, True

    def _fit(self, scene: Scene, boxes: IntArray, blocks: list[IntArray]) -> None:
        """Fit blocks of about one size, whose particles are not in the image of all others."""
        theta, covariance, fit, state, _ = scene.particles
        members = np.full((len(blocks), _fits(MEMBERS, max(map(len, blocks)))), -1)
        for row, some in zip(members, blocks, strict=True):
            row[: len(some)] = some
        corner, extent = _regions(boxes, members)
        tall, wide = (_fits(SIZES_PX, int(most)) for most in extent.max(axis=0))
        data = np.zeros((len(blocks), tall, wide), np.float32)
        weight = np.zeros_like(data)
        _cut(scene, boxes, members, data, weight)
        present = members >= 0
        priors = np.where(present.sum(axis=1, keepdims=True) > 1, np.array(scene.prior), 0.0)
        arrays = (data, weight, corner, extent, theta[members], boxes[members], present, priors)
        batch = Blocks(*(torch.from_numpy(np.ascontiguousarray(a)).to(self._device) for a in arrays))
        with torch.inference_mode():
            found = fit_blocks(self._images, batch, ITERATIONS)
        fitted, errors, good, ended = (
            tensor.cpu().numpy() for tensor in (found.theta, found.covariance, found.fit, found.state)
        )
        for b, some in enumerate(blocks):
            for k, i in enumerate(some):
                state[i] = ended[b]
                x, y = fitted[b, k, X], fitted[b, k, Y]
                across = boxes[i, LEFT] - 0.5 <= x <= boxes[i, RIGHT] - 0.5
                if across and boxes[i, TOP] - 0.5 <= y <= boxes[i, BOTTOM] - 0.5:
                    theta[i] = fitted[b, k]
                    if ended[b] != SINGULAR:
                        covariance[i], fit[i] = errors[b, k], good[b, k]


def rounds(blocks: list[IntArray], boxes: IntArray) -> list[list[IntArray]]:
    """The blocks (lists of particles) in rounds: one that touches an earlier one comes in a later round."""
    if not blocks:
        return []
    bounds = np.array(
        [[*boxes[m][:, [TOP, LEFT]].min(axis=0), *boxes[m][:, [BOTTOM, RIGHT]].max(axis=0)] for m in blocks]
    )
    when = np.zeros(len(blocks), np.int64)
    for b in range(len(blocks)):
        low, high = bounds[:b, :2], bounds[:b, 2:]
        apart = (low >= bounds[b, 2:] + MARGIN_PX).any(axis=1) | (high + MARGIN_PX <= bounds[b, :2]).any(
            axis=1
        )
        if not apart.all():
            when[b] = when[:b][~apart].max() + 1
    return [[blocks[b] for b in np.flatnonzero(when == r)] for r in range(int(when.max()) + 1)]


def _members(block: Any, usable: Any) -> list[IntArray]:
    """The particles of each block, blocks in rising order."""
    index = np.flatnonzero(usable)
    order = index[np.argsort(block[index], kind="stable")]
    ends = np.flatnonzero(np.diff(block[order])) + 1
    return [part for part in np.split(order, ends) if part.size]


def _batches(blocks: list[IntArray], boxes: Any) -> list[list[IntArray]]:
    """Blocks of about one size together, no more than fit into memory."""
    found: dict[tuple[int, int, int], list[IntArray]] = {}
    for members in blocks:
        own = boxes[members]
        tall = _fits(SIZES_PX, int(own[:, BOTTOM].max() - own[:, TOP].min()))
        wide = _fits(SIZES_PX, int(own[:, RIGHT].max() - own[:, LEFT].min()))
        found.setdefault((_fits(MEMBERS, len(members)), tall, wide), []).append(members)
    parts = []
    for (count, tall, wide), some in found.items():
        most = max(1, LARGEST_BATCH_PIXELS // (count * tall * wide))
        parts += [some[k : k + most] for k in range(0, len(some), most)]
    return parts


def _fits(sizes: tuple[int, ...], least: int) -> int:
    return next((size for size in sizes if size >= least), least)


def _regions(boxes: Any, members: Any) -> tuple[Any, Any]:
    """First row and column, rows and columns (B, 2) of what the rectangles of each block cover."""
    there = members >= 0
    low = np.where(there[..., None], boxes[members][..., [TOP, LEFT]], np.iinfo(np.int64).max).min(axis=1)
    high = np.where(there[..., None], boxes[members][..., [BOTTOM, RIGHT]], 0).max(axis=1)
    return low, high - low


@njit(cache=True, nogil=True)
def _take_out(total: Float32Array, particles: Particles, which: IntArray, psf: Psf) -> None:
    """Take those numbered `which` of the `particles` out of `total` (H, W)."""
    for i in which:
        take_out(total, particles, i, psf)


@njit(cache=True, nogil=True)
def _put_back(total: Float32Array, theta: FloatArray, which: IntArray, psf: Psf) -> None:
    """Add the images of those numbered `which` of `theta` (N, 4) to `total` (H, W)."""
    for i in which:
        put(total, theta[i], 1.0, psf)


@njit(cache=True, nogil=True)
def _cut(scene: Scene, boxes: IntArray, members: IntArray, data: Float32Array, weight: Float32Array) -> None:
    """Fill `data` and `weight` (B, H, W) with what each block has to explain, and 1 / its variance."""
    frame, others, theta = scene.frame, scene.total, scene.particles.theta
    for b in range(members.shape[0]):
        some = members[b][members[b] >= 0]
        own = boxes[some]
        corner, found = weigh_block(others, theta[some], own, own, scene.psf, scene.noise)
        tall, wide = found.shape
        weight[b, :tall, :wide] = found
        for i in range(tall):
            for j in range(wide):
                data[b, i, j] = frame[corner[0] + i, corner[1] + j] - others[corner[0] + i, corner[1] + j]
