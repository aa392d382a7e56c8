"""Reads XML of unknown origin in one pass: elements as they come, no tree, no entities, no other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.parsers import expat

from stream.errors import SourceError

Start = Callable[[str, dict[str, str]], None]
BLOCK = 1 << 20


class MalformedError(ValueError):
    """Something in the file is not as it should be; the text says what."""


def parse(
    path: Path,
    start: Start,
    *,
    end: Callable[[str], None] | None = None,
    text: Callable[[str], None] | None = None,
    most_bytes: int | None = None,
) -> None:
    """Call `start` for each element, and `end` and `text` if given; read `most_bytes` at most.

    Raises `SourceError` with the line if the file is not well-formed, declares a document type (which no file of
    data needs), or if `start`, `end` or `text` raise `MalformedError`.
    """
    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    if end is not None:
        parser.EndElementHandler = end
    if text is not None:
        parser.CharacterDataHandler = text
        parser.buffer_text = True
        parser.buffer_size = BLOCK
    parser.StartDoctypeDeclHandler = _refuse
    try:
        with path.open("rb") as file:
            left = most_bytes
            while block := file.read(BLOCK if left is None else min(BLOCK, left)):
                parser.Parse(block, False)
                left = None if left is None else left - len(block)
        if most_bytes is None:
            parser.Parse(b"", True)
    except expat.ExpatError as error:
        why = expat.ErrorString(error.code)
        raise SourceError(
            f"cannot read {path}: line {error.lineno}: {why}; it is cut short or damaged"
        ) from error
    except MalformedError as error:
        raise SourceError(f"cannot read {path}: line {parser.CurrentLineNumber}: {error}") from error


def root_of(path: Path) -> str:
    """The name of the outermost element; the rest is not read. Raises `SourceError` as `parse`."""

    def start(tag: str, _: dict[str, str]) -> None:
        raise _FoundError(tag)

    try:
        parse(path, start)
    except _FoundError as found:
        return str(found)
    return ""


class _FoundError(Exception):
    """Carries the name of an element out of the parser."""


def _refuse(*_: object) -> None:
    raise MalformedError("it declares a document type, which may define entities; remove <!DOCTYPE>")


def number(attributes: dict[str, str], name: str) -> float:
    """An attribute as a number. Raises `MalformedError`."""
    text = attributes.get(name)
    if text is None:
        raise MalformedError(f"{name} is missing")
    try:
        return float(text)
    except ValueError:
        raise MalformedError(f"{name} is {text[:40]!r}, not a number") from None


def whole(attributes: dict[str, str], name: str) -> int:
    """An attribute as a whole number below 2^62. Raises `MalformedError`."""
    text = attributes.get(name)
    if text is None:
        raise MalformedError(f"{name} is missing")
    try:
        value = int(text)
    except ValueError:
        found = number(attributes, name)
        if not found.is_integer():
            raise MalformedError(f"{name} is {text[:40]!r}, not a whole number") from None
        value = int(found)
    if abs(value) >= 1 << 62:
        raise MalformedError(f"{name} is beyond 2^62")
    return value
