"""All particles of a frame: a coarse search in depth, then overlapping ones fitted in joint blocks, in sweeps.

What lies outside a block is taken at its last estimate, so blocks that touch are fitted a second time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import (
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    Noise,
    Particles,
    Pixels,
    Prior,
    Psf,
)
from engines.refine.depth_search import LARGEST_MOVE_PX, fit_brightness, search_depth
from engines.refine.grouping import blocks_of, usable_boxes
from engines.refine.joint_fit import CONVERGED, ITERATIONS, NOT_CONVERGED, SINGULAR, fit_block, weigh_block
from engines.refine.rendering import (
    BOTTOM,
    BOX,
    CELL,
    LEFT,
    RIGHT,
    SPARE_UM,
    TOP,
    A,
    X,
    Y,
    cell_of,
    put,
    set_box,
)

SWEEPS = 2
"""How often blocks that touch others are fitted: the second time with images of the others that are nearly
exact."""
UNTRIED = 10
"""State of a particle, beside those of `joint_fit.fit_block`, that is in the image of all as `begin_frame` drew it:
with the mean PSF, whatever varies over the field."""


@njit(cache=True, nogil=True)
def begin_frame(
    frame: Float32Array,
    total: Float32Array,
    theta: FloatArray,
    span_um: FloatArray,
    step_um: float,
    psf: Psf,
    noise: Noise,
    usable: BoolArray,
) -> None:
    """Give the particles `theta` (N, 4: x px, y px, z um, brightness) their brightness and depth, one by one.

    `frame` (H, W) is the contrast; `total` (H, W) comes empty and becomes the image of all particles, still with
    the mean PSF: what varies over the field comes with the fit, so that it is not made twice.
    `span_um` (N,) is how far from the start in depth to search; particles not `usable` (N,) are left alone.
    """
    n = theta.shape[0]
    box = np.zeros(BOX, np.int64)
    psf.plain[0] = 1
    for i in range(n):
        if usable[i]:
            fit_brightness(frame, total, theta[i], box, psf)
    order = np.argsort(-theta[:, A])
    for k in range(n):
        i = order[k]
        if usable[i]:
            fit_brightness(frame, total, theta[i], box, psf)
            put(total, theta[i], 1.0, psf)
    search_depths(frame, total, theta, span_um, step_um, psf, noise, usable)
    psf.plain[0] = 0


@njit(cache=True, nogil=True)
def search_depths(
    frame: Float32Array,
    total: Float32Array,
    theta: FloatArray,
    span_um: FloatArray,
    step_um: float,
    psf: Psf,
    noise: Noise,
    usable: BoolArray,
) -> None:
    """Move those of the particles `theta` (N, 4) that are `usable` (N,) to the depth within `span_um` (N,) that
    explains most of the `frame` (H, W), one by one; `total` (H, W) stays the image of all of them."""
    for i in range(theta.shape[0]):
        if usable[i] and span_um[i] > 0:
            put(total, theta[i], -1.0, psf)
            search_depth(frame, total, theta[i], psf, noise, span_um[i], step_um)
            put(total, theta[i], 1.0, psf)


@njit(cache=True, nogil=True)
def vary(total: Float32Array, particles: Particles, which: BoolArray, psf: Psf) -> None:
    """Draw those of the `particles` (N) that are `which` (N,) and `UNTRIED` with what varies over the field.

    `total` (H, W) is the image of all particles; their state then is `NOT_CONVERGED`.
    """
    for i in range(which.size):
        if which[i] and particles.state[i] == UNTRIED:
            if psf.modes.shape[0] > 0:
                take_out(total, particles, i, psf)
                put(total, particles.theta[i], 1.0, psf)
            particles.state[i] = NOT_CONVERGED


@njit(cache=True, nogil=True)
def vary_neighbours(
    total: Float32Array,
    particles: Particles,
    block: IntArray,
    touches: BoolArray,
    wanted: BoolArray,
    psf: Psf,
) -> None:
    """`vary` the usable `particles` (N) that others will see before they are fitted, or that will not be fitted.

    `block` and `touches` (N,) are those of `blocks_of`; blocks with any of the `wanted` (N,) will be fitted.
    """
    usable = particles.usable
    asked = np.zeros(usable.size, np.bool_)
    for i in np.flatnonzero(usable & wanted):
        asked[block[i]] = True
    vary(total, particles, usable & (touches | ~asked[block]), psf)


@njit(cache=True, nogil=True)
def take_out(total: Float32Array, particles: Particles, i: int, psf: Psf) -> None:
    """Take particle `i` of the `particles` (N) out of the image of all, `total` (H, W)."""
    psf.plain[0] = 1 if particles.state[i] == UNTRIED else 0
    put(total, particles.theta[i], -1.0, psf)
    psf.plain[0] = 0


@njit(cache=True, nogil=True)
def take_back(
    total: Float32Array, theta: FloatArray, start: FloatArray, usable: BoolArray, psf: Psf
) -> BoolArray:
    """Put those of `theta` (N, 4) that left their `start` (N, 4) back there; returns which (N,)."""
    left = np.zeros(theta.shape[0], np.bool_)
    for i in range(start.shape[0]):
        far = max(abs(theta[i, X] - start[i, X]), abs(theta[i, Y] - start[i, Y])) > LARGEST_MOVE_PX
        if usable[i] and far:
            put(total, theta[i], -1.0, psf)
            theta[i] = start[i]
            put(total, theta[i], 1.0, psf)
            left[i] = True
    return left


@njit(cache=True, nogil=True)
def changes_cell(theta: FloatArray, boxes: IntArray, psf: Psf) -> bool:
    """Whether one of the particles (n, 4) has left the cell of its rectangle (n, `BOX`) in a fit."""
    if psf.modes.shape[0] > 0:
        for k in range(theta.shape[0]):
            if cell_of(theta[k], psf) != boxes[k, CELL]:
                return True
    return False


@njit(cache=True, nogil=True)
def fit_frame(
    frame: Float32Array,
    total: Float32Array,
    particles: Particles,
    psf: Psf,
    noise: Noise,
    prior: Prior,
    wanted: BoolArray,
) -> None:
    """Fit the blocks that hold any of the `wanted` (N,) of the `particles`, in place.

    `frame` (H, W) is the contrast; `total` (H, W) is the image of all particles, of the `UNTRIED` ones as
    `begin_frame` drew them, and stays so. `prior` is for blocks of more than one particle.
    """
    boxes = usable_boxes(particles.theta, particles.usable, frame.shape, psf)
    block, touches = blocks_of(boxes, particles.usable)
    vary_neighbours(total, particles, block, touches, wanted, psf)
    fit_blocks(frame, total, particles, psf, noise, prior, wanted, boxes, block, touches)


@njit(cache=True, nogil=True)
def fit_blocks(
    frame: Float32Array,
    total: Float32Array,
    particles: Particles,
    psf: Psf,
    noise: Noise,
    prior: Prior,
    wanted: BoolArray,
    boxes: IntArray,
    block: IntArray,
    touches: BoolArray,
) -> None:
    """The sweeps of `fit_frame`, which has the arguments.

    `boxes` (N, `BOX`), `block` and `touches` (N,) are those of `grouping`, and change.
    """
    theta, covariance, fit, state, usable = particles
    n = theta.shape[0]
    unknown = Prior(0.0, 0.0)
    for sweep in range(SWEEPS):
        for b in range(n):
            members = np.flatnonzero((block == b) & usable)
            if members.size == 0 or (sweep > 0 and not touches[members].any()):
                continue
            if not wanted[members].any():
                continue
            for k in range(members.size):
                i = members[k]
                take_out(total, particles, i, psf)
                set_box(theta[i], frame.shape, psf, SPARE_UM, boxes[i])
            some, errors, good = theta[members], covariance[members], fit[members]
            around = boxes[members]
            corner, weight = weigh_block(total, some, around, around, psf, noise)
            pixels = Pixels(frame, total, weight, corner)
            expected = prior if members.size > 1 else unknown
            ended, _ = fit_block(pixels, some, around, expected, psf, int(ITERATIONS), errors, good)
            if ended == CONVERGED and changes_cell(some, around, psf):
                for k in range(members.size):
                    around[k, CELL] = cell_of(some[k], psf)
                ended, _ = fit_block(pixels, some, around, expected, psf, int(ITERATIONS), errors, good)
            for k in range(members.size):
                i = members[k]
                inside = (
                    boxes[i, LEFT] - 0.5 <= some[k, X] <= boxes[i, RIGHT] - 0.5
                    and boxes[i, TOP] - 0.5 <= some[k, Y] <= boxes[i, BOTTOM] - 0.5
                )
                state[i] = ended
                if ended == SINGULAR and members.size > 1:  # each by itself in the next sweep
                    block[i], touches[i] = i, True
                if inside:
                    theta[i], covariance[i], fit[i] = some[k], errors[k], good[k]
                put(total, theta[i], 1.0, psf)
