"""Fits lone particle images with a PSF model, and tells how a global change of the model would improve all fits.

For particle i with x, y, z, brightness A and a plane of background, by weighted least squares,

    chi2_i = sum_p w_p (d_p - A f(x_p - x, y_p - y; z) - g_0 - g_1 u_p - g_2 v_p)^2            (1)

The weights are those of the noise and stay as they were for the first model, so that chi-squares of two models
compare. Global parameters with the derivatives c_i of image i enter with each particle's own parameters eliminated
(variable projection, Golub & Pereyra 1973): with Q_i the part of the weighted c_i that they cannot explain,

    step = (sum_i Q_i' Q_i)^-1 sum_i Q_i' r_i                                                  (2)

Its covariance is from how much the particles' shares of (2) differ, which also holds where the model misfits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from calibration.psf_model import BY_X, BY_Y, BY_Z, VALUE, PsfModel

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

X, Y, Z, BRIGHTNESS = range(4)
OWN = 7
"""Parameters of a particle: x, y, z, brightness, and a plane."""
STEPS = 12
"""Most steps of a fit; 3 to 6 are typical."""
LEAST_GAIN = 0.02
"""Chi-square by which a step must lower it to be followed by another: far below one standard error."""
LARGEST_PX, LARGEST_UM = 1.0, 8.0
"""Largest step in the plane and in depth: beyond, images are not linear."""
DAMPING, LESS, MORE = 1e-3, 0.1, 10.0
"""Marquardt's (1963) damping: first, after a step that helped, and after one that did not."""
LEAST_LIGHT = 0.05
"""Light of a pixel over the background's below which its shot noise does not fall; as in `engines.refine`."""
BATCH = 32
"""Images evaluated at once: bounds the memory, about 5 MB each for images of 111 px."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Cut-outs (N, P, P) of lone particles in contrast, the pixel (`row`, `column`) (N,) of each in the middle.

    `mask` (N, P, P) is where the particle's image is, inside the camera's image. `read` and `shot` (N,) are the
    noise of its frame: variance of the contrast = read + shot x light.
    """

    contrast: Float32Array
    mask: npt.NDArray[np.bool_]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    read: FloatArray
    shot: FloatArray

    def __len__(self) -> int:
        return len(self.row)

    def part(self, chosen: slice | npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Windows:
        """Some of them."""
        return Windows(
            self.contrast[chosen],
            self.mask[chosen],
            self.row[chosen],
            self.column[chosen],
            self.read[chosen],
            self.shot[chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Fits (N,): `theta` (N, 7) x, y (px from the image's first pixel), local z (um), brightness, plane.

    `sigma` (N, 3) are the standard errors of x, y and z from noise alone, `chi2` and `pixels` (N,) those of (1).
    `good` (N,): the fit ended inside the model and its window.
    """

    theta: FloatArray
    sigma: FloatArray
    chi2: FloatArray
    pixels: FloatArray
    good: npt.NDArray[np.bool_]

    @property
    def reduced(self) -> FloatArray:
        """Chi-square per degree of freedom (N,)."""
        return np.asarray(self.chi2 / np.maximum(self.pixels - OWN, 1.0))


class LocalModels:
    """A PSF model at each place of images of `shape` (H, W), which are around the middle of its field."""

    def __init__(self, model: PsfModel, shape: tuple[int, int]) -> None:
        self.model = model
        field = model.field
        known = shape if field is None else field.shape
        self._offset = (known[0] - shape[0]) / 2, (known[1] - shape[1]) / 2
        self._modes = [] if field is None else [replace(model, coefficients=one) for one in field.modes]

    def mix(self, row: npt.ArrayLike, column: npt.ArrayLike, brightness: npt.ArrayLike) -> FloatArray:
        """Weights (N, M) of the field's modes at places (N,), px, for particles of brightnesses (N,)."""
        field, rows = self.model.field, np.asarray(row, np.float64)
        if field is None or not self._modes:
            return np.zeros((rows.size, 0))
        u, v = field.place(np.asarray(column, np.float64) + self._offset[1], rows + self._offset[0])
        return field.weights_at(u, v, np.log(np.maximum(np.asarray(brightness, np.float64), 1e-6)))

    def images(self, mix: FloatArray, theta: FloatArray, half_px: int) -> Float32Array:
        """Values and gradients (N, 4, P, P) of particles of brightness 1, `theta` relative to the middle pixel."""
        at = theta[:, Z], theta[:, X], theta[:, Y]
        out = self.model.images_and_gradients(*at, half_px=half_px)
        for number, mode in enumerate(self._modes):
            weight = mix[:, number, None, None, None].astype(np.float32)
            out += weight * mode.images_and_gradients(*at, half_px=half_px)
        return out


def weights_of(windows: Windows, models: LocalModels, theta: FloatArray) -> Float32Array:
    """The weights (N, P, P) of (1) for particles `theta` (N, 7), 0 where their images are not."""
    half = windows.contrast.shape[1] // 2
    sign = -1.0 if models.model.polarity == "dark" else 1.0
    weight = np.zeros(windows.contrast.shape, np.float32)
    for part in _batches(len(windows)):
        local = _relative(theta[part], windows.row[part], windows.column[part])
        mix = models.mix(windows.row[part], windows.column[part], theta[part, BRIGHTNESS])
        image = models.images(mix, local, half)[:, VALUE]
        light = np.maximum(LEAST_LIGHT, 1 + sign * theta[part, BRIGHTNESS, None, None] * image)
        variance = windows.read[part, None, None] + windows.shot[part, None, None] * light
        weight[part] = windows.mask[part] / variance
    return weight


def fit_windows(
    windows: Windows, models: LocalModels, weight: Float32Array, start: FloatArray, steps: int = STEPS
) -> Fitted:
    """Fit (1) from `start` (N, 7), whose places and brightnesses say how the field's modes are mixed."""
    count = len(windows)
    theta, chi2 = start.astype(np.float64).copy(), np.empty(count)
    sigma, good = np.full((count, 3), np.nan), np.zeros(count, np.bool_)
    for part in _batches(count):
        theta[part], sigma[part], chi2[part], good[part] = _fit(
            windows.part(part), models, weight[part], theta[part], steps
        )
    return Fitted(theta, sigma, chi2, (weight > 0).sum(axis=(1, 2)).astype(np.float64), good)


def _fit(
    windows: Windows, models: LocalModels, weight: Float32Array, theta: FloatArray, steps: int
) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    count = len(windows)
    theta, damping = theta.copy(), np.full(count, DAMPING)
    mix = models.mix(windows.row, windows.column, theta[:, BRIGHTNESS])
    normal, gradient, chi2 = _equations(windows, models, mix, weight, theta)
    running = np.ones(count, np.bool_)
    model = models.model
    for _ in range(steps):
        step = _solve(normal, gradient, damping)
        largest = np.maximum(
            np.abs(step[:, [X, Y]]).max(axis=1) / LARGEST_PX, np.abs(step[:, Z]) / LARGEST_UM
        )
        step /= np.maximum(largest, 1.0)[:, None]
        trial = theta + step * running[:, None]
        trial[:, Z] = np.clip(trial[:, Z], model.z_min_um, model.z_max_um)
        new_normal, new_gradient, new_chi2 = _equations(windows, models, mix, weight, trial)
        better = running & (new_chi2 < chi2)
        gain = np.where(better, chi2 - new_chi2, 0.0)
        theta[better], chi2[better] = trial[better], new_chi2[better]
        normal[better], gradient[better] = new_normal[better], new_gradient[better]
        damping = np.where(better, damping * LESS, damping * MORE)
        running &= ~((better & (gain < LEAST_GAIN)) | (damping > 1e4))
        if not running.any():
            break
    covariance = np.linalg.pinv(normal, hermitian=True)
    variance = np.diagonal(covariance, axis1=1, axis2=2)[:, : Z + 1]
    half = windows.contrast.shape[1] // 2
    local = _relative(theta, windows.row, windows.column)
    margin = 2 * (model.z_max_um - model.z_min_um) / 100
    good = (
        (np.abs(local[:, [X, Y]]) < half / 2).all(axis=1)
        & (theta[:, Z] > model.z_min_um + margin)
        & (theta[:, Z] < model.z_max_um - margin)
        & (theta[:, BRIGHTNESS] > 0)
        & (variance > 0).all(axis=1)
    )
    return theta, np.sqrt(np.maximum(variance, 0.0)), chi2, good


def jacobian(images: Float32Array, theta: FloatArray) -> FloatArray:
    """Derivatives (N, 7, P, P) of the images of (1) by each particle's own parameters."""
    size = images.shape[-1]
    half = size // 2
    v, u = np.mgrid[-half : half + 1, -half : half + 1] / max(half, 1)
    out = np.empty((len(images), OWN, size, size))
    for place, name in ((X, BY_X), (Y, BY_Y), (Z, BY_Z)):
        out[:, place] = theta[:, BRIGHTNESS, None, None] * images[:, name]
    out[:, BRIGHTNESS] = images[:, VALUE]
    out[:, BRIGHTNESS + 1 :] = np.stack([np.ones((size, size)), u, v])
    return out


def residuals(windows: Windows, images: Float32Array, theta: FloatArray) -> FloatArray:
    """What the model leaves of the images (N, P, P)."""
    size = images.shape[-1]
    half = size // 2
    v, u = np.mgrid[-half : half + 1, -half : half + 1] / max(half, 1)
    ground = np.einsum("nk,kij->nij", theta[:, BRIGHTNESS + 1 :], np.stack([np.ones((size, size)), u, v]))
    drawn = theta[:, BRIGHTNESS, None, None] * images[:, VALUE]
    return np.asarray(windows.contrast - drawn - ground, np.float64)


def _equations(
    windows: Windows,
    models: LocalModels,
    mix: FloatArray,
    weight: Float32Array,
    theta: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    half = windows.contrast.shape[1] // 2
    local = _relative(theta, windows.row, windows.column)
    images = models.images(mix, local, half)
    left = residuals(windows, images, theta)
    by = jacobian(images, theta).reshape(len(theta), OWN, -1)
    weighted = by * weight.reshape(len(theta), 1, -1)
    normal = weighted @ by.transpose(0, 2, 1)
    flat = left.reshape(len(theta), -1)
    gradient = np.einsum("nkp,np->nk", weighted, flat)
    return normal, gradient, np.einsum("np,np->n", weight.reshape(len(theta), -1) * flat, flat)


def _solve(normal: FloatArray, gradient: FloatArray, damping: FloatArray) -> FloatArray:
    diagonal = np.maximum(np.diagonal(normal, axis1=1, axis2=2), 1e-12)
    matrix = normal + np.einsum("n,nk,kl->nkl", damping + 1e-9, diagonal, np.eye(normal.shape[1]))
    return np.asarray(np.linalg.solve(matrix, gradient[..., None])[..., 0])


def _relative(theta: FloatArray, row: npt.NDArray[np.int64], column: npt.NDArray[np.int64]) -> FloatArray:
    """`theta` with x and y from the middle pixel of each window."""
    local = theta.copy()
    local[:, X] -= column
    local[:, Y] -= row
    return local


def _batches(count: int) -> list[slice]:
    return [slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The step of (2) in K parameters, and its covariance (K, K)."""

    change: FloatArray
    covariance: FloatArray


def global_step(
    windows: Windows,
    models: LocalModels,
    weight: Float32Array,
    fitted: Fitted,
    around: Sequence[tuple[LocalModels, LocalModels, float]],
) -> Step:
    """The step (2) of parameters of the model; for each, models above and below `models`, and their distance in it.

    Raises `numpy.linalg.LinAlgError` where the images do not tell the parameters apart.
    """
    count, half = len(windows), windows.contrast.shape[1] // 2
    scores = np.zeros((count, len(around)))
    information = np.zeros((count, len(around), len(around)))
    for part in _batches(count):
        some, theta = windows.part(part), fitted.theta[part]
        mix = models.mix(some.row, some.column, theta[:, BRIGHTNESS])
        local = _relative(theta, some.row, some.column)
        images = models.images(mix, local, half)
        root = np.sqrt(weight[part]).reshape(len(theta), 1, -1).astype(np.float64)
        changes = [
            (high.images(mix, local, half)[:, VALUE] - low.images(mix, local, half)[:, VALUE]) / distance
            for high, low, distance in around
        ]
        wanted = theta[:, BRIGHTNESS, None, None, None] * np.stack(changes, axis=1)
        c = wanted.reshape(len(theta), len(around), -1) * root
        a = jacobian(images, theta).reshape(len(theta), OWN, -1) * root
        r = residuals(some, images, theta).reshape(len(theta), -1) * root[:, 0]
        own = np.linalg.pinv(a @ a.transpose(0, 2, 1), rcond=1e-10, hermitian=True)
        rest = c - (c @ a.transpose(0, 2, 1)) @ own @ a
        misfit = np.maximum(fitted.reduced[part], 1.0)
        scores[part] = np.einsum("nkp,np->nk", rest, r) / misfit[:, None]
        information[part] = rest @ rest.transpose(0, 2, 1) / misfit[:, None, None]
    inverse = np.linalg.inv(information.sum(axis=0))
    change = inverse @ scores.sum(axis=0)
    left = scores - information @ change
    return Step(change, inverse @ (left.T @ left) @ inverse)
