"""Checks whether an image can be as large as its file claims, before memory is allocated for it."""

from __future__ import annotations

from pathlib import Path

from stream.errors import SourceError

MOST_PIXELS = 2**29
"""Largest image, pixels; the largest cameras on the market have 0.15 * 10^9."""
MOST_SQUEEZED = 2000
"""Largest compression ratio: deflate reaches 1032, LZW less than 1400."""
HARMLESS_BYTES = 2**28
"""Up to this size any compression ratio is accepted: allocating it does no harm."""
MOST_PLANES = 10**8
"""Most planes of a recording: a day at 1,000 frames/s."""


def check_size(path: Path, height: int, width: int, itemsize: int = 2, stored: int | None = None) -> None:
    """Raise `SourceError` for an image that is larger than `stored` bytes can hold or any camera can take."""
    if height < 1 or width < 1:
        raise SourceError(f"{path} contains no images: it claims {width} x {height} pixels")
    if height * width > MOST_PIXELS:
        raise SourceError(
            f"{path} claims images of {width} x {height} pixels, more than any camera has; it is damaged"
        )
    nbytes = height * width * itemsize
    if stored is not None and nbytes > max(HARMLESS_BYTES, MOST_SQUEEZED * stored):
        raise SourceError(
            f"{path} claims images of {width} x {height} pixels but stores {stored} bytes for one; it is damaged"
        )


def check_count(path: Path, planes: int) -> None:
    """Raise `SourceError` for more planes than any recording has."""
    if planes > MOST_PLANES:
        raise SourceError(f"{path} claims {planes} images; it is damaged")
