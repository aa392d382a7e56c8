"""Comparison of a GPU back end with ONNX Runtime on a drawn frame, before it is used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from engines.cuda.layout import FrameFormat
from engines.cuda.slot import Slot
from engines.cuda.unpacking import kept_slots
from engines.engine import WrongNumbersError
from engines.flatfield import FlatField
from engines.network.decode import decode, particles_of, slots_of
from engines.network.layout import CHANNELS, LOGIT, SLOTS
from engines.network.model import OnnxModel
from engines.network.model_card import ModelCard
from engines.network.postprocessing import CONFIDENCE
from engines.network.preparation import Preparation
from engines.refine.psf import FitModel
from engines.refine.rendering import BOX, add, render, set_box
from stream.messages import Detections

FloatArray = npt.NDArray[np.float64]

SPACING_PX = 96
"""px between the drawn particles, so that hardly any two overlap."""
LIGHT = 0.6
"""Background of the drawn frame, relative to the largest grey value."""
SURE = 0.9
"""Confidence from which a particle has to be found by both."""
NEAR_PX = 2.0
"""px within which two particles are the same one: far more than rounding, far less than `SPACING_PX`."""
FIT_SIGMAS = 0.01
"""Standard errors by which nine in ten places of a device's fit may be off: 1,000 times what rounding does, a
hundredth of what counts."""
WIDTHS_PX = (4.0, 12.0)
"""px, standard deviations of a drawn spot over its depth range, for models without a PSF model."""
SPOT_SIGMAS = 5.0
"""Standard deviations to which such a spot is drawn."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest allowed differences: x and y in px, z in um or in standard errors, the logits of all cells.

    `missed` is the part of the sure particles that may be missing or additional.
    """

    xy_px: float
    z_um: float
    z_sigmas: float
    logit: float
    missed: float


EXACT = Tolerance(0.01, 0.1, 0.02, 0.01, 0.0)
"""In single precision: 200 times what was measured, less than a tenth of the standard errors."""
HALF = Tolerance(0.05, 0.5, 0.1, 0.25, 0.01)
"""In half precision: 4 to 8 times what was measured, about a fifth of the standard errors."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two results for one frame compared: `sure` particles of the reference, `missed` ones, `invented` ones.

    `xy_px`, `z_um` and `z_sigmas` are the 90 % quantiles of the other particles' differences, `logit` is the
    99.9 % quantile of the cells'.
    """

    sure: int
    missed: int
    invented: int
    xy_px: float
    z_um: float
    z_sigmas: float
    logit: float = 0.0

    def within(self, limit: Tolerance) -> bool:
        """Whether the two agree to these tolerances."""
        most = limit.missed * self.sure
        near = self.xy_px <= limit.xy_px and (self.z_um <= limit.z_um or self.z_sigmas <= limit.z_sigmas)
        return near and self.logit <= limit.logit and self.missed <= most and self.invented <= most

    def __str__(self) -> str:
        """In words."""
        return (
            f"of {self.sure} particles {self.missed} are missing and {self.invented} are new; x and y differ "
            f"by {self.xy_px:.2g} px, z by {self.z_um:.2g} um, logits by {self.logit:.2g}"
        )


def agreement(reference: FloatArray, answer: FloatArray, card: ModelCard) -> Agreement:
    """Compare two results (N, 8 and classes), columns `decode.ROW`; sure particles have a confidence above 0.9."""
    sure, new = reference[reference[:, CONFIDENCE] > SURE], answer[answer[:, CONFIDENCE] > SURE]
    pairs = _nearest(sure, answer, card)
    found = pairs >= 0
    invented = int((_nearest(new, reference, card) < 0).sum())
    here, there = sure[found], answer[pairs[found]]
    if not len(here):
        return Agreement(len(sure), int((~found).sum()), invented, 0.0, 0.0, 0.0)
    off = np.abs(there - here)
    z_um = off[:, 2] * card.half_range_um
    sigmas = off[:, 2] / here[:, 6]
    xy, z, z_sigmas = (float(np.quantile(v, 0.9)) for v in (off[:, :2].max(axis=1), z_um, sigmas))
    return Agreement(len(sure), int((~found).sum()), invented, xy, z, z_sigmas)


def _nearest(points: FloatArray, others: FloatArray, card: ModelCard) -> npt.NDArray[np.int64]:
    """The nearest of the others (-1: none within reach) in x, y and depth, where a half range counts as reach."""
    if not len(others) or not len(points):
        return np.full(len(points), -1)
    scale = np.array([1.0, 1.0, 10.0 * NEAR_PX])
    distance, index = cKDTree(others[:, :3] * scale).query(points[:, :3] * scale)
    return np.where(distance <= NEAR_PX, index, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Result of ONNX Runtime: particles (N, 8), background in grey values, logits (slots, H/4, W/4)."""

    particles: FloatArray
    background: float
    logits: npt.NDArray[np.float32]


def reference_answer(
    model: OnnxModel, image: npt.NDArray[Any], flat_field: FlatField | None = None
) -> Reference:
    """The result of ONNX Runtime for an image (H, W)."""
    card = model.card
    preparation = Preparation.of(card, image.shape[:2], flat_field)
    background = preparation.fill(image)
    maps = model(preparation.input)[0]
    return Reference(decode(maps, card.learnt), background, logits_of(maps))


def logits_of(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits (slots, H/4, W/4) of one image's planes or maps, as `decode.slots_of` reads them."""
    if maps.ndim == 3:
        return maps[LOGIT : SLOTS * CHANNELS : CHANNELS]
    return np.moveaxis(maps[..., LOGIT], -1, 0)


def compared(
    reference: Reference, particles: FloatArray, maps: npt.NDArray[np.float32], card: ModelCard
) -> Agreement:
    """How a result, particles (N, 8) and the planes or maps of one image, agrees with that of ONNX Runtime."""
    off = np.abs(logits_of(maps) - reference.logits)
    return replace(agreement(reference.particles, particles, card), logit=float(np.quantile(off, 0.999)))


def check_slot(slot: Slot, reference: Reference, card: ModelCard, limit: Tolerance) -> Agreement:
    """Compare a slot's result for the drawn frame. Raises `WrongNumbersError` where it differs too much."""
    answer = slot.answer()
    answer.check()
    maps = slot.maps()
    slots = kept_slots(answer, slot.frame) if answer.complete else slots_of(maps)
    found = compared(reference, particles_of(slots), maps, card)
    if not found.within(limit):
        raise WrongNumbersError(f"the network disagrees with ONNX Runtime on a drawn frame: {found}")
    return found


def check_fit(reference: FloatArray, answer: FloatArray) -> None:
    """Compare tables of a `Detections` (columns, N) that were fitted by the processor and by a device.

    Raises `WrongNumbersError` where not all of the same particles are there, or where one in ten is off.
    """
    if answer.shape != reference.shape:
        raise WrongNumbersError(
            f"the device's fit has {answer.shape[1]} particles, the processor's {reference.shape[1]}"
        )
    row = Detections.COLUMNS.index
    off = [
        np.abs(answer[row(f"{k}_um")] - reference[row(f"{k}_um")]) / reference[row(f"sigma_{k}_um")]
        for k in "xyz"
    ]
    finite = np.isfinite(reference[row("sigma_z_um")])
    worst = float(np.quantile(np.max(off, axis=0)[finite], 0.9)) if finite.any() else 0.0
    if not worst <= FIT_SIGMAS:
        raise WrongNumbersError(f"the device's fit is {worst:.2g} standard errors off the processor's")


def drawn_frame(
    card: ModelCard, particle: FitModel | None, frame: FrameFormat, flat_field: FlatField | None
) -> npt.NDArray[Any]:
    """An image (H, W) with noise and a particle every 96 px, as the model was trained for; always the same image.

    Particles are drawn with the model's own PSF model, or else as Gaussian spots.
    """
    rng = np.random.default_rng(0)
    shape = frame.height, frame.width
    contrast = np.zeros(shape, np.float32)
    for y in np.arange(SPACING_PX // 2, shape[0], SPACING_PX):
        for x in np.arange(SPACING_PX // 2, shape[1], SPACING_PX):
            place = np.array([x, y]) + rng.uniform(-8, 8, 2)
            if particle is None:
                _add_spot(contrast, place[0], place[1], rng.uniform(), card.peak_contrast)
            else:
                add_particle(contrast, place[0], place[1], rng.uniform(0.05, 0.95), particle)
    contrast += card.noise_contrast * rng.standard_normal(shape, np.float32)
    most = float((1 << (8 * frame.bytes_per_pixel)) - 1)
    light = np.float32(LIGHT) * (1 + np.float32(card.sign) * contrast)
    grey = most * light if flat_field is None else flat_field.dark + light / flat_field.factor
    return np.clip(np.rint(grey), 0, most).astype(f"u{frame.bytes_per_pixel}")


def _add_spot(total: npt.NDArray[np.float32], x: float, y: float, part: float, peak: float) -> None:
    """Add an astigmatic spot: the wider along x, the narrower along y."""
    widths = np.interp([1 - part, part], [0, 1], WIDTHS_PX)
    ranges, profiles = [], []
    for at, size, width in zip((y, x), total.shape, widths, strict=True):
        reach = slice(max(0, int(at - SPOT_SIGMAS * width)), min(size, int(at + SPOT_SIGMAS * width)))
        places = np.arange(reach.start, reach.stop, dtype=np.float32)
        ranges.append(reach)
        profiles.append(np.exp(-0.5 * ((places - at) / width) ** 2).astype(np.float32))
    total[tuple(ranges)] += np.float32(peak) * profiles[0][:, None] * profiles[1]


def add_particle(total: npt.NDArray[np.float32], x: float, y: float, part: float, model: FitModel) -> None:
    """Add the image of a particle at x, y (px) and a `part` of the depth range to a contrast (H, W)."""
    z_um = model.z_min_um + part * (model.z_max_um - model.z_min_um)
    theta = np.array([x, y, z_um, 1.0])
    psf = model.for_kernels(total.shape)
    box = np.zeros(BOX, np.int64)
    set_box(theta, total.shape, psf, 0.0, box)
    render(theta, box, psf, False, psf.drawn)
    add(total, theta, box, psf.drawn, 1.0)
