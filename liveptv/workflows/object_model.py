"""Makes the image model of a pipeline's objects: found by matched filters and the fit, nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from liveptv.workflows.train import PipelineOf

SUFFIXES = (".h5", ".hdf5")
PIPELINES_BY_NETWORK = "train a network for them: an output that ends in .onnx"


def make_object_model(output: Path, pipeline: PipelineOf, overwrite: bool = False) -> str:
    """Draw images of the pipeline, find the model and write it; returns what was found, in words.

    Raises `ConfigurationError` where the pipeline's objects have no such model, and what the pipeline raises.
    """
    from calibration.deeptrack.image_model import image_model
    from calibration.deeptrack.loading import load_pipeline
    from calibration.deeptrack.recording import Recorder
    from calibration.deeptrack.survey import survey
    from engines.matched.object_model import write_object_model

    recorder = Recorder(load_pipeline(pipeline.path, pipeline.name))
    found = image_model(recorder, survey(recorder, pipeline.learn, pipeline.pixel_size_um))
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
    return (
        f"{found.objects} objects: images change with {name}, {ends}; {100 * found.misfit:.1f} % of an image is "
        "not explained"
    )
