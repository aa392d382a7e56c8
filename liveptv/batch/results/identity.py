"""What decides the result of a recording: model, settings and references; equal identities give equal results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from liveptv.config import Experiment
from stream.errors import ConfigurationError

SECTIONS = ("detector", "tracker", "optics")
NOT_OF_A_RESULT = frozenset({"workers", "self_check", "model"})
"""Settings of the detector that change no row; the model counts by its contents."""
MODEL = "model"


def identity_of(experiment: Experiment, piece_frames: int | None) -> dict[str, Any]:
    """Settings by name, files among them by their SHA-256; `piece_frames` where pieces may change the result.

    Raises `ConfigurationError` if a file cannot be read.
    """
    data = experiment.resolved()
    found: dict[str, Any] = {}
    for section in SECTIONS:
        for name, value in data[section].items():
            if section != "detector" or name not in NOT_OF_A_RESULT:
                found[f"{section}.{name}"] = _by_contents(value)
    recording = data["recording"] or {}
    for name in sorted(set(recording) - {"path", "pace"}):
        found[f"recording.{name}"] = recording[name]
    for name in ("frames", "seconds"):
        found[f"run.{name}"] = data["run"][name]
    model = experiment.detector.model
    found[MODEL] = "" if model is None else sha256_of(model)
    if piece_frames is not None:
        found["piece_frames"] = piece_frames
    return found


def key_of(identity: Mapping[str, Any]) -> str:
    """The hash of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What has changed between two identities, in words; "" where nothing has."""
    words = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old != new:
            words.append("another model" if name == MODEL else f"{name} {_word(old)} instead of {_word(new)}")
    return ", ".join(words)


def _word(value: Any) -> str:
    return "unset" if value is None else str(value)


def _by_contents(value: Any) -> Any:
    """A setting as it is; a file by its hash."""
    if isinstance(value, str) and ("/" in value or "\\" in value or "." in value):
        path = Path(value)
        if path.is_file():
            return f"sha256:{sha256_of(path)}"
    return value


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal digits. Raises `ConfigurationError` if it cannot be read."""
    try:
        stat = path.stat()
        return _sha256(path, stat.st_size, stat.st_mtime_ns)
    except FileNotFoundError as error:
        raise ConfigurationError(f"no model file {path}") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
