"""Whether an image can be as large as its file claims, asked before anything is allocated for it."""

from __future__ import annotations

from pathlib import Path

from stream.errors import SourceError

MOST_PIXELS = 2**29
"""Pixels of an image; the largest cameras that are sold have 0.15 * 10^9."""
MOST_SQUEEZED = 2000
"""Bytes of an image for one in the file: deflate reaches 1032, LZW less than 1400."""
HARMLESS_BYTES = 2**28
"""An image of this size may be squeezed as far as it likes: allocating it hurts nobody."""
MOST_PLANES = 10**8
"""Planes of a recording: a day at 1,000 frames/s."""


def check_size(path: Path, height: int, width: int, itemsize: int = 2, stored: int | None = None) -> None:
    """Raise `SourceError` for an image that no file of `stored` bytes can hold, or no camera can take."""
    if height < 1 or width < 1:
        raise SourceError(f"{path} holds no images: it claims {width} x {height} pixels")
    if height * width > MOST_PIXELS:
        raise SourceError(
            f"{path} claims images of {width} x {height} pixels, more than any camera has; it is damaged"
        )
    nbytes = height * width * itemsize
    if stored is not None and nbytes > max(HARMLESS_BYTES, MOST_SQUEEZED * stored):
        raise SourceError(
            f"{path} claims images of {width} x {height} pixels but has {stored} bytes for one; it is damaged"
        )


def check_count(path: Path, planes: int) -> None:
    """Raise `SourceError` for more planes than a recording can have."""
    if planes > MOST_PLANES:
        raise SourceError(f"{path} claims {planes} images; it is damaged")
