"""Detectors of particles in volumes, by name, in one form: candidates with a score that a threshold cuts.

Ours is the program's own engine as `liveptv detect` opens it, with its own threshold. Everybody else's is run as
its authors say, with the size of the spots told where it can be; its threshold is chosen on other volumes.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from volume_scene import BACKGROUND, SIGMA

FloatArray = npt.NDArray[np.float64]

MOST = 6000
"""Candidates of a volume that are kept, the best ones: six times the particles of the densest scene."""
VOXEL_UM = 1.0
"""In um a voxel is as large as in voxels, so that positions need no conversion."""


@dataclass(frozen=True, slots=True)
class Found:
    """Positions (N, 3) along z, y, x in voxels, the score of each (N,), and standard errors (N, 3), or NaN."""

    points: FloatArray
    score: FloatArray
    sigma: FloatArray

    @classmethod
    def of(cls, points: npt.ArrayLike, score: npt.ArrayLike, sigma: npt.ArrayLike | None = None) -> Found:
        where = np.asarray(points, np.float64).reshape(-1, 3)
        values = np.asarray(score, np.float64).ravel()
        best = np.argsort(-values, kind="stable")[:MOST]
        errors = (
            np.full(where.shape, np.nan) if sigma is None else np.asarray(sigma, np.float64).reshape(-1, 3)
        )
        return cls(where[best], values[best], errors[best])

    def above(self, threshold: float) -> Found:
        keep = self.score >= threshold
        return Found(self.points[keep], self.score[keep], self.sigma[keep])


Detect = Callable[[npt.NDArray[np.uint16]], Found]


@dataclass(frozen=True, slots=True)
class Detector:
    """`open` prepares it, given the path of its model; `threshold` is fixed, or None where it is to be chosen.

    `volumes` is how many of each SNR and density are measured unless more are asked for.
    """

    title: str
    open: Callable[[Path | None], Detect]
    threshold: float | None = None
    volumes: int = 25
    needs_model: bool = False


def maxima(response: npt.NDArray[np.floating]) -> Found:
    """Voxels that no neighbour exceeds; the score is in standard deviations of the response, from its quartiles.

    So the particles themselves hardly raise it, and one threshold can do for every density.
    """
    low, middle, high = np.percentile(response, [25, 50, 75])
    top = response == ndimage.maximum_filter(response, size=3, mode="nearest")
    top &= response > middle
    return Found.of(np.argwhere(top), (response[top] - middle) / ((high - low) / 1.349))


def open_ours(model: Path | None, options: dict[str, Any] | None = None) -> Detect:
    """This program's engine as `liveptv detect` opens it: with a model, or told the size of the spots."""
    from engines.factory import open_engine
    from engines.settings import MOST_PARTICLES, DetectorSettings
    from stream.messages import Frame, FrameInfo
    from stream.volume_info import VolumeInfo

    told = {"model": model} if model is not None else {"spot_um": SIGMA[::-1]}
    settings = DetectorSettings(**{"max_particles": MOST_PARTICLES, "workers": 1, **told, **(options or {})})
    engine = open_engine(settings, model=model, pixel_size_um=VOXEL_UM, volumes=True)

    def detect(image: npt.NDArray[np.uint16]) -> Found:
        heights = VolumeInfo(tuple(VOXEL_UM * k for k in range(len(image))))
        info = FrameInfo(
            run_id="benchmark",
            frame=0,
            camera_frame=0,
            time_s=0.0,
            monotonic_ns=time.perf_counter_ns(),
            wall_s=math.nan,
            pixel_size_um=VOXEL_UM,
            volume=heights,
        )
        engine.warmup(*image.shape[1:], image.dtype, len(image))
        engine.submit(Frame(info, image))
        while not (found := engine.results(1.0)):
            pass
        rows = found[0]
        points = np.stack([rows.z_um, rows.y_um, rows.x_um], axis=1) / VOXEL_UM
        sigma = np.stack([rows.sigma_z_um, rows.sigma_y_um, rows.sigma_x_um], axis=1) / VOXEL_UM
        return Found.of(points, rows.confidence, sigma)

    return detect


def open_log(_: Path | None) -> Detect:
    """SEF3D as published: Laplacian of Gaussian at the size of the spots, maxima in whole voxels."""
    return lambda image: maxima(-ndimage.gaussian_laplace(image.astype(np.float32), SIGMA, mode="reflect"))


def open_matched(_: Path | None) -> Detect:
    """A Gaussian of the spots' size, maxima in whole voxels: the detector a textbook names first."""

    def detect(image: npt.NDArray[np.uint16]) -> Found:
        return maxima(ndimage.gaussian_filter(image.astype(np.float32) - BACKGROUND, SIGMA, mode="reflect"))

    return detect


def open_published(model: Path | None) -> Detect:
    """DetNet3D or DM-DetNet3D, positions in whole voxels."""
    from engines.comparison.volumes.maxima import local_maxima
    from engines.comparison.volumes.model import HourglassModel

    assert model is not None
    network = HourglassModel(model)
    return lambda image: Found.of(*local_maxima(network(image), 0.02))


def open_trackpy(_: Path | None, slices_around: int = 0) -> Detect:
    """trackpy's locate in 3D (Crocker & Grier), diameter 7 voxels; the score is its mass.

    It leaves out what is nearer to an edge than its radius, slices too. With `slices_around` the stack is
    continued by mirrored slices, so that it does not.
    """
    import trackpy

    trackpy.quiet()

    def detect(image: npt.NDArray[np.uint16]) -> Found:
        around = [(slices_around, slices_around), (0, 0), (0, 0)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = trackpy.locate(
                np.pad(image, around, "symmetric"), 7, percentile=90, engine="numba", characterize=False
            )
        points = table[["z", "y", "x"]].to_numpy() - [slices_around, 0, 0]
        inside = (points[:, 0] >= -0.5) & (points[:, 0] < len(image) - 0.5)
        return Found.of(points[inside], table["mass"].to_numpy()[inside])

    return detect


def open_trackpy_padded(_: Path | None) -> Detect:
    return open_trackpy(None, 4)


def open_ufish(_: Path | None) -> Detect:
    """U-FISH 0.1.1 with its own weights: 2D per slice, three directions blended; its own threshold is 0.5."""
    from loguru import logger

    logger.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skimage.filters import laplace
        from skimage.morphology import local_maxima
        from ufish.api import UFish

        network = UFish(cuda=False)
        network.load_weights()

    def detect(image: npt.NDArray[np.uint16]) -> Found:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, enhanced = network.predict(image, axes="zyx", blend_3d=True)
        response = laplace(enhanced)  # as `call_spots_local_maxima` does it
        top = local_maxima(response, connectivity=2) & (response > 0)
        return Found.of(np.argwhere(top), response[top])

    return detect


@cache
def catalogue() -> dict[str, Detector]:
    return {
        "ours": Detector("liveptv: matched filter and fit", open_ours, threshold=0.5),
        "ours-network": Detector("liveptv: network and fit", open_ours, threshold=0.5, needs_model=True),
        "sef3d": Detector("SEF3D (Laplacian of Gaussian)", open_log),
        "matched": Detector("Gaussian filter", open_matched),
        "detnet3d": Detector("DetNet3D, trained here", open_published, volumes=5, needs_model=True),
        "dm-detnet3d": Detector("DM-DetNet3D, trained here", open_published, volumes=5, needs_model=True),
        "trackpy": Detector("trackpy 3D", open_trackpy, volumes=5),
        "trackpy-padded": Detector("trackpy 3D, slices mirrored", open_trackpy_padded, volumes=5),
        "ufish": Detector("U-FISH, its own weights", open_ufish, volumes=3),
    }
