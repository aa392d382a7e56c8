"""What only TensorRT for RTX has: engines that allocate before a frame, and kernels compiled where they run.

Its engines hold no kernels for one GPU. They are compiled when a context is made, which takes seconds; what was
compiled can be kept and used again with the same GPU model and library, and a driver that is not older.
"""

from __future__ import annotations

from typing import Any

BUILD_AGAIN = "build it again with `liveptv engine build`"
OLD_DRIVER = "NVIDIA's driver is missing or too old: update it"
ADVICE = {
    "MALFORMED_ENGINE": f"it is damaged: {BUILD_AGAIN}",
    "VERSION_MISMATCH": f"it is of another version of the library: {BUILD_AGAIN}",
    "UNSUPPORTED_CC": "it does not run on this GPU",
    "OLD_CUDA_DRIVER": OLD_DRIVER,
    "OLD_CUDA_RUNTIME": OLD_DRIVER,  # the runtime is part of the library, and asks for a driver
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory: end other programs that use it",
    "CUDA_ERROR": "NVIDIA's driver does not work: install it again",
}
"""On what the library finds (`EngineInvalidityDiagnostics`)."""


def prepare_build(trt: Any, config: Any) -> None:
    """Have an engine built that allocates nothing while it runs, as the recording of a CUDA graph requires."""
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)


class Contexts:
    """Makes the contexts of an engine. It has to live as long as any of them, as it holds their kernels."""

    def __init__(self, trt: Any, engine: Any) -> None:
        runtime_config = engine.create_runtime_config()
        cache = runtime_config.create_runtime_cache()
        runtime_config.set_runtime_cache(cache)
        # frames are recorded by us, with their copies
        runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        self._engine, self._config, self._cache = engine, runtime_config, cache

    def accept(self, kept: bytes) -> bool:
        """Take kernels of an earlier start; False where the library cannot use them here."""
        cache = self._cache
        return bool(cache.deserialize(kept))

    def make(self) -> Any:
        """A context, or None where TensorRT cannot make one. The first compiles what was not accepted."""
        engine = self._engine
        return engine.create_execution_context(self._config)

    def compiled(self) -> bytes:
        """All kernels that the contexts have, to be kept."""
        cache = self._cache
        return bytes(cache.serialize())


def can_be_recorded(context: Any, stream: int) -> bool:
    """Whether the work of a context on a stream can be captured in a CUDA graph."""
    return bool(context.is_stream_capturable(stream))


def why_invalid(trt: Any, runtime: Any, plan: bytes) -> str:
    """What the library has against an engine on this computer and what to do; "" where it does not say."""
    validity, found = runtime.get_engine_validity(plan)
    if validity != trt.EngineValidity.INVALID:
        return ""
    reasons = trt.EngineInvalidityDiagnostics.__members__
    return "; ".join(
        text for name, text in ADVICE.items() if name in reasons and int(reasons[name]) & int(found)
    )
