"""What an earlier run says for a plan: localisation errors over depth, particles, image and frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from tracking.physics.planning.view import Localisation
from tracking.trajectories.file import read_trajectories
from tracking.trajectories.heights import factor_of

FloatArray = npt.NDArray[np.float64]

BINS, FEWEST_IN_BIN = 8, 20
"""Of depth, for the localisation errors; a bin with fewer rows is left out."""
OUTER = 0.005
"""Part of the rows at either end of the depths that is left out: wrong depths are there."""


@dataclass(frozen=True, slots=True, eq=False)
class EarlierRun:
    """Image size in pixels (x, y), pixel size, um, rate, Hz, particles per um^3, and localisation errors, um."""

    image_px: tuple[int, int]
    pixel_size_um: float
    frame_rate_hz: float
    particles_per_um3: float
    localisation: Localisation


def earlier_run(path: Path) -> EarlierRun:
    """Read them. Raises `SourceError` or `ConfigurationError` if the file has no depths or standard errors."""
    rows = read_trajectories(path)
    sigma = np.stack([rows.sigma_x_um, rows.sigma_y_um, rows.sigma_z_um])
    known = np.isfinite(rows.z_um) & np.isfinite(sigma).all(axis=0) & (sigma > 0).all(axis=0)
    if known.sum() < 2 * FEWEST_IN_BIN:
        raise ConfigurationError(
            f"plan.like: {path} has too few rows with a depth and standard errors; give plan.localisation_um"
        )
    z, errors = rows.z_um[known], sigma[:, known]
    low, high = (float(np.quantile(z, share)) for share in (OUTER, 1.0 - OUTER))
    edges = np.linspace(low, high, BINS + 1)
    which = np.digitize(z, edges) - 1
    full = [k for k in range(BINS) if (which == k).sum() >= FEWEST_IN_BIN]
    if len(full) < 2:
        raise ConfigurationError(f"plan.like: the depths of {path} span no range; give plan.localisation_um")
    middle = np.array([edges[k : k + 2].mean() for k in full])
    typical = np.stack([np.sqrt(np.median(errors[:, which == k] ** 2, axis=1)) for k in full], axis=1)
    middle[0], middle[-1] = edges[full[0]], edges[full[-1] + 1]
    shape = rows.attributes.get("image_shape")
    pixel = rows.attributes.get("pixel_size_um")
    frames = rows.frames
    if shape is None or pixel is None or frames.size < 2:
        raise ConfigurationError(f"plan.like: {path} does not say how large its images are")
    rate = 1.0 / float(np.median(np.diff(frames["time_s"]) / np.diff(frames["frame"])))
    size = (int(shape[-1]), int(shape[-2]))
    volume = size[0] * size[1] * float(pixel) ** 2 * float(np.ptp(middle)) * factor_of(rows.attributes)
    inside = int(((z >= middle[0]) & (z <= middle[-1])).sum())
    return EarlierRun(size, float(pixel), rate, inside / frames.size / volume, Localisation(middle, typical))
