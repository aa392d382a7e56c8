"""Files that describe themselves: a line of JSON with a SHA-256, then bytes. They appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from engines.bounded_reading import MOST_TEXT_BYTES, refuse_beyond
from stream.errors import OutputError

SHA256 = "sha256"


def write_kept(path: Path, facts: dict[str, Any], content: bytes) -> None:
    """Write a file, replacing another. Raises `OutputError` where that fails."""
    head = json.dumps({**facts, SHA256: hashlib.sha256(content).hexdigest()}).encode()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(head + b"\n" + content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot keep {path}: {error}; check permission and disk space") from error


def facts_of(path: Path) -> dict[str, Any]:
    """What a file says of itself. Raises `OSError` where it cannot be read, `ValueError` for another file."""
    with path.open("rb") as file:
        head = file.readline(MOST_TEXT_BYTES)
    return _facts(head)


def read_kept(path: Path, most: int) -> tuple[dict[str, Any], bytes]:
    """What a file says of itself, and its content of at most `most` bytes.

    Raises `OSError` where it cannot be read, `ValueError` where it is damaged or another file.
    """
    with path.open("rb") as file:
        head = file.readline(MOST_TEXT_BYTES)
        facts = _facts(head)
        refuse_beyond(os.fstat(file.fileno()).st_size - len(head), most, path.name)
        content = file.read()
    if facts.get(SHA256) != hashlib.sha256(content).hexdigest():
        raise ValueError(f"{path.name} is damaged")
    return facts, content


def _facts(head: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(head)
    except RecursionError as error:
        raise ValueError("not a description") from error
    if not isinstance(facts, dict):
        raise ValueError("not a description")
    return facts
