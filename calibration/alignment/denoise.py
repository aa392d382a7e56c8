"""Wiener filter (1949) for the noise that remains in the PSF.

The noise is small, but a fit takes its gradients for the particle's own and would state too small a standard
error. Far from focus images are smooth, so most spatial frequencies contain only noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

FloatArray = npt.NDArray[np.float64]

# Beyond the Nyquist frequency of both axes, in cycles a pixel, there is nothing of an image.
NOISE_FREQUENCY = 0.5
# How many depths and frequencies have the same spectrum.
SMOOTHED = (5, 5, 5)
FLOOR_NODES = 9
# So many times the noise is taken off, since its spectrum is known from few values.
CAUTION = 1.4
MEDIAN_OF_EXPONENTIAL = float(np.log(2.0))


def wiener(images: FloatArray) -> FloatArray:
    """Images (J, P, P) of the PSF at rising depths, with the frequencies damped in which noise prevails."""
    size = images.shape[-1]
    spectrum = fft.fft2(images, workers=-1)
    power = np.abs(spectrum) ** 2
    along = fft.fftfreq(size)
    empty = np.hypot(along[:, None], along[None, :]) > NOISE_FREQUENCY
    floor = np.median(power[:, empty], axis=1) / MEDIAN_OF_EXPONENTIAL
    floor = ndimage.median_filter(floor, FLOOR_NODES, mode="nearest")[:, None, None]
    smooth = ndimage.uniform_filter(power, SMOOTHED, mode=("nearest", "wrap", "wrap"))
    gain = np.clip(1.0 - CAUTION * floor / np.maximum(smooth, 1e-300), 0.0, 1.0)
    return np.asarray(fft.ifft2(spectrum * gain, workers=-1).real, np.float64)
