"""The centre of an object by its symmetry, and an object averaged over the symmetries that its noise allows.

An object is only seen, not labelled, so any point that moves with it could be called its centre. Symmetry chooses
one: turned by half a turn about its centre c an object f is most like itself, where the self-convolution

    A(2c) = sum_r f(r) f(2c - r)                                                                (1)

is largest. For an object of which only a part is symmetric it is the centre of that part. (1) is a trigonometric
polynomial in c, so its peak is found to a fraction of a pixel without interpolation. LodeSTAR (Midtvedt et al.
2022, Nature Communications 13, 7492) uses the same symmetry by training a network on turned and mirrored crops.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]

ROUNDS = 40
CLOSE_PX = 1e-4
LARGEST_STEP_PX = 0.5
AGREE_SDS, AGREE_PART = 3.0, 0.12
"""Difference of two partners, in standard deviations of their noise and over the object's contrast, up to which
they are alike."""
MISFIT, ALIKE = 1.3, 0.01
"""Square difference from a symmetric image over what noise explains, and what may be beyond, over the image's own,
up to which it counts as symmetric. Ellipses with axes 1 to 1.1 differ by 0.01 from round ones."""
ROUND_AVERAGES = 8.0
"""Pixels averaged around the centre of a round object, at least, over most of its area."""


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
    ky, kx = (2 * math.pi * np.fft.fftfreq(length) for length in size)
    for _ in range(ROUNDS):
        wave = spectrum * np.exp(1j * (ky[:, None] * at[0] + kx[None, :] * at[1]))
        by_y, by_x = wave * ky[:, None], wave * kx[None, :]
        slope = -np.array([by_y.imag.sum(), by_x.imag.sum()])
        mixed = -(by_y * kx[None, :]).real.sum()
        curve = np.array(
            [[-(by_y * ky[:, None]).real.sum(), mixed], [mixed, -(by_x * kx[None, :]).real.sum()]]
        )
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


def one_sided(image: FloatArray, noise_sd: float) -> tuple[FloatArray, float]:
    """An object without what has no partner after half a turn, and the part of its energy that this was.

    The image (P, P) is centred. Pairs of pixels that agree within their noise are averaged; of others the fainter
    one stands for both, as a neighbour or dirt adds to one of them.
    """
    other = turned(image)
    fainter = np.where(np.abs(image) <= np.abs(other), image, other)
    least = max(AGREE_SDS * math.sqrt(2) * noise_sd, AGREE_PART * float(np.abs(image).max()))
    agree = np.abs(image - other) <= least
    both = np.where(agree, 0.5 * (image + other), fainter)
    removed = float(((image - both)[~agree] ** 2).sum()) / max(float((image**2).sum()), 1e-12)
    return both, removed


class Averaged(NamedTuple):
    """An image over its symmetries, the part of the noise's variance that is left, and the symmetry's name."""

    image: FloatArray
    noise_part: float
    symmetry: str


def averaged(image: FloatArray, outline: FloatArray, noise_variance: float, already: float) -> Averaged:
    """Average an object (P, P), P odd, that is alike after half a turn, over the further symmetries that it has.

    Tried in turn: round, alike in four quarters. One is used if the image differs from the average, under the
    `outline`, by no more than its noise, of which averaging has left a part `already`, and `ALIKE` of its energy:
    so faint objects, where noise matters, lose most of it.
    """
    quarters = np.mean([image, image[::-1], image[:, ::-1], image[::-1, ::-1]], axis=0)
    energy, pixels = float((outline * image**2).sum()), float(outline.sum())
    for symmetric, part, name in (
        (_round(image), 1 / ROUND_AVERAGES, "round"),
        (quarters, 0.25, "four quarters"),
    ):
        misfit = float((outline * (image - symmetric) ** 2).sum())
        if misfit <= MISFIT * noise_variance * (already - part) * pixels + ALIKE * energy:
            return Averaged(symmetric, part, name)
    return Averaged(image, already, "half a turn")


def _round(image: FloatArray) -> FloatArray:
    """The mean over all directions (P, P), by the distance from the middle pixel."""
    half = image.shape[0] // 2
    y, x = np.indices(image.shape) - half
    distance = np.hypot(y, x)
    radii = np.arange(math.ceil(distance.max()) + 1)
    profile = np.empty(radii.size)
    for radius in radii:
        angle = np.linspace(0, 2 * math.pi, max(4, 8 * int(radius)), endpoint=False)
        at = half + radius * np.sin(angle), half + radius * np.cos(angle)
        profile[radius] = ndimage.map_coordinates(image, at, order=3, mode="nearest").mean()
    found: FloatArray = np.interp(distance, radii, profile)
    return found
