"""Whether a back end gives what ONNX Runtime gives, on a volume drawn with the model's own PSF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.engine import BackEndError, WrongNumbersError
from engines.network.model import Network
from engines.volumes.network.layout import LEAST_SIGMA, LOGIT, SIGMA_X, X
from engines.volumes.network.model import VolumeOnnxModel

SHAPE = (10, 64, 64)
PARTICLES = 24
PEAKS = (2.0, 25.0)
"""Range of the drawn particles' peaks, in standard deviations of the noise."""
LIKELY = 0.5
Planes = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest differences: of a probability, and in likely cells of a place or brightness, in standard errors, and
    of the logarithm of a standard error."""

    probability: float
    values: float


SINGLE = Tolerance(2e-3, 2e-2)
"""Far above rounding in single precision."""
HALF = Tolerance(0.1, 0.5)
"""In half precision and bfloat16; the fit starts from these places and measures them anew."""


def drawn_volume(model: VolumeOnnxModel, seed: int = 0) -> npt.NDArray[np.float32]:
    """An input (1, 10, 64, 64) with particles of the model's PSF in noise of 1."""
    rng = np.random.default_rng(seed)
    psf = model.volume_model.psf
    volume = rng.standard_normal(SHAPE, np.float32)
    places = rng.uniform(0, np.array(SHAPE) - 1, (PARTICLES, 3))
    grids = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij", sparse=True)
    for place, peak in zip(places, np.geomspace(*PEAKS, PARTICLES), strict=True):
        off = [(grid - at) * voxel for grid, at, voxel in zip(grids, place, psf.voxel_um, strict=True)]
        volume += (peak * psf.value(*off)).astype(np.float32)
    return volume[None]


def difference(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> Tolerance:
    """Largest differences of planes (1, D, values, H/4, W/4)."""
    p, q = (1 / (1 + np.exp(-planes[:, :, LOGIT].astype(np.float64))) for planes in (ours, theirs))
    likely = q > LIKELY
    if not likely.any():
        return Tolerance(float(np.abs(p - q).max()), 0.0)
    mine, yours = (np.moveaxis(planes, 2, -1)[likely].astype(np.float64) for planes in (ours, theirs))
    sigma = np.array(LEAST_SIGMA) + np.exp(yours[:, SIGMA_X:])
    places = np.abs(mine[:, X:SIGMA_X] - yours[:, X:SIGMA_X]) / sigma
    errors = np.abs(mine[:, SIGMA_X:] - yours[:, SIGMA_X:])
    return Tolerance(float(np.abs(p - q).max()), float(max(places.max(), errors.max())))


def check_agreement(network: Network, model: VolumeOnnxModel) -> None:
    """Compare a back end with ONNX Runtime.

    Raises `BackEndError` where it cannot run, `WrongNumbersError` where it gives other numbers.
    """
    volume = drawn_volume(model)
    try:
        ours = network(volume)
    except BackEndError:
        raise
    except Exception as error:  # those of the libraries have no common class but this one
        raise BackEndError(
            f"{network.backend} cannot run this model: {' '.join(str(error).split())}"
        ) from error
    found = difference(ours, model(volume))
    allowed = SINGLE if network.precision == "float32" else HALF
    if not (found.probability <= allowed.probability and found.values <= allowed.values):
        raise WrongNumbersError(
            f"{network.backend} in {network.precision} differs from onnxruntime on a drawn volume, by up to "
            f"{found.probability:.2g} in probability and {found.values:.2g} standard errors"
        )
