"""Standard output that never raises: neither for a character it cannot encode nor for a reader that is gone.

Output must not end a command: a path in Chinese on a Windows terminal of code page 1252, a path whose
bytes are no text, `liveptv info ... | head`, a terminal that was closed, no terminal at all (`pythonw`).
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

ESCAPED = "backslashreplace"
ENVIRONMENT = "PYTHONIOENCODING"


def make_output_safe() -> None:
    """Make `sys.stdout` and `sys.stderr` safe to write to, and those of processes that are started later."""
    sys.stdout = safe_stream(sys.stdout)
    sys.stderr = safe_stream(sys.stderr)
    encoding = os.environ.get(ENVIRONMENT, "").partition(":")[0]
    os.environ[ENVIRONMENT] = f"{encoding}:{ESCAPED}"


def safe_stream(stream: TextIO | None) -> TextIO:
    """The same stream, whose `write` and `flush` never fail; None (no terminal) takes all and keeps nothing."""
    if stream is None:
        return cast("TextIO", _SafeText(io.StringIO(), keeps=False))
    if isinstance(cast("object", stream), _SafeText):
        return stream
    if isinstance(stream, io.TextIOWrapper):
        with contextlib.suppress(OSError, ValueError):
            stream.reconfigure(errors=ESCAPED)
    return cast("TextIO", _SafeText(stream))


def is_unicode(stream: TextIO | None = None) -> bool:
    """Whether a stream (standard output by default) can encode every character."""
    encoding = getattr(sys.stdout if stream is None else stream, "encoding", None)
    return str(encoding or "").lower().startswith("utf")


class _SafeText(io.TextIOBase):
    """Text stream that forwards to another one, until its reader is gone."""

    def __init__(self, stream: TextIO, *, keeps: bool = True) -> None:
        super().__init__()
        self._stream = stream
        self._read = keeps

    def write(self, text: str, /) -> int:
        """Write; characters that cannot be encoded are escaped, text without a reader is dropped."""
        if self._read:
            try:
                self._stream.write(text)
            except UnicodeError:
                self._escaped(text)
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def _escaped(self, text: str) -> None:
        encoding = self.encoding or "ascii"
        try:
            self._stream.write(text.encode(encoding, ESCAPED).decode(encoding))
        except (OSError, ValueError):
            self._give_up()

    def writelines(self, lines: Iterable[Any], /) -> None:
        """Write some pieces of text."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream behind."""
        if self._read:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        """The reader is gone: discard the rest, also what is in the stream's own buffer.

        Python flushes the stream once more at exit, and would report an error there.
        """
        self._read = False
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)

    @property
    def encoding(self) -> str | None:  # type: ignore[override]
        """The encoding of the stream behind."""
        return getattr(self._stream, "encoding", None)

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """How characters are written that the encoding does not have."""
        return ESCAPED

    @property
    def buffer(self) -> Any:
        """The binary stream behind, as programs expect of a standard stream."""
        return self._stream.buffer

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """The file descriptor. Raises `OSError` if there is none."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """True."""
        return True
