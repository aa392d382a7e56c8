"""Text that UTF-8 can hold: on Linux the name of a file may have bytes that are no text (`\\udcff` in Python)."""

from __future__ import annotations

from typing import Any

import msgspec


def storable(text: str) -> str:
    """The text, with what is no Unicode escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_bytes(value: Any) -> bytes:
    """JSON of a value as `msgspec` writes it, whatever texts are in it."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_storable(msgspec.to_builtins(value)))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_storable(name): _storable(inner) for name, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list | tuple) else value
