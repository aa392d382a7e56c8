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


class BuilderFlagOfRtx(enum.Enum):
    TF32 = 7
    REQUIRE_USER_ALLOCATION = 8


class CudaGraphStrategy(enum.Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = range(2)


class EngineValidity(enum.IntEnum):
    VALID, SUBOPTIMAL, INVALID = range(3)


class EngineInvalidityDiagnostics(enum.IntEnum):
    VERSION_MISMATCH, UNSUPPORTED_CC, MALFORMED_ENGINE = 1, 2, 32


class INetworkDefinition:
    def __init__(self) -> None:
        self._file = b""


class ParserError:
    def node(self) -> int:
        return 3

    def node_operator(self) -> str:
        return "Fold"

    def desc(self) -> str:
        return "Unsupported\n operator"


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

    def clear_flag(self, flag: BuilderFlag | BuilderFlagOfRtx) -> None:
        assert flag.name == "TF32"


class IExecutionContext:
    _put = staticmethod(lambda _stream, work: work())
    """Puts work on a stream: at once, unless a test has streams."""

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
        self._put(stream, self._run)
        return True

    def _run(self) -> None:
        given = {end.name: self._tensor(end) for end in self._session.get_inputs()}
        for end, found in zip(self._session.get_outputs(), self._session.run(None, given), strict=True):
            self._tensor(end)[:] = found


class ContextOfRtx(IExecutionContext):
    """Keeps the order of what is asked of it."""

    def __init__(self, session: onnxruntime.InferenceSession, capturable: bool) -> None:
        super().__init__(session)
        self.asked, self.capturable = False, capturable

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream > 0
        self.asked = True
        return self.capturable

    def execute_async_v3(self, stream: int) -> bool:
        assert self.asked, "work that cannot be recorded breaks the recording"
        return super().execute_async_v3(stream)


class IRuntimeCache:
    """Kernels, in words: of this GPU, or of another."""

    def __init__(self, here: str) -> None:
        self.here, self.content = here.encode(), b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(self.here):
            return False
        self.content = blob
        return True

    def serialize(self) -> memoryview:
        return memoryview(self.content)


class IRuntimeConfig:
    def __init__(self, here: str) -> None:
        self.here = here
        self.cuda_graph_strategy = CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self.cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache(self.here)

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.cache = cache
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


class EngineOfRtx(ICudaEngine):
    def __init__(
        self, file: bytes, here: str, compiled: list[str], capturable: bool, deadly: bytes | None
    ) -> None:
        super().__init__(file)
        self._here, self._compiled, self._capturable, self._deadly = here, compiled, capturable, deadly

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig(self._here)

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> ContextOfRtx:
        assert runtime_config.cuda_graph_strategy is CudaGraphStrategy.DISABLED
        cache = runtime_config.cache
        if cache.content == self._deadly:
            raise KeyboardInterrupt  # as near to a crash as a test can come
        if not cache.content:
            self._compiled.append(self._here)
            cache.content = cache.here + b": kernels"
        return ContextOfRtx(self._session, self._capturable)


def stand_in_for_rtx(
    version: str = "1.7.1.116",
    *,
    here: str = "an RTX GPU",
    compiled: list[str] | None = None,
    capturable: bool = True,
    deadly: bytes | None = None,
    spoil=lambda file: file,
) -> SimpleNamespace:
    """The module of TensorRT for RTX on a GPU; `compiled` gets an entry each time that kernels are compiled.

    It crashes with the kernels `deadly`, which it has accepted.
    """
    full, compiled = stand_in(version, spoil=spoil), [] if compiled is None else compiled
    head = f"plan of {version}:".encode()

    class ConfigOfRtx(IBuilderConfig):
        def set_flag(self, flag: BuilderFlagOfRtx) -> None:
            assert flag is BuilderFlagOfRtx.REQUIRE_USER_ALLOCATION
            self.allocates_before = True

    class Builder(full.Builder):
        def create_builder_config(self) -> IBuilderConfig:
            return ConfigOfRtx()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig):
            assert config.allocates_before
            return super().build_serialized_network(network, config)

    class Runtime(full.Runtime):
        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            if super().deserialize_cuda_engine(serialized_engine) is None:
                return None
            return EngineOfRtx(serialized_engine[len(head) :], here, compiled, capturable, deadly)

        def get_engine_validity(self, buffer: bytes) -> tuple[EngineValidity, int]:
            is_valid = buffer.startswith(head)
            return (EngineValidity.VALID, 0) if is_valid else (EngineValidity.INVALID, 32)

    more = {
        "Builder": Builder,
        "Runtime": Runtime,
        "BuilderFlag": BuilderFlagOfRtx,
        "IBuilderConfig": ConfigOfRtx,
        "ICudaEngine": EngineOfRtx,
        "IExecutionContext": ContextOfRtx,
        "CudaGraphStrategy": CudaGraphStrategy,
        "EngineValidity": EngineValidity,
        "EngineInvalidityDiagnostics": EngineInvalidityDiagnostics,
        "IRuntimeCache": IRuntimeCache,
        "IRuntimeConfig": IRuntimeConfig,
    }
    return SimpleNamespace(**(vars(full) | more))


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
