"""Particles in images and volumes: from an array or a recording to a table of positions."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engines.factory import is_for_volumes, pixel_size_of
from engines.settings import MOST_PARTICLES, DetectorSettings
from liveptv.api.dataframes import detections_frame
from liveptv.api.recordings import Recording
from liveptv.config import build_experiment
from liveptv.workflows.offline import detect_frames, detect_images
from stream.errors import ConfigurationError
from stream.messages import NAN, Frame, FrameInfo
from stream.volume_info import MOST_SLICES, VolumeInfo

if TYPE_CHECKING:
    from liveptv.api.frames import DetectionFrame

SAME = 1e-3  # relative difference of two pixel sizes that are the same


def detect(
    images: npt.ArrayLike | Recording | str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    pixel_size_um: float | None = None,
    voxel_um: Sequence[float] | None = None,
    **settings: Any,
) -> DetectionFrame:
    """Find the particles in images, or in volumes.

    Parameters
    ----------
    images : array, Recording, or path
        An array (H, W) or (T, H, W) of images; with `voxel_um` (Z, H, W), one volume, or (T, Z, H, W), whose lowest
        slice comes first. uint8 or uint16, or other whole numbers from 0 to 65535. A recording keeps its frame
        numbers: that of a frame that was lost is left out.
    model : path, optional
        A network (`.onnx`; `liveptv.SHIPPED_MODEL` is the one for the simulated microscope) or a calibration
        (`.h5`), which give depth. Without one the classical detector works in 2D.
    pixel_size_um : float, optional
        Size of a pixel in object space. By default the recording's, else the model's, else 1 um.
    voxel_um : (z, y, x), optional
        Distance between slices, and size of a pixel along y and x, which must be equal, um. Says that an array, or
        the file at a path, holds volumes; a `Recording` knows its own.
    **settings
        Fields of `[detector]`; see docs/settings.md.

    Returns
    -------
    DetectionFrame
        A pandas data frame; `found.plot(images)` draws it. One row a particle: `frame`; `x_um`, `y_um` from the
        centre of the first pixel; `z_um`, the height relative to the focal plane, NaN in 2D, in volumes that above
        the first slice; their standard errors `sigma_*_um`; `brightness`; `confidence`, 0 to 1.

    Raises
    ------
    ConfigurationError
        For a model or a setting that cannot be used, and for an array that may be images or volumes.
    DetectionError
        For images that a detector cannot read.

    Examples
    --------
    >>> found = liveptv.detect(images, liveptv.SHIPPED_MODEL)
    >>> found.plot(images, frame=3)
    >>> found.groupby("frame").size()
    >>> found = liveptv.detect(volumes, voxel_um=(0.3, 0.1, 0.1))
    """
    options = {"max_particles": MOST_PARTICLES, "model": None if model is None else Path(model), **settings}
    checked = build_experiment({"detector": options}, "detect").detector
    step_um, pixel_um = (None, pixel_size_um) if voxel_um is None else _voxel(voxel_um, pixel_size_um)
    if isinstance(images, str | os.PathLike):
        recorded = detect_images(Path(images), checked, pixel_size_um=pixel_um, z_step_um=step_um)
        return detections_frame((found for found, _ in recorded), pixel_um or pixel_size_of(checked.model))
    if isinstance(images, Recording):
        if voxel_um is not None:
            raise ConfigurationError(
                "voxel_um is for arrays and paths; give z_step_um and pixel_size_um to read_recording"
            )
        frames, pixel_um = images.numbered_frames(), pixel_size_um or images.pixel_size_um
        _, *lead, height, width = images.shape
        depth, volumes, dtype = (lead[0] if lead else 1), bool(lead), images.dtype
    else:
        array, volumes = np.asarray(images), step_um is not None
        stack = _volumes(array) if volumes else _stack(array, checked)
        pixel_um = pixel_um or pixel_size_of(checked.model) or 1.0
        about = None
        if step_um is not None:
            about = VolumeInfo(tuple(step_um * k for k in range(stack.shape[1])))
        frames = (Frame(_info(at, pixel_um, about), image) for at, image in enumerate(stack))
        (height, width), depth, dtype = stack.shape[-2:], (stack.shape[1] if volumes else 1), stack.dtype
    return detections_frame(
        detect_frames(
            frames,
            checked,
            shape=(height, width),
            dtype=dtype,
            pixel_size_um=pixel_um,
            depth=depth,
            volumes=volumes,
        ),
        pixel_um,
    )


def _voxel(voxel_um: Sequence[float], pixel_size_um: float | None) -> tuple[float, float]:
    """Distance between slices and size of a pixel, um. Raises `ConfigurationError` for what cannot be."""
    try:
        z_um, y_um, x_um = map(float, voxel_um)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"voxel_um is (z, y, x) in um, not {voxel_um!r}") from error
    if not all(size > 0 and math.isfinite(size) for size in (z_um, y_um, x_um)):
        raise ConfigurationError(f"voxel_um has sizes above 0, not {z_um:g}, {y_um:g} and {x_um:g} um")
    if not math.isclose(x_um, y_um, rel_tol=SAME):
        raise ConfigurationError(
            f"pixels must be square, but voxel_um says {y_um:g} um (y) by {x_um:g} um (x)"
        )
    if pixel_size_um is not None and not math.isclose(pixel_size_um, x_um, rel_tol=SAME):
        raise ConfigurationError(
            f"voxel_um says {x_um:g} um a pixel, pixel_size_um {pixel_size_um:g}; give one"
        )
    return z_um, x_um


def _info(number: int, pixel_um: float, volume: VolumeInfo | None) -> FrameInfo:
    return FrameInfo(
        run_id="python",
        frame=number,
        camera_frame=number,
        time_s=NAN,
        monotonic_ns=time.perf_counter_ns(),
        wall_s=NAN,
        pixel_size_um=pixel_um,
        volume=volume,
    )


def _stack(array: npt.NDArray[Any], settings: DetectorSettings) -> npt.NDArray[Any]:
    """Images (T, H, W) from an array that is not said to hold volumes."""
    hint = "; if these are volumes, give voxel_um=(z, y, x)" if array.ndim == 4 else ""
    if array.ndim not in {2, 3}:
        raise ConfigurationError(f"images must be (H, W) or (T, H, W), not of shape {array.shape}{hint}")
    if is_for_volumes(settings):
        raise ConfigurationError(
            f"the detector is one for volumes, but an array of shape {array.shape} may be images; give "
            "voxel_um=(z, y, x)"
        )
    return array[np.newaxis] if array.ndim == 2 else array


def _volumes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Volumes (T, Z, H, W) from an array that holds one or several."""
    if array.ndim not in {3, 4}:
        raise ConfigurationError(f"volumes must be (Z, H, W) or (T, Z, H, W), not of shape {array.shape}")
    found = array[np.newaxis] if array.ndim == 3 else array
    if not 2 <= found.shape[1] <= MOST_SLICES:
        raise ConfigurationError(f"volumes have 2 to {MOST_SLICES} slices, not {found.shape[1]}")
    return found
