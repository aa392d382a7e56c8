"""Kernels that TensorRT for RTX has compiled, one file for each engine, GPU and driver."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.cuda.device import DeviceFacts
from engines.tensorrt.cache import EngineKey
from engines.tensorrt.kept_file import read_kept, write_kept
from stream.errors import OutputError

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
"""Of the kernels of an engine: never measured, but they are a part of what an engine for one GPU has, 20 MB."""
SUFFIX = ".kernels"


@dataclass(frozen=True, slots=True)
class CompiledKernels:
    """Where the kernels of an engine (`key`) on a GPU are kept; `say` tells about those that cannot be used."""

    folder: Path
    key: EngineKey
    gpu: DeviceFacts
    say: Callable[[str], None] = log.info

    @property
    def _facts(self) -> dict[str, Any]:
        return {"engine": self.key.digest, "gpu": json.loads(json.dumps(asdict(self.gpu)))}

    @property
    def path(self) -> Path:
        """The file, of this GPU model and driver."""
        here = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{self.key.digest[:32]}-{here[:16]}{SUFFIX}"

    def read(self) -> bytes | None:
        """What was kept; None where there is nothing, or nothing that can be used, which is said."""
        try:
            facts, kernels = read_kept(self.path, MOST_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.say(f"kept kernels are not used: {error}")
            return None
        if {name: facts.get(name) for name in self._facts} != self._facts:
            self.say(f"kept kernels are not used: {self.path.name} is of another engine, GPU or driver")
            return None
        return kernels

    def write(self, kernels: bytes) -> None:
        """Keep them; where that fails, it is said."""
        try:
            write_kept(self.path, self._facts, kernels)
        except OutputError as error:
            self.say(f"{error}; the next start compiles again")
