"""Scale of the fit's standard errors, measured on held-out images of the calibration's own particles.

The fit assumes one PSF. Real particles differ from one another and across the field, and the difference adds to the
errors of their positions. Held-out images are made of real cut-outs, so the added error shows there. Where the
calibration's cross-validation has found it (`misfit`), by particles left out, there is nothing to scale, nor for
several kinds of particles, which one PSF does not fit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.evaluation import evaluate
from calibration.training.material import Material
from calibration.training.scoring import SCORING_SEED, HeldOut, Network
from engines.refine.psf import FitModel
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner
from stream.messages import Detections

IMAGES = 96
GREY = 1000.0
LEAST, MOST = 1.0, 30.0
FEWEST = 50


def with_measured_errors(material: Material, network: Network) -> FitModel | None:
    """The PSF model of the material with the `sigma_scale` that makes the fit's standard errors right.

    `network` is a model file's; None where the material has no PSF model.
    """
    if material.particle is None:
        return None
    plain = replace(material.particle, sigma_scale=(1.0, 1.0, 1.0))
    if plain.misfit is not None or plain.quantity is not None or material.kinds > 1:
        return plain
    held_out = HeldOut(material, IMAGES, SCORING_SEED + 3)
    table = held_out.detect(network, at_once=1)
    refiner = Refiner(plain, material.pixel_size_um, NETWORK_SEARCH_UM)
    sign = -1.0 if material.polarity == "dark" else 1.0
    rows = []
    for number, contrast in enumerate(held_out.scene.images):
        mine = table["frame"] == number
        given = np.full((len(Detections.COLUMNS), int(mine.sum())), 1.0)
        for row, name in enumerate(Detections.COLUMNS[:6]):
            given[row] = table[name][mine]
        image = (GREY * (1.0 + sign * contrast)).astype(np.float32)
        found = refiner.refine(image, given)
        rows.append(np.vstack([np.full(found.shape[1], number), found]))
    columns = dict(zip(("frame", *Detections.COLUMNS), np.hstack(rows), strict=True))
    score = evaluate(held_out.scene.table(), columns)
    if score.matched < FEWEST or set(score.errors) != set("xyz"):
        return plain
    x, y, z = (float(np.clip(score.errors[axis].calibration_robust, LEAST, MOST)) for axis in "xyz")
    return replace(plain, sigma_scale=(x, y, z))
