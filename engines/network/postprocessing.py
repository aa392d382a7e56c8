"""Steps common to all engines of a network: whether the model fits the images, and slots to detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from engines.network.decode import GROUP_PX, ROW, particles_and_doubts_of
from engines.network.learnt import values_of
from engines.network.model_card import ModelCard
from engines.particle_limit import strongest_of
from engines.refine.psf import FitModel
from engines.refine.sample import to_sample, with_misfit
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import NO_PROPERTIES, Detections, Frame, Properties

Refine = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]]
"""Measures a frame's table (9, N) again; also takes the table (9, P) of particles too unlikely to be reported."""

CONFIDENCE = ROW.index("confidence")
PIXEL_SIZE_TOLERANCE = 0.05
"""Relative difference in pixel size up to which a network is used; larger images look like another depth."""
KIND = Detections.MORE.index("kind")
CLASSICAL_ONLY = ("diameter_px", "threshold")


def check_fits(card: ModelCard, settings: DetectorSettings, pixel_size_um: float, model: Path) -> None:
    """Raise `ConfigurationError` where a model was made for other images than the settings describe."""
    if abs(pixel_size_um / card.pixel_size_um - 1) > PIXEL_SIZE_TOLERANCE:
        raise ConfigurationError(
            f"{model} was trained for {card.pixel_size_um:g} um a pixel, but the images have "
            f"{pixel_size_um:g}; correct the pixel size if it is wrong (--pixel-size, microscope.pixel_size_um), "
            "or calibrate and train with this camera and lens"
        )
    if settings.polarity not in ("auto", card.polarity):
        raise ConfigurationError(
            f"{model} was trained for {card.polarity} particles, not {settings.polarity} ones; "
            'set detector.polarity to "auto"'
        )
    for name in CLASSICAL_ONLY:
        if getattr(settings, name) is not None:
            raise ConfigurationError(
                f"detector.{name} is for the classical detector only; remove it to use {model}"
            )


def chosen(
    found: npt.NDArray[np.float64], shape: tuple[int, ...], settings: DetectorSettings
) -> tuple[npt.NDArray[np.float64], Counter[str]]:
    """The decoded particles of an image (H, W) that are reported, and counts of the others, by reason."""
    height, width = shape
    x, y = found[:, 0], found[:, 1]
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    doubtful = inside & (found[:, CONFIDENCE] < settings.least_confidence)
    left_out = Counter(outside=int((~inside).sum()), doubtful=int(doubtful.sum()))
    found = found[inside & ~doubtful]
    if len(found) > settings.max_particles:
        left_out["too_many"] = len(found) - settings.max_particles
        found = found[np.sort(np.argsort(-found[:, 3], kind="stable")[: settings.max_particles])]
    return found, left_out


def to_table(
    found: npt.NDArray[np.float64],
    card: ModelCard,
    background_grey: float,
    particle: FitModel | None = None,
) -> npt.NDArray[Any]:
    """The table (columns, N) of `Detections` for decoded particles, columns `decode.ROW` and those of classes.

    The brightness is the peak of the particle's image in grey values, as the fit states it, by the PSF model
    `particle`; that of the mean depth where there is none, or one for each kind of particles.
    """
    x, y, z, brightness, sigma_x, sigma_y, sigma_z, confidence = found.T[: len(ROW)]
    pixel, depth, scale = card.pixel_size_um, card.half_range_um, card.sigma_scale
    z_um = card.middle_um + z * depth
    if not card.depth:
        z_um, sigma_z = np.full((2, len(found)), np.nan)
    by_depth = particle is not None and particle.quantity is None and card.kinds == 1
    peak = particle.peak_at(z_um) if particle is not None and by_depth else card.peak_contrast
    return np.ascontiguousarray(
        [
            x * pixel,
            y * pixel,
            z_um,
            sigma_x * pixel * scale[0],
            sigma_y * pixel * scale[1],
            sigma_z * depth * scale[2],
            np.maximum(brightness, 0.0) * peak * background_grey,
            confidence,
            *_more(found[:, len(ROW) : found.shape[1] - 2 * card.learnt]),
            np.zeros_like(x),
        ]
    )


def _more(classes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The columns (K, N) that are only known of some; of these the class, by its probabilities (N, classes)."""
    more = np.full((len(Detections.MORE), len(classes)), np.nan)
    if classes.shape[1] and len(classes):
        more[KIND] = classes.argmax(axis=1)
        more[Detections.MORE.index("p_kind")] = classes.max(axis=1)
    return more


def detections_of(
    frame: Frame,
    slots: npt.NDArray[np.float64],
    background_grey: float,
    card: ModelCard,
    settings: DetectorSettings,
    refine: Refine | None,
    particle: FitModel | None = None,
) -> tuple[Detections, Counter[str]]:
    """The detections in a frame whose slots (N, 8) a network has given, and what was left out, by reason.

    The network and the fit see local coordinates; the detections are in those of the sample, by `particle`, the PSF
    model of the network.
    """
    table, more, left_out, properties = tables_of(slots, frame, background_grey, card, settings, particle)
    if refine is not None:
        quantity = None if particle is None else particle.quantity
        if quantity is not None:
            table, more = quantity.as_depth(table, properties), quantity.as_depth(more, NO_PROPERTIES)
        given, table = table, refine(table, more)
        properties = _carried_over(properties, given, table, card.pixel_size_um)
        if quantity is not None:
            table, properties = quantity.taken_out(table, properties)
    elif particle is not None:
        table = with_misfit(table, particle, card.pixel_size_um, frame.image.shape)
    found, beyond = in_sample(frame, table, card, settings, particle, properties)
    left_out["too_many"] += beyond
    return found, left_out


class Tables(NamedTuple):
    """Tables (columns, N), local, of what is reported and of what is too unlikely; counts of what was left out."""

    found: npt.NDArray[Any]
    doubts: npt.NDArray[Any]
    left_out: Counter[str]
    properties: Properties


def tables_of(
    slots: npt.NDArray[np.float64],
    frame: Frame,
    background_grey: float,
    card: ModelCard,
    settings: DetectorSettings,
    particle: FitModel | None = None,
) -> Tables:
    """What slots (N, 8) report; `particle` as in `to_table`."""
    found, doubts = particles_and_doubts_of(slots, card.learnt)
    found, left_out = chosen(found, frame.image.shape, settings)
    table, more = (to_table(some, card, background_grey, particle) for some in (found, doubts))
    return Tables(table, more, left_out, properties_of(found, card))


def properties_of(found: npt.NDArray[np.float64], card: ModelCard) -> Properties:
    """What the network learnt beside the place of decoded particles, columns `decode.ROW` and those after it."""
    if not card.properties:
        return NO_PROPERTIES
    kind = _more(found[:, len(ROW) : found.shape[1] - 2 * card.learnt])[KIND]
    values, errors = values_of(card.properties, found, kind if card.kinds > 1 else None)
    return Properties(tuple(each.name for each in card.properties), values, errors)


def _carried_over(
    properties: Properties, before: npt.NDArray[Any], after: npt.NDArray[Any], pixel_size_um: float
) -> Properties:
    """The properties of the particles of a table (columns, N) after the fit; unknown for those that it added."""
    if not properties.names:
        return properties
    found = Properties.unknown(properties.names, after.shape[1])
    if before.shape[1] and after.shape[1]:
        away, nearest = map(np.asarray, KDTree(before[:2].T).query(after[:2].T))
        near = away < GROUP_PX * pixel_size_um
        same = properties.of(nearest[near])
        found.values[:, near], found.errors[:, near] = same.values, same.errors
    return found


def in_sample(
    frame: Frame,
    table: npt.NDArray[Any],
    card: ModelCard,
    settings: DetectorSettings,
    particle: FitModel | None,
    properties: Properties = NO_PROPERTIES,
) -> tuple[Detections, int]:
    """The detections of a local table (columns, N), and how many are left out because there are too many."""
    kept, beyond = strongest_of(table, settings.max_particles)  # the fit may have found more
    if beyond:
        table = np.ascontiguousarray(table[:, kept])
        properties = properties.of(kept) if properties.names else properties
    table = to_sample(table, particle, card.pixel_size_um, frame.image.shape)
    return Detections(frame.info, table, properties), beyond
