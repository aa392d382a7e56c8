"""Building an engine: TensorRT measures how each part of the program runs fastest, which takes minutes."""

from __future__ import annotations

from typing import Any

from engines.engine import BackEndError
from engines.tensorrt.library import Messages, Progress, monitor_of

WORKSPACE_BYTES = 2 << 30
"""Bytes of GPU memory that a layer may use while it runs; an upper limit only."""
OPTIMISATION = 3
"""TensorRT's own default, of 0 to 5: higher levels take longer to build."""


def build_plan(trt: Any, onnx_file: bytes, progress: Progress) -> bytes:
    """The serialised engine of a strongly typed ONNX file. Raises `BackEndError` where TensorRT cannot build it."""
    messages = Messages(trt)
    builder = trt.Builder(messages.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages.logger)
    if not parser.parse(onnx_file):
        reasons = "; ".join(_reason(parser.get_error(index)) for index in range(parser.num_errors))
        raise BackEndError(f"TensorRT {trt.__version__} cannot read the network: {reasons}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = OPTIMISATION
    monitor = monitor_of(trt, progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.stopped:
        raise KeyboardInterrupt
    if plan is None:
        raise BackEndError(f"TensorRT {trt.__version__} cannot build the network: {messages.errors()}")
    return bytes(plan)


def _reason(error: Any) -> str:
    return f"node {error.node()}: {' '.join(error.desc().split())}"
