"""The centre of an object by its symmetry.

An object is only seen, not labelled, so any point that moves with it could be called its centre. Symmetry chooses
one: turned by half a turn about its centre c an object f is most like itself, where the self-convolution

    A(2c) = sum_r f(r) f(2c - r)                                                                (1)

is largest. For an object of which only a part is symmetric it is the centre of that part. (1) is a trigonometric
polynomial in c, so its peak is found to a fraction of a pixel without interpolation. LodeSTAR (Midtvedt et al.
2022, Nature Communications 13, 7492) uses the same symmetry by training a network on turned and mirrored crops.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]

ROUNDS = 40
CLOSE_PX = 1e-4
LARGEST_STEP_PX = 0.5


def centre_of(contrast: FloatArray, start: tuple[float, float], within_px: float) -> tuple[float, float]:
    """The centre (y, x) of symmetry of an image (H, W) of contrast 0 around the object, `within_px` of a start."""
    height, width = contrast.shape
    size = 2 * height, 2 * width
    spectrum = np.fft.fft2(contrast, size) ** 2
    # at whole s = 2c first, which are steps of half a pixel
    whole = np.fft.ifft2(spectrum).real
    y, x = (0.5 * np.arange(length) for length in size)
    off = np.hypot(y[:, None] - start[0], x[None, :] - start[1])
    # two objects are together alike about the middle between them, twice as much as each about its own
    likely = np.where(
        off <= within_px, np.maximum(whole, 0) * np.exp(-((2 * off / within_px) ** 2) / 2), -1.0
    )
    row, column = np.unravel_index(np.argmax(likely), whole.shape)
    at = np.array([float(row), float(column)])
    # sums over (1)'s waves, which are products of one along y and one along x, with powers of their numbers
    numbers = [2 * math.pi * np.fft.fftfreq(length) for length in size]
    powers = [np.stack([np.ones_like(k), k, k**2]) for k in numbers]
    for _ in range(ROUNDS):
        by_y, by_x = (p * np.exp(1j * k * c) for p, k, c in zip(powers, numbers, at, strict=True))
        sums = np.einsum(
            "ax,bx->ab", np.einsum("ay,yx->ax", by_y, spectrum), by_x
        )  # BLAS would start threads
        slope = -np.array([sums[1, 0].imag, sums[0, 1].imag])
        curve = -np.array([[sums[2, 0], sums[1, 1]], [sums[1, 1], sums[0, 2]]]).real
        if np.linalg.eigvalsh(curve).max() < 0:
            step = -np.linalg.solve(curve, slope)
        else:  # not yet on the peak: uphill
            step = LARGEST_STEP_PX * slope / max(float(np.abs(slope).max()), 1e-300)
        step *= min(1.0, LARGEST_STEP_PX / max(float(np.abs(step).max()), 1e-12))
        at = at + step
        if np.abs(step).max() < CLOSE_PX:
            break
    return float(0.5 * at[0]), float(0.5 * at[1])


def turned(image: FloatArray, centre: tuple[float, float] | None = None) -> FloatArray:
    """The image (H, W) turned by half a turn about a centre (y, x), by default its middle; 0 beyond its edge."""
    if centre is None:
        return image[::-1, ::-1]
    y, x = np.indices(image.shape)
    found: FloatArray = ndimage.map_coordinates(
        image, [2 * centre[0] - y, 2 * centre[1] - x], order=1, cval=0.0
    )
    return found
