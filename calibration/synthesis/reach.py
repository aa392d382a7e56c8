"""Extent of a particle's image at each depth, from which its mask is made.

A mask is 1 within the reach and falls smoothly to 0 over `EDGE_PX` beyond it, along y and x each.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

from calibration.psf_model import PsfModel
from calibration.synthesis.inputs import Cutouts, NoiseModel

FloatArray = npt.NDArray[np.float64]

EDGE_PX = 5
FAINT = 0.02
LEAST_HALF_PX = EDGE_PX + 3
_SMOOTHING_PX = 1.5
_NOISE_SDS = 4.5
_GAP_PX = 3
_MOST_BINS = 64
_CUTOUTS_A_BIN = 8


@njit(cache=True, nogil=True, inline="always")
def mask(distance_px: float, reach_px: float) -> float:
    """The mask's value so far from the centre along one axis."""
    t = (abs(distance_px) - reach_px) / EDGE_PX
    if t <= 0.0:
        return 1.0
    if t >= 1.0:
        return 0.0
    return 1.0 - t * t * (3.0 - 2.0 * t)


def reach_of_images(images: npt.NDArray[np.floating], noise_sd: FloatArray) -> FloatArray:
    """Reach (J, 2) along y and x of images (J, P, P) with noise (J,) that is left in their pixels, px.

    It is where the contrast, smoothed a little and counted from the median along the image's edge, has fallen
    below 2 % of its peak or into the noise; structures apart from the particle do not count. The mask always
    ends within the image.
    """
    half = images.shape[1] // 2
    distance = np.abs(np.arange(images.shape[1]) - half)
    found = np.empty((len(images), 2))
    for index, image in enumerate(images):
        edge = np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]))
        smooth = np.abs(ndimage.gaussian_filter(image.astype(np.float64) - edge, _SMOOTHING_PX))
        floor = _NOISE_SDS * noise_sd[index] / (2 * math.sqrt(math.pi) * _SMOOTHING_PX)
        level = max(FAINT * smooth[half - 2 : half + 3, half - 2 : half + 3].max(), floor)
        particle = _largest_part(smooth, smooth > level)
        for axis in (0, 1):
            above = distance[particle.any(axis=1 - axis)]
            found[index, axis] = above.max() if above.size else 1.0
    reach: FloatArray = np.minimum(found + 1.0, half - EDGE_PX - 2.0)
    return reach


def _largest_part(image: FloatArray, above: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The part of `above` with the largest sum; gaps of a few pixels, as between rings, do not divide it."""
    label, count = ndimage.label(ndimage.binary_dilation(above, iterations=_GAP_PX))
    if count == 0:
        return above
    strength = ndimage.sum_labels(image, label, np.arange(1, count + 1))
    part: npt.NDArray[np.bool_] = above & (label == 1 + np.argmax(strength))
    return part


def reach_of_model(model: PsfModel) -> FloatArray:
    """Reach (J, 2) of the particle at each of the model's depths, px."""
    nodes = model.z_first_um + model.z_step_um * np.arange(len(model.coefficients))
    return reach_of_images(model.images(nodes), np.zeros(nodes.size))


def reach_over_field(model: PsfModel) -> FloatArray:
    """As `reach_of_model`, the largest in the middle, at the edges and in the corners of the field of view."""
    field = model.field
    if field is None or not len(field.modes):
        return reach_of_model(model)
    height, width = field.shape
    places = [(x, y) for y in (0.0, height - 1.0) for x in (0.0, width - 1.0)]
    places += [(x, (height - 1) / 2) for x in (0.0, (width - 1) / 2, width - 1.0)]
    places += [((width - 1) / 2, y) for y in (0.0, height - 1.0)]
    found = []
    for x, y in places:
        u, v = field.place(x, y)
        local = field.local(model.coefficients, float(u), float(v))
        found.append(reach_of_model(replace(model, coefficients=local)))
    reach: FloatArray = np.max(found, axis=0)
    return reach


def reach_of_kinds(cutouts: Cutouts, noise: NoiseModel) -> FloatArray:
    """As `reach_of_cutouts`, of each kind of particles by itself."""
    if not cutouts.kind.any():
        return reach_of_cutouts(cutouts, noise)
    reach = np.empty((cutouts.z_um.size, 2))
    for kind in np.unique(cutouts.kind):
        mine = cutouts.kind == kind
        reach[mine] = reach_of_cutouts(cutouts.where(mine), noise)
    return reach


def reach_of_cutouts(cutouts: Cutouts, noise: NoiseModel) -> FloatArray:
    """Reach (M, 2) of each cut-out, px, from the average of those at like depth."""
    count = cutouts.z_um.size
    bins = int(np.clip(count // _CUTOUTS_A_BIN, 1, _MOST_BINS))
    groups = np.array_split(np.argsort(cutouts.z_um, kind="stable"), bins)
    averages = np.zeros((bins, *cutouts.contrast.shape[2:]))
    for number, group in enumerate(groups):
        for index in group:
            averages[number] += cutouts.contrast[index].sum(axis=0, dtype=np.int64)
    images = np.array([group.size * cutouts.repeats for group in groups])
    averages *= cutouts.scale / images[:, None, None]
    noise_sd = np.sqrt((noise.read + noise.shot) / images)
    depth = np.array([cutouts.z_um[group].mean() for group in groups])
    found = ndimage.median_filter(reach_of_images(averages, noise_sd), size=(3, 1), mode="nearest")
    return np.stack([np.interp(cutouts.z_um, depth, found[:, axis]) for axis in (0, 1)], axis=1)
