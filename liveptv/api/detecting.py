"""Particles in images: from an array or a recording to a table of positions."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engines.factory import pixel_size_of
from engines.settings import MOST_PARTICLES
from liveptv.api.dataframes import detections_frame
from liveptv.api.recordings import Recording
from liveptv.config import build_experiment
from liveptv.workflows.offline import detect_frames, detect_images
from stream.errors import ConfigurationError
from stream.messages import NAN, Frame, FrameInfo

if TYPE_CHECKING:
    import pandas as pd


def detect(
    images: npt.ArrayLike | Recording | str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    pixel_size_um: float | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Find the particles in images.

    Parameters
    ----------
    images : array (H, W) or (T, H, W), Recording, or path
        uint8 or uint16, or other whole numbers from 0 to 65535. A recording keeps its frame numbers: that of a
        frame that was lost is left out.
    model : path, optional
        A network (`.onnx`; `liveptv.SHIPPED_MODEL` is the one for the simulated microscope) or a calibration
        (`.h5`), which give depth. Without one the classical detector works in 2D.
    pixel_size_um : float, optional
        Size of a pixel in object space. By default the recording's, else the model's, else 1 um.
    **settings
        Fields of `[detector]`; see docs/settings.md.

    Returns
    -------
    pandas.DataFrame
        One row a particle: `frame`; `x_um`, `y_um` from the centre of the first pixel; `z_um`, the height relative
        to the focal plane, NaN in 2D; their standard errors `sigma_*_um`; `brightness`; `confidence`, 0 to 1.

    Raises
    ------
    ConfigurationError
        For a model or a setting that cannot be used.
    DetectionError
        For images that a detector cannot read.

    Examples
    --------
    >>> found = liveptv.detect(images, liveptv.SHIPPED_MODEL)
    >>> found.groupby("frame").size()
    """
    options = {"max_particles": MOST_PARTICLES, "model": None if model is None else Path(model), **settings}
    checked = build_experiment({"detector": options}, "detect").detector
    if isinstance(images, str | os.PathLike):
        recorded = detect_images(Path(images), checked, pixel_size_um=pixel_size_um)
        return detections_frame(found for found, _ in recorded)
    if isinstance(images, Recording):
        frames, pixel_um = images.numbered_frames(), pixel_size_um or images.pixel_size_um
        height, width = images.shape[-2:]
        dtype = images.dtype
    else:
        stack = _stack(images)
        pixel_um = pixel_size_um or pixel_size_of(checked.model) or 1.0
        frames = (Frame(_info(number, pixel_um), image) for number, image in enumerate(stack))
        (_, height, width), dtype = stack.shape, stack.dtype
    return detections_frame(
        detect_frames(frames, checked, shape=(height, width), dtype=dtype, pixel_size_um=pixel_um)
    )


def _info(number: int, pixel_um: float) -> FrameInfo:
    return FrameInfo(
        run_id="python",
        frame=number,
        camera_frame=number,
        time_s=NAN,
        monotonic_ns=time.perf_counter_ns(),
        wall_s=NAN,
        pixel_size_um=pixel_um,
    )


def _stack(images: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(images)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3:
        raise ConfigurationError(f"images must be (H, W) or (T, H, W), not of shape {array.shape}")
    return array
