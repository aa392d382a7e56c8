"""Images of particles at known positions, to plan an experiment or to check an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError

from liveptv.api.dataframes import positions_by_frame
from liveptv.api.images import Images
from stream.errors import ConfigurationError
from stream.settings import describe

if TYPE_CHECKING:
    import pandas as pd


def simulate(
    positions: pd.DataFrame,
    shape: tuple[int, int],
    *,
    snr: float = 5.6,
    dtype: Literal["uint8", "uint16"] = "uint8",
    seed: int = 0,
    **optics: Any,
) -> Images:
    """Render camera images of particles at known positions, through an astigmatic lens.

    Parameters
    ----------
    positions : pandas.DataFrame
        One row a particle and frame: `frame`, `x_um`, `y_um` (from the centre of the first pixel), `z_um` (relative
        to the focal plane; particles beyond `range_um` are not drawn). Frames without rows are empty images.
    shape : (int, int)
        Height and width of an image in pixels.
    snr : float
        Signal-to-noise ratio, Franchini & Krevor (2020), section 2.1.1: contrast of a particle's darkest pixel,
        averaged over depth, over the standard deviation of the background. `float("inf")` for no noise.
    dtype, seed : optional
        Pixel type; seed of the noise.
    **optics
        Fields of `acquisition.physics.optics.OpticsModel`, such as `pixel_size_um`, `numerical_aperture`,
        `focal_line_separation_um`, `polarity`; the defaults are the paper's set-up, 0.8 um a pixel.

    Returns
    -------
    Images
        A numpy array (T, H, W), from frame 0 to the last one of `positions`, with `.plot()` and `.to_xarray()`.

    Raises
    ------
    ConfigurationError
        For a table, a shape or optics that cannot be used.
    """
    from acquisition.physics.image_table import load_bank
    from acquisition.physics.optics import OpticsModel
    from acquisition.physics.rendering import Renderer

    try:
        model = OpticsModel.model_validate(optics)
    except ValidationError as error:
        raise ConfigurationError(f"optics: {describe(error)}") from error
    if not snr > 0:
        raise ConfigurationError(f"snr must be positive, not {snr:g}")
    frames = positions_by_frame(positions)
    renderer = Renderer(load_bank(model), shape, dtype, snr=snr, seed=seed)
    images = np.empty((len(frames), *shape), renderer.dtype)
    for image, (x_um, y_um, z_um) in zip(images, frames, strict=True):
        renderer.render(x_um, y_um, z_um, image)
    return Images(images, model.pixel_size_um)


def simulate_objects(
    positions: pd.DataFrame,
    pipeline: str | Path,
    *,
    dtype: Literal["uint8", "uint16"] = "uint16",
    gain: float | None = None,
    seed: int = 0,
) -> tuple[Images, pd.DataFrame]:
    """Draw the objects of a DeepTrack pipeline at known positions, as the simulated microscope does.

    Parameters
    ----------
    positions : pandas.DataFrame
        One row a particle and frame: `frame`, `particle` (a number; each keeps its object), `x_um`, `y_um` (from
        the centre of the first pixel), `z_um` (relative to the focal plane; 0 where it is left out).
    pipeline : str or Path
        `pipeline.py` or `pipeline.py:NAME`: objects, optics and noise. Its file is run.
    dtype, gain, seed : optional
        Pixel type; grey values for each unit of the pipeline's images (left out: so that the first is neither dark
        nor clipped); seed of objects and noise.

    Returns
    -------
    Images, pandas.DataFrame
        A numpy array (T, H, W), from frame 0 to the last one; `positions` with what describes each object
        (`radius_um`, `kind` ...).

    Raises
    ------
    ConfigurationError
        For a table that cannot be used.
    PipelineError
        Without deeptrack, and for a pipeline that fails or cannot be drawn at given positions.
    """
    from calibration.deeptrack.grey_values import as_grey, gain_for
    from calibration.deeptrack.objects import PipelineObjects

    if "particle" not in positions:
        raise ConfigurationError("the table has no column 'particle', by which a particle keeps its object")
    frames = positions_by_frame(positions)
    order = np.argsort(positions["frame"].to_numpy(), kind="stable")
    ordered = positions.iloc[order].reset_index(drop=True)
    identity = ordered["particle"].to_numpy(np.int64)
    objects = PipelineObjects(str(pipeline), seed)
    kind = np.dtype(dtype)
    scale = gain or gain_for(objects.first_image, 0.0, float(np.iinfo(kind).max))
    images = np.empty((len(frames), *objects.shape), kind)
    first = 0
    for image, (x_um, y_um, z_um) in zip(images, frames, strict=True):
        here = identity[first : first + len(x_um)]
        image[...] = as_grey(objects.draw(here, x_um, y_um, z_um), scale, 0.0, kind)
        first += len(x_um)
    return Images(images, objects.pixel_size_um), ordered.assign(**objects.properties(identity))
