"""Particles in images: from an array or a recording to a table of positions."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engines.factory import open_engine, pixel_size_of
from engines.settings import MOST_PARTICLES, DetectorSettings
from engines.watched_engine import summary_of
from liveptv.api.dataframes import detections_frame
from liveptv.api.recordings import Recording
from liveptv.config import build_experiment
from stream.errors import ConfigurationError
from stream.messages import NAN, Detections, Frame, FrameInfo

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

WAIT_S = 10.0


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
    if isinstance(images, str | os.PathLike):
        with Recording(images) as recording:
            return detect(recording, model, pixel_size_um=pixel_size_um, **settings)
    options = {"max_particles": MOST_PARTICLES, **settings}
    checked = build_experiment({"detector": options}, "detect").detector
    file = None if model is None else Path(model)
    if isinstance(images, Recording):
        pixel_um = images.pixel_size_um if pixel_size_um is None else pixel_size_um
        return detections_frame(
            _found(_recorded(images), images.shape, images.dtype, file, pixel_um, checked)
        )
    stack = _stack(images)
    pixel_um = pixel_size_um or pixel_size_of(file) or 1.0
    frames = (Frame(_info(number, pixel_um), image) for number, image in enumerate(stack))
    return detections_frame(_found(frames, stack.shape, stack.dtype, file, pixel_um, checked))


def _recorded(recording: Recording) -> Iterator[Frame]:
    """The frames under their numbers in the recording: where one is lost, its number is left out."""
    first: int | None = None
    for frame in recording.frames():
        first = frame.info.camera_frame if first is None else first
        yield replace(frame, info=replace(frame.info, frame=frame.info.camera_frame - first))


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


def _found(
    frames: Iterator[Frame],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    model: Path | None,
    pixel_um: float,
    settings: DetectorSettings,
) -> Iterator[Detections]:
    engine = open_engine(settings, model=model, pixel_size_um=pixel_um, say=log.warning)
    try:
        engine.warmup(shape[-2], shape[-1], dtype)
        for frame in frames:
            engine.submit(frame)
            yield from engine.results(0.0)
        while engine.pending:
            yield from engine.results(WAIT_S)
        if left_out := summary_of(engine.counts()):
            log.warning("in all: %s", left_out)
    finally:
        engine.close()
