"""The engines of one library: keys, building, keeping. A device is needed for none of this, only its facts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engines.cuda.device import DeviceFacts
from engines.cuda.layout import MOST_PARTICLES, FrameFormat
from engines.engine import BackEndError
from engines.file_hash import file_hash
from engines.network.model import OnnxModel
from engines.tensorrt.build import OPTIMISATION, build_plan
from engines.tensorrt.cache import EngineCache, EngineKey
from engines.tensorrt.library import Loaded
from engines.tensorrt.messages import Progress
from engines.tensorrt.onnx_file import write_onnx


@dataclass(frozen=True, slots=True)
class Plans:
    """Engines in half or single precision, built with `loaded` and kept in `cache`.

    `facts` are those of the GPU, on which the engines of full TensorRT depend.
    """

    loaded: Loaded
    facts: DeviceFacts | None
    half: bool = True
    cache: EngineCache = field(default_factory=EngineCache)

    def frame_of(self, frame: FrameFormat) -> FrameFormat:
        """The format of an engine for such frames: its room for particles does not depend on the settings."""
        return replace(frame, particles=MOST_PARTICLES)

    def key(self, path: Path, frame: FrameFormat) -> EngineKey:
        """What the engine of the model at `path` for such frames is kept under."""
        if self.facts is None and not self.loaded.library.is_portable:
            raise BackEndError(f"{self.loaded} builds on the GPU that will run the engine only")
        return EngineKey.of(
            file_hash(path),
            self.frame_of(frame),
            None if self.loaded.library.is_portable else self.facts,
            half=self.half,
            library=str(self.loaded),
            optimisation=OPTIMISATION,
        )

    def read(self, path: Path, frame: FrameFormat) -> bytes | None:
        """The engine that was built for such frames, from the cache or beside the model; None without one."""
        return self.cache.read(self.key(path, frame), path.parent)

    def build(self, path: Path, model: OnnxModel, frame: FrameFormat, progress: Progress) -> bytes:
        """Build an engine. Raises `BackEndError`, and `ConfigurationError` for a model file of another program."""
        return build_plan(
            self.loaded, write_onnx(path, model, self.frame_of(frame), half=self.half), progress
        )

    def keep(self, path: Path, frame: FrameFormat, plan: bytes, agreement: str = "") -> Path:
        """Keep an engine with its comparison with ONNX Runtime; the file. Raises `OutputError` where it cannot."""
        return self.cache.write(self.key(path, frame), plan, {"agreement": agreement})

    def why_none(self, path: Path, frame: FrameFormat) -> str:
        """Why there is no engine for such frames, and the command that builds one."""
        reason = self.cache.why_not(self.key(path, frame), path.parent)
        return f"{reason}: run `{build_command(path, frame, half=self.half)}`"


def build_command(path: Path, frame: FrameFormat, *, half: bool) -> str:
    """The command that builds an engine for such frames."""
    options = f"--height {frame.height} --width {frame.width}"
    if frame.bytes_per_pixel != np.dtype(np.uint8).itemsize:
        options += f" --bits {8 * frame.bytes_per_pixel}"
    if frame.flat_field:
        options += " --flat-field"
    if not half:
        options += " --precision full"
    return f"liveptv engine build {path.name} {options}"
