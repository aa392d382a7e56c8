"""Gaussian particles as a model and as cut-outs, quick to make and with an exact truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.psf_model import PsfModel
from calibration.synthesis.from_optics import simulated_cutouts
from calibration.synthesis.inputs import Cutouts, NoiseModel
from engines.refine.field import FieldModel

FIRST_UM, STEP_UM, NODES = -60.0, 4.0, 31
HALF_PX = 28
PEAK = 0.1
SILENCE = NoiseModel.steady(0.0, 0.0, 2000.0)


def widths_px(z_um):
    return np.hypot(2, 0.05 * (z_um + 30)), np.hypot(2, 0.05 * (z_um - 30))


def gaussian_model(polarity="dark"):
    y, x = np.mgrid[-HALF_PX : HALF_PX + 1, -HALF_PX : HALF_PX + 1]
    images = []
    for j in range(NODES):
        sx, sy = widths_px(FIRST_UM + STEP_UM * j)
        images.append(PEAK * 4 / (sx * sy) * np.exp(-(x**2) / (2 * sx**2) - y**2 / (2 * sy**2)))
    return PsfModel.from_images(np.array(images), FIRST_UM, STEP_UM, pixel_size_um=0.8, polarity=polarity)


def larger_model(polarity="dark"):
    """Particles of another kind: half as wide again, and as bright in the middle."""
    y, x = np.mgrid[-HALF_PX : HALF_PX + 1, -HALF_PX : HALF_PX + 1]
    images = []
    for j in range(NODES):
        sx, sy = (1.5 * width for width in widths_px(FIRST_UM + STEP_UM * j))
        images.append(2 * PEAK * 4 / (sx * sy) * np.exp(-(x**2) / (2 * sx**2) - y**2 / (2 * sy**2)))
    return PsfModel.from_images(np.array(images), FIRST_UM, STEP_UM, pixel_size_um=0.8, polarity=polarity)


FIELD_SHAPE = (300, 400)


def uneven_model(polarity="dark"):
    """Gaussian particles that are wider along x the further to the right they are, by a fifth at the edge."""
    even = gaussian_model(polarity)
    y, x = np.mgrid[-HALF_PX : HALF_PX + 1, -HALF_PX : HALF_PX + 1]
    wider = []
    for j in range(NODES):
        sx, sy = widths_px(FIRST_UM + STEP_UM * j)
        sx *= 1.2
        wider.append(PEAK * 4 / (sx * sy) * np.exp(-(x**2) / (2 * sx**2) - y**2 / (2 * sy**2)))
    wide = PsfModel.from_images(np.array(wider), FIRST_UM, STEP_UM, pixel_size_um=0.8, polarity=polarity)
    field = FieldModel(
        FIELD_SHAPE,
        np.zeros(6),
        np.zeros((2, 2)),
        (wide.coefficients - even.coefficients)[None],
        np.array([[0.0, 1.0, 0.0]]),
        1,
    )
    return replace(even, field=field)


def gaussian_cutouts(noise=SILENCE, count=60, repeats=4, polarity="dark", seed=0):
    return simulated_cutouts(gaussian_model(polarity), noise, np.random.default_rng(seed), count, repeats)


def noise_cutouts(noise, count, repeats, seed=0):
    """Cut-outs without any particle."""
    rng = np.random.default_rng(seed)
    size = 2 * HALF_PX + 1
    sd = np.sqrt(noise.read + noise.shot)
    values = rng.standard_normal((count, repeats, size, size))
    nothing = np.zeros(count)
    scale = 1e-3 * sd
    return Cutouts(
        np.rint(values * (sd / scale)).astype(np.int16),
        scale,
        nothing,
        nothing,
        nothing,
        np.arange(count),
        nothing,
        0.8,
        "dark",
    )
