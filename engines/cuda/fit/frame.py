"""All blocks of a frame fitted by one kernel on a GPU: what `refine.frame.fit_frame` does one block after another.

Each of its two sweeps is one launch, in which thread blocks fit blocks of particles at the same time and wait where
one looks at what another changes, so that the result is that of the processor. Of a block whose normal equations
turn out singular each particle is fitted by itself; where one has gone too far for the pixels that were sent,
it and all that depends on it are left to the processor, from the start.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

import numpy as np
from numba import njit

from engines.cuda.device import Device, DeviceBuffer
from engines.cuda.fit.buffers import FitBuffers
from engines.cuda.fit.exchange import apply
from engines.cuda.fit.kernel import NAME, fit_kernel
from engines.cuda.fit.layout import (
    BRIGHT,
    CELL_TALL,
    CELL_WIDE,
    COLUMNS,
    COUNT,
    FAINT,
    FIRST,
    FIRST_UM,
    IS_LOST,
    LEVELS,
    MAX_UM,
    MIN_UM,
    MODES,
    NODES,
    PIXELS,
    ROWS,
    STEP_UM,
    WAITING,
    WAITS,
)
from engines.cuda.fit.plan import Plan, plan
from engines.refine.arguments import (
    BoolArray,
    Float32Array,
    IntArray,
    Noise,
    Particles,
    Prior,
    Psf,
)
from engines.refine.frame import SWEEPS, UNTRIED, fit_blocks, take_out, vary_neighbours
from engines.refine.grouping import blocks_of, usable_boxes
from engines.refine.psf import FitModel
from engines.refine.rendering import put

FRAMES_AT_A_TIME = 2
"""Frames whose blocks may be on the device: while one is fitted there, the processor prepares another."""


class KernelFit:
    """Fits frames' blocks on a device; `refine.fitting.FitFrame`. Several threads may call it.

    Raises `BackEndError` where the kernel cannot be compiled for the device.
    """

    def __init__(self, model: FitModel, device: Device) -> None:
        kernel = device.load(fit_kernel(device.facts.capability), [NAME])[NAME]
        there = model_buffers(model, device)
        self._free: SimpleQueue[FitBuffers] = SimpleQueue()
        self._all = [FitBuffers(device, kernel, there) for _ in range(FRAMES_AT_A_TIME)]
        for buffers in self._all:
            self._free.put(buffers)
        self._lock = threading.Lock()
        self._left, self._busy_s = 0, 0.0

    @property
    def busy_s(self) -> float:
        """Seconds so far from the start of a launch to its end, copies included, of all frames together."""
        return self._busy_s

    @property
    def left(self) -> int:
        """Particles so far whose fit was left to the processor, as one of a singular block had gone far."""
        return self._left

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
        """Do what `refine.frame.fit_frame` does, with its arguments. Raises `RuntimeError` if the device fails."""
        theta, usable = particles.theta, particles.usable
        boxes = usable_boxes(theta, usable, total.shape, psf)
        block, touches = blocks_of(boxes, usable)
        vary_neighbours(total, particles, block, touches, wanted, psf)
        start = copied(particles)
        first = boxes.copy(), block.copy(), touches.copy()
        bound, lost = np.arange(len(theta)), np.zeros(len(theta), np.bool_)
        asked = usable & np.isin(block, block[usable & wanted])
        for sweep in range(SWEEPS):
            chosen = asked.copy()
            if sweep:
                chosen &= np.isin(block, block[usable & touches])
            made = plan(frame.shape, particles, boxes, block, chosen, psf)
            if not made.rows.size:
                break
            buffers = self._free.get()
            try:
                results, deltas, busy_s = buffers.run(
                    made, frame, total, theta[made.particle], psf, noise, prior
                )
                with self._lock:
                    self._busy_s += busy_s
                bind(made, bound)
                lost[made.particle[results[:, IS_LOST] > 0.0]] = True
                apply(made, results, deltas, total, particles, block, touches, psf)
            finally:
                self._free.put(buffers)
        if lost.any():
            again = asked & np.isin(bound, bound[lost])
            with self._lock:
                self._left += int(again.sum())
            take_up(total, particles, start, again, psf)
            fit_blocks(frame, total, particles, psf, noise, prior, again, *first)

    def close(self) -> None:
        """Free the buffers."""
        for buffers in self._all:
            buffers.close()


def copied(particles: Particles) -> Particles:
    """The same in arrays of their own."""
    theta, covariance, fit, state, usable = particles
    return Particles(theta.copy(), covariance.copy(), fit.copy(), state.copy(), usable.copy())


def model_buffers(model: FitModel, device: Device) -> list[DeviceBuffer]:
    """The PSF model in the device's memory, as the kernel's first arguments."""
    psf = model.for_kernels()
    ints, numbers = np.zeros(6, np.int32), np.zeros(8)
    sizes: dict[int, Any] = {
        NODES: psf.coefficients.shape[0],
        PIXELS: psf.coefficients.shape[1],
        MODES: psf.modes.shape[0],
        ROWS: psf.rows,
        COLUMNS: psf.columns,
        LEVELS: psf.weights.shape[0] // (psf.rows * psf.columns),
    }
    for place, size in sizes.items():
        ints[place] = size
    depths: dict[int, Any] = {
        FIRST_UM: psf.z_first_um,
        STEP_UM: psf.z_step_um,
        MIN_UM: psf.z_min_um,
        MAX_UM: psf.z_max_um,
        CELL_TALL: psf.cell_px[0],
        CELL_WIDE: psf.cell_px[1],
        FAINT: psf.bright[0],
        BRIGHT: psf.bright[1],
    }
    for place, number in depths.items():
        numbers[place] = number
    # no memory is of size 0
    modes = psf.modes if psf.modes.size else np.zeros(1, np.int16)
    weights = psf.weights if psf.weights.size else np.zeros(1, np.float32)
    arrays = (psf.coefficients, modes, weights, psf.extent_px.astype(np.int32), ints, numbers)
    return [device.upload(np.ascontiguousarray(array)) for array in arrays]


@njit(cache=True, nogil=True)
def bind(made: Plan, bound: IntArray) -> None:
    """Give all particles of tasks that wait for each other one number in `bound` (N,), the least that they had."""
    for t in range(made.tasks.shape[0]):
        task = made.tasks[t]
        first = made.particle[task[FIRST]]
        for r in range(task[FIRST] + 1, task[FIRST] + task[COUNT]):
            _join(bound, bound[first], bound[made.particle[r]])
        for w in range(task[WAITS], task[WAITS] + task[WAITING]):
            other = made.tasks[made.lists[w]]
            _join(bound, bound[first], bound[made.particle[other[FIRST]]])


@njit(cache=True, nogil=True)
def _join(bound: IntArray, one: int, other: int) -> None:
    if one != other:
        low, high = min(one, other), max(one, other)
        for i in range(bound.size):
            if bound[i] == high:
                bound[i] = low


@njit(cache=True, nogil=True)
def take_up(total: Float32Array, particles: Particles, start: Particles, which: BoolArray, psf: Psf) -> None:
    """Put those of the `particles` (N) that are `which` (N,) back to their `start`, in the image of all as well."""
    for i in range(which.size):
        if which[i]:
            take_out(total, particles, i, psf)
            particles.theta[i] = start.theta[i]
            particles.covariance[i] = start.covariance[i]
            particles.fit[i] = start.fit[i]
            particles.state[i] = start.state[i]
            psf.plain[0] = 1 if start.state[i] == UNTRIED else 0
            put(total, particles.theta[i], 1.0, psf)
            psf.plain[0] = 0
