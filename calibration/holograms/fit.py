"""Place, radius and refractive index of spheres from one in-line hologram, and how well light can tell them.

A fit of the exact model (`acquisition.physics.hologram`) to the image by Fisher scoring, all spheres of the image
together as their waves interfere, from starts such as a network's. The errors stated are the Cramer-Rao bound at
the result, times the misfit where the image deviates from the model by more than its noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from acquisition.physics.hologram import PARAMETERS, HologramModel

FloatArray = npt.NDArray[np.float64]

_P = len(PARAMETERS)
X, Y, Z, RADIUS, INDEX = range(_P)
_LONGEST_STEP = np.array([1.0, 1.0, 0.18, 0.03, 0.05])
"""Largest change of a parameter in one step: a fifth of a fringe in depth (of `fringe_depth_um`) and in the plane,
and what changes the wave by half of itself or less."""
_SMALLEST_RADIUS_UM, _LARGEST_RADIUS_UM = 0.03, 1.5
_LEAST_CONTRAST, _LARGEST_INDEX = 0.003, 2.2
"""Least difference of the index from the medium's (a sphere without one leaves no trace), and largest index."""
_STEPS = 25
_DONE = 0.02
"""A fit has ended when no step is longer than this part of the parameter's standard error."""
_NO_GAIN, _WITHOUT_GAIN = 1e-3, 3
"""A fit gives up after so many steps in succession that each gain less than this of -2 log likelihood (a sphere at
a limit of its radius or index, one that is not there)."""
_MORE_DAMPING, _LESS_DAMPING, _MOST_DAMPING = 8.0, 0.3, 1e4
SEEK_STEP = 1 / 8
"""Step of the search in depth before the fit, of the distance after which the fringes look alike."""
DARKEST = 0.05
"""Least light of a pixel that the noise is computed from, of the background's."""
_MAD_TO_SD = 1.4826


@dataclass(frozen=True, slots=True)
class FittedSpheres:
    """Spheres (N, 5) in the order of `PARAMETERS`, their covariances (N, 5, 5), and which fits ended.

    `misfit` is the standard deviation of the image about the model over its noise, `background` the image's light
    where nothing scatters, `deviance` -2 log likelihood of the image up to a constant of it.
    """

    spheres: FloatArray
    covariances: FloatArray
    ended: npt.NDArray[np.bool_]
    misfit: float
    background: float
    deviance: float

    @property
    def errors(self) -> FloatArray:
        """Standard errors (N, 5)."""
        errors: FloatArray = np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2))
        return errors


def bound(model: HologramModel, spheres: FloatArray, shape: tuple[int, int], noise: float) -> FloatArray:
    """Cramer-Rao bound: covariances (N, 5, 5) of spheres (N, 5) in one image whose background, 1, is not known.

    `noise` is the standard deviation of a pixel of the background, relative to it; shot noise follows the light.
    """
    light, slopes = _light_and_slopes(model, spheres, shape)
    information, _ = _information(light, slopes, light, noise)
    return _blocks(np.linalg.inv(information), len(spheres))


def fit_spheres(
    model: HologramModel,
    image: npt.NDArray[np.floating],
    start: FloatArray,
    noise: float,
    *,
    seek_um: float = 0.0,
) -> FittedSpheres:
    """Fit spheres from a start (N, 5) to an image (H, W) whose background is 1 within a few percent.

    With `seek_um`, depths up to so far from the start are tried first, one sphere after the other; without, they
    must be within about a third of `HologramOptics.fringe_depth_um` (0.84 um at NA 1.2).
    """
    shape = (int(image.shape[0]), int(image.shape[1]))
    longest_step = _LONGEST_STEP.copy()
    longest_step[Z] *= model.optics.fringe_depth_um
    spheres = _within(np.array(start, float).reshape(-1, _P), model)
    if not len(spheres):
        background = float(np.mean(image))
        deviance = _cost(image, np.full(shape, background), noise)
        return FittedSpheres(spheres, np.empty((0, _P, _P)), np.empty(0, bool), 1.0, background, deviance)
    if seek_um:
        spheres = _sought(model, image, spheres, shape, seek_um)
    background, damping, ended, without_gain = 1.0, 1e-3, np.zeros(len(spheres), bool), 0
    light, slopes = _light_and_slopes(model, spheres, shape)
    cost = _cost(image, background * light, noise)
    for _ in range(_STEPS):
        information, push = _information(light, slopes, image / background, noise)
        errors = np.sqrt(np.diag(np.linalg.inv(information)))
        ahead = np.linalg.solve(information, push)
        ended = (np.abs(ahead) < _DONE * errors)[:-1].reshape(-1, _P).all(axis=1)
        if ended.all():
            break
        step = np.linalg.solve(information + damping * np.diag(np.diag(information)), push)
        moved = np.clip(step[:-1].reshape(-1, _P), -longest_step, longest_step)
        tried = _within(spheres + moved, model)
        tried_background = background * (1 + float(np.clip(step[-1], -0.05, 0.05)))
        tried_light, tried_slopes = _light_and_slopes(model, tried, shape)
        tried_cost = _cost(image, tried_background * tried_light, noise)
        if tried_cost < cost:
            spheres, background, light, slopes = tried, tried_background, tried_light, tried_slopes
            without_gain = without_gain + 1 if cost - tried_cost < _NO_GAIN else 0
            cost = tried_cost
            damping *= _LESS_DAMPING
            if without_gain == _WITHOUT_GAIN:
                break
        elif damping > _MOST_DAMPING:
            break
        else:
            damping *= _MORE_DAMPING
    information, _ = _information(light, slopes, image / background, noise)
    residual = (image / background - light) / np.sqrt(np.maximum(light, DARKEST)) / noise
    misfit = float(_MAD_TO_SD * np.median(np.abs(residual - np.median(residual))))
    covariances = _blocks(np.linalg.inv(information), len(spheres)) * max(misfit, 1.0) ** 2
    inside = ~_at_a_limit(spheres, model)
    return FittedSpheres(spheres, covariances, ended & inside, misfit, background, cost)


def _light_and_slopes(
    model: HologramModel, spheres: FloatArray, shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """The image (H, W) relative to the background, and its derivatives (5 N + 1, H W), the background's last."""
    total = np.ones(shape, complex)
    waves = []
    for sphere in spheres:
        wave, slopes = model.wave_and_slopes(sphere, shape)
        total += wave
        waves.append(slopes)
    light = total.real**2 + total.imag**2
    by_sphere = [2 * (total.real * slopes.real + total.imag * slopes.imag) for slopes in waves]
    rows = np.concatenate([*by_sphere, light[None]])
    return light, rows.reshape(len(rows), -1)


def _information(
    light: FloatArray, slopes: FloatArray, image: npt.NDArray[np.floating], noise: float
) -> tuple[FloatArray, FloatArray]:
    """Fisher's information (Q, Q) of all parameters, and the slope (Q,) of the log likelihood."""
    weight = 1 / (np.maximum(light, DARKEST) * noise**2)
    weighted = slopes * weight.ravel()
    return weighted @ slopes.T, weighted @ (image - light).ravel()


def _cost(image: npt.NDArray[np.floating], expected: FloatArray, noise: float) -> float:
    """Minus twice the log likelihood of photon counts, up to a constant: `_information` has its slope."""
    light = np.maximum(expected, DARKEST)
    return 2 * float((light - image * np.log(light)).sum()) / noise**2


def _sought(
    model: HologramModel,
    image: npt.NDArray[np.floating],
    spheres: FloatArray,
    shape: tuple[int, int],
    seek_um: float,
) -> FloatArray:
    """The spheres, each at the depth near its own that leaves least of the image unexplained."""
    step_um = SEEK_STEP * model.optics.fringe_depth_um
    aside = step_um * np.arange(-round(seek_um / step_um), round(seek_um / step_um) + 1)
    found = spheres.copy()
    waves = [model.wave(sphere, shape) for sphere in found]
    for n, sphere in enumerate(spheres):
        others = 1 + sum((wave for m, wave in enumerate(waves) if m != n), np.zeros(shape, complex))
        best = np.inf
        for dz in aside:
            tried = sphere.copy()
            tried[Z] += dz
            wave = model.wave(tried, shape)
            light = others + wave
            left = float(((image - light.real**2 - light.imag**2) ** 2).sum())
            if left < best:
                best, found[n], waves[n] = left, tried, wave
    return found


def _blocks(covariance: npt.NDArray[np.floating], spheres: int) -> FloatArray:
    blocks: FloatArray = np.stack(
        [covariance[_P * n : _P * (n + 1), _P * n : _P * (n + 1)] for n in range(spheres)]
    )
    return blocks


def _within(spheres: FloatArray, model: HologramModel) -> FloatArray:
    kept = spheres.copy()
    kept[:, Z] = np.clip(kept[:, Z], -model.deepest_um, model.deepest_um)
    kept[:, RADIUS] = np.clip(kept[:, RADIUS], _SMALLEST_RADIUS_UM, _LARGEST_RADIUS_UM)
    least = model.optics.medium_index + _LEAST_CONTRAST
    kept[:, INDEX] = np.clip(kept[:, INDEX], least, _LARGEST_INDEX)
    return kept


def _at_a_limit(spheres: FloatArray, model: HologramModel) -> npt.NDArray[np.bool_]:
    inside = (spheres[:, RADIUS] > _SMALLEST_RADIUS_UM) & (spheres[:, RADIUS] < _LARGEST_RADIUS_UM)
    inside &= (spheres[:, INDEX] > model.optics.medium_index + _LEAST_CONTRAST) & (
        spheres[:, INDEX] < _LARGEST_INDEX
    )
    limit: npt.NDArray[np.bool_] = ~(inside & (np.abs(spheres[:, Z]) < model.deepest_um))
    return limit
