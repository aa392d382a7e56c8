"""The classical detector on one image: an image in, a table of particles out.

The steps: candidates from the filter bank; a joint fit of all of them; candidates in the residual image, which are
particles hidden by a brighter neighbour; another joint fit; then the depth of each particle from its two widths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engines.classical.centre import CONVERGED, add_particle
from engines.classical.gaussian import AMPLITUDE, LN_SX, LN_SY, X, Y
from engines.classical.joint import EXPLAINED, MERGED, Fits, Limits, fit_all
from engines.classical.objects import STRONG, WIDE_OBJECT, badly_fitted, disturbed, fill_in
from engines.classical.spots import PIXEL_NOISE_SAMPLES, ROUNDING_NOISE, SpotFilter, Template
from engines.classical.widths import WidthCurve, depth_from_widths
from engines.flatfield import FlatField
from engines.particle_limit import strongest
from engines.pixel_noise import pixel_noise
from engines.settings import DetectorSettings
from stream.messages import Detections

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

FIRST_SWEEPS = 2
"""Sweeps of the joint fit over the first candidates. More cost time; only overlapping particles need them."""
LAST_SWEEPS = 2
"""Sweeps after hidden particles have been added."""
BLIND_SIGMAS_PX = (1.3, 2.0, 3.0, 4.5)
"""Gaussian widths, px, that are tried in 2D if no size is given. Half a factor of 1.5 from the right width a
filter loses a few percent of its signal."""
SIGMA_PER_DIAMETER = 0.2
"""Width of the Gaussian core of a spot over its visible diameter, as trackpy counts diameters."""
TEMPLATE_RATIO = 1.8
"""Largest factor between neighbouring templates along a curve, in either width. Smaller ones take more filters,
larger ones lose faint particles between them."""
HALF_CONFIDENCE_SIGMAS = 4.0
"""Amplitude over its standard error at which the confidence is one half: fewer are often noise."""
HALF_CONFIDENCE_DISTANCE = 9.0
"""Squared distance to the width curve, in standard errors, at which the confidence is halved: three standard
errors."""
POLARITY_CANDIDATES = 50
"""Strongest candidates that decide the polarity."""


def templates_of_curve(table: FloatArray) -> list[Template]:
    """Return filters along a width curve (3, N), so close that no width lies far from one."""
    step = np.log(TEMPLATE_RATIO)
    chosen = [0]
    for index in range(1, table.shape[1]):
        if np.abs(table[1:, index] - table[1:, chosen[-1]]).max() >= step:
            chosen.append(index)
    middle = [(a + b) // 2 for a, b in zip(chosen, [*chosen[1:], table.shape[1] - 1], strict=True)]
    return [Template(float(np.exp(table[1, i])), float(np.exp(table[2, i]))) for i in middle]


def templates_of_diameter(diameter_px: float | None) -> list[Template]:
    """Return round filters for one diameter, or for a range of them where it is not known."""
    sigmas = BLIND_SIGMAS_PX if diameter_px is None else (SIGMA_PER_DIAMETER * diameter_px,)
    return [Template(sigma, sigma) for sigma in sigmas]


class SpotDetector:
    """Detects in images of one size; owns its buffers, so one belongs to one thread at a time."""

    def __init__(
        self,
        height: int,
        width: int,
        settings: DetectorSettings,
        pixel_size_um: float,
        curve: WidthCurve | None = None,
        flat_field: FlatField | None = None,
    ) -> None:
        self._settings = settings
        self._pixel_size_um = pixel_size_um
        self._flat_field = flat_field
        self._table = None if curve is None else curve.table(pixel_size_um)
        templates: Sequence[Template] = (
            templates_of_diameter(settings.diameter_px)
            if self._table is None
            else templates_of_curve(self._table)
        )
        self._rounding_noise = ROUNDING_NOISE / (1.0 if flat_field is None else flat_field.grey_values)
        self._filter = SpotFilter(height, width, templates, settings.threshold, self._rounding_noise)
        self._image = np.empty((height, width), np.float32)
        widest_px = max(math.sqrt(t.sigma_x_px * t.sigma_y_px) for t in templates)
        self._wide_px = WIDE_OBJECT * widest_px

    @property
    def details(self) -> dict[str, Any]:
        """What was derived from the settings: the filters and the threshold."""
        return {
            "templates_px": [
                [round(t.sigma_x_px, 2), round(t.sigma_y_px, 2)] for t in self._filter.templates
            ],
            "threshold_sigmas": round(self._filter.threshold, 2),
        }

    def load(self, image: npt.NDArray[Any], sign: float) -> None:
        """Take an image, flat-field corrected where references were given, times `sign`."""
        if self._flat_field is not None:
            self._flat_field.correct(image, self._image)
            sign = -sign
        else:
            self._image[:] = image
        if sign < 0:
            np.negative(self._image, out=self._image)

    @property
    def image(self) -> Float32Array:
        """What `load` took (H, W); after `detect`, its residual without the particles."""
        return self._image

    def stronger_polarity(self, image: npt.NDArray[Any]) -> Literal["dark", "bright"] | None:
        """Return the polarity whose strongest candidates are the more significant ones; None without any."""
        self.load(image, 1.0)
        bright, dark = (
            float((self._filter.candidates(self._image, sign)[3, :POLARITY_CANDIDATES] ** 2).sum())
            for sign in (1.0, -1.0)
        )
        if bright == dark == 0:
            return None
        return "bright" if bright > dark else "dark"

    def detect(self, image: npt.NDArray[Any], sign: float) -> tuple[FloatArray, Counter[str]]:
        """Return the rows of a `Detections` table, (8, N), and counts of what was left out, by reason.

        `image` is (H, W); `sign` is +1 for bright and -1 for dark particles.
        """
        self.load(image, sign)
        residual = self._image
        noise = max(
            self._rounding_noise, pixel_noise(residual, max(1, residual.size // 4 // PIXEL_NOISE_SAMPLES))
        )
        found = self._filter.candidates(residual, 1.0)
        noise = max(noise, self._filter.pixel_sigma)
        fits = self._fit(residual, None, found, noise, FIRST_SWEEPS)
        # also those that were fitted once and then lost: beyond the edge, or with too little inside it
        seen = (fits.parameters[:, AMPLITUDE] > 0) & ~np.isin(fits.state, (MERGED, EXPLAINED))
        objects = badly_fitted(residual, fits.parameters, seen, self._wide_px, noise)
        large = fits.take(objects)
        hidden_px = 0
        if objects.size:
            fits = fits.take(np.flatnonzero(~disturbed(fits.parameters, objects)))
            self.load(image, sign)
            for p in fits.parameters[fits.state == CONVERGED]:
                add_particle(residual, p, -1.0)
            hidden_px = fill_in(residual, large.parameters, noise)
            # everything around the objects is searched again, before the particles that these hide
            beside = self._filter.candidates(residual, 1.0, same_noise=True)
            fits = self._fit(residual, fits, beside, noise, FIRST_SWEEPS)
        hidden = self._filter.candidates(residual, 1.0, same_noise=True)
        fits = self._fit(residual, fits, hidden, noise, LAST_SWEEPS)
        table, left_out = self._rows(large.joined(fits))
        left_out["explained"] = int((fits.state == EXPLAINED).sum())
        left_out["hidden_px"] = hidden_px
        return table, left_out

    def _fit(
        self, residual: Float32Array, fitted: Fits | None, found: FloatArray, noise: float, sweeps: int
    ) -> Fits:
        """Fit the candidates `found` together with those `fitted` before, and subtract them from `residual`."""
        new = Fits.untried(self._start(found))
        fits = new if fitted is None else fitted.joined(new)
        limits = Limits(noise, self._table is None, self._wide_px, STRONG * noise)
        fit_all(residual, fits, limits, sweeps)
        return fits

    def _start(self, found: FloatArray) -> FloatArray:
        shapes = np.log([(t.sigma_x_px, t.sigma_y_px) for t in self._filter.templates])
        start = np.zeros((found.shape[1], 6))
        start[:, X], start[:, Y] = found[0], found[1]
        start[:, [LN_SX, LN_SY]] = shapes[found[2].astype(np.int64)]
        return start

    def _rows(self, fits: Fits) -> tuple[FloatArray, Counter[str]]:
        left_out: Counter[str] = Counter()
        parameters, covariance, state = fits.parameters, fits.covariance, fits.state
        left_out["no_fit"] = int((~np.isin(state, (CONVERGED, MERGED, EXPLAINED))).sum())
        fitted = state == CONVERGED
        parameters, covariance = parameters[fitted], covariance[fitted]
        table = np.full((len(Detections.COLUMNS), parameters.shape[0]), np.nan)
        x, y, z, sigma_x, sigma_y, sigma_z, brightness, confidence = table[:8]
        table[-1] = 0.0  # flags
        x[:] = parameters[:, X] * self._pixel_size_um
        y[:] = parameters[:, Y] * self._pixel_size_um
        sigma_x[:] = np.sqrt(covariance[:, X, X]) * self._pixel_size_um
        sigma_y[:] = np.sqrt(covariance[:, Y, Y]) * self._pixel_size_um
        grey = 1.0 if self._flat_field is None else self._flat_field.grey_values
        brightness[:] = parameters[:, AMPLITUDE] * grey
        in_sigmas = parameters[:, AMPLITUDE] / np.sqrt(covariance[:, AMPLITUDE, AMPLITUDE])
        confidence[:] = 1 / (1 + (HALF_CONFIDENCE_SIGMAS / in_sigmas) ** 4)
        keep = np.ones(table.shape[1], np.bool_)
        if self._table is not None:
            for i in range(table.shape[1]):
                variances = covariance[i]
                z[i], sigma_z[i], distance, inside = depth_from_widths(
                    parameters[i, LN_SX],
                    parameters[i, LN_SY],
                    variances[LN_SX, LN_SX],
                    variances[LN_SX, LN_SY],
                    variances[LN_SY, LN_SY],
                    self._table,
                )
                confidence[i] /= 1 + (distance / HALF_CONFIDENCE_DISTANCE) ** 2
                keep[i] = inside
            left_out["outside_curve"] = int((~keep).sum())
        doubtful = keep & (confidence < self._settings.least_confidence)
        left_out["doubtful"] = int(doubtful.sum())
        table = table[:, keep & ~doubtful]
        table, left_out["too_many"] = strongest(table, self._settings.max_particles)
        return np.ascontiguousarray(table), left_out
