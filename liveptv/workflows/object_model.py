"""Makes the image model of objects: they are found by matched filters and the fit, nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from liveptv.workflows.examples import Examples, make_model_of_examples
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from liveptv.workflows.train import PipelineOf

SUFFIXES = (".h5", ".hdf5")
PIPELINES_BY_NETWORK = "train a network for them: an output that ends in .onnx"


def make_any_object_model(
    output: Path,
    source: PipelineOf | Examples | None,
    say: Callable[[str], None],
    minutes: float = math.inf,
    overwrite: bool = False,
) -> str:
    """Write the model of a pipeline's objects, or of examples; returns what was found, in words.

    `say` gets a line for each example. Raises `ConfigurationError` where there is no such model.
    """
    if source is None:
        raise ConfigurationError("an image model is made of images (a pipeline) or of examples")
    if isinstance(source, Examples):
        return make_model_of_examples(output, source, say, overwrite)
    return make_object_model(output, source, overwrite, minutes)


def make_object_model(
    output: Path, pipeline: PipelineOf, overwrite: bool = False, minutes: float = math.inf
) -> str:
    """Draw images of the pipeline, find the model and write it; returns what was found, in words.

    Images are drawn for half a minute at most, and for a quarter of `minutes`.

    Raises `ConfigurationError` where the pipeline's objects have no such model, and what the pipeline raises.
    """
    from calibration.deeptrack.image_model import image_model
    from calibration.deeptrack.loading import load_pipeline
    from calibration.deeptrack.recording import Recorder
    from calibration.deeptrack.survey import survey
    from engines.matched.object_model import write_object_model

    recorder = Recorder(load_pipeline(pipeline.path, pipeline.name))
    found = image_model(recorder, survey(recorder, pipeline.learn, pipeline.pixel_size_um), minutes)
    if found.model is None:
        raise ConfigurationError(f"no image model: {found.reason}; {PIPELINES_BY_NETWORK}")
    made_from = f"pipeline {pipeline.path.name}" + (f":{pipeline.name}" if pipeline.name else "")
    write_object_model(output, found.model, made_from, overwrite)
    quantity = found.model.quantity
    ends = (
        ""
        if quantity is None
        else " to ".join(
            f"{end:.3g}" for end in quantity.values([found.model.z_min_um, found.model.z_max_um])
        )
    )
    name = "depth" if quantity is None or quantity.is_depth else quantity.name
    dark = found.model.dark_grey
    light = "" if dark is None else f"; light multiplies them (grey value without light: {dark:.3g})"
    return (
        f"{found.objects} objects: images change with {name}, {ends}; {100 * found.misfit:.1f} % of an image is "
        f"not explained{light}"
    )
