"""Makes text of unknown origin safe to show, log and send.

A terminal executes escape sequences, a log breaks at line separators, and right-to-left marks hide what a text
says. Half of a surrogate pair cannot be encoded, and on Linux a file name may contain bytes that are not text
(`\\udcff` in Python). All of these are replaced.
"""

from __future__ import annotations

import re
import traceback
from typing import Any

import msgspec

REPLACEMENT = "?"
CUT = " ..."
LONGEST_TRACEBACK = 20_000  # characters

_BIDI = "\u202a-\u202e\u2066-\u2069"
_LINES = "\u2028\u2029"
_ACTS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{_BIDI}{_LINES}]")


def printable(text: str) -> str:
    """The text with `?` for each control character except newline and tab, and for invalid Unicode."""
    if text.isascii() and text.isprintable():
        return text
    return _ACTS.sub(REPLACEMENT, text.replace("\r\n", "\n"))


def one_line(text: str, limit: int | None = None) -> str:
    """The printable text in one line, shortened to at most `limit` characters."""
    line = " ".join(printable(text).split())
    return line if limit is None else shortened(line, limit)


def shortened(text: str, limit: int) -> str:
    """The text, cut to at most `limit` characters with an ellipsis where it is longer."""
    if len(text) <= limit:
        return text
    return text[: max(0, limit - len(CUT))] + CUT[: max(0, limit)]


def in_words(error: BaseException, limit: int = 500) -> str:
    """Type and text of an error in one line, also if the error of a user's code cannot be converted to text."""
    kind = one_line(type(error).__name__, limit)
    try:
        return one_line(f"{kind}: {error}", limit)
    except Exception as other:  # noqa: BLE001 - its `__str__` is a user's code
        return f"{kind}: (its text cannot be shown: {type(other).__name__})"


def whole_traceback(error: BaseException) -> str:
    """The traceback as Python prints it, with all lines."""
    try:
        text = "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001 - its own code runs when it is shown
        text = "".join(traceback.format_tb(error.__traceback__)) + in_words(error)
    return shortened(printable(text), LONGEST_TRACEBACK)


def sendable(text: str, limit: int) -> str:
    """The text, shortened and valid in UTF-8; nothing else is changed."""
    if len(text) <= limit and text.isascii():
        return text
    return shortened(text, limit).encode("utf-8", "replace").decode("utf-8")


def storable(text: str) -> str:
    """The text with invalid Unicode escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_bytes(value: Any) -> bytes:
    """JSON of a value as `msgspec` writes it; invalid Unicode in texts is escaped."""
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
