"""Words of others made fit to be shown, logged and sent: what they say stays, what would act is replaced.

A terminal obeys escape sequences, a log is split at line separators, and text that runs backwards hides what it
says; half of a surrogate pair cannot be written at all, and on Linux the name of a file may have bytes that are no
text (`\\udcff` in Python).
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
    """The text with a `?` for each control character but newline and tab, and for what is no Unicode."""
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
    """Kind and words of an error in one line; an error of somebody's code may be one that has no words."""
    kind = one_line(type(error).__name__, limit)
    try:
        return one_line(f"{kind}: {error}", limit)
    except Exception as other:  # noqa: BLE001 - its `__str__` is somebody's code
        return f"{kind}: (its words cannot be had: {type(other).__name__})"


def whole_traceback(error: BaseException) -> str:
    """The traceback as Python prints it, lines and all."""
    try:
        text = "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001 - what its own code does when it is shown
        text = "".join(traceback.format_tb(error.__traceback__)) + in_words(error)
    return shortened(printable(text), LONGEST_TRACEBACK)


def sendable(text: str, limit: int) -> str:
    """The text as UTF-8 can carry it, shortened; nothing else is changed."""
    return shortened(text, limit).encode("utf-8", "replace").decode("utf-8")


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
