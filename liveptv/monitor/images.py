"""Camera images for a browser: averaged over blocks of pixels to a modest size, as 8-bit JPEG.

Of a volume, the maximum projections along z, y and x.
"""

from __future__ import annotations

from dataclasses import dataclass

import imagecodecs
import numpy as np

from liveptv.volumes.projections import projections
from stream.messages import Frame

LARGEST_PX = 960  # longer side; the page shows it 800 px wide. Bytes and time to encode grow with its square
QUALITY = (
    80  # of the JPEG: noise of the camera stays visible as noise; 90 takes 40 % more bytes, 60 40 % fewer
)
SAMPLES = 20_000  # grey values from which the percentiles are taken, 20 of them beyond each
DARKEST, BRIGHTEST = 0.1, 99.9  # percentiles shown as black and white: hot pixels do not set the contrast


@dataclass(frozen=True, slots=True)
class SmallImage:
    """A JPEG, what it covers in um, and the grey values that are black and white in it."""

    jpeg: bytes
    width_px: int
    height_px: int
    width_um: float
    height_um: float
    black: float
    white: float
    sides: SideImages | None = None


@dataclass(frozen=True, slots=True)
class SideImages:
    """The projections of a volume along y (xz, height upwards) and x (yz, height to the right), and its height.

    `z_um` are the edges of the stack, um above its first slice; `missing_um` the spans without an image.
    """

    xz: bytes
    yz: bytes
    z_um: tuple[float, float]
    slices: int
    missing_um: tuple[tuple[float, float], ...]


def small_image(frame: Frame, largest_px: int = LARGEST_PX) -> SmallImage:
    """Make the small image of a frame; of a volume, of its maximum projections.

    Black and white are percentiles of the image's own grey values (along z), 0.1 and 99.9.
    """
    seen = None if frame.image.ndim == 2 else projections(frame)
    image = frame.image if seen is None else seen.xy
    block = max(1, -(-max(image.shape) // largest_px))
    small = block_means(image, block)
    stride = max(1, small.size // SAMPLES)
    black, white = (float(value) for value in np.percentile(small.ravel()[::stride], (DARKEST, BRIGHTEST)))
    white = max(white, black + 1.0)
    sides = None
    if seen is not None:
        sides = SideImages(
            _jpeg(_narrower(seen.xz[::-1].T, block).T, black, white),
            _jpeg(_narrower(seen.yz, block), black, white),
            (seen.low_um, seen.high_um),
            seen.slices,
            seen.missing_um,
        )
    height_px, width_px = small.shape
    block_um = block * frame.info.pixel_size_um
    return SmallImage(
        _jpeg(small, black, white),
        width_px,
        height_px,
        width_px * block_um,
        height_px * block_um,
        black,
        white,
        sides,
    )


def _jpeg(image: np.ndarray, black: float, white: float) -> bytes:
    levels = np.clip((image - black) * (255.0 / (white - black)), 0, 255).astype(np.uint8)
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(levels), QUALITY))


def _narrower(image: np.ndarray, block: int) -> np.ndarray:
    """Average blocks of `block` rows, (H, R) -> (H // block, R), float32."""
    rows = image.shape[0] // block
    means: np.ndarray = image[: rows * block].reshape(rows, block, -1).mean(axis=1, dtype=np.float32)
    return means


def block_means(image: np.ndarray, block: int) -> np.ndarray:
    """Average blocks of `block` x `block` pixels, (H, W) -> (H // block, W // block), float32."""
    if block == 1:
        return image.astype(np.float32)
    rows, columns = image.shape[0] // block, image.shape[1] // block
    fits = image.dtype == np.uint8 and block * np.iinfo(np.uint8).max <= np.iinfo(np.uint16).max
    tall = np.zeros((rows, image.shape[1]), np.uint16 if fits else np.uint32)
    for row in range(block):
        tall += image[row : rows * block : block]
    total = np.zeros((rows, columns), np.uint32)
    for column in range(block):
        total += tall[:, column : columns * block : block]
    means: np.ndarray = total.astype(np.float32) / np.float32(block * block)
    return means
