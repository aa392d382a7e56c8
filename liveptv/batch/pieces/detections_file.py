"""The detections of a piece, in a file: messages of the wire format one after the other, what was counted behind.

Each part is two little-endian 32-bit lengths, the header and the buffer as `docs/streaming.md` describes them. The
last part has no header; its buffer is JSON. A file without it is not complete.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from stream.errors import SourceError, WireError
from stream.messages import Detections
from stream.sockets import MAX_PAYLOAD_BYTES
from stream.wire import MAX_HEADER_BYTES, decode, encode

LENGTHS = struct.Struct("<II")
MOST_FACTS_BYTES = 16_000_000


def write_detections(file: BinaryIO, message: Detections) -> None:
    """Add the detections of a frame to a file that is open for writing."""
    header, payload = encode(message)
    file.write(LENGTHS.pack(len(header), len(payload)))
    file.write(header)
    file.write(payload)


def write_facts(file: BinaryIO, facts: dict[str, Any]) -> None:
    """Finish a file with what was counted."""
    text = json.dumps(facts).encode()
    file.write(LENGTHS.pack(0, len(text)))
    file.write(text)


class DetectionsFile:
    """A finished file; `facts` are there once all `messages` have been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.facts: dict[str, Any] = {}

    def messages(self) -> Iterator[Detections]:
        """The detections of each frame, in order. Raises `SourceError` for a file that is not what it should be."""
        with self._path.open("rb") as file:
            while True:
                header_bytes, payload_bytes = LENGTHS.unpack(self._read(file, LENGTHS.size))
                if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
                    raise self._damaged()
                if header_bytes == 0:
                    self.facts = self._facts(self._read(file, min(payload_bytes, MOST_FACTS_BYTES)))
                    return
                try:
                    message = decode(self._read(file, header_bytes), self._read(file, payload_bytes)).message
                except WireError as error:
                    raise self._damaged() from error
                if not isinstance(message, Detections):
                    raise self._damaged()
                yield message

    def _read(self, file: BinaryIO, count: int) -> bytes:
        data = file.read(count)
        if len(data) != count:
            raise self._damaged()
        return data

    def _facts(self, text: bytes) -> dict[str, Any]:
        try:
            facts = json.loads(text)
        except ValueError as error:
            raise self._damaged() from error
        if not isinstance(facts, dict):
            raise self._damaged()
        return facts

    def _damaged(self) -> SourceError:
        return SourceError(f"{self._path} is damaged; delete it, and start the batch again")
