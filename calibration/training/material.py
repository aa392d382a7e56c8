"""Training material of a network: sources of images, and the units of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acquisition.physics.optics import OpticsModel
from calibration.calibration_file import read_calibration
from calibration.cutout_images import image_background, image_noise, read_cutouts
from calibration.matching import GATE_XY_UM, GATE_Z_UM
from calibration.psf_model import PsfModel
from calibration.synthesis import CutAndPaste, Distribution, Layout, NoiseModel, Rendered, Source
from calibration.synthesis.from_optics import background_for, model_from_optics, noise_for_snr
from calibration.synthesis.inputs import QUANTILES
from calibration.synthesis.layout import PAPER_DENSITY
from calibration.synthesis.rendered_source import Kind
from engines.network.learnt import LearntProperty
from engines.network.model_card import Normalisation, Polarity
from engines.refine.psf import FitModel

FEWEST_PER_PX, MOST_PER_PX = 0.5 * PAPER_DENSITY, 10 * PAPER_DENSITY
DENSEST, EDGE = 0.5, 0.1
"""Source density up to which to train at least, as tracking by defocus is judged up to it: the number of particles
times the area of a particle's image over that of the field (Barnkob & Rossi 2020). An image ends at `EDGE` of its
peak. `MOST_PER_PX` alone is 0.36 for the optics of Franchini & Krevor, but less where images are smaller."""
CLOSE_VARIANCE_PX2 = 6.0
SIMULATED_SNR = 5.6
SCATTER_DRAWS = 4096
# Where peaks are above so many standard deviations of the noise, contrasts are compressed from there.
LARGEST_PEAK, KNEE = 40.0, 10.0
# noise of the simulated images over that at SNR 5.6, and light over the reference's
SIMULATED_LEVEL = Distribution.uniform(0.6, 1.1)
SIMULATED_LIGHT = Distribution.uniform(0.998, 1.002)
SIMULATED_BRIGHTNESS = Distribution.uniform(0.93, 1.07)
_AWAY = np.linspace(-1, 1, QUANTILES)
SPAN = Distribution(np.where(_AWAY < 0, 0.5, 1.5) ** _AWAY**2)
"""Noise and brightness of training images over the calibration's, as an experiment's differ from it: 0.5 to 1.5,
half of them 0.84 to 1.11. More at the ends would make two faint particles at one place less unlike a bright one,
and cost accuracy where most images are. Scores are at the calibration's own."""
SCORED = Layout(density_per_px=(2 * PAPER_DENSITY, 2 * PAPER_DENSITY))


@dataclass(frozen=True, slots=True)
class Material:
    """Sources to train on, used in turn, one to score with, and the units of the network.

    The network's input is contrast over `noise_contrast`, its depth is in `half_range_um` off `middle_um`;
    contrasts above `knee` are compressed. `particle` is the PSF model for the fit after the network, None without
    such a fit. `field_shape` (H, W) is the field of view over which particles look different; None where they look
    alike everywhere. For several `kinds` of particles, `others` are the PSF models of the second and third, and
    `kind_names` what they are called, if anything. `properties` are learnt beside place and class, and no z without
    `depth`. For `normalisation` see `engines.network.model_card`. Detections count as right within `gate_um` of a
    particle, in the plane and in depth.
    """

    training: tuple[Source, ...]
    scoring: Source
    pixel_size_um: float
    polarity: Polarity
    middle_um: float
    half_range_um: float
    noise_contrast: float
    peak_contrast: float
    made_from: str
    particle: FitModel | None
    knee: float | None = None
    field_shape: tuple[int, int] | None = None
    kinds: int = 1
    others: tuple[FitModel, ...] = ()
    kind_names: tuple[str, ...] = ()
    properties: tuple[LearntProperty, ...] = ()
    depth: bool = True
    normalisation: Normalisation = "background"
    gate_um: tuple[float, float] = (GATE_XY_UM, GATE_Z_UM)

    @property
    def learnt(self) -> int:
        """Numbers that the network learns for the properties."""
        return sum(each.numbers for each in self.properties)


Recipe = Callable[[], Material]
"""Makes the material. Unlike the material, the recipe is small and can be sent to another process."""


def from_calibration(path: Path, made_from: str) -> Recipe:
    """The material of a calibration file: half pasted from its cut-outs, half rendered with its PSF model.

    The recipe raises `SourceError` or `CalibrationError` for a file without what it needs.
    """
    return partial(_of_calibration, path, made_from)


def from_optics(optics: OpticsModel) -> Recipe:
    """The material of an optical set-up that was never scanned."""
    return partial(_of_optics, optics)


def _of_calibration(path: Path, made_from: str) -> Material:
    found = read_calibration(path)
    noise, background = image_noise(found), image_background(found)
    models = found.kinds if len(found.kinds) > 1 else (found.model,)
    cutouts = read_cutouts(path)
    bright = [Distribution.of(cutouts.brightness[cutouts.kind == kind]) for kind in range(len(models))]
    units = np.array([_typical_peak(model) for model in models]) / _typical_peak(models[0])
    others = [Kind(*each) for each in zip(models[1:], bright[1:], units[1:].tolist(), strict=True)]
    cutouts = replace(cutouts, brightness=cutouts.brightness * units[cutouts.kind])
    field = found.model.field_shape
    wide, any_light = replace(noise, level=SPAN), {"exposure": SPAN}
    density = density_per_px(found.model)
    close = _close(density)
    sources = (
        CutAndPaste(cutouts, wide, background, Layout(density), field_shape=field, **any_light),
        Rendered(found.model, wide, background, close, brightness=bright[0], others=others, **any_light),
    )
    scoring = CutAndPaste(cutouts, noise, background, SCORED, field_shape=field)
    return _material(found.model, noise, bright[0], sources, scoring, made_from, models[1:])


def _of_optics(optics: OpticsModel) -> Material:
    model = model_from_optics(optics)
    noise = noise_for_snr(model, SIMULATED_SNR, background=SIMULATED_LIGHT, level=SIMULATED_LEVEL)
    background = background_for(model)
    density = density_per_px(model)
    sources = tuple(
        Rendered(model, noise, background, layout, brightness=SIMULATED_BRIGHTNESS)
        for layout in (Layout(density), _close(density))
    )
    scoring = Rendered(model, noise_for_snr(model, SIMULATED_SNR), background, SCORED)
    made_from = "optics " + optics.model_dump_json()
    return _material(model, noise, SIMULATED_BRIGHTNESS, sources, scoring, made_from)


def density_per_px(model: PsfModel) -> tuple[float, float]:
    """Fewest and most particles a pixel in training images."""
    return FEWEST_PER_PX, max(MOST_PER_PX, DENSEST / image_area_px(model))


def image_area_px(model: PsfModel) -> float:
    """Mean area of a particle's image over the depths: its pixels above a tenth (`EDGE`) of its own peak."""
    images = np.abs(model.images(_depths(model)))
    inside = images > EDGE * images.max(axis=(1, 2), keepdims=True)
    return float(inside.sum(axis=(1, 2)).mean())


def _close(density: tuple[float, float]) -> Layout:
    return Layout(density, near_variance_px2=CLOSE_VARIANCE_PX2, uniform_part=0.2)


def _typical_peak(model: PsfModel) -> float:
    """Greatest contrast of a particle of brightness 1, on average over the depths."""
    return float(model.images(_depths(model)).max(axis=(1, 2)).mean())


def _depths(model: PsfModel) -> npt.NDArray[np.float64]:
    return np.linspace(model.z_min_um, model.z_max_um, 101)


def _material(
    model: PsfModel,
    noise: NoiseModel,
    brightness: Distribution,
    training: tuple[Source, ...],
    scoring: Source,
    made_from: str,
    others: Sequence[PsfModel] = (),
) -> Material:
    scatter = float(np.std(brightness.draw(np.random.default_rng(0), SCATTER_DRAWS)))
    noise_contrast = float(np.sqrt(noise.read + noise.shot))
    peaks = model.images(_depths(model)).max(axis=(1, 2))
    measured = {"read": noise.read, "shot": noise.shot, "brightness_sd": scatter}
    models = (model, *others)
    low_um, high_um = min(each.z_min_um for each in models), max(each.z_max_um for each in models)
    return Material(
        training=training,
        scoring=scoring,
        pixel_size_um=model.pixel_size_um,
        polarity=model.polarity,
        middle_um=0.5 * (low_um + high_um),
        half_range_um=0.5 * (high_um - low_um),
        noise_contrast=noise_contrast,
        peak_contrast=float(peaks.mean()),
        made_from=made_from,
        particle=model.for_fit(**measured),
        knee=KNEE if float(peaks.max()) > LARGEST_PEAK * noise_contrast else None,
        field_shape=model.field_shape,
        kinds=len(models),
        others=tuple(each.for_fit(**measured) for each in others),
    )
