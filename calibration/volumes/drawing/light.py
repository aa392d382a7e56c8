"""The light of particles in training volumes, drawn with the PSF; a Gaussian as a product of three profiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.volumes.fit.arguments import BOX, KernelPsf, Room
from engines.volumes.fit.rendering import VALUE, render, set_box, volume_of
from engines.volumes.fit.spots import kernel_psf
from engines.volumes.psf import VolumePsf

FloatArray = npt.NDArray[np.float64]
AddLight = Callable[
    [npt.NDArray[np.float32], npt.NDArray[np.int64], FloatArray, FloatArray, FloatArray], None
]
"""Adds particles to (B, Z, H, W): which volume (N,), centres (N, 3), peaks (N,), standard deviations (N, 3)."""
MOST_WIDER = 1.25
"""The most by which a measured PSF is made wider."""
FEW = 6.0
"""Mean number of photoelectrons below which Poisson numbers are drawn as such."""
REACH = 4.5
"""Standard deviations to which a Gaussian is drawn: 4e-5 of its peak is left out."""


@njit(cache=True, nogil=True)
def add_gaussians(light: Any, volume: Any, centres: Any, peaks: Any, sigmas: Any) -> None:
    """Add particles to `light` (B, Z, H, W): which volume (N,), centres (N, 3) z, y, x in voxels, peaks (N,), and
    standard deviations (N, 3)."""
    depth, height, width = light.shape[1], light.shape[2], light.shape[3]
    longest = max(depth, height, width)
    profiles = np.empty((3, longest))
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    for n in range(centres.shape[0]):
        for axis in range(3):
            size = depth if axis == 0 else (height if axis == 1 else width)
            middle, sigma = centres[n, axis], sigmas[n, axis]
            first[axis] = max(0, math.ceil(middle - REACH * sigma))
            last[axis] = min(size - 1, math.floor(middle + REACH * sigma))
            for place in range(first[axis], last[axis] + 1):
                step = (place - middle) / sigma
                profiles[axis, place] = math.exp(-0.5 * step * step)
        own = light[volume[n]]
        for k in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                factor = peaks[n] * profiles[0, k] * profiles[1, j]
                for i in range(first[2], last[2] + 1):
                    own[k, j, i] += factor * profiles[2, i]


def counted(mean: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Numbers of photoelectrons with these means: Poisson where few, else by its first terms of Cornish and Fisher.

    Of means from `FEW` on, mean, variance and skewness are those of the Poisson distribution to 1 %, in a tenth of
    the time.
    """
    normal = rng.standard_normal(mean.shape, np.float32)
    found = np.rint(mean + np.sqrt(np.maximum(mean, 0)) * normal + (normal * normal - 1) / 6)
    np.maximum(found, 0, out=found)
    few = mean < FEW
    if few.any():
        found[few] = rng.poisson(np.maximum(mean[few], 0))
    return np.asarray(found, np.float32)


def light_of(psf: VolumePsf) -> AddLight:
    """What adds particles of a PSF, made wider or narrower by their `sigmas` over the PSF's."""
    return partial(_add_measured, psf) if psf.is_measured else add_gaussians


def _add_measured(
    psf: VolumePsf,
    light: npt.NDArray[np.float32],
    volume: npt.NDArray[np.int64],
    centres: FloatArray,
    peaks: FloatArray,
    sigmas: FloatArray,
) -> None:
    kernel = kernel_psf(psf)
    shape = light.shape[1:]
    longest = [
        min(int(MOST_WIDER * 2 * reach) + 2, size) for reach, size in zip(kernel.reach, shape, strict=True)
    ]
    image = np.empty((4, math.prod(longest)), np.float32)
    planes = np.zeros((5, *kernel.coefficients.shape[1:]), np.float32)
    _add_splines(light, volume, centres, peaks, sigmas / np.array(psf.sigma_voxels), kernel, image, planes)


@njit(cache=True, nogil=True)
def _add_splines(
    light: Any, volume: Any, centres: Any, peaks: Any, ratios: Any, psf: Any, image: Any, planes: Any
) -> None:
    depth, height, width = light.shape[1], light.shape[2], light.shape[3]
    heights, box = np.arange(depth).astype(np.float64), np.empty(BOX, np.int64)
    none, flat, cube = np.empty(0, np.float32), np.empty((2, 0), np.float32), np.empty((3, 2, 0), np.float32)
    images = np.empty((0, 4, 0), np.float32)
    room = Room(images, images, none, none, none, none, none, none, none, none, none, cube, flat, planes)
    for n in range(centres.shape[0]):
        wider = KernelPsf(
            psf.sigma * ratios[n],
            psf.reach * ratios[n],
            True,
            psf.coefficients,
            psf.per_voxel / ratios[n],
            psf.centre,
            psf.misfit,
        )
        set_box(centres[n], heights, (depth, height, width), wider, 1.0, box)
        if volume_of(box) == 0 or volume_of(box) > image.shape[1]:
            continue
        render(centres[n], box, heights, wider, False, room, image)
        factor, at, wide = np.float32(peaks[n]), 0, box[5] - box[4]
        for k in range(box[0], box[1]):
            for j in range(box[2], box[3]):
                row = light[volume[n], k, j, box[4] : box[5]]
                for i in range(wide):
                    row[i] += factor * image[VALUE, at + i]
                at += wide
