"""What is typical on a frame: the fits' reduced chi-square and the particles' brightness, by median and MAD."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engines.refine.arguments import BoolArray, FloatArray, Typical
from engines.refine.psf import FitModel
from engines.refine.rendering import A

FEWEST = 20
"""Particles on a frame below which its medians are too uncertain (by a quarter of the scatter) to be used."""
ENOUGH = 60
"""Particles on a frame from which those of earlier frames do not matter any more."""
LEAST_CHI_SQUARE = 0.5
"""Of the typical reduced chi-square, which is 1 where the noise is measured well."""
WORST_SIGMAS = 4.0
"""Robust standard deviations above the typical chi-square from which an image is unlike the PSF model. With 6,
0.97 % are missed in place of 0.84 %; 3 only costs time (3,200 particles, as in `fitting`)."""
FEW_WORST = 1.2
"""The same limit, as a chi-square, where there are too few particles: 4 standard deviations at 800 pixels."""
SPREAD_FACTOR = 1.5
"""Brightnesses in an experiment scatter at least so many times as much as in its calibration.
With 1 the results are the same, with 2.5, 0.91 % are missed in place of 0.84 %."""
LEAST_SPREAD, UNSURE_SPREAD = 0.08, 0.15
"""Least relative SD of the brightness that is believed; and where there are too few particles."""


MEDIAN_OF_NORMAL = 0.6744897501960817
"""Median of what a normal distribution is off its mean, in standard deviations."""
OF_MEDIAN = 1.2533
"""Standard error of the median of a normal distribution, in those of its mean."""
SLOPE_SIGMAS = 2.0
"""Standard errors that are taken off the slope of `misfit_of`: on well modelled optics it is then 0 in most frames,
and nothing changes. With 1 or 3 the counts on the real beads of docs/network.md hardly differ."""


class Sample(NamedTuple):
    """Fitted particles `theta` (N, 4), and their `fit` (N, 2): reduced chi-square and number of pixels.

    `power` (N,) is the squared signal-to-noise ratio of their images, brightness^2 over its variance.
    """

    theta: FloatArray
    fit: FloatArray
    power: FloatArray


def sample_of(theta: FloatArray, fit: FloatArray, covariance: FloatArray) -> Sample:
    """The sample of particles (N, 4) with these fits (N, 2) and covariances (N, 4, 4)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return Sample(theta, fit, theta[:, A] ** 2 / covariance[:, A, A])


def typical_of(found: Sample, good: BoolArray, model: FitModel, known: Sample | None = None) -> Typical:
    """The medians and scatter over the `good` (N,) of the particles that were `found` (N).

    Where these are few, as only part of a frame was fitted, those `known` from earlier frames count as well.
    """
    theta, fit, power = found
    if known is not None and good.sum() < ENOUGH:
        theta, fit = np.vstack([theta, known.theta]), np.vstack([fit, known.fit])
        power = np.append(power, known.power)
        good = np.append(good, np.ones(len(known.theta), np.bool_))
    spread = float(max(SPREAD_FACTOR * model.brightness_sd, LEAST_SPREAD))
    good = good & np.isfinite(fit[:, 0])
    if good.sum() < FEWEST:
        return Typical(1.0, FEW_WORST, 1.0, max(spread, UNSURE_SPREAD), 0.0)
    chi = fit[good, 0]
    middle = max(float(np.median(chi)), LEAST_CHI_SQUARE)
    chance = np.sqrt(2.0 / float(np.median(fit[good, 1])))
    apart = _scatter(chi, middle)
    scatter = max(float(apart), middle * float(chance))
    brightness = float(np.median(theta[good, A]))
    deviation = _scatter(theta[good, A], brightness)
    misfit = misfit_of(chi, power[good] / fit[good, 1])
    return Typical(middle, middle + WORST_SIGMAS * scatter, brightness, max(spread, deviation), misfit)


def misfit_of(chi_square: FloatArray, power: FloatArray) -> float:
    """By how much the reduced chi-square (N,) grows with the signal-to-noise ratio squared (N,) of a pixel.

    An image that is unlike the model by a part e of its contrast has a chi-square of 1 + e^2 `power`. The slope is
    that between the medians of the fainter and the brighter half, less what may be chance: 0 for noise alone, and
    where all are alike, so that their median says it already."""
    finite = np.isfinite(power)
    chi_square, power = chi_square[finite], power[finite]
    if len(power) < FEWEST:
        return 0.0
    order = np.argsort(power)
    low, high = order[: len(order) // 2], order[len(order) // 2 :]
    step = float(np.median(power[high]) - np.median(power[low]))
    if not step > 0:
        return 0.0
    middle = [float(np.median(chi_square[k])) for k in (low, high)]
    rise = middle[1] - middle[0]
    chance = [
        OF_MEDIAN * _scatter(chi_square[k], m) / np.sqrt(len(k))
        for k, m in zip((low, high), middle, strict=True)
    ]
    return max(0.0, (rise - SLOPE_SIGMAS * float(np.hypot(*chance))) / step)


def _scatter(values: FloatArray, middle: float) -> float:
    """The standard deviation of values (N,) about a `middle`, from the median of what they are off."""
    return float(np.median(np.abs(values - middle)) / MEDIAN_OF_NORMAL)
