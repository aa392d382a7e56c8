"""The image model of an object by regression on images of it: a cubic B-spline over x, y and one number of the
object.

Image i of an object at (x, y) with the number p is, on a plane of background,

    d = A f(column - x, row - y; p) + g_0 + g_1 u + g_2 v + noise    (1)

Given the amplitudes A and the planes this is linear in the coefficients of f, which conjugate gradients find
without a matrix; given f it is linear in the others. The two are solved in turn (alternating least squares), from
A = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from calibration.alignment.depth_spline import node_weights

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TURNS = 3
"""Of the alternation; the amplitudes are right to some percent from the start, where images are of one
brightness."""
GRADIENT_STEPS = 20
"""Of conjugate gradients in each turn, which goes on from the last."""
BEND = 1e-3
"""Weight of the squared second difference over the number, relative to the images' information on a node: too
little to smooth what images show, enough for nodes that few images reach."""
OFF_SIGMAS = 4.0
"""Standard errors of the mean of 3 x 3 pixels from which they do not count: where an image is clipped, or shows
more."""
LEAST_PEAK = 0.1
"""Of the median: nodes with less were seen by no images."""


@dataclass(frozen=True, slots=True, eq=False)
class Cutouts:
    """Images (N, H, H) around objects, H odd, whose centres lie `off_px` (N, 2: x, y) from the middle pixel.

    `weight` (N, H, H) is 1 / variance, 0 where a pixel does not count.
    """

    images: FloatArray
    weight: FloatArray
    off_px: FloatArray

    def of(self, which: npt.NDArray[np.bool_]) -> Cutouts:
        """Some of them."""
        return Cutouts(self.images[which], self.weight[which], self.off_px[which])


def shifts_of(off_px: FloatArray, size: int) -> FloatArray:
    """Matrices (N, H, H) that take the coefficients of an axis to the pixels of images off by (N,) px."""
    n = len(off_px)
    out = np.zeros((n, size, size))
    at = np.arange(size)[None, :] - off_px[:, None]
    base = np.floor(at).astype(np.int64)
    t = at - base
    s = 1.0 - t
    taps = (s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6)
    rows = np.broadcast_to(np.arange(size), (n, size))
    image = np.broadcast_to(np.arange(n)[:, None], (n, size))
    for k, tap in enumerate(taps):
        column = base - 1 + k
        inside = (column >= 0) & (column < size)
        np.add.at(out, (image[inside], rows[inside], column[inside]), tap[inside])
    return out


def symmetric(coefficients: FloatArray) -> FloatArray:
    """The mean (J, H, H) of coefficients mirrored and turned by quarters."""
    turned = [
        np.rot90(each, k, axes=(1, 2)) for each in (coefficients, coefficients[:, ::-1]) for k in range(4)
    ]
    return np.asarray(np.mean(turned, axis=0), np.float64)


class ImageSpline:
    """The operator of (1) for cut-outs with numbers `node` (N,), in nodes; `coefficients` (J, H, H) are the
    result."""

    def __init__(self, cutouts: Cutouts, node: FloatArray, nodes: int) -> None:
        self.cutouts, self.nodes = cutouts, nodes
        self._weight = self.weight = cutouts.weight
        size = cutouts.images.shape[1]
        self._first, self._over, _ = node_weights(node, nodes)
        self._across, self._down = (shifts_of(cutouts.off_px[:, axis], size) for axis in range(2))
        half = size // 2
        v, u = np.mgrid[-half : half + 1, -half : half + 1] / max(half, 1)
        self._plane = np.stack([np.ones_like(u), u, v]).reshape(3, -1)
        self.coefficients = np.zeros((nodes, size, size))
        self.amplitude = np.ones(len(cutouts.images))
        self.ground = np.zeros((len(cutouts.images), 3))

    def images(self) -> FloatArray:
        """f of (1) at the pixels of each cut-out (N, H, H)."""
        return self._forward(self.coefficients)

    def residual(self) -> FloatArray:
        """What (1) leaves of the cut-outs (N, H, H)."""
        return self._data() - self.amplitude[:, None, None] * self.images()

    def solve(self) -> None:
        """Find coefficients, amplitudes and planes."""
        self._fit_planes(only=True)
        for turn in range(TURNS):
            self._fit_coefficients()
            self._settle_border()
            if turn < TURNS - 1:
                self._level()
            self._fit_planes()
            self._leave_out()
        scale = float(np.median(self.amplitude))
        self.amplitude /= scale
        self.coefficients *= scale

    def fit_amplitudes(self, coefficients: FloatArray) -> None:
        """Amplitudes and planes for coefficients that were found with other images."""
        self.coefficients = coefficients
        for _ in range(2):
            self._fit_planes()
            self._leave_out()

    def make_symmetric(self) -> None:
        """Make the image the same when it is mirrored or turned by quarters."""
        self.coefficients = symmetric(self.coefficients)

    def _leave_out(self) -> None:
        """Leave out pixels that (1) does not explain in any way."""
        own = self._weight
        off = uniform_filter(self.residual() * np.sqrt(own), (0, 3, 3), mode="constant")
        self.weight = np.where(np.abs(off) * 3 > OFF_SIGMAS, 0.0, own)

    def _forward(self, coefficients: FloatArray) -> FloatArray:
        own = sum(self._over[:, k, None, None] * coefficients[self._first + k] for k in range(4))
        return np.asarray(self._down @ own @ self._across.transpose(0, 2, 1), np.float64)

    def _adjoint(self, images: FloatArray) -> FloatArray:
        back = self._down.transpose(0, 2, 1) @ images @ self._across
        out = np.zeros_like(self.coefficients)
        for k in range(4):
            np.add.at(out, self._first + k, self._over[:, k, None, None] * back)
        return out

    def _data(self) -> FloatArray:
        plane = (self.ground @ self._plane).reshape(self.cutouts.images.shape)
        return np.asarray(self.cutouts.images - plane, np.float64)

    def _fit_coefficients(self) -> None:
        weight = self.weight * (self.amplitude**2)[:, None, None]
        bend = np.diff(np.eye(self.nodes), 2, axis=0)
        stiff = BEND * weight.sum() / (self.nodes * weight.shape[1] ** 2) * (bend.T @ bend)

        def normal(c: FloatArray) -> FloatArray:
            return np.asarray(
                self._adjoint(weight * self._forward(c)) + np.einsum("jk,kab->jab", stiff, c), np.float64
            )

        right = self._adjoint(self.weight * self.amplitude[:, None, None] * self._data())
        c = self.coefficients
        rest = right - normal(c)
        step, power = rest.copy(), float((rest**2).sum())
        for _ in range(GRADIENT_STEPS):
            if not power > 1e-12 * float((right**2).sum()):
                break
            pushed = normal(step)
            length = power / float((step * pushed).sum())
            c = c + length * step
            rest = rest - length * pushed
            last, power = power, float((rest**2).sum())
            step = rest + (power / last) * step
        self.coefficients = c

    def _settle_border(self) -> None:
        """Take off what is the same all around an image: it is background."""
        ring = np.ones(self.coefficients.shape[1:], np.bool_)
        ring[2:-2, 2:-2] = False
        self.coefficients = self.coefficients - np.median(self.coefficients[:, ring], axis=1)[:, None, None]

    def _level(self) -> None:
        """Give the images of all nodes the same peak: (1) leaves open how the brightness goes with the number."""
        peaks = np.abs(uniform_filter(self.coefficients, (0, 3, 3))).max(axis=(1, 2))
        known = peaks > LEAST_PEAK * np.median(peaks)
        peaks[~known] = np.median(peaks)
        self.coefficients = self.coefficients / peaks[:, None, None]

    def _fit_planes(self, *, only: bool = False) -> None:
        """Amplitudes and planes of all cut-outs, each a weighted linear regression; `only` planes, to the
        border."""
        n, size = len(self.cutouts.images), self.cutouts.images.shape[1]
        weight = self.weight.reshape(n, -1)
        if only:
            ring = np.ones((size, size), np.bool_)
            ring[3:-3, 3:-3] = False
            weight = weight * ring.ravel()
        data = self.cutouts.images.reshape(n, -1)
        drawn = np.zeros((n, 0, size * size)) if only else self.images().reshape(n, 1, -1)
        terms = np.concatenate([np.broadcast_to(self._plane, (n, *self._plane.shape)), drawn], axis=1)
        weighed = terms * weight[:, None]
        matrix = weighed @ terms.transpose(0, 2, 1)
        matrix[:, np.arange(terms.shape[1]), np.arange(terms.shape[1])] += (
            1e-9 * np.abs(matrix).max() + 1e-300
        )
        found = np.linalg.solve(matrix, np.einsum("nka,na->nk", weighed, data)[..., None])[..., 0]
        self.ground = found[:, :3]
        if not only:
            self.amplitude = found[:, 3]
