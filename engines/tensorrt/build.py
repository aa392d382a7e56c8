"""Building an engine: TensorRT measures for minutes how each part runs fastest; that for RTX takes a second."""

from __future__ import annotations

from typing import Any

from engines.engine import BackEndError
from engines.tensorrt import rtx
from engines.tensorrt.aside import aside
from engines.tensorrt.library import Loaded
from engines.tensorrt.messages import Progress, messages_of, monitor_of

WORKSPACE_BYTES = 2 << 30
"""Bytes of GPU memory that a layer may use while it runs; an upper limit only."""
OPTIMISATION = 3
"""TensorRT's own default, of 0 to 5: higher levels take longer to build."""


def build_plan(loaded: Loaded, onnx_file: bytes, progress: Progress) -> bytes:
    """The serialised engine of a strongly typed ONNX file.

    Raises `BackEndError` where TensorRT cannot build it, `KeyboardInterrupt` where `progress` raises it.
    """
    monitor = monitor_of(loaded.trt, progress)
    plan = aside(lambda: _build(loaded, onnx_file, monitor), monitor.stop)
    if plan is None:
        raise KeyboardInterrupt
    return plan


def _build(loaded: Loaded, onnx_file: bytes, monitor: Any) -> bytes | None:
    """None where the monitor was stopped."""
    trt = loaded.trt
    messages = messages_of(trt)
    messages.forget()
    builder = trt.Builder(messages.logger)
    network, _parser = parsed(loaded, builder, onnx_file)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = OPTIMISATION
    if loaded.library.is_portable:
        rtx.prepare_build(trt, config)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.stopped:
        return None
    if plan is None:
        raise BackEndError(f"{loaded} cannot build the network: {messages.errors()}")
    return bytes(plan)


def parsed(loaded: Loaded, builder: Any, onnx_file: bytes) -> tuple[Any, Any]:
    """The network of an ONNX file, and the parser, which owns its weights and has to live as long.

    Raises `BackEndError`, with the node, where TensorRT cannot read it.
    """
    trt = loaded.trt
    messages = messages_of(trt)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages.logger)
    if not parser.parse(onnx_file):
        reasons = "; ".join(_reason(parser.get_error(index)) for index in range(parser.num_errors))
        raise BackEndError(f"{loaded} cannot read the network: {reasons or messages.errors()}")
    return network, parser


def _reason(error: Any) -> str:
    return f"node {error.node()} ({error.node_operator()}): {' '.join(error.desc().split())}"
