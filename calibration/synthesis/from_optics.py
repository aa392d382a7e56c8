"""Inputs of training images from an optics model, for when there is no scan.

Simulated cut-outs, as a faultless scan would give them, serve to compare sources and calibrations with the truth.
"""

from __future__ import annotations

import numpy as np

from acquisition.physics.image_table import Z_STEP_UM, load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import BACKGROUND_OF_FULL_SCALE
from calibration.psf_model import PsfModel
from calibration.synthesis.inputs import BackgroundModel, Cutouts, Distribution, NoiseModel
from calibration.synthesis.reach import reach_of_model
from calibration.synthesis.render import Drawn, Spline, render

_OF_FULL_SCALE = 255
_HALF_PIXEL = 0.5


def model_from_optics(optics: OpticsModel) -> PsfModel:
    """The PSF model of an optical set-up, for depths within `optics.visible_um`."""
    bank = load_bank(optics)
    sign = 1.0 if optics.polarity == "dark" else -1.0
    images = sign * bank.scale * bank.images[:, 0, 0].astype(np.float64)
    return PsfModel.from_images(
        images,
        float(bank.z_um[0]),
        Z_STEP_UM,
        pixel_size_um=optics.pixel_size_um,
        polarity=optics.polarity,
        z_range_um=(-optics.visible_um, optics.visible_um),
    )


def noise_for_snr(
    model: PsfModel,
    snr: float,
    *,
    background: Distribution | None = None,
    level: Distribution | None = None,
) -> NoiseModel:
    """Shot noise for a signal-to-noise ratio: mean peak contrast over depth, over the noise's standard deviation.

    The grey values are those of an 8-bit camera (Franchini & Krevor 2020, 2.1.1, and the simulated microscope).
    """
    z_um = np.linspace(model.z_min_um, model.z_max_um, 101)
    peak = float(model.images(z_um).max(axis=(1, 2)).mean())
    one = Distribution.constant(1.0)
    grey = _OF_FULL_SCALE * BACKGROUND_OF_FULL_SCALE[model.polarity]
    return NoiseModel(0.0, (peak / snr) ** 2, grey, background or one, level or one)


def background_for(model: PsfModel) -> BackgroundModel:
    """Fields with the size, and up to the contrast, of particles at the ends of the depth range."""
    nodes = model.z_first_um + model.z_step_um * np.arange(len(model.coefficients))
    ends = np.abs(nodes[:, None] - [model.z_min_um, model.z_max_um]).argmin(axis=0)
    reach = reach_of_model(model)[ends]
    long, short = float(reach.max(axis=1).mean()), float(reach.min(axis=1).mean())
    peak = float(model.images([model.z_min_um, model.z_max_um]).max(axis=(1, 2)).max())
    return BackgroundModel((long / 2, 2 * long), (max(short / 2, 2.0), max(long / 2, short, 2.0)), peak)


def simulated_cutouts(
    model: PsfModel,
    noise: NoiseModel,
    rng: np.random.Generator,
    count: int,
    repeats: int = 4,
    *,
    brightness: Distribution | None = None,
) -> Cutouts:
    """Lone particles at random depths and sub-pixel places, seen `repeats` times, as a scan would cut them out.

    Labels are exact. Grey values are not rounded.
    """
    half, size = model.half_px, 2 * model.half_px + 1
    z_um = rng.uniform(model.z_min_um, model.z_max_um, count)
    dx_px, dy_px = rng.uniform(-_HALF_PIXEL, _HALF_PIXEL, (2, count))
    bright = (brightness or Distribution.constant(1.0)).draw(rng, count)
    sign = -1.0 if model.polarity == "dark" else 1.0
    reach = reach_of_model(model)
    clean = np.zeros((count, size, size), np.float32)
    spline = Spline(model.coefficients, model.z_first_um, model.z_step_um, reach)
    for n in range(count):
        one = slice(n, n + 1)
        render(clean[n], spline, Drawn(half + dx_px[one], half + dy_px[one], z_um[one], bright[one]))
    variance = noise.read + noise.shot * np.maximum(1 + sign * clean, 0)
    seen = rng.standard_normal((count, repeats, size, size), np.float32) * np.sqrt(variance)[:, None]
    seen += clean[:, None]
    scale = float(np.abs(seen).max()) / np.iinfo(np.int16).max or 1.0
    return Cutouts(
        np.rint(seen / scale).astype(np.int16),
        scale,
        z_um,
        dx_px,
        dy_px,
        np.arange(count),
        bright,
        model.pixel_size_um,
        model.polarity,
    )
