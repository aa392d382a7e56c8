"""Named changes of a particle's image: what it looks like if the optics change in one way, to first order.

The PSF model is all that is known; nothing of the pupil. With its image f at depth z, and x, y from the particle,

    separation   the focal planes move apart by 1 um, each by half of it            (D_y - D_x) / 2      (1)
    wider in x   a blur of variance 1 px^2 along x, and along y                     f_xx / 2, f_yy / 2   (2)
    wider askew  a blur of covariance 1 px^2                                        f_xy                 (3)
    turned       the image turns by 1 degree, from x towards y                      y f_x - x f_y        (4)

An astigmatic lens defocuses along x and y by itself, so that df/dz = D_x + D_y. Blur widens an image where it is
sharp and stretches it where it is not, so the two parts are found, at each depth, by the regression

    df/dz = a f_xx + b (f + x f_x)  +  c f_yy + d (f + y f_y)                                             (5)

whose first two terms are D_x. With images from the pupil (bright field, the paper's set-up; fluorescence) (1)
agrees with the true derivative to 0.7 to 1.4 of its size, correlation 0.8 to 0.95, over nearly all depths.
"""

from __future__ import annotations

import math

import numpy as np

from engines.refine.arguments import Float32Array, FloatArray, IntArray, Psf
from engines.refine.psf import FitModel
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, A, X, Y, Z, draw

NAMES = ("separation", "wider_x", "wider_y", "wider_askew", "turned")
SEPARATION, WIDER_X, WIDER_Y, WIDER_ASKEW, TURNED = range(len(NAMES))
STEP_PX = 0.5
"""px by which an image is moved for its second derivatives, which so become those of an image blurred by a box of
1 px: a pixel's own blur, again. Less only adds rounding errors."""
DEPTHS = 41
"""Depths at which (5) is solved, over the model's range; between them its numbers are interpolated."""


class Directions:
    """The images (1) to (4) of a PSF model."""

    def __init__(self, model: FitModel) -> None:
        self.model = model
        self.psf = model.for_kernels()
        half = int(model.coefficients.shape[-1]) // 2 - 2
        self._z_um: FloatArray = np.linspace(model.z_min_um, model.z_max_um, DEPTHS)
        self._split = np.empty((DEPTHS, 4))
        sharp = np.empty((DEPTHS, 2))
        box = np.array([0, 2 * half + 1, 0, 2 * half + 1, 0], np.int64)
        self.psf.plain[0] = 1  # the mean image, where the model changes over the field
        for k, z_um in enumerate(self._z_um):
            theta = np.array([half, half, z_um, 1.0])
            first, second = _derivatives(theta, box, self.psf)
            basis = _parts(theta, box, first, second)
            self._split[k] = np.linalg.lstsq(basis.reshape(4, -1).T, first[3].ravel(), rcond=None)[0]
            sharp[k] = (first[1:3].astype(np.float64) ** 2).sum(axis=(1, 2)) / (first[0] ** 2.0).sum()
        self.psf.plain[0] = 0
        self.focal_planes_um = tuple(float(self._z_um[sharp[:, axis].argmax()]) for axis in (0, 1))

    def use(self, shape: tuple[int, int]) -> None:
        """Take particles of images of `shape` (H, W) from now on, in this thread."""
        self.psf = self.model.for_kernels(shape)

    @property
    def separation_um(self) -> float:
        """Distance of the focal planes: where images change fastest along x, and along y."""
        return abs(self.focal_planes_um[0] - self.focal_planes_um[1])

    def of(self, theta: FloatArray, box: IntArray) -> tuple[FloatArray, FloatArray]:
        """Of a particle `theta` (4,) in its `box` (`BOX`,): derivatives by x, y, z and brightness (4, H, W).

        And (1) to (4), times its brightness, (5, H, W).
        """
        first, second = _derivatives(theta, box, self.psf)
        split = np.array([np.interp(theta[Z], self._z_um, column) for column in self._split.T])
        parts = split[:, None, None] * _parts(theta, box, first, second)
        x, y = _around(theta, box)
        changes = np.stack(
            [
                0.5 * (parts[2] + parts[3] - parts[0] - parts[1]),
                0.5 * second[0],
                0.5 * second[1],
                second[2],
                math.radians(1.0) * (x * first[2] - y * first[1]),
            ]
        )
        own = np.stack([first[1], first[2], first[3], first[0] / theta[A]])
        return theta[A] * own, theta[A] * changes


def _around(theta: FloatArray, box: IntArray) -> tuple[FloatArray, FloatArray]:
    """x (1, W) and y (H, 1) of the pixels of a box from the particle, px."""
    x = np.arange(box[LEFT], box[RIGHT]) - theta[X]
    y = np.arange(box[TOP], box[BOTTOM]) - theta[Y]
    return x[None, :], y[:, None]


def _derivatives(theta: FloatArray, box: IntArray, psf: Psf) -> tuple[Float32Array, FloatArray]:
    """The image and its derivatives by the particle's x, y, z (4, H, W), and by xx, yy and xy (3, H, W)."""
    shape = (4, int(box[BOTTOM] - box[TOP]), int(box[RIGHT] - box[LEFT]))
    first = np.empty(shape, np.float32)
    draw(theta, box, psf, True, first)
    sides = np.empty((2, 2, *shape), np.float32)
    for axis in (X, Y):
        for side in (0, 1):
            moved = theta.copy()
            moved[axis] += (2 * side - 1) * STEP_PX
            draw(moved, box, psf, True, sides[axis, side])
    change = (sides[:, 1] - sides[:, 0]).astype(np.float64) / (2 * STEP_PX)
    return first, np.stack([change[X, 1], change[Y, 2], change[X, 2]])


def _parts(theta: FloatArray, box: IntArray, first: Float32Array, second: FloatArray) -> FloatArray:
    """The four terms of (5), (4, H, W); derivatives by the particle's place have the opposite sign of f_x, f_y."""
    x, y = _around(theta, box)
    return np.stack([second[0], first[0] - x * first[1], second[1], first[0] - y * first[2]])
