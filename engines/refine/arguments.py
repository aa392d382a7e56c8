"""Groups of arguments that the kernels of the fit share, with the symbols of the equations in `block`.

One rule for types in this folder: an array is annotated by its element type, its shape and unit stand in the
docstring; a group is annotated by its class; a number is a Python `float`, `int` or `bool`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
ShortArray = npt.NDArray[np.int16]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Psf(NamedTuple):
    """The PSF model f(x, y; z) of a particle of brightness 1, and room to draw it in. One for each thread.

    `coefficients` (J, P, P) of the cubic B-spline (`spline`, equation 1) on nodes `z_first_um` + j `z_step_um` and
    whole pixels; valid from `z_min_um` to `z_max_um`. `extent_px` (J, 2): pixels from the centre that count, along
    y and x. To the coefficients `modes` (M, J, P, P), in whole steps, are added with `weights` (C, M) in the cells
    of an even grid of `rows` x `columns` over the field, `cell_px` (2,) high and wide, at each of L = C / (rows x
    columns) levels of the logarithm of the brightness, from `bright[0]` to `bright[1]`. `origin` (2,) is where the
    image that is drawn into begins in the field, rows and columns, px; kernels that cut out windows change it for a
    while. `planes` (S, P, P), of which `kept` (S, 3) says what they are, are those of cells that were asked for
    last. `plain` (1,) is 1 while the modes are left out, for first guesses. `space` (5, (P + 4)^2) and
    `drawn` (4, (P + 4)^2) are work space. Where uneven light multiplies particles, `light` (H, W) is that of the
    frame's pixels over that of the median, and `light_origin` (2,) where it begins in the field; else it is empty.
    """

    coefficients: Float32Array
    z_first_um: float
    z_step_um: float
    z_min_um: float
    z_max_um: float
    extent_px: IntArray
    modes: ShortArray
    weights: Float32Array
    rows: int
    columns: int
    cell_px: FloatArray
    bright: FloatArray
    origin: FloatArray
    planes: Float32Array
    kept: IntArray
    plain: IntArray
    space: Float32Array
    drawn: Float32Array
    light: Float32Array
    light_origin: FloatArray


class Noise(NamedTuple):
    """Variance of the contrast: `read` + `shot` x (1 + `sign` x contrast); `sign` is -1 for dark particles."""

    read: float
    shot: float
    sign: float


class Prior(NamedTuple):
    """Expected brightness of a particle, and 1 / its variance: 0 where nothing is known of it."""

    brightness: float
    precision: float


class Pixels(NamedTuple):
    """The data d: contrast `frame` (H, W), image of all particles that are not fitted `others` (H, W), weights w.

    `weight` (H', W') begins at row `corner[0]` and column `corner[1]` of the frame; 0 where a pixel does not count.
    """

    frame: Float32Array
    others: Float32Array
    weight: Float32Array
    corner: IntArray


class Particles(NamedTuple):
    """All particles of a frame (N), and how their last fit ended.

    `theta` (N, 4): x px, y px, z um, brightness. `covariance` (N, 4, 4); `fit` (N, 2): reduced chi-square, number
    of pixels; `state` (N,), as `block.fit_block` returns it; `usable` (N,): whether there is such a particle.
    """

    theta: FloatArray
    covariance: FloatArray
    fit: FloatArray
    state: IntArray
    usable: BoolArray


class Typical(NamedTuple):
    """What is typical on a frame: median reduced chi-square and the worst that still passes; brightness, its SD.

    `misfit` is the chi-square that an image has for being unlike the model, over its squared signal-to-noise ratio.
    """

    chi_square: float
    worst_chi_square: float
    brightness: float
    spread: float
    misfit: float
