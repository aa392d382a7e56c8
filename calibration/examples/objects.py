"""An object cut free from its crop: its contrast on a background of 0, its centre, its outline and its noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.errors import CalibrationError
from calibration.examples.crops import At, Crop, cut, opened
from calibration.examples.symmetry import averaged, one_sided
from engines.matched.symmetry import centre_of, turned
from engines.pixel_noise import pixel_noise
from engines.robust_sigma import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEAST_LIGHT = 1.0
"""Grey values of background below which there is no contrast, as in `engines.network.preparation`."""
SMOOTHING_PX = 1.0
"""Gaussian under which an outline is looked for: half of that of the smallest objects."""
SMOOTHED = 1 / (2 * math.sqrt(math.pi) * SMOOTHING_PX)
"""What it leaves of the standard deviation of a pixel's noise."""
SEEN_SDS = 6.0
"""Smoothed contrast, in standard deviations of its noise, from which a crop is not empty: noise alone reaches 4."""
OUTLINE_SDS, OUTLINE_PART = 4.0, 0.1
"""The outline is where the smoothed contrast falls below so many standard deviations, or below this part of its
peak; half or twice that part changes what is pasted by less than the noise."""
BEYOND_PX = 2
"""px that the outline is widened by, where contrast is hidden in the noise, and over which it fades."""
UNEVEN_PART, BORDER_PART = 0.6, 0.1
"""Standard deviation of a smoothed border over that of the border as it is, and over the object's contrast, above
which the object or others are on it: smoothing leaves 0.3 of noise."""
LEAST_SD = 1e-4
"""Contrast below which noise is not measured: images without any, as drawn ones, have rounded grey values."""
CLIPPED_SDS = 2.5
CENTRAL_PART = 0.2
"""The centre lies in this part of the crop's half side around its middle, as the user has aimed at it."""
FIRST_ROUNDS, ROUNDS = 2, 6
SIZES_PX = (17, 21, 25, 35, 49, 69, 97, 137, 193)
"""Sides of crops that are tried in turn around a place, until the object fits."""
NEIGHBOURS_PART = 0.25
"""Rise of the contrast around an object, over its own, from which there are neighbours on all sides."""
OTHERS_SDS, OTHERS_PART = 5.0, 0.12
"""Difference of a pixel of a symmetric object from its partner, in standard deviations of the smoothed noise and
over the object's contrast, from which on something else adds to one of them."""
SYMMETRIC_PART = 0.05
"""Part of an object's energy that may be without partner: less than that is noise or a neighbour's edge."""


SYMMETRIES = {
    "round": "round",
    "four quarters": "alike in four quarters",
    "half a turn": "alike after half a turn",
    "none": "not symmetric: its centre is that of its symmetric part",
}


class EmptyError(CalibrationError):
    """A crop without an object."""


class CutOffError(CalibrationError):
    """An object that is not wholly in its crop."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """An object that was cut free: `image` (P, P), P odd, its centre in the middle pixel's middle.

    It is contrast against the background, positive or negative as it is in the image, under `outline` (P, P; 0 to
    1). `noise_variance` is that of the camera in a pixel, `noise_part` what averaging has left of it in `image`.
    `centre_px` is the centre in the crop, y and x; `radius_px` the root of the mean square distance from it.
    `one_sided_part` is the part of its energy that had no partner after half a turn and was taken away.
    """

    image: FloatArray
    outline: FloatArray
    noise_variance: float
    noise_part: float
    symmetry: str
    centre_px: tuple[float, float]
    radius_px: float
    one_sided_part: float = 0.0

    @property
    def symmetry_in_words(self) -> str:
        """How it looks after a turn, for a message."""
        return SYMMETRIES[self.symmetry]

    @property
    def peak(self) -> float:
        """The largest contrast, with its sign."""
        return float(self.image.flat[np.abs(self.image).argmax()])

    @property
    def reach_px(self) -> float:
        """The largest distance from the centre within the outline, px."""
        y, x = np.nonzero(self.outline > 0)
        half = self.image.shape[0] // 2
        return float(np.hypot(y - half, x - half).max())


def free(crops: Sequence[Crop]) -> list[Example]:
    """Cut the objects in the middle of crops free from their backgrounds and neighbours.

    If one of them is alike after half a turn, all are taken to be, as neighbours and dirt make others unlike
    themselves; what has no partner on the other side is then left out.

    Raises `CalibrationError` for a crop without light or without an object, `CutOffError` for an object that
    reaches the edge of its crop.
    """
    cut = [_freed(crop, is_symmetric=False) for crop in crops]
    parts = [one_sided(each.image, math.sqrt(each.noise_variance))[1] for each in cut]
    if min(parts) > SYMMETRIC_PART:
        return cut
    return [
        replace(_averaged(_freed(crop, is_symmetric=True)), one_sided_part=part)
        for crop, part in zip(crops, parts, strict=True)
    ]


def crops_at(path: Path, at: Sequence[At]) -> list[Crop]:
    """The smallest crops, one around each place in the images of a recording, that hold the objects there.

    Raises `SourceError` for a recording that cannot be read, `CalibrationError` where it has no such image or
    place, or there is no object, or a cut-off one.
    """
    with closing(opened(path)) as stack:
        count = stack.info.planes
        for place in at:
            if place.image >= count:
                raise CalibrationError(
                    f"{path.name} has no image {place.image}; its {count} images count from 0"
                )
        images = {
            number: stack.read(number).image.astype(np.float64) for number in {each.image for each in at}
        }
    return [_smallest(images[place.image], place) for place in at]


def _smallest(image: FloatArray, at: At) -> Crop:
    """The smallest crop that its object can be cut from, if it can be also as a symmetric one."""
    failed: CalibrationError | None = None
    smallest: Crop | None = None
    height, width = image.shape
    room_px = (
        2 * min(round(at.x_px), round(at.y_px), width - 1 - round(at.x_px), height - 1 - round(at.y_px)) + 1
    )
    largest_px = min(max(room_px, SIZES_PX[0]), SIZES_PX[-1])
    for is_crowded in (False, True):
        for size_px in [size for size in SIZES_PX if size < largest_px] + [largest_px]:
            crop = cut(image, at, size_px)
            try:
                _cut_free(crop, is_symmetric=False, is_crowded=is_crowded)
                smallest = smallest or crop
                _cut_free(crop, is_symmetric=True, is_crowded=is_crowded)
            except (CutOffError, EmptyError) as error:  # a larger crop may hold all of it
                failed = error
            else:
                return crop
        if smallest is not None:
            return smallest
    assert failed is not None
    raise failed


def _averaged(example: Example) -> Example:
    both, _ = one_sided(example.image, math.sqrt(example.noise_variance))
    mean = averaged(both, example.outline, example.noise_variance, 0.5)
    image, part, symmetry = mean
    return replace(
        example,
        image=image * example.outline,
        noise_part=part,
        symmetry=symmetry,
        radius_px=_radius(image * example.outline),
    )


def _freed(crop: Crop, *, is_symmetric: bool) -> Example:
    try:
        return _cut_free(crop, is_symmetric=is_symmetric, is_crowded=False)
    except (CutOffError, EmptyError):  # perhaps only because others touch it
        return _cut_free(crop, is_symmetric=is_symmetric, is_crowded=True)


def _cut_free(crop: Crop, *, is_symmetric: bool, is_crowded: bool) -> Example:
    contrast, border = contrast_of(crop)
    smooth = ndimage.gaussian_filter(contrast, SMOOTHING_PX)
    noise_sd, smooth_sd = (_border_sd(some, border) for some in (contrast, smooth))
    if is_crowded:  # neighbours are on all sides of the border
        least_sd = max(pixel_noise(contrast.astype(np.float32), 1), LEAST_SD)
        noise_sd, smooth_sd = min(noise_sd, least_sd), min(smooth_sd, SMOOTHED * least_sd)
    height, width = contrast.shape
    start = 0.5 * (height - 1), 0.5 * (width - 1)
    within = CENTRAL_PART * min(start)
    seen = np.abs(smooth)
    y, x = np.indices(contrast.shape)
    middle = np.hypot(y - start[0], x - start[1]) <= within + 1
    if seen[middle].max() < SEEN_SDS * smooth_sd:
        raise EmptyError(
            f"{crop.name} has no object in its middle: its contrast there is within the noise; cut around an object"
        )
    if smooth_sd > max(UNEVEN_PART * noise_sd, BORDER_PART * seen[middle].max()):
        raise CutOffError(_cut_off(crop))
    off = np.hypot((y - start[0]) / (start[0] + 1), (x - start[1]) / (start[1] + 1))
    centre = centre_of(smooth * np.cos(0.5 * math.pi * np.clip(off, 0, 1)) ** 2, start, within)
    own = np.ones_like(contrast)
    for turn in range(ROUNDS):
        outline = _outline(seen, centre, smooth_sd, crop, is_symmetric=is_symmetric, is_crowded=is_crowded)
        if is_symmetric and turn >= FIRST_ROUNDS:  # before, the centre is not good enough to tell partners
            own = _own(seen * outline, centre, smooth_sd)
        centre = centre_of(smooth * outline * own, centre, within)
    if is_symmetric:
        contrast = np.where(own > 0, contrast, turned(contrast, centre))
    image, outline = _centred(contrast, outline, centre)
    return Example(image * outline, outline, noise_sd**2, 1.0, "none", centre, _radius(image * outline))


def _own(seen: FloatArray, centre: tuple[float, float], noise_sd: float) -> FloatArray:
    """1 where a pixel (H, W) and its partner on the other side of the centre agree, 0 where something else adds."""
    excess = np.abs(seen - turned(seen, centre))
    return np.where(excess <= max(OTHERS_SDS * noise_sd, OTHERS_PART * float(seen.max())), 1.0, 0.0)


def _radius(image: FloatArray) -> float:
    y, x = np.indices(image.shape) - image.shape[0] // 2
    weight = np.abs(image)
    return math.sqrt(float((weight * (y**2 + x**2)).sum() / weight.sum()))


def _border_sd(image: FloatArray, border: BoolArray) -> float:
    """Standard deviation on the border, of its two quietest sides: the others may show parts of neighbours."""
    y, x = np.indices(image.shape)
    height, width = image.shape
    sides = np.argmin([y, height - 1 - y, x, width - 1 - x], axis=0)
    found = sorted(_spread(image[border & (sides == side)]) for side in range(4))
    return max(0.5 * (found[0] + found[1]), LEAST_SD)


def contrast_of(crop: Crop) -> tuple[FloatArray, BoolArray]:
    """Contrast against a plane through the crop's border, and the pixels (H, W) of the border.

    What stands out of the border's plane, as parts of neighbours do, is left out of it.
    """
    height, width = crop.grey.shape
    y, x = np.indices(crop.grey.shape)
    border = np.minimum.reduce([y, x, height - 1 - y, width - 1 - x]) < max(2, min(height, width) // 12)
    terms = np.stack([np.ones_like(crop.grey), y - 0.5 * (height - 1), x - 0.5 * (width - 1)], axis=-1)
    use = border.copy()
    plane = np.full(crop.grey.shape, np.median(crop.grey[border]))
    for _ in range(5):
        solution = np.linalg.lstsq(terms[use], crop.grey[use], rcond=None)[0]
        plane = terms @ solution
        off = crop.grey - plane
        use = border & (np.abs(off) < CLIPPED_SDS * max(_spread(off[use]), 1e-9))
        if use.sum() < terms.shape[-1] + 3:
            break
    if plane.min() < LEAST_LIGHT:
        raise CalibrationError(
            f"{crop.name} has no light around its object: contrast needs a background of {LEAST_LIGHT:g} grey "
            "value or more; add the camera's offset again"
        )
    return crop.grey / plane - 1.0, border


def _spread(values: FloatArray) -> float:
    """Standard deviation, robust against neighbours in a border."""
    return SIGMA_OF_MAD * float(np.median(np.abs(values - np.median(values))))


def _outline(
    seen: FloatArray,
    centre: tuple[float, float],
    noise_sd: float,
    crop: Crop,
    *,
    is_symmetric: bool,
    is_crowded: bool,
) -> FloatArray:
    """The object's outline (H, W), 1 within and fading to 0 around it; its neighbours are left out."""
    y, x = np.indices(seen.shape)
    distance = np.hypot(y - centre[0], x - centre[1])
    peak = seen[distance <= CENTRAL_PART * min(seen.shape) + 1].max()
    level = max(OUTLINE_SDS * noise_sd, OUTLINE_PART * peak)
    # a neighbour has no partner on the other side of the centre
    paired = np.minimum(seen, turned(seen, centre))
    tried = [paired] if is_symmetric else [seen, paired]
    if is_crowded:
        gap_px = _first_gap(seen, distance)
        if math.isinf(gap_px):
            raise CutOffError(_cut_off(crop))
        tried = [np.where(distance <= gap_px, paired, 0.0)]
    for strength in tried:
        part = _part_at(strength > level, strength, distance)
        wide = ndimage.binary_dilation(part, iterations=BEYOND_PX)
        if not _at_edge(part if is_crowded else wide):
            break
    else:
        raise CutOffError(_cut_off(crop))
    faded: FloatArray = np.clip(1.0 - ndimage.distance_transform_edt(~wide) / (BEYOND_PX + 1), 0.0, 1.0)
    return faded


def _first_gap(seen: FloatArray, distance: FloatArray) -> float:
    """Distance in px at which the contrast around an object is least before it rises to its neighbours'.

    Infinite where it does not rise. It is that of the median around the centre, which neighbours on less than half
    of the way round do not change.
    """
    radii = np.arange(min(distance.shape) // 2)
    profile = np.array([np.median(seen[np.abs(distance - radius) <= 0.7]) for radius in radii])
    low = np.flatnonzero(profile < 0.5 * profile.max())
    low = low[low > profile.argmax()]
    if not low.size:
        return math.inf
    after = profile[low[0] :]
    gap = int(after.argmin())
    if after[gap:].max() - after[gap] < NEIGHBOURS_PART * profile.max():
        return math.inf
    return float(radii[low[0] + gap])


def _cut_off(crop: Crop) -> str:
    height, width = crop.grey.shape
    return (
        f"the object of {crop.name} reaches the edge of its {width} x {height} pixels; cut it larger, or choose "
        "one that stands alone"
    )


def _part_at(above: BoolArray, strength: FloatArray, distance: FloatArray) -> BoolArray:
    """The connected part around the centre, with its holes; where it is none, the strongest one."""
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(above, iterations=1))
    label, count = ndimage.label(filled)
    if not count:
        return distance <= 2.0
    near = np.where(filled, distance, np.inf)
    number = int(label.flat[near.argmin()])
    if near.min() > 2.0:
        number = 1 + int(np.argmax(ndimage.sum_labels(strength, label, np.arange(1, count + 1))))
    part: BoolArray = label == number
    return part


def _at_edge(part: BoolArray) -> bool:
    return bool(part[0].any() or part[-1].any() or part[:, 0].any() or part[:, -1].any())


def _centred(
    contrast: FloatArray, outline: FloatArray, centre: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Contrast and outline (P, P) around the centre, moved by a fraction of a pixel with a cubic spline."""
    y, x = np.nonzero(outline)
    half = math.ceil(max(np.abs(y - centre[0]).max(), np.abs(x - centre[1]).max())) + 2
    grid = np.arange(-half, half + 1.0)
    at = np.meshgrid(grid + centre[0], grid + centre[1], indexing="ij")
    image = ndimage.map_coordinates(contrast, at, order=3, mode="constant", cval=0.0)
    mask = ndimage.map_coordinates(outline, at, order=1, mode="constant", cval=0.0)
    return image, mask
