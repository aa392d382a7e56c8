"""Kernels that TensorRT for RTX has compiled, one file for each engine, GPU and driver."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.cuda.device import DeviceFacts
from engines.kept_file import read_kept, write_kept
from engines.tensorrt.cache import EngineKey

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

    @property
    def _aside(self) -> Path:
        return self.path.with_suffix(".tried")

    def take(self) -> bytes | None:
        """What was kept; None where there is nothing, or nothing that can be used, which is said.

        The file is put aside until `worked`, because a library may crash with kernels that it has accepted
        (NVIDIA/TensorRT-RTX#13): then the next start does not try them again.
        """
        try:
            facts, kernels = read_kept(self.path, MOST_BYTES)
        except FileNotFoundError:
            if self._aside.exists():
                self.reject("a start with them did not end")
            return None
        except (OSError, ValueError) as error:
            self.reject(str(error))
            return None
        if {name: facts.get(name) for name in self._facts} != self._facts:
            self.reject(f"{self.path.name} is of another engine, GPU or driver")
            return None
        with suppress(OSError):  # of a folder that can only be read
            self.path.replace(self._aside)
        return kernels

    def reject(self, reason: str) -> None:
        """Say that they cannot be used."""
        self.say(f"kept kernels are not used: {reason}")

    def worked(self) -> None:
        """Keep what was taken."""
        with suppress(OSError):
            self._aside.replace(self.path)

    def write(self, kernels: bytes) -> None:
        """Keep them; where that fails, it is said."""
        try:
            write_kept(self.path, self._facts, kernels)
            self._aside.unlink(missing_ok=True)
        except OSError as error:
            self.say(f"{error}; the next start compiles again")
