"""The GPU program in ONNX's operators: from a frame's bytes to the few slots that can be particles.

The same steps as `program` and `background` of `engines.cuda.with_torch` take in torch, around the graph of a model
file. Each function adds nodes to the graph that `op` builds; it takes and gives values of that graph.
"""

from __future__ import annotations

from typing import Any

from onnxscript import GraphBuilder, ir

from engines.cuda.layout import FrameFormat
from engines.cuda.ranges import LARGEST_HALF, LEAST, LEVELS_OF_BYTE, LIGHT_BITS
from engines.network.decode import LEAST_LOGIT
from engines.network.layout import CHANNELS, LEAST_SIGMA, LOG_SIGMA_RANGE, LOGIT, SIGMA_X, SLOTS, STRIDE
from engines.network.model import PLANES_NDIM
from engines.network.model_card import ModelCard
from engines.network.preparation import LEVELS_OF_LIGHT
from engines.tensorrt.onnx_network import FLOAT, HALF

Op = Any
"""`onnxscript.OpBuilder`: a method for each operator of ONNX; numbers become constants of the right type."""
END = (1 << 63) - 1
"""To the end, for the operator Slice."""


def pixels_of(op: Op, raw: ir.Value, frame: FrameFormat) -> ir.Value:
    """Grey values (H, W), float32, of raw bytes (H, W) or (H, W, 2)."""
    values = op.Cast(raw, to=FLOAT)  # before anything else: TensorRT can do nothing but this with bytes
    if frame.bytes_per_pixel == 1:
        return values
    low, high = (op.Gather(values, place, axis=2) for place in range(2))
    return op.Add(low, op.Mul(high, float(LEVELS_OF_BYTE)))


def median_of_levels(op: Op, levels: ir.Value, number: int, bits: int) -> ir.Value:
    """The median (scalar) of `number` whole numbers below 2^`bits`, interpolated within its level by the counts.

    It is the greatest number that fewer than half of them are below; one binary digit is found after the other.
    """

    def count(which: ir.Value) -> ir.Value:
        return op.ReduceSum(op.Cast(which, to=FLOAT), keepdims=0)  # whole numbers: exact below 2^24

    half = 0.5 * number
    found = op.Constant(value_float=0.0)
    for bit in reversed(range(bits)):
        candidate = op.Add(found, float(1 << bit))
        found = op.Where(op.Less(count(op.Less(levels, candidate)), half), candidate, found)
    below = count(op.Less(levels, found))
    there = op.Sub(count(op.LessOrEqual(levels, found)), below)
    return op.Add(found, op.Div(op.Sub(half, below), there))


def contrast_of(
    op: Op,
    pixels: ir.Value,
    frame: FrameFormat,
    scale: float,
    flat_field: tuple[ir.Value, ir.Value] | None,
) -> tuple[ir.Value, ir.Value]:
    """Contrast (H, W) against the background, times `scale`, and the background (scalar).

    The background is in grey values, or relative to the bright reference with a `flat_field`: dark reference
    (H, W) and factor (H, W), as `FlatField` has them.
    """

    def sampled(image: ir.Value) -> ir.Value:
        return op.Slice(image, [0], [frame.height], [0], [frame.row_step]) if frame.row_step > 1 else image

    def against(image: ir.Value, light: ir.Value) -> ir.Value:
        return op.Sub(op.Mul(image, op.Div(scale, op.Max(light, LEAST))), scale)

    number = -(-frame.height // frame.row_step) * frame.width
    if flat_field is None:
        median = median_of_levels(op, sampled(pixels), number, 8 * frame.bytes_per_pixel)
        background = op.Sub(median, 0.5)
        return against(pixels, background), background
    dark, factor = flat_field
    relative = op.Mul(op.Sub(pixels, dark), factor)
    levels = op.Floor(op.Mul(sampled(relative), float(LEVELS_OF_LIGHT)))
    levels = op.Clip(levels, 0.0, float((1 << LIGHT_BITS) - 1))
    light = op.Div(median_of_levels(op, levels, number, LIGHT_BITS), float(LEVELS_OF_LIGHT))
    return against(relative, light), light


def image_of(op: Op, contrast: ir.Value, frame: FrameFormat, *, half: bool) -> ir.Value:
    """What the network gets (1, 1, H', W'): the contrast, padded with zeros, in the network's precision."""
    down, across = (STRIDE * cells for cells in frame.cells)
    image = contrast
    if (down, across) != (frame.height, frame.width):
        image = op.Pad(image, [0, 0, down - frame.height, across - frame.width])
    image = op.Unsqueeze(image, [0, 1])
    return op.Cast(op.Clip(image, -LARGEST_HALF, LARGEST_HALF), to=HALF) if half else image


def maps_of(op: Op, answer: ir.Value, frame: FrameFormat) -> ir.Value:
    """Maps (1, H/4, W/4, slots, values) of planes (1, slots x values, H/4, W/4), standard errors positive.

    What is already maps, from model files of schema 1, stays as it is.
    """
    if len(answer.shape) != PLANES_NDIM:
        return answer
    rows, columns = frame.cells
    planes = op.Transpose(answer, perm=[0, 2, 3, 1])

    def slots(begin: int, end: int, values: int) -> ir.Value:
        return op.Reshape(op.Slice(planes, [begin], [end], [3]), [1, rows, columns, SLOTS, values])

    values = slots(0, SLOTS * CHANNELS, CHANNELS)
    log_sigma = op.Clip(op.Slice(values, [SIGMA_X], [CHANNELS], [4]), *LOG_SIGMA_RANGE)
    sigma = op.Add(op.Exp(log_sigma), list(LEAST_SIGMA))
    parts = [op.Slice(values, [0], [SIGMA_X], [4]), sigma]
    if frame.values > CHANNELS:
        parts.append(slots(SLOTS * CHANNELS, END, frame.values - CHANNELS))
    return op.Concat(*parts, axis=4)


def strongest(op: Op, maps: ir.Value, background: ir.Value, frame: FrameFormat) -> tuple[ir.Value, ir.Value]:
    """The strongest slots of each strip, after their indices, and the summary, laid out as `cuda.layout` says."""
    strips = op.Reshape(maps, [frame.strips, -1, frame.values])
    logits = op.Gather(strips, LOGIT, axis=2)
    _, places = op.TopK(logits, [frame.kept], axis=1, _outputs=2)
    place = op.Unsqueeze(places, [2])
    kept = op.Concat(op.Cast(place, to=FLOAT), op.GatherND(strips, place, batch_dims=1), axis=2)
    counts = op.ReduceSum(op.Cast(op.Greater(logits, LEAST_LOGIT), to=FLOAT), [1], keepdims=0)
    mean = op.ReduceMean(maps, keepdims=0)
    return kept, op.Concat(op.Reshape(background, [1]), op.Reshape(mean, [1]), counts, axis=0)


def add_program(
    builder: GraphBuilder,
    network: ir.Graph,
    card: ModelCard,
    frame: FrameFormat,
    inputs: list[ir.Value],
    *,
    half: bool,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Kept slots, summary and maps of the `inputs`: the whole program around a network, whose nodes are moved."""
    op = builder.op
    raw, *references = inputs
    flat_field = (references[0], references[1]) if references else None
    scale = card.sign / card.noise_contrast
    contrast, background = contrast_of(op, pixels_of(op, raw, frame), frame, scale, flat_field)
    answer = _move(network, builder.graph, image_of(op, contrast, frame, half=half))
    maps = maps_of(op, answer, frame)
    return *strongest(op, maps, background, frame), maps


def _move(network: ir.Graph, graph: ir.Graph, image: ir.Value) -> ir.Value:
    """Move all of a network to the end of a graph, where it gets `image`; returns its answer."""
    (given,), (answer,) = network.inputs, network.outputs
    given.replace_all_uses_with(image)
    for value in list(network.initializers.values()):
        del network.initializers[value.name]
        value.name = f"model.{value.name}"
        graph.register_initializer(value)
    network.outputs.clear()
    nodes = list(network)
    network.remove(nodes)
    for node in nodes:
        node.name = f"model.{node.name}" if node.name else None
        for value in node.outputs:
            value.name = f"model.{value.name}"
    graph.extend(nodes)
    return answer
