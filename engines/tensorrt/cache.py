"""The folder of built engines; the key of each names everything that the engine depends on."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from engines.bounded_reading import MOST_TEXT_BYTES, read_file
from engines.cuda.device import DeviceFacts
from engines.cuda.layout import FrameFormat
from stream.errors import OutputError

PROGRAM = 1
"""Version of the program around the network, so that engines of an older one are not used."""

MOST_PLAN_BYTES = 2 << 30
"""Of a built engine: 20 MB are typical."""


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine was built from, for and with; it can be used for nothing else."""

    model_sha256: str
    height: int
    width: int
    bytes_per_pixel: int
    flat_field: bool
    precision: str
    tensorrt: str
    gpu: str
    capability: tuple[int, int]
    multiprocessors: int
    particles: int
    optimisation: int
    program: int = PROGRAM

    @classmethod
    def of(
        cls,
        model_sha256: str,
        frame: FrameFormat,
        facts: DeviceFacts,
        *,
        half: bool,
        version: str,
        optimisation: int,
    ) -> EngineKey:
        """The key for a model, frames, a device and a version of TensorRT."""
        return cls(
            model_sha256,
            frame.height,
            frame.width,
            frame.bytes_per_pixel,
            frame.flat_field,
            "float16" if half else "float32",
            version,
            facts.name,
            facts.capability,
            facts.multiprocessors,
            frame.particles,
            optimisation,
        )

    @property
    def digest(self) -> str:
        """The SHA-256 of everything, in hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


DIFFERENCES = {
    "tensorrt": "TensorRT {}",
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
    """A folder with two files for each engine: the engine and a `.json` file that describes it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or platformdirs.user_cache_path("liveptv") / "engines"

    def path(self, key: EngineKey) -> Path:
        """Where the engine of a key is, or would be."""
        return self.folder / f"{key.digest[:32]}.engine"

    def read(self, key: EngineKey) -> bytes | None:
        """The engine of a key; None where there is none, or where the file is damaged."""
        path = self.path(key)
        try:
            facts = json.loads(read_file(path.with_suffix(".json"), MOST_TEXT_BYTES))
            plan = read_file(path, MOST_PLAN_BYTES)
        except (OSError, ValueError, RecursionError):
            return None
        whole = isinstance(facts, dict) and facts.get("sha256") == hashlib.sha256(plan).hexdigest()
        return plan if whole else None

    def write(self, key: EngineKey, plan: bytes, facts: dict[str, Any]) -> Path:
        """Keep an engine; it appears whole or not at all. Raises `OutputError` where that fails."""
        path = self.path(key)
        described = {"key": asdict(key), "sha256": hashlib.sha256(plan).hexdigest(), **facts}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(described, indent=1).encode()
            for target, content in ((path, plan), (path.with_suffix(".json"), text)):
                part = target.with_name(f"{target.name}.{os.getpid()}.part")
                part.write_bytes(content)
                part.replace(target)
        except OSError as error:
            raise OutputError(f"cannot keep {path}: {error}; check permission and disk space") from error
        return path

    def built(self, model_sha256: str) -> list[EngineKey]:
        """The keys of all engines of a model, the latest first."""
        found: list[tuple[float, EngineKey]] = []
        for path in self.folder.glob("*.json"):
            try:
                key = json.loads(read_file(path, MOST_TEXT_BYTES))["key"]
                made = EngineKey(**{**key, "capability": tuple(key["capability"])})
                found.append((path.stat().st_mtime, made))
            except (OSError, ValueError, LookupError, TypeError, RecursionError):
                continue  # not one of ours, or of another version
        return [
            key for _, key in sorted(found, key=lambda pair: -pair[0]) if key.model_sha256 == model_sha256
        ]

    def why_not(self, key: EngineKey) -> str:
        """Why there is no engine for a key: how the most similar one differs."""
        wanted = asdict(key)
        others = [
            {name: was for name, was in asdict(other).items() if was != wanted[name]}
            for other in self.built(key.model_sha256)
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
    if isinstance(value, bool):
        return "with" if value else "without"
    return ".".join(map(str, value)) if isinstance(value, tuple | list) else value
