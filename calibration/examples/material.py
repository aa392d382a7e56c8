"""Training material of a few examples of an object."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.examples.objects import Example
from calibration.synthesis.inputs import Distribution, NoiseModel, Polarity
from calibration.synthesis.layout import Layout
from calibration.synthesis.looks import Looks
from calibration.synthesis.varied import Surroundings, Varied
from calibration.training.material import KNEE, LARGEST_PEAK, SPAN, Material, Recipe
from engines.refine import psf_text
from engines.refine.psf import FitModel

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

LEAST_STRETCH, MOST_STRETCH = 0.08, 0.35
"""By how much an object may be longer or shorter than an example, as a natural logarithm: at least as much as one
differs from the next, at most so much that its image is still like it."""
GAP_PART = 0.55
"""Of the gap between two examples' sizes each is stretched over a little more than half."""
LIGHT = Distribution(np.exp(np.linspace(-1, 1, 65) ** 3 * 0.7))
"""Brightness of an object over an example's: half of them within 10 %, all within a factor of 2."""
MOST_PARTS_COVERED = 0.35
"""Largest part of an image that objects cover on average; as much as closely packed ones in a slice."""
LEAST_PARTS_COVERED = 0.01
LEAST_GATE_PX, NO_DEPTH_GATE = 2.0, 10.0
"""px within which a detection counts as right, at least; the other is in depth, of which there is none."""
CLOSE_RADII = 2.0
UNEVEN_PART, CLUTTER_PART = 0.5, 0.3
"""Contrast of uneven light, and of structures as large as objects or larger, over that of the faintest example."""


def from_examples(
    examples: Sequence[Example],
    pixel_size_um: float,
    made_from: str,
    behind: Float32Array | None = None,
    model: FitModel | None = None,
) -> Recipe:
    """The material of a few examples; `behind` are images (K, H, W) of the background in contrast, if any.

    `model` is their image model for the fit after the network, if they have one.
    """
    particle = "" if model is None else psf_text.pack(model)
    return partial(_of_examples, tuple(examples), pixel_size_um, made_from, behind, particle)


def _of_examples(
    examples: tuple[Example, ...],
    pixel_size_um: float,
    made_from: str,
    behind: Float32Array | None,
    particle: str,
) -> Material:
    polarity: Polarity = "bright" if sum(each.peak for each in examples) > 0 else "dark"
    sign = 1.0 if polarity == "bright" else -1.0
    size = max(each.image.shape[0] for each in examples)
    images, outlines = (
        np.stack([_padded(image, size) for image in some])
        for some in ([sign * e.image for e in examples], [e.outline for e in examples])
    )
    coefficients = np.stack([ndimage.spline_filter(image, order=3, mode="mirror") for image in images])
    looks = Looks(
        coefficients.astype(np.float32),
        outlines.astype(np.float32),
        np.array([e.reach_px for e in examples]),
        np.array([e.noise_variance * e.noise_part for e in examples]),
    )
    peaks = np.array([abs(e.peak) for e in examples])
    noise_variance = float(np.median([e.noise_variance for e in examples]))
    radius = np.array([e.radius_px for e in examples])
    area = float(np.mean([(e.outline > 0.5).sum() for e in examples]))
    mean_peak, mean_radius = float(peaks.mean()), float(radius.mean())
    surroundings = Surroundings(
        uneven=UNEVEN_PART * float(peaks.min()),
        uneven_px=(6 * mean_radius, 30 * mean_radius),
        clutter=CLUTTER_PART * float(peaks.min()),
        clutter_px=(max(mean_radius, 1.0), 6 * mean_radius),
        images=behind,
    )
    camera = NoiseModel(noise_variance, 0.0, 1.0, Distribution.constant(1.0), SPAN)
    close = (CLOSE_RADII * mean_radius) ** 2
    sources = [
        Varied(
            looks,
            peaks / mean_peak,
            stretch_of(radius),
            LIGHT,
            noise,
            surroundings,
            Layout(
                (LEAST_PARTS_COVERED / area, MOST_PARTS_COVERED / area), overlapped, near_variance_px2=close
            ),
            pixel_size_um,
            polarity,
        )
        for noise, overlapped in (
            (camera, 0.1),
            (camera, 0.5),
            (NoiseModel.steady(noise_variance, 0.0, 1.0), 0.2),
        )
    ]
    return Material(
        training=tuple(sources[:2]),
        scoring=sources[2],
        pixel_size_um=pixel_size_um,
        polarity=polarity,
        middle_um=0.0,
        half_range_um=1.0,
        noise_contrast=float(np.sqrt(noise_variance)),
        peak_contrast=mean_peak,
        made_from=made_from,
        particle=psf_text.unpack(particle, made_from) if particle else None,
        depth=False,
        gate_um=(max(LEAST_GATE_PX, mean_radius) * pixel_size_um, NO_DEPTH_GATE),
        knee=KNEE if float(peaks.max()) > LARGEST_PEAK * np.sqrt(noise_variance) else None,
    )


def stretch_of(radius: FloatArray) -> FloatArray:
    """How far each example (N,) is stretched, as a logarithm, so that the sizes between them are met too."""
    size = np.log(radius)
    order = np.argsort(size)
    gaps = np.diff(size[order], prepend=size[order[0]], append=size[order[-1]])
    found = np.empty(radius.size)
    found[order] = np.clip(GAP_PART * np.maximum(gaps[:-1], gaps[1:]), LEAST_STRETCH, MOST_STRETCH)
    return found


def _padded(image: FloatArray, size: int) -> FloatArray:
    """The image (P, P) in the middle of one of this size."""
    return np.pad(image, (size - image.shape[0]) // 2)
