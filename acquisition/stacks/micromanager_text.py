"""Reads `metadata.txt`, which Micro-Manager writes beside single image files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "metadata.txt"
MOST_BYTES = 2**30
"""Largest file, about that of a million images."""
ENTRY = re.compile(r'"((?:FrameKey|Metadata|Coords|Summary)[^"]*)"\s*:\s*(?=\{)')


@dataclass(frozen=True, slots=True)
class MetadataText:
    """Metadata of the recording (`summary`) and of each image, by file name."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_metadata_text(folder: Path) -> MetadataText:
    """Read the file in a folder of images or its parent; empty if there is none.

    A killed recording leaves it without its end: the complete entries are read.
    """
    for place in (folder, folder.parent):
        path = place / NAME
        if path.is_file() and path.stat().st_size <= MOST_BYTES:
            return _parse(path.read_text("utf-8", "replace"))
    return MetadataText()


def _parse(text: str) -> MetadataText:
    try:
        whole = json.loads(text)
    except ValueError:
        whole = _whole_entries(text)
    if not isinstance(whole, dict):
        return MetadataText()
    images: dict[str, dict[str, Any]] = {}
    for key, facts in whole.items():
        if isinstance(facts, dict) and key != "Summary":
            name = str(facts.get("FileName") or key.partition("/")[2])
            images.setdefault(Path(name.replace("\\", "/")).name, {}).update(facts)
    summary = whole.get("Summary")
    return MetadataText(summary if isinstance(summary, dict) else {}, images)


def _whole_entries(text: str) -> dict[str, Any]:
    decoder, found = json.JSONDecoder(), {}
    for entry in ENTRY.finditer(text):
        try:
            found[entry[1]] = decoder.raw_decode(text, entry.end())[0]
        except ValueError:
            continue
    return found
