"""The difference between two trajectory files in lines for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from liveptv.comparing.settings import ABSENT

MOST_LISTED = 12
IDENTICAL = "identical rows"
NAMES = {
    "settings": "settings",
    "model": "model",
    "engine": "engine",
    "versions": "versions",
    "source": "images",
}


def in_words(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of a heading and a line, the result first."""
    lines = [("rows", IDENTICAL if found["identical_rows"] else "not identical")]
    for kind, name in NAMES.items():
        lines += _changed(name, found[kind])
    lines.append(("frames", _frames(found["frames"])))
    lines.append(("detections", _detections(found["detections"], found["within_um"])))
    lines.append(("tracks", _tracks(found["tracks"])))
    if found["commands"]["a"] or found["commands"]["b"]:
        lines.append(("commands", _commands(found["commands"])))
    return lines


def _changed(name: str, pairs: dict[str, list[Any]]) -> list[tuple[str, str]]:
    named = {key: pair for key, pair in pairs.items() if not _is_hash(key)} or pairs
    shown = list(named.items())[:MOST_LISTED]
    lines = [(name, _change(key, before, after)) for key, (before, after) in shown]
    left = len(named) - len(shown)
    if left:
        lines.append((name, f"{left} more (--json lists them)"))
    return lines


def _change(key: str, before: Any, after: Any) -> str:
    """A value that differs; a whole section that only one file has is named, not listed."""
    if isinstance(before, Mapping) or isinstance(after, Mapping):
        return f"{key}: only in {'A' if after == ABSENT else 'B'}"
    return f"{key}: {before} in A, {after} in B"


def _is_hash(key: str) -> bool:
    """Whether a value is a hash, which only stands for a person where nothing else differs."""
    return key.rpartition(".")[2] in {"sha256", "hash"}


def _frames(found: dict[str, Any]) -> str:
    text = f"{found['common']} in both, {found['only_a']} only in A, {found['only_b']} only in B"
    if found["other_decisions"]:
        text += f"; in {found['other_decisions']} the detector decided otherwise"
    return text


def _detections(found: dict[str, Any], within_um: float) -> str:
    moved, deep = found["moved"], found["moved_in_depth"]
    text = f"{found['same']} at the same place"
    if moved["count"]:
        text += (
            f", {moved['count']} moved by {_um(moved['median_um'])} (median; 95 %: {_um(moved['p95_um'])}, "
            f"at most {_um(moved['greatest_um'])})"
        )
        if deep["count"]:
            text += f", in depth by {_um(deep['median_um'])} (at most {_um(deep['greatest_um'])})"
    return f"{text}, {found['only_a']} only in A, {found['only_b']} only in B (within {_um(within_um)})"


def _um(um: float) -> str:
    return f"{um:.3g} um"


def _tracks(found: dict[str, Any]) -> str:
    text = f"{found['a']} in A, {found['b']} in B, {found['same']} with the same detections"
    if found["split"] or found["joined"]:
        text += f"; {found['split']} of A are split in B, {found['joined']} of B join several of A"
    if found["other_links_a"] or found["other_links_b"]:
        text += (
            f"; of {found['shared_links']} links between detections of both, {found['other_links_a']} lead to "
            "another track in B"
        )
    return text


def _commands(found: dict[str, Any]) -> str:
    if found["first_difference"] is None:
        return f"{found['same']}, the same in both"
    return (
        f"{found['a']} in A, {found['b']} in B, the first {found['same']} are the same; they differ from frame "
        f"{found['first_difference']} on"
    )
