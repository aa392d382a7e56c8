"""What the objects of an image model look like at some values of their number, each in a window of its own size."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from engines.matched.filters import answering_area, image_of
from engines.refine.arguments import FloatArray
from engines.refine.psf import FitModel

SEEN_PART = 0.02
"""Of the peak: contrast from which a pixel is within a template's square."""
OUTLINE_PART = 0.06
"""Of the peak: smoothed contrast from which a pixel is within the outline; 0.03 to 0.12 changes little."""
STRETCHES = (1 / 1.4, 1.0, 1.4)
"""How much longer along an axis objects may be than the examples say."""
ALIKE = 0.85
"""Correlation with a template from which on another one says nothing new."""
SMOOTHING_PX, BEYOND_PX, FADES_PX = 1.0, 3, 1.5
"""Gaussian under which the outline is looked for, px that it is widened by, and those over which it fades."""


class Template(NamedTuple):
    """An object at a depth: `image` (P, P), P odd, its centre in the middle, of sum of squares 1; `flat` (P, P),
    the same less its mean, which answers to no even light; `window` (P, P), 1 within its outline and 0 outside.

    `answer` is what `flat` answers to an object of the model's own brightness, `peak` that object's contrast,
    `area_px` the area within which it answers to noise alike.
    """

    depth_um: float
    image: FloatArray
    flat: FloatArray
    window: FloatArray
    answer: float
    peak: float
    area_px: float

    @property
    def half(self) -> int:
        """Pixels on each side of the middle one."""
        return int(self.image.shape[0]) // 2


def templates_of(model: FitModel) -> list[Template]:
    """The objects at the model's nodes, also lying across, as on the other side of an astigmatic focus, and longer
    and shorter along y and x, where they are another image."""
    depths = model.z_first_um + model.z_step_um * np.arange(len(model.coefficients))
    spare = 1e-6 * model.z_step_um
    inside = (depths >= model.z_min_um - spare) & (depths <= model.z_max_um + spare)
    chosen = np.clip(depths[inside], model.z_min_um, model.z_max_um)
    seen = [(image_of(model, float(depth)), float(depth)) for depth in chosen]
    found = [_template(*each) for each in seen]
    for stretch in product(STRETCHES, repeat=2):
        for image, depth in [*seen, *((image.T, depth) for image, depth in seen)]:
            # as much light as before, on a larger or smaller area
            other = _template(_stretched(image, stretch) / math.prod(stretch), depth)
            if all(product_of(other.image, each.image) < ALIKE for each in found):
                found.append(other)
    return found


def product_of(one: FloatArray, other: FloatArray) -> float:
    """The sum of the products of two images with the same middle pixel, of any odd sides."""
    half = min(one.shape[0], other.shape[0]) // 2
    parts = []
    for image in (one, other):
        middle = image.shape[0] // 2
        parts.append(image[middle - half : middle + half + 1, middle - half : middle + half + 1])
    return float((parts[0] * parts[1]).sum())


def _stretched(image: FloatArray, factors: tuple[float, ...]) -> FloatArray:
    """The image (P, P), larger by factors along y and x about its middle, on as many more pixels."""
    half = image.shape[0] // 2
    wide = math.ceil(half * max(1.0, *factors))
    at = [np.arange(-wide, wide + 1) / factor + half for factor in factors]
    found: FloatArray = ndimage.map_coordinates(image, np.meshgrid(*at, indexing="ij"), order=3, cval=0.0)
    return found


def _template(whole: FloatArray, depth_um: float) -> Template:
    middle = whole.shape[0] // 2
    peak = float(np.abs(whole).max())
    far = np.abs(np.argwhere(np.abs(whole) > SEEN_PART * peak) - middle).max()
    half = min(int(far) + BEYOND_PX, middle)
    image = whole[middle - half : middle + half + 1, middle - half : middle + half + 1]
    image = 0.5 * (image + image[::-1, ::-1])
    flat = image - image.mean()
    flat /= np.sqrt((flat**2).sum())
    seen = ndimage.gaussian_filter(np.abs(image), SMOOTHING_PX) > OUTLINE_PART * peak
    outline = ndimage.binary_dilation(ndimage.binary_fill_holes(seen), iterations=BEYOND_PX)
    return Template(
        depth_um,
        image / np.sqrt((image**2).sum()),
        flat,
        ndimage.gaussian_filter(outline.astype(np.float64), FADES_PX),
        float((flat * image).sum()),
        peak,
        answering_area(flat),
    )
