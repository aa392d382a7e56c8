"""A calibration from a focus scan."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from liveptv.api.calibrations import CalibrationView
from liveptv.workflows.calibrate import calibrate_scan


def calibrate(
    scan: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    bright: str | os.PathLike[str] | None = None,
    dark: str | os.PathLike[str] | None = None,
    z_step_um: float | None = None,
    repeats: int | None = None,
    pixel_size_um: float | None = None,
    axes: str | None = None,
    polarity: Literal["dark", "bright"] | None = None,
    neighbour_px: float | None = None,
    kinds: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[str, float], None] = lambda step, part: None,
) -> CalibrationView:
    """Turn a focus scan into labelled particle images and a PSF model, and write `calibration.h5`.

    Parameters
    ----------
    scan : path
        OME-TIFF, TIFF, OME-Zarr, HDF5 or a folder of images, over focus positions.
    output : path
        The calibration file (`.h5`); use it as `model` in `liveptv.detect`.
    bright, dark : path, optional
        References for the flat field: an image of the background without particles, and one without light.
    z_step_um, repeats, pixel_size_um, axes : optional
        Where the scan does not say them, or says them wrongly.
    polarity : {"dark", "bright"}, optional
        Found from the scan by default.
    neighbour_px : float, optional
        Particles with another one nearer than this are left out; default: 35, or the images' radius.
    kinds : int, optional
        How many kinds of particles the scan shows, 1 to 3; found from the scan by default.
    overwrite : bool
        Replace `output` if it exists.
    on_progress : callable
        Called with the step and the part of it that is done, 0 to 1.

    Returns
    -------
    CalibrationView
        `.plot()`, `.to_pandas()`, `.to_xarray()`, and `model` (the PSF model), `focal_planes`, `particles`,
        `noise`, `warnings` ...

    Raises
    ------
    LivePTVError
        If the scan cannot be read or no calibration can be made from it; the text says why.
    """
    found = calibrate_scan(
        Path(scan),
        Path(output),
        bright=None if bright is None else Path(bright),
        dark=None if dark is None else Path(dark),
        z_step_um=z_step_um,
        repeats=repeats,
        pixel_size_um=pixel_size_um,
        axes=axes,
        polarity=polarity,
        neighbour_px=neighbour_px,
        kinds=kinds,
        overwrite=overwrite,
        on_progress=on_progress,
    )
    return CalibrationView.of(found)
