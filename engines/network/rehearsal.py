"""Frames that are drawn before those of the camera come, so that the first of these finds everything ready.

Beside machine code, a first frame needs memory that was touched before, and tables and work spaces that are made at
their first use: 11 ms of 26 in an image of 512 x 768 px. Drawn frames go the way of all frames: searched as a whole
and fitted, then corrected from where their particles are expected.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.flatfield import FlatField
from engines.network.model_card import ModelCard
from engines.refine.presence import put_all
from engines.refine.psf import FitModel
from engines.refine.turns import Allowance
from stream.messages import Detections, Frame, FrameInfo, Predictions

PX_PER_PARTICLE = 18_000
"""Pixels of the drawn image for each particle: as dense as in Franchini & Krevor (2020). Denser ones
take longer to fit, sparser ones have no particles that overlap."""
LIGHT = 0.6
"""Background of the drawn image, relative to the largest grey value."""
PERIOD_S = 0.03  # between the two frames; particles rest
IN_TIME = Allowance(1.0, 1e6)
"""ms for a fit that has a limit, as in live runs, but one that is not reached."""


def drawn_frames(
    card: ModelCard,
    model: FitModel,
    shape: tuple[int, int],
    dtype: npt.DTypeLike,
    flat_field: FlatField | None = None,
) -> tuple[Frame, Frame]:
    """Two frames (H, W) of particles of `model` at rest, with the noise that the network was trained for."""
    rng = np.random.default_rng(0)
    height, width = shape
    count = max(height * width // PX_PER_PARTICLE, 2)
    low, high = [0, 0, model.z_min_um, 1.0], [width - 1, height - 1, model.z_max_um, 1.0]
    contrast = np.zeros(shape, np.float32)
    put_all(
        contrast, rng.uniform(low, high, (count, 4)), np.ones(count, np.bool_), 1.0, model.for_kernels(shape)
    )
    contrast += np.float32(card.noise_contrast) * rng.standard_normal(shape, np.float32)
    light = np.float32(LIGHT) * (1 + np.float32(card.sign) * contrast)
    most = np.float32(np.iinfo(np.dtype(dtype)).max)
    grey = most * light if flat_field is None else flat_field.dark + light / flat_field.factor
    image = np.clip(np.rint(grey), 0, most).astype(dtype)
    first = FrameInfo("rehearsal", 0, 0, 0.0, 0, 0.0, focus_um=0.0, pixel_size_um=model.pixel_size_um)
    second = replace(first, frame=1, camera_frame=1, time_s=PERIOD_S)
    return Frame(first, image), Frame(second, image)


def expected_from(found: Detections) -> Predictions:
    """What a tracker would say after these detections of particles at rest."""
    known = np.isfinite(found.table[: Detections.COLUMNS.index("brightness")]).all(axis=0)
    row, table = Predictions.COLUMNS.index, np.zeros((len(Predictions.COLUMNS), int(known.sum())))
    table[row("track")] = np.arange(table.shape[1])
    for axis in "xyz":
        place: npt.NDArray[Any] = getattr(found, f"{axis}_um")
        sigma: npt.NDArray[Any] = getattr(found, f"sigma_{axis}_um")
        table[row("height_um" if axis == "z" else f"{axis}_um")] = place[known]
        table[row(f"pp_{axis}")] = sigma[known] ** 2
    table[row("brightness")] = found.brightness[known]
    table[row("hits")], table[row("kind")] = 10.0, np.nan
    return Predictions(found.info, table)
