"""The folder of built engines; the key of each names everything that the engine depends on.

An engine of TensorRT for RTX depends on no GPU. It can be copied to another computer, to lie beside its model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from engines.cuda.device import DeviceFacts
from engines.cuda.layout import FrameFormat
from engines.kept_file import facts_of, read_kept, write_kept

PROGRAM = 2
"""Version of the program around the network, so that engines of an older one are not used."""

MOST_PLAN_BYTES = 2 << 30
"""Of a built engine: 20 MB are typical."""
SUFFIX = ".engine"


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine was built from, for and with; it can be used for nothing else.

    `library` is TensorRT's name and version. `gpu`, `capability` and `multiprocessors` are None for a library whose
    engines run on many GPUs.
    """

    model_sha256: str
    height: int
    width: int
    bytes_per_pixel: int
    flat_field: bool
    precision: str
    library: str
    gpu: str | None
    capability: str | None
    multiprocessors: int | None
    particles: int
    optimisation: int
    program: int = PROGRAM

    @classmethod
    def of(
        cls,
        model_sha256: str,
        frame: FrameFormat,
        facts: DeviceFacts | None,
        *,
        half: bool,
        library: str,
        optimisation: int,
    ) -> EngineKey:
        """The key for a model, frames, a library and, unless that is portable, a device."""
        return cls(
            model_sha256,
            frame.height,
            frame.width,
            frame.bytes_per_pixel,
            frame.flat_field,
            "float16" if half else "float32",
            library,
            None if facts is None else facts.name,
            None if facts is None else ".".join(map(str, facts.capability)),
            None if facts is None else facts.multiprocessors,
            frame.particles,
            optimisation,
        )

    @property
    def digest(self) -> str:
        """The SHA-256 of everything, in hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


DIFFERENCES = {
    "library": "{}",
    "gpu": "the GPU {}",
    "capability": "compute capability {}",
    "multiprocessors": "{} multiprocessors",
    "height": "images {} rows high",
    "width": "images {} columns wide",
    "bytes_per_pixel": "{} bytes a pixel",
    "precision": "{}",
    "flat_field": "flat field: {}",
    "program": "program version {}",
    "particles": "{} particles",
    "optimisation": "optimisation level {}",
}


class EngineCache:
    """A folder with a file for each engine. Other folders (`beside`) are only read."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or platformdirs.user_cache_path("liveptv") / "engines"

    def path(self, key: EngineKey) -> Path:
        """Where the engine of a key is, or would be."""
        return self.folder / f"{key.digest[:32]}{SUFFIX}"

    def read(self, key: EngineKey, *beside: Path) -> bytes | None:
        """The engine of a key; None where there is none, or where the file is damaged."""
        name = self.path(key).name
        for folder in (self.folder, *beside):
            try:
                facts, plan = read_kept(folder / name, MOST_PLAN_BYTES)
                if facts["key"] == asdict(key):
                    return plan
            except (OSError, ValueError, LookupError):
                continue
        return None

    def write(self, key: EngineKey, plan: bytes, facts: dict[str, Any]) -> Path:
        """Keep an engine; it appears whole or not at all. Raises `OutputError` where that fails."""
        path = self.path(key)
        write_kept(path, {"key": asdict(key), **facts}, plan)
        return path

    def built(self, model_sha256: str, *beside: Path) -> list[EngineKey]:
        """The keys of all engines of a model, the latest first."""
        found: list[tuple[float, EngineKey]] = []
        for path in self._files(beside):
            try:
                found.append((path.stat().st_mtime, EngineKey(**facts_of(path)["key"])))
            except (OSError, ValueError, LookupError, TypeError):
                continue  # not one of ours, or of another version
        return [
            key for _, key in sorted(found, key=lambda pair: -pair[0]) if key.model_sha256 == model_sha256
        ]

    def _files(self, beside: Iterable[Path]) -> Iterable[Path]:
        for folder in (self.folder, *beside):
            try:
                yield from folder.glob(f"*{SUFFIX}")
            except OSError:
                continue

    def why_not(self, key: EngineKey, *beside: Path) -> str:
        """Why there is no engine for a key: how the most similar one differs."""
        wanted = asdict(key)
        others = [
            {name: was for name, was in asdict(other).items() if was != wanted[name]}
            for other in self.built(key.model_sha256, *beside)
        ]
        if not others:
            return "no engine was built for this model"
        nearest = min(others, key=len)
        if not nearest:
            return "the engine file is damaged"
        was = ", ".join(DIFFERENCES[name].format(_words(value)) for name, value in nearest.items())
        now = ", ".join(DIFFERENCES[name].format(_words(wanted[name])) for name in nearest)
        return f"the existing engine was built for {was}, but this run has {now}"


def _words(value: Any) -> Any:
    if value is None:
        return "any"
    if isinstance(value, bool):
        return "with" if value else "without"
    return value
