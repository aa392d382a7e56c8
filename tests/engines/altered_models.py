"""The shipped model made to know more, by its graph alone: the place, a knee, kinds. No torch is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxscript import GraphBuilder, ir

from engines.network.layout import SLOTS
from liveptv.models import SHIPPED_MODEL

CELL_PX = 8
"""Of the features that the place is added to."""


def altered(path: Path, change: Any, **card: Any) -> Path:
    """Write the shipped model with its graph changed and other entries in its card."""
    model = ir.serde.deserialize_model(onnx.load_from_string(SHIPPED_MODEL.read_bytes()))
    change(model.graph, GraphBuilder(model.graph))
    model.graph.sort()
    described = json.loads(model.metadata_props["liveptv"]) | {"schema_version": 3, **card}
    model.metadata_props["liveptv"] = json.dumps(described)
    path.write_bytes(ir.serde.serialize_model(model).SerializeToString())
    return path


def value(graph: ir.Graph, name: str) -> ir.Value:
    return next(v for node in graph for v in node.outputs if v.name == name)


def knowing_its_place(path: Path, field: tuple[int, int]) -> Path:
    """Features get brighter along x by where they lie in the field, worked out from the size of the image."""

    def change(graph: ir.Graph, builder: GraphBuilder) -> None:
        op, image, features = builder.op, graph.inputs[0], value(graph, "relu_1")
        unknown = ir.tensor(np.full((1, 2), np.nan, np.float32), name="origin")
        origin = builder.input("origin", ir.DataType.FLOAT, [1, 2], const_value=unknown)
        cells = op.Div(op.Squeeze(op.Shape(image, start=3, end=4)), CELL_PX)
        cell = op.Range(0.0, op.Cast(cells, to=ir.DataType.FLOAT), 1.0)
        given = op.Gather(origin, [0], axis=1)
        begin = op.Where(op.IsNaN(given), 0.0, given)
        x = op.Add(begin, op.Add(op.Mul(cell, float(CELL_PX)), 0.5 * (CELL_PX - 1)))
        u = op.Div(op.Sub(x, 0.5 * (field[1] - 1)), 0.5 * max(field))
        each = builder.initializer(ir.tensor(np.linspace(-0.4, 0.4, 40, dtype=np.float32), name="each"))
        placed = op.Add(features, op.Mul(op.Unsqueeze(u, [1]), op.Unsqueeze(each, [0, 2, 3])))
        users = [(node, index) for node, index in features.uses() if node is not placed.producer()]
        for node, index in users:
            node.replace_input_with(index, placed)

    return altered(path, change, field_shape=list(field))


def with_a_knee(path: Path, knee: float) -> Path:
    def change(graph: ir.Graph, builder: GraphBuilder) -> None:
        op, image = builder.op, graph.inputs[0]
        stem = next(iter(graph))
        compressed = op.Div(image, op.Sqrt(op.Add(op.Div(op.Abs(image), knee), 1.0)))
        stem.replace_input_with(0, compressed)

    return altered(path, change, knee=knee)


def telling_kinds(path: Path, kinds: int) -> Path:
    """With planes for the class of each slot, from the same features."""

    def change(graph: ir.Graph, builder: GraphBuilder) -> None:
        rng = np.random.default_rng(3)
        head = graph.outputs[0].producer()
        for index, shape in ((1, (SLOTS * kinds, 24, 1, 1)), (2, (SLOTS * kinds,))):
            more = 0.3 * rng.standard_normal(shape).astype(np.float32)
            array = np.concatenate([head.inputs[index].const_value.numpy(), more])
            head.replace_input_with(index, builder.initializer(ir.tensor(array, name=f"head_{index}")))
        rows, columns = graph.outputs[0].shape[2:]
        graph.outputs[0].shape = ir.Shape([1, SLOTS * (9 + kinds), rows, columns])

    return altered(path, change, kinds=kinds)
