"""The graph of a model file as a part of the GPU program: for one size of image, its precision written in it.

Half precision is what a torch module has after `.half()`: from the image to the last convolution weights and
activations are float16; what does not depend on the image (the place in the field of view) stays float32 until
it is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnxscript import ir, optimizer

from engines.engine import BackEndError
from engines.network.model import INPUT, OUTPUT
from stream.errors import ConfigurationError

OPSET = 18
"""Version of ONNX's operators in model files, and in the program."""
LARGEST_FOLDED = 1024
"""Values of a constant that is calculated in advance: the coordinates along an axis of 8192 px, but no map of them,
which would only make the file larger."""
CONVOLUTIONS = ("Conv", "ConvTranspose")
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def read_network(content: bytes, name: str, shape: tuple[int, int], *, half: bool) -> ir.Graph:
    """The graph of a model file for an image (1, 1, H, W) of `shape`, without what depends on the size alone.

    Its only input is the image, float16 with `half`; its only output is float32. An input with a value of its own,
    as `origin` has, keeps that value. Raises `ConfigurationError` for a file that is not of this program,
    `BackEndError` for one whose weights half precision cannot hold.
    """
    model = ir.serde.deserialize_model(onnx.load_from_string(content))
    graph = model.graph
    opset = graph.opset_imports.get("")
    if opset != OPSET or set(graph.opset_imports) != {""}:
        raise ConfigurationError(f"{name} is written in ONNX opset {opset}, not {OPSET}; train it again")
    if model.functions or any(_has_graphs(node) for node in graph):
        raise ConfigurationError(
            f"{name} has loops or branches, which no network of liveptv has; train it again"
        )
    for value in [value for value in graph.inputs if value.is_initializer()]:
        graph.inputs.remove(value)
    if [value.name for value in graph.inputs] != [INPUT] or [v.name for v in graph.outputs] != [OUTPUT]:
        raise ConfigurationError(
            f"{name} has other inputs or outputs than {INPUT} and {OUTPUT}; train it again"
        )
    _fix_size(model, shape)
    if half:
        _read_patches(graph)
        _halve(graph, name)
    return graph


def _has_graphs(node: ir.Node) -> bool:
    return any(
        value.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for value in node.attributes.values()
    )


def _fix_size(model: ir.Model, shape: tuple[int, int]) -> None:
    """Give the image its size, and calculate what follows from it."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None  # known in terms of a size that was open
    model.graph.inputs[0].shape = ir.Shape((1, 1, *shape))
    optimizer.fold_constants(model, onnx_shape_inference=True, output_size_limit=LARGEST_FOLDED)
    optimizer.remove_unused_nodes(model)


def _read_patches(graph: ir.Graph) -> None:
    """Have a convolution of one channel by patches side by side as one whose channels are the pixels of a patch.

    The sums are the same. TensorRT for RTX 1.7 multiplies halves of an even number of channels only: it would keep
    a second image full of zeros in the engine (7.4 MB at 1440 x 2560) and join it to each frame.
    """
    for node in list(graph):
        weights = node.inputs[1] if node.op_type == "Conv" else None
        if weights is None or weights.const_value is None:
            continue
        filters = weights.const_value.numpy()
        side = filters.shape[-1]
        if filters.shape[1:] != (1, side, side) or not _is_by_patches(node, side):
            continue
        flat = ir.val(f"{weights.name}_flat", const_value=ir.tensor(filters.reshape(-1, side**2, 1, 1)))
        graph.register_initializer(flat)
        result = node.outputs[0]
        pixels = ir.val(f"{result.name}_pixels", FLOAT)
        same = ir.val(f"{result.name}_flat", FLOAT, result.shape)
        by_patch = ir.node("SpaceToDepth", [node.inputs[0]], {"blocksize": side}, outputs=[pixels])
        product = ir.node("Conv", [pixels, flat, *node.inputs[2:]], {"kernel_shape": [1, 1]}, outputs=[same])
        graph.insert_before(node, [by_patch, product])
        result.replace_all_uses_with(same, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _is_by_patches(node: ir.Node, side: int) -> bool:
    wanted = {"strides": (side, side), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1}
    found = {name: node.attributes[name].value for name in wanted if name in node.attributes}
    return wanted == {
        name: value if isinstance(value, int) else tuple(value) for name, value in found.items()
    }


def _halve(graph: ir.Graph, name: str) -> None:
    """Have all that is calculated from the image in float16, up to the last convolution."""
    (image,) = graph.inputs
    image.dtype = HALF
    halves = {image}
    converted: dict[ir.Value, ir.Value] = {}
    graph.sort()
    nodes = list(graph)
    last = next((node for node in reversed(nodes) if node.op_type in CONVOLUTIONS), None)
    for node in nodes:
        if halves.isdisjoint(node.inputs):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value not in halves and value.dtype == FLOAT:
                if value not in converted:
                    converted[value] = _half_of(graph, value, name)
                node.replace_input_with(index, converted[value])
        for value in node.outputs:
            if value.dtype == FLOAT:
                value.dtype = HALF
                halves.add(value)
        if node is last:
            _give_float(graph, node)
    (output,) = graph.outputs
    if output.dtype == HALF:
        _give_float(graph, output.producer())


def _half_of(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    """The same in float16: another constant, or a cast after the node that gives it."""
    if value.const_value is None or not value.is_initializer():
        return _cast(graph, value.producer(), value, HALF)
    with np.errstate(over="ignore"):
        array = value.const_value.numpy().astype(np.float16)
    if not np.isfinite(array).all():
        raise BackEndError(
            f'{name} has weights too large for half precision ({value.name}); set precision = "full"'
        )
    half = ir.val(f"{value.name}_half", const_value=ir.tensor(array))
    graph.register_initializer(half)
    return half


def _give_float(graph: ir.Graph, node: ir.Node) -> None:
    """Have what follows a node get its result in float32."""
    result = node.outputs[0]
    single = _cast(graph, node, result, FLOAT)
    users = [(user, index) for user, index in result.uses() if user is not single.producer()]
    for user, index in users:
        user.replace_input_with(index, single)
    graph.outputs[:] = [single if value is result else value for value in graph.outputs]


def _cast(graph: ir.Graph, after: Any, value: ir.Value, to: ir.DataType) -> ir.Value:
    out = ir.val(f"{value.name}_{to.short_name()}", to, value.shape)
    graph.insert_after(after, ir.node("Cast", [value], {"to": to}, outputs=[out]))
    return out
