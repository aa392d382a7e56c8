"""The look-up table of particle images over depth and sub-pixel shift, cached on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

from acquisition.physics.optics import (
    IMAGE_MODEL_VERSION,
    Float32Array,
    OpticsModel,
    fine_images,
    shifted_images,
    spectrum_of,
)

SHIFTS = 4
"""Sub-pixel shifts per pixel in the table; the gradient applies the rest, at most 1/8 px (centroid error below
0.02 px). Eight would make the table four times as large."""
Z_STEP_UM = 3.0
"""Depth step of the table, um. Linear interpolation between two depths is off by at most 0.3 % of the peak."""
_EDGE_PX = 6
"""Soft edge of an image, px, beyond the distance at which it has faded."""
_FAINT = 2e-3
"""Fraction of the peak below which an image has faded: at an SNR of 8 it is 1/60 of the noise."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ImageBank:
    """Particle images at Z depths and 4 x 4 sub-pixel shifts, stored as 16-bit integers times `scale`.

    `images` is (Z, 4, 4, P, P): depth, quarter pixels along y, along x, rows, columns; the outermost rows and
    columns are zero. `extent_px` is (Z, 2): extent of the images from the middle pixel along y and x.
    """

    optics: OpticsModel
    z_um: npt.NDArray[np.float64]
    images: npt.NDArray[np.int16]
    extent_px: npt.NDArray[np.int64]
    scale: float
    mean_peak: float
    """Largest contrast of an image, averaged over the visible depth: the paper's signal over background."""


def load_bank(optics: OpticsModel, cache: Path | None = None) -> ImageBank:
    """Return the image bank of an optical set-up, computed once and then read from the user's cache folder.

    An unreadable cache file is rebuilt; without write access, the images are computed at every start.
    """
    steps = int(np.ceil(optics.range_um / Z_STEP_UM))
    z_um = np.arange(-steps, steps + 1, dtype=np.float64) * Z_STEP_UM
    path = cache_file(optics, cache)
    bank = _read(path, optics, z_um)
    if bank is None:
        bank = _assemble(optics, z_um, fine_images(optics, z_um))
        _write(path, bank)
    return bank


def cache_file(optics: OpticsModel, cache: Path | None = None) -> Path:
    """Return the cache file for the images of `optics`; its name contains a hash of all parameters."""
    folder = cache or platformdirs.user_cache_path("liveptv") / "particle-images"
    key = f"table {IMAGE_MODEL_VERSION} {Z_STEP_UM} {SHIFTS} {_EDGE_PX} {_FAINT} {optics.model_dump_json()}"
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def _read(path: Path, optics: OpticsModel, z_um: npt.NDArray[np.float64]) -> ImageBank | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            images, extent = file["images"], file["extent_px"]
            scale, mean_peak = float(file["scale"]), float(file["mean_peak"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("the cached particle images %s are damaged and will be rebuilt: %s", path, error)
        return None
    size = _size_px(optics)
    alike = images.shape == (z_um.size, SHIFTS, SHIFTS, size, size) and extent.shape == (z_um.size, 2)
    if not alike or images.dtype != np.int16 or extent.dtype != np.int64:
        _log.warning("the cached particle images %s have the wrong shape and will be rebuilt", path)
        return None
    return ImageBank(optics, z_um, images, extent, scale, mean_peak)


def _write(path: Path, bank: ImageBank) -> None:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                images=bank.images,
                extent_px=bank.extent_px,
                scale=np.float64(bank.scale),
                mean_peak=np.float64(bank.mean_peak),
            )
        temporary.replace(path)
    except OSError as error:
        _log.warning(
            "particle images cannot be cached in %s (%s): the next start computes them again", path, error
        )
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _assemble(optics: OpticsModel, z_um: npt.NDArray[np.float64], fine: Float32Array) -> ImageBank:
    magnitude = np.abs(fine)
    peak = magnitude.max(axis=(1, 2))
    fine, extent = _soften_edges(fine, peak, optics)
    size = _size_px(optics)
    spectrum = spectrum_of(fine)
    scale = float(peak.max()) * 1.05 / np.iinfo(np.int16).max
    images = np.zeros((z_um.size, SHIFTS, SHIFTS, size, size), np.int16)
    for row in range(SHIFTS):
        for column in range(SHIFTS):
            shifted = shifted_images(spectrum, optics, column / SHIFTS, row / SHIFTS)
            images[:, row, column, 1:-1, 1:-1] = np.rint(shifted / scale)
    visible = np.abs(z_um) <= optics.visible_um
    return ImageBank(optics, z_um, images, extent, scale, float(peak[visible].mean()))


def _size_px(optics: OpticsModel) -> int:
    """Rows and columns of an image in the table: the largest image and an edge of zeros."""
    return 2 * optics.half_size_px + 3


def _soften_edges(
    fine: Float32Array, peak: npt.NDArray[np.float32], optics: OpticsModel
) -> tuple[Float32Array, npt.NDArray[np.int64]]:
    """Let each image end smoothly where it has faded far below the noise, which saves time in rendering."""
    factor, middle = optics.oversampling, fine.shape[1] // 2
    largest = optics.half_size_px - _EDGE_PX
    distance = np.abs(np.arange(fine.shape[1]) - middle) / factor
    extent = np.empty((len(fine), 2), np.int64)
    softened = np.empty_like(fine)
    for index, image in enumerate(np.abs(fine)):
        windows = []
        for axis in (0, 1):
            profile = image.max(axis=1 - axis)
            reach = min(int(np.ceil(distance[profile > _FAINT * peak[index]].max())) + 1, largest)
            ramp = np.clip((distance - reach) / (_EDGE_PX - 1), 0, 1)
            windows.append((0.5 + 0.5 * np.cos(np.pi * ramp)).astype(np.float32))
            extent[index, axis] = reach + _EDGE_PX
        softened[index] = fine[index] * windows[0][:, None] * windows[1]
    return softened, extent
