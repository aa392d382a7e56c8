"""Training material of a pipeline: its recipe can be sent to another process, which runs the file again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from calibration.deeptrack.image_model import image_model
from calibration.deeptrack.loading import load_pipeline
from calibration.deeptrack.recording import Recorder
from calibration.deeptrack.source import PipelineSource
from calibration.deeptrack.survey import Units, survey
from calibration.training.material import Material
from engines.refine import psf_text
from engines.refine.psf import FitModel

log = logging.getLogger(__name__)

GATE_PX = 5.0
"""px within which a detection counts as right, 5 times the error of a poor one."""
QUIET = 300.0
"""Peak over noise from which on a pipeline seems to draw none: the best pixel of a camera has 200."""
GATE_OF_DEPTH = 1.0
"""The same in depth, as a part of the range: all of it, as many objects look the same above and below the focus."""


def from_pipeline(
    path: Path,
    name: str = "",
    learn: Sequence[str] = (),
    pixel_size_um: float | None = None,
    minutes: float = math.inf,
) -> tuple[Units, Callable[[], Material]]:
    """Run the user's file and look at the first images: the units, and the recipe of the material.

    The training is to take so many `minutes`; a short one looks at fewer.

    Raises `PipelineError` for a pipeline that cannot be used.
    """
    recorder = Recorder(load_pipeline(path, name))
    units = survey(recorder, learn, pixel_size_um)
    if units.normalisation == "noise" and units.peak_contrast > QUIET:
        log.warning(
            "the images of %s have hardly any noise (objects are %.0f times as bright), and a network that saw "
            "none finds little in the images of a camera: add dt.Gaussian or dt.Poisson",
            path,
            units.peak_contrast,
        )
    found = image_model(recorder, units, minutes)
    if found.model is None:
        log.info("no fit after the network for %s: %s", path, found.reason)
        return units, partial(_material, path, name, units, "")
    quantity = found.model.quantity
    log.info(
        "fit after the network: images change with %s, %.1f %% of them is not explained (%d objects)",
        "depth" if quantity is None else quantity.name,
        100 * found.misfit,
        found.objects,
    )
    return units, partial(_material, path, name, units, psf_text.pack(found.model))


def _in_words(path: Path, name: str, units: Units) -> str:
    learnt = ", ".join(each.name for each in units.properties)
    return f"pipeline {path.name}" + (f":{name}" if name else "") + (f" for {learnt}" if learnt else "")


def _material(path: Path, name: str, units: Units, particle: str) -> Material:
    model = psf_text.unpack(particle, path.name) if particle else None
    return material_of(Recorder(load_pipeline(path, name)), units, _in_words(path, name, units), model)


def material_of(
    recorder: Recorder, units: Units, made_from: str, particle: FitModel | None = None
) -> Material:
    """The material of a pipeline whose units are known; `particle` is the model for a fit after the network."""
    pixel = units.pixel_size_um
    return Material(
        training=(PipelineSource(recorder, units),),
        scoring=PipelineSource(recorder, units, keeps=False),
        pixel_size_um=pixel,
        polarity=units.polarity,
        middle_um=units.middle_um,
        half_range_um=units.half_range_um,
        noise_contrast=units.noise_contrast,
        peak_contrast=units.peak_contrast,
        made_from=made_from,
        particle=particle,
        knee=units.knee,
        kinds=len(units.kind_names),
        kind_names=units.kind_names,
        properties=units.properties,
        depth=units.depth,
        normalisation=units.normalisation,
        gate_um=(GATE_PX * pixel, 2 * GATE_OF_DEPTH * units.half_range_um),
    )
