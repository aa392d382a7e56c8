"""Width curve of an optical set-up: the detector's own Gaussian fit, applied to clean images at known depths.

An astigmatic image is not a Gaussian. As the same fit makes the curve and measures the particles, the deviation is
the same in both and does not bias the depth.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import make_smoothing_spline

from acquisition.physics.optics import IMAGE_MODEL_VERSION, OpticsModel, particle_images
from calibration.errors import CalibrationError
from engines.classical.centre import CONVERGED, FULL_ITERATIONS, fit_gaussian
from engines.classical.gaussian import AMPLITUDE, LN_SX, LN_SY
from engines.classical.widths import Polarity, WidthCurve

FloatArray = npt.NDArray[np.float64]

FIT_TRIES = 8
"""Restarts of the fit, each with `FULL_ITERATIONS` steps, for a start from moments."""
MOMENT_LEVEL = 0.1
"""Part of the peak below which pixels do not count for the start. It changes the start, not the fit."""


def moments_start(image: npt.NDArray[Any]) -> FloatArray:
    """Return a fit's start from the moments of an image (H, W), bright on dark, above a tenth of its peak."""
    background = float(np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])))
    signal = image - background
    signal = np.where(signal > MOMENT_LEVEL * signal.max(), signal, 0.0)
    total = signal.sum()
    if not total > 0:
        raise CalibrationError("an image of the calibration shows no particle; check the polarity")
    rows, columns = np.indices(image.shape)
    x, y = (signal * columns).sum() / total, (signal * rows).sum() / total
    sigma_x = np.sqrt((signal * (columns - x) ** 2).sum() / total)
    sigma_y = np.sqrt((signal * (rows - y) ** 2).sum() / total)
    return np.array([x, y, np.log(max(0.5, sigma_x)), np.log(max(0.5, sigma_y)), 0.0, 0.0])


def fit_clean_image(image: npt.NDArray[Any]) -> FloatArray:
    """Fit an image (H, W), bright on dark, with one particle; returns the parameters of `fit_gaussian`."""
    prepared = np.ascontiguousarray(image, dtype=np.float32)
    parameters = moments_start(prepared)
    covariance = np.zeros((6, 6))
    for _ in range(FIT_TRIES):
        if fit_gaussian(prepared, parameters, 1e-9, False, FULL_ITERATIONS, covariance) == CONVERGED:
            return parameters
    raise CalibrationError(
        "a calibration image could not be fitted by a Gaussian; is there one particle in it?"
    )


def width_curve_from_images(
    images: npt.NDArray[Any],
    z_um: npt.ArrayLike,
    pixel_size_um: float,
    *,
    polarity: Polarity = "dark",
    provenance: dict[str, str | float] | None = None,
) -> WidthCurve:
    """Measure a curve from clean images (Z, H, W) of one particle near their middle, at depths `z_um` (Z,).

    The images are noise-free or averages over many particles; dark particles are darker than the background.
    Raises `CalibrationError` where an image cannot be fitted.
    """
    depths = np.asarray(z_um, dtype=np.float64)
    if images.ndim != 3 or images.shape[0] != depths.size:
        raise CalibrationError(f"{depths.size} depths need as many images, not an array of {images.shape}")
    sign = 1.0 if polarity == "bright" else -1.0
    fits = np.array([fit_clean_image(sign * image) for image in images])
    return width_curve_from_widths(
        depths,
        np.exp(fits[:, LN_SX]) * pixel_size_um,
        np.exp(fits[:, LN_SY]) * pixel_size_um,
        fits[:, AMPLITUDE],
        pixel_size_um,
        polarity=polarity,
        provenance=provenance,
    )


def width_curve_from_optics(
    optics: OpticsModel, *, z_range_um: float | None = None, z_step_um: float = 3.0
) -> WidthCurve:
    """Measure a curve from an optics model, for |z| up to `z_range_um` (None: its visible depth)."""
    reach_um = optics.visible_um if z_range_um is None else z_range_um
    steps = math.ceil(reach_um / z_step_um)
    z_um = np.linspace(-reach_um, reach_um, 2 * steps + 1)
    return width_curve_from_images(
        -particle_images(optics, z_um),
        z_um,
        optics.pixel_size_um,
        polarity=optics.polarity,
        provenance={
            "made_from": "optics model",
            "image_model_version": IMAGE_MODEL_VERSION,
            "optics": optics.model_dump_json(),
        },
    )


def width_curve_from_widths(
    z_um: FloatArray,
    sigma_x_um: FloatArray,
    sigma_y_um: FloatArray,
    amplitude: FloatArray,
    pixel_size_um: float,
    *,
    polarity: Polarity,
    provenance: dict[str, str | float] | None = None,
) -> WidthCurve:
    """Smooth measured widths (N,) over depth, in any order, into a curve on evenly spaced depths.

    A cubic smoothing spline, its stiffness chosen by generalised cross-validation (Woltring 1986), through
    the logarithms; measurements at one depth are averaged.
    """
    depths, place = np.unique(z_um, return_inverse=True)
    counts = np.bincount(place)
    if depths.size < 5:
        raise CalibrationError(f"a width curve needs at least five depths, not {depths.size}")
    even_um = np.linspace(depths[0], depths[-1], max(101, depths.size))
    smooth = []
    for values in (sigma_x_um, sigma_y_um, amplitude):
        mean = np.bincount(place, np.log(values)) / counts
        smooth.append(np.exp(make_smoothing_spline(depths, mean, w=counts.astype(np.float64))(even_um)))
    return WidthCurve(
        even_um,
        smooth[0],
        smooth[1],
        smooth[2] / smooth[2].max(),
        pixel_size_um,
        polarity,
        dict(provenance or {}),
    )
