"""The file with the 8-bit form of a model: OpenVINO's graph and weights, and facts about their origin."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bounded_reading import MOST_TEXT_BYTES, MOST_WEIGHTS_BYTES, read_member
from engines.engine import BackEndError
from engines.file_hash import file_hash
from stream.errors import OutputError

SUFFIX = ".int8.zip"
FORMAT = 1
GRAPH, WEIGHTS, FACTS = "graph.xml", "weights.bin", "facts.json"
MOST_GRAPH_BYTES = 32 << 20
"""Of the graph as XML: 1 MB is typical."""
DAMAGES = (OSError, ValueError, LookupError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What a damaged archive makes `zipfile` and `json` raise."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """`graph` (XML) and `weights` (N bytes) as OpenVINO reads them; `facts` are those of `write_quantised`."""

    graph: str
    weights: npt.NDArray[np.uint8]
    facts: dict[str, Any]


def quantised_path(model: Path) -> Path:
    """Where the 8-bit form of a model file is kept."""
    return model.with_name(model.stem + SUFFIX)


def why_not_quantised(model: Path) -> str:
    """Why there is no 8-bit form of a model file that fits it; "" where there is one."""
    path = quantised_path(model)
    again = f"run `liveptv engine quantise {model.name}`"
    if not path.is_file():
        return f"no 8-bit form of {model.name}; {again}"
    try:
        with zipfile.ZipFile(path) as file:
            facts = _facts(file)
    except DAMAGES as error:
        return f"{path.name} is damaged ({error}); {again}"
    if facts.get("format") != FORMAT or facts.get("model_sha256") != file_hash(model):
        return f"{path.name} was made from another version of {model.name}; {again}"
    return ""


def read_quantised(model: Path) -> Quantised:
    """The 8-bit form of a model file. Raises `BackEndError` where it is missing, damaged or of another model."""
    reason = why_not_quantised(model)
    if reason:
        raise BackEndError(reason)
    try:
        with zipfile.ZipFile(quantised_path(model)) as file:
            graph = read_member(file, GRAPH, MOST_GRAPH_BYTES).decode()
            weights = np.frombuffer(read_member(file, WEIGHTS, MOST_WEIGHTS_BYTES), np.uint8)
            return Quantised(graph, weights, _facts(file))
    except DAMAGES as error:
        raise BackEndError(
            f"{quantised_path(model)} is damaged ({error}); quantise the model again"
        ) from error


def write_quantised(model: Path, graph: bytes, weights: bytes, facts: dict[str, Any]) -> Path:
    """Keep the 8-bit form of a model file, with facts (JSON-able) about it; returns where.

    Raises `OutputError` where it cannot be written; then there is none.
    """
    path = quantised_path(model)
    part = path.with_name(path.name + ".part")
    facts = {"format": FORMAT, "model_sha256": file_hash(model)} | facts
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(FACTS, json.dumps(facts, indent=1))
            file.writestr(GRAPH, graph)
            file.writestr(WEIGHTS, weights)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error}; check permission and disk space") from error
    return path


def _facts(file: zipfile.ZipFile) -> dict[str, Any]:
    facts = json.loads(read_member(file, FACTS, MOST_TEXT_BYTES))
    if not isinstance(facts, dict):
        raise ValueError(f"{FACTS} is no JSON object")
    return facts
