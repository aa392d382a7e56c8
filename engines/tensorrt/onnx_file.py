"""The GPU program as a strongly typed ONNX file, which fixes every precision; written without torch.

In half precision the network's weights and activations are float16; everything before and after it is float32. The
file takes the bytes of a frame and, with a flat field, its two references.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.bounded_reading import MOST_MODEL_BYTES, read_file
from engines.cuda.layout import FrameFormat
from engines.engine import BackEndError
from engines.network.layout import STRIDE
from engines.network.model import OnnxModel

IR_VERSION = 10
"""Of the file format; that of the model files."""
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

    Raises `ConfigurationError` for a model file that this program has not written, `BackEndError` where packages
    are missing, or where the weights do not fit into half precision.
    """
    try:
        import onnx
        from onnxscript import GraphBuilder, ir, optimizer

        from engines.tensorrt.onnx_network import OPSET, read_network
        from engines.tensorrt.onnx_program import add_program
    except ImportError as error:
        raise BackEndError(f"{error.name} is not installed: pip install onnx onnxscript") from error
    down, across = (STRIDE * cells for cells in frame.cells)
    network = read_network(read_file(path, MOST_MODEL_BYTES), str(path), (down, across), half=half)
    builder = GraphBuilder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="frame"))
    shapes = shapes_of(frame)
    inputs = []
    for name in inputs_of(frame):
        shape, dtype = shapes[name]
        inputs.append(builder.input(name, ir.DataType.from_numpy(np.dtype(dtype)), shape))
    found = add_program(builder, network, model.card, frame, inputs, half=half)
    for name, value in zip(OUTPUTS, found, strict=True):
        builder.add_output(value, name)
        shape, dtype = shapes[name]
        value.shape, value.dtype = ir.Shape(shape), ir.DataType.from_numpy(np.dtype(dtype))
    program = ir.Model(builder.graph, ir_version=IR_VERSION)
    optimizer.remove_unused_nodes(program)  # and the single-precision weights where there are others
    file = ir.serde.serialize_model(program)
    for node in file.graph.node:
        del node.metadata_props[:]  # the builder's notes
    try:
        onnx.checker.check_model(file, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise BackEndError(f"{path} cannot be written for TensorRT: {reason}") from error
    content: bytes = file.SerializeToString()
    return content
