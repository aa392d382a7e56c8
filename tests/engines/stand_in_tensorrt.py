"""TensorRT's part played by ONNX Runtime: same names, the same calls, and answers to the addresses given.

That the names are TensorRT's own is what `test_tensorrt_names` is for.
"""

from __future__ import annotations

import enum
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime

TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        self.ready = True


class IProgressMonitor:
    def __init__(self) -> None:
        self.ready = True


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class BuilderFlag(enum.Enum):
    TF32 = 7


class INetworkDefinition:
    def __init__(self) -> None:
        self._file = b""


class ParserError:
    def node(self) -> int:
        return 3

    def desc(self) -> str:
        return "Unsupported operator:\n Fold"


class OnnxParser:
    def __init__(self, network, logger) -> None:
        self._network = network
        self.num_errors = 0

    def parse(self, file: bytes) -> bool:
        model = onnx.load_from_string(file)
        if any(node.op_type == "Fold" for node in model.graph.node):
            self.num_errors = 1
            return False
        onnx.checker.check_model(model, full_check=True)
        self._network._file = file
        return True

    def get_error(self, _index: int) -> ParserError:
        return ParserError()


class IBuilderConfig:
    def __init__(self) -> None:
        self.builder_optimization_level = 3
        self.progress_monitor = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, _size: int) -> None:
        assert pool is MemoryPoolType.WORKSPACE

    def clear_flag(self, flag: BuilderFlag) -> None:
        assert flag is BuilderFlag.TF32


class IExecutionContext:
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session, self._address = session, {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._address[name] = memory
        return True

    def _tensor(self, end) -> np.ndarray:
        kind = np.ctypeslib.as_ctypes_type(TYPES[end.type]) * int(np.prod(end.shape))
        flat = np.frombuffer(kind.from_address(self._address[end.name]), TYPES[end.type])
        return flat.reshape(end.shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream > 0, "TensorRT slows down on the default stream"
        given = {end.name: self._tensor(end) for end in self._session.get_inputs()}
        for end, found in zip(self._session.get_outputs(), self._session.run(None, given), strict=True):
            self._tensor(end)[:] = found
        return True


class ICudaEngine:
    def __init__(self, file: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._ends = [*self._session.get_inputs(), *self._session.get_outputs()]
        self.num_io_tensors = len(self._ends)

    def get_tensor_name(self, index: int) -> str:
        return self._ends[index].name

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(next(end.shape for end in self._ends if end.name == name))

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self._session)


def stand_in(version: str = "10.16.1.11", *, spoil=lambda file: file) -> SimpleNamespace:
    """The module. `spoil` is done to the network that it builds."""
    head = f"plan of {version}:".encode()

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            assert logger.ready
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig):
            monitor = config.progress_monitor
            assert monitor.ready
            monitor.phase_start("Building Engine", None, 2)
            for step in range(2):
                if not monitor.step_complete("Building Engine", step):
                    return None
            monitor.phase_finish("Building Engine")
            file = spoil(network._file)
            if file is None:
                self._logger.log(ILogger.Severity.ERROR, "[optimizer.cpp] no implementation\n for node 7")
                return None
            return memoryview(head + file)

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            if not serialized_engine.startswith(head):
                self._logger.log(ILogger.Severity.ERROR, "The engine plan file is not compatible")
                return None
            return ICudaEngine(serialized_engine[len(head) :])

    return SimpleNamespace(
        __version__=version,
        ILogger=ILogger,
        IProgressMonitor=IProgressMonitor,
        NetworkDefinitionCreationFlag=NetworkDefinitionCreationFlag,
        MemoryPoolType=MemoryPoolType,
        BuilderFlag=BuilderFlag,
        INetworkDefinition=INetworkDefinition,
        ParserError=ParserError,
        OnnxParser=OnnxParser,
        IBuilderConfig=IBuilderConfig,
        IExecutionContext=IExecutionContext,
        ICudaEngine=ICudaEngine,
        Builder=Builder,
        Runtime=Runtime,
    )
