"""Candidates by matched filters: where an object of some size or depth explains most of an image.

The filters are the images of an object at some values of its number, less the plane of background beneath them, so
that neither light nor its gradient answers. The answer at a place is the brightness there over its standard error.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.ndimage import uniform_filter

from engines.classical.maxima import local_maxima
from engines.classical.spots import false_alarm_threshold
from engines.refine.arguments import Float32Array, FloatArray
from engines.refine.psf import FitModel
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, TOP, draw
from engines.refine.uneven_light import lay_light

FILTERS = 5
"""Values of the number, evenly over its range: between two, spots 1.5 to 3 px large lose 2 % of their answer."""
MOST_CANDIDATES = 100_000
SIDE_LOBE_SPARE = 1.3
"""Factor on how strongly an object answers beside its own place, as noise and its exact size change that."""
HIDDEN_PART, HIDDEN_MISFITS = 0.15, 3.0
"""Least answer of a candidate in the rest of a fit, over that of the strongest beside it: a part, and so many times
what the model leaves unexplained. Without the second, half as many again are found in `bulk-water`, places half
as exact; of drawn discs and rods, explained to 1 %, 0.08 to 0.3 find as many."""
NOT_FITTED_PX = 0.5
"""Standard error of a candidate's place, until it is fitted."""
LEAST_VARIANCE = 0.1
"""Of the median's: least variance by which the noise of a place is scaled."""


class Candidates(NamedTuple):
    """Candidates (N,), the strongest first: x and y in px, with their standard errors; the model's depth;
    brightness in standard errors, and as contrast."""

    x_px: FloatArray
    y_px: FloatArray
    sigma_x_px: FloatArray
    sigma_y_px: FloatArray
    depth_um: FloatArray
    strength: FloatArray
    contrast: FloatArray


class MatchedFilters:
    """The filters of a model for images of one shape (H, W); belongs to one thread."""

    def __init__(self, model: FitModel, shape: tuple[int, int], threshold: float | None = None) -> None:
        self._model, self._shape = model, shape
        self._depths = np.linspace(model.z_min_um, model.z_max_um, FILTERS)
        images = [_flattened(image_of(model, depth)) for depth in self._depths]
        self._half = images[0].shape[0] // 2
        size = [fft.next_fast_len(s + 2 * self._half, real=True) for s in shape]
        self._size = (size[0], size[1])
        norms = [float(np.sqrt((image**2).sum())) for image in images]
        self._spectra = [
            np.conj(fft.rfft2((image / norm).astype(np.float32), self._size))
            for image, norm in zip(images, norms, strict=True)
        ]
        self._least_hidden = _least_hidden(model, float(np.mean(norms)))
        self._lobes = _side_lobes([image / norm for image, norm in zip(images, norms, strict=True)])
        area = math.prod(shape)
        self.threshold = threshold or false_alarm_threshold(
            sum(area / answering_area(image) for image in images)
        )
        self._light = np.empty(shape, np.float32)
        self._found = np.empty((4, MOST_CANDIDATES))

    def find(self, contrast: Float32Array, variance: tuple[float, float]) -> Candidates:
        """The candidates in a contrast (H, W) whose pixels have this variance, (read, shot), at the median's
        light."""
        noise = math.sqrt(sum(variance))
        image = levelled(contrast, self._model, variance, self._light)
        spectrum = fft.rfft2(_continued(image, self._half), self._size)
        height, width = self._shape
        answers = np.stack([fft.irfft2(spectrum * own, self._size)[:height, :width] for own in self._spectra])
        best = np.ascontiguousarray(answers.max(axis=0), np.float32)
        count = local_maxima(best, 1.0, noise, self.threshold, 1, 0, self._found, 0)
        x, y, _, strength = self._found[:, :count]
        rows, columns = np.rint(y).astype(int), np.rint(x).astype(int)
        rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
        which = answers[:, rows, columns].argmax(axis=0)
        order = np.argsort(-strength, kind="stable")
        kept = self._without_lobes(x[order], y[order], which[order], strength[order])
        order = order[kept]
        x, y, strength, depths = x[order], y[order], strength[order], self._depths[which[order]]
        half = np.full(x.size, NOT_FITTED_PX)
        return Candidates(x, y, half, half, depths, strength, strength * noise)

    def hidden(
        self, contrast: Float32Array, drawn: Float32Array, variance: tuple[float, float], found: Candidates
    ) -> Candidates:
        """Candidates beside those `found`, which hid them, in a contrast (H, W) less what a fit has `drawn`.

        None for a model that does not say how much it leaves unexplained.
        """
        if math.isinf(self._least_hidden):
            return Candidates(*np.empty((len(Candidates._fields), 0)))
        more = self.find(contrast - drawn, variance)
        away = np.hypot(more.x_px[:, None] - found.x_px, more.y_px[:, None] - found.y_px)
        beside = np.where(away < self._lobes.shape[1], found.strength, 0.0).max(axis=1, initial=0.0)
        kept = (beside > 0.0) & (more.strength > self._least_hidden * beside)
        return Candidates(*(column[kept] for column in more))

    def _without_lobes(
        self, x: FloatArray, y: FloatArray, which: npt.NDArray[np.intp], strength: FloatArray
    ) -> npt.NDArray[np.intp]:
        """Those of candidates, strongest first, that stronger ones do not explain."""
        kept: list[int] = []
        for n in range(x.size):
            near = np.array(kept, np.intp)
            away = np.hypot(x[near] - x[n], y[near] - y[n])
            close = away < self._lobes.shape[1] - 1
            near, away = near[close], away[close]
            lobe = self._lobes[which[near], np.rint(away).astype(int)] * strength[near]
            if strength[n] - SIDE_LOBE_SPARE * float(lobe.max(initial=0.0)) > (
                self.threshold if near.size else 0.0
            ):
                kept.append(n)
        return np.array(kept, np.intp)


def levelled(
    contrast: Float32Array, model: FitModel, variance: tuple[float, float], light: Float32Array
) -> Float32Array:
    """A contrast (H, W) less its uneven light, its noise of this variance, (read, shot), scaled to be even.

    `light` (H, W) is filled.
    """
    if not lay_light(contrast, model.coefficients.shape[1], light):
        return contrast - np.float32(np.median(contrast))
    read, shot = variance
    sign = -1.0 if model.polarity == "dark" else 1.0
    of_median = np.float32(1.0) + np.float32(sign * shot / (read + shot)) * light
    found: Float32Array = (contrast - light) / np.sqrt(np.maximum(of_median, np.float32(LEAST_VARIANCE)))
    return found


def _continued(image: Float32Array, reach: int) -> Float32Array:
    """An image (H, W) with `reach` pixels more at each side, as its light, averaged over a filter, goes on there.

    Where it ended at 0, light that is not laid exactly would be a step along the border, and answer as an object.
    """
    smooth = uniform_filter(image, 2 * reach + 1, mode="nearest")
    out = np.pad(smooth, reach, mode="reflect", reflect_type="odd")
    out[reach:-reach, reach:-reach] = image
    return np.asarray(out, np.float32)


def image_of(model: FitModel, depth_um: float) -> FloatArray:
    """An object's image (H, H) at a depth, its centre in the middle pixel."""
    half = int(model.extent_px.max())
    half = min(half, model.coefficients.shape[1] // 2 - 1)
    box = np.zeros(BOX, np.int64)
    box[TOP], box[BOTTOM], box[LEFT], box[RIGHT] = 0, 2 * half + 1, 0, 2 * half + 1
    out = np.zeros((4, 2 * half + 1, 2 * half + 1), np.float32)
    draw(np.array([half, half, depth_um, 1.0]), box, model.for_kernels(), False, out)
    return np.asarray(out[0], np.float64)


def _flattened(image: FloatArray) -> FloatArray:
    """An image (H, H) less the plane that fits it best."""
    half = image.shape[0] // 2
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    terms = np.stack([np.ones_like(u), u, v]).reshape(3, -1)
    plane = np.linalg.lstsq(terms.T, image.ravel(), rcond=None)[0] @ terms
    return np.asarray(image - plane.reshape(image.shape), np.float64)


def answering_area(image: FloatArray) -> float:
    """Area, px, within which the answer to noise is the same: the filter's power over that of its slope."""
    slope = sum(float((np.diff(image, axis=axis) ** 2).sum()) for axis in range(2)) / 2
    return max(float((image**2).sum()) / max(slope, 1e-300), 1.0)


def _least_hidden(model: FitModel, norm: float) -> float:
    """Least answer of a hidden candidate over that of what is beside it, by the root of an image's mean energy.

    Infinite where the model does not say how much it leaves unexplained.
    """
    if model.misfit is None or model.misfit.image is None:
        return math.inf
    pixels = math.prod(model.coefficients.shape[1:])
    return HIDDEN_PART + HIDDEN_MISFITS * math.sqrt(float(model.misfit.image.mean()) * pixels) / norm


def _side_lobes(images: list[FloatArray]) -> FloatArray:
    """Largest answer (K, D) of any filter at distances from an object of each, over that at its place."""
    size = images[0].shape[0]
    whole = 2 * size - 1
    spectra = [fft.rfft2(image, (2 * size, 2 * size)) for image in images]
    rows, columns = np.indices((whole, whole)) - (size - 1)
    distance = np.rint(np.hypot(rows, columns)).astype(int)
    out = np.zeros((len(images), size))
    for k, one in enumerate(spectra):
        for other in spectra:
            answer = np.roll(
                fft.irfft2(one * np.conj(other), (2 * size, 2 * size)), (size - 1, size - 1), (0, 1)
            )
            answer = answer[:whole, :whole]
            for d in range(size):
                out[k, d] = max(out[k, d], float(answer[distance == d].max(initial=0.0)))
    return out
