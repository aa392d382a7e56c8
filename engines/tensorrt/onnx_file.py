"""Export of the GPU program to a strongly typed ONNX file, which fixes every precision.

In half precision the network's weights and activations are float16; everything before and after it is float32. The
file takes the bytes of a frame and, with a flat field, its two references.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.cuda.layout import FrameFormat
from engines.cuda.program import FrameProgram
from engines.engine import BackEndError
from engines.network.model import OnnxModel
from engines.network.torch_model import network_of

OPSET = 18
RAW, DARK, FACTOR = "raw", "dark", "factor"
KEPT, SUMMARY, MAPS = "kept", "summary", "maps"
OUTPUTS = (KEPT, SUMMARY, MAPS)


def inputs_of(frame: FrameFormat) -> tuple[str, ...]:
    """Names of the inputs."""
    return (RAW, DARK, FACTOR) if frame.flat_field else (RAW,)


def shapes_of(frame: FrameFormat) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    """Shape and type of each input and output."""
    pixels = (frame.height, frame.width)
    shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {RAW: (frame.raw_shape, np.uint8)}
    shapes |= dict.fromkeys(inputs_of(frame)[1:], (pixels, np.float32))
    outputs = (frame.kept_shape, frame.summary_shape, frame.maps_shape)
    return shapes | {name: (shape, np.float32) for name, shape in zip(OUTPUTS, outputs, strict=True)}


def write_onnx(path: Path, model: OnnxModel, frame: FrameFormat, *, half: bool) -> bytes:
    """The file (bytes) for frames of one format, of the model at `path`.

    Raises `ConfigurationError` where the model lacks its weights, `BackEndError` where packages are missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BackEndError(f"{error.name} not installed: pip install 'liveptv[train]'") from error
    program = FrameProgram(network_of(model, str(path)), model.card, frame, half=half).eval()
    shapes = shapes_of(frame)
    examples = tuple(torch.from_numpy(np.ones(*shapes[name])) for name in inputs_of(frame))
    return _export(program, examples, inputs_of(frame))


def _export(program: FrameProgram, examples: tuple[Any, ...], names: tuple[str, ...]) -> bytes:
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the exporter's own libraries
            exported = torch.onnx.export(
                program,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(names),
                output_names=list(OUTPUTS),
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    content: bytes = exported.model_proto.SerializeToString()
    return content
