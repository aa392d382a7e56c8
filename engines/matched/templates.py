"""What the objects of an image model look like at some values of their number, each in a window of its own size."""

from __future__ import annotations

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
SMOOTHING_PX, BEYOND_PX, FADES_PX = 1.0, 3, 1.5
"""Gaussian under which the outline is looked for, px that it is widened by, and those over which it fades."""


class Template(NamedTuple):
    """An object at a depth: `image` (P, P), P odd, its centre in the middle, of sum of squares 1; `flat` (P, P), the
    same less its mean, which answers to no even light; `window` (P, P), 1 within its outline and 0 outside.

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
        return self.image.shape[0] // 2


def templates_of(model: FitModel) -> list[Template]:
    """The objects at the model's nodes."""
    depths = model.z_first_um + model.z_step_um * np.arange(len(model.coefficients))
    spare = 1e-6 * model.z_step_um
    inside = (depths >= model.z_min_um - spare) & (depths <= model.z_max_um + spare)
    return [
        _template(model, float(depth)) for depth in np.clip(depths[inside], model.z_min_um, model.z_max_um)
    ]


def _template(model: FitModel, depth_um: float) -> Template:
    whole = image_of(model, depth_um)
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
