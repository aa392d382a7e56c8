"""Depths and directions of the two focal lines of an astigmatic lens, from the PSF.

The projection of an image onto one axis does not depend on the defocus along the other, so its sharpness over depth
has a single maximum: at the focal plane that belongs to this axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.errors import CalibrationError

FloatArray = npt.NDArray[np.float64]

MIN_SEPARATION_STEPS = 2.0
"""Steps by which the focal lines must be apart to be two; a peak is located to a fraction of a step."""
MIN_LENGTHENING = 1.15
"""Ratio of an image's widths at a focal line. Round images reach 1.05 by noise, a cylindrical lens 2 and more; 20
% more or less changes nothing in a small simulated scan (rms depth error 0.082 um)."""
ROUND = 0.02
"""Angle in degrees below which images are not turned, and relative change of the moments below which no angle can
be measured."""
TOP_PART = 0.35
"""Part of a peak, from its top, through which a curve is fitted. 20 % more or less moves the focal lines by 0.1
um or less in a small simulated scan (rms depth error 0.082 um)."""
MOMENT_LEVEL = 0.25
"""Part of the peak below which pixels do not count for the moments: noise far out has a long lever. Half or twice
as much changes nothing in a small simulated scan (rms depth error 0.082 um)."""
MIDDLE_PART = 0.8
"""Part of the cut-out's half width that is used. 20 % more or less moves the focal lines by 0.3 um in a small
simulated scan (rms depth error 0.082 um)."""
MIDDLE_PX = 12
"""Ratio of an image's widths at a focal line, above that of a round image with noise. 20 % more or less changes
nothing in a small simulated scan (rms depth error 0.082 um)."""


@dataclass(frozen=True, slots=True)
class FocalPlanes:
    """Depths, um, at which images are sharpest along x (`xz_um`) and along y (`yz_um`), and overall.

    `rotation_deg` is the angle of the lens's axes to the camera's, from x towards y; `astigmatic` is False for
    a lens without two focal lines, for which both depths are the same.
    """

    xz_um: float
    yz_um: float
    rotation_deg: float
    astigmatic: bool

    @property
    def middle_um(self) -> float:
        """Midway between the focal lines."""
        return (self.xz_um + self.yz_um) / 2

    def moved(self, by_um: float) -> FocalPlanes:
        """The same planes on a depth axis whose origin lies `by_um` higher."""
        return FocalPlanes(self.xz_um - by_um, self.yz_um - by_um, self.rotation_deg, self.astigmatic)


def find_focal_planes(images: npt.NDArray[np.floating], z_um: FloatArray) -> FocalPlanes:
    """The focal planes from noise-free images (J, P, P) at evenly spaced depths (J,).

    Raises `CalibrationError` if the sharpest images are the first or the last ones.
    """
    stack = images.astype(np.float64)
    rotation_deg = _rotation(stack)
    turned = stack
    if abs(rotation_deg) > ROUND:
        turned = ndimage.rotate(stack, rotation_deg, axes=(1, 2), reshape=False, order=3, mode="nearest")
    step_um = float(z_um[1] - z_um[0])
    turned = _middle(turned)
    peaks = [_peak(_sharpness(turned.sum(axis=axis)), z_um) for axis in (1, 2)]
    overall = _peak((turned**2).sum(axis=(1, 2)), z_um)
    for peak, name in ((overall, "overall"), (peaks[0], "along x"), (peaks[1], "along y")):
        if peak in {z_um[0], z_um[-1]}:
            raise CalibrationError(
                f"images are sharpest {name} at the end of the scanned depths ({peak:.0f} um); scan further in "
                "that direction"
            )
    if abs(peaks[0] - peaks[1]) < MIN_SEPARATION_STEPS * step_um or not _lengthens(turned, z_um, peaks):
        return FocalPlanes(overall, overall, 0.0, astigmatic=False)
    return FocalPlanes(peaks[0], peaks[1], rotation_deg, astigmatic=True)


def _middle(stack: FloatArray) -> FloatArray:
    """The middle of images (J, P, P): sharp lines lie within it, the remains of neighbours mostly do not."""
    half = stack.shape[1] // 2
    kept = max(MIDDLE_PX, round(MIDDLE_PART * half))
    cut = max(0, half - kept)
    return stack[:, cut : stack.shape[1] - cut, cut : stack.shape[2] - cut]


def _sharpness(profiles: FloatArray) -> FloatArray:
    """Sharpness (J,) of projections (J, P): their sum of squares, which is largest where they are narrowest."""
    edge = max(2, profiles.shape[1] // 10)
    ends = np.concatenate([profiles[:, :edge], profiles[:, -edge:]], axis=1)
    clean = profiles - np.median(ends, axis=1, keepdims=True)
    sharpness: FloatArray = (clean**2).sum(axis=1)
    return sharpness


def _peak(values: FloatArray, z_um: FloatArray) -> float:
    """Depth of the maximum; the first or the last depth if the maximum lies there."""
    best = int(np.argmax(values))
    if best in {0, len(values) - 1}:
        return float(z_um[best])
    # a curve through the upper part of the peak
    above = values > values[best] - TOP_PART * np.ptp(values)
    low, high = best, best
    while low > 0 and above[low - 1]:
        low -= 1
    while high < len(values) - 1 and above[high + 1]:
        high += 1
    low, high = min(low, best - 1), max(high, best + 1)
    reach = min(best - low, high - best)
    part = slice(best - reach, best + reach + 1)
    curve = np.polyfit(z_um[part] - z_um[best], values[part], 2 if reach < 3 else 4)
    slope = np.polynomial.Polynomial(curve[::-1]).deriv()
    roots = slope.roots()
    real = roots[np.isreal(roots)].real
    span = z_um[best + reach] - z_um[best]
    inside = real[np.abs(real) <= span]
    if not inside.size:
        return float(z_um[best])
    heights = np.polyval(curve, inside)
    return float(z_um[best] + inside[np.argmax(heights)])


def _second_moments(stack: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    half = stack.shape[1] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    level = MOMENT_LEVEL * stack.max(axis=(1, 2), keepdims=True)
    weight = np.maximum(stack, level) - level
    total = weight.sum(axis=(1, 2)) + 1e-12
    moments = [(weight * product).sum(axis=(1, 2)) / total for product in (x * x, y * y, x * y)]
    return moments[0], moments[1], moments[2]


def _rotation(stack: FloatArray) -> float:
    """Angle of the lines, degrees in (-45, 45]: that which makes the cross moment vanish over all depths."""
    xx, yy, xy = _second_moments(_middle(stack))
    along = xx - yy
    if np.ptp(along) < MIN_LENGTHENING**2 * float(np.median(xx + yy)) * ROUND:
        return 0.0
    # depth-wise the pair (along, 2 xy) lies on a line through the origin; its direction is twice the angle
    matrix = np.cov(np.stack([along, 2 * xy]))
    _, vectors = np.linalg.eigh(matrix)
    direction = vectors[:, -1]
    angle = math.degrees(0.5 * math.atan2(direction[1], direction[0]))
    while angle <= -45:
        angle += 90
    while angle > 45:
        angle -= 90
    return angle


def _lengthens(turned: FloatArray, z_um: FloatArray, peaks: list[float]) -> bool:
    """Whether images really are lines at the two planes, along y at one and along x at the other."""
    xx, yy, _ = _second_moments(turned)
    ratio = [float(np.interp(peak, z_um, np.sqrt(yy / xx))) for peak in peaks]
    return ratio[0] > MIN_LENGTHENING and ratio[1] < 1 / MIN_LENGTHENING
