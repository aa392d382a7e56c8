"""Camera images for a browser: averaged over blocks of pixels to a modest size, as 8-bit JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import imagecodecs
import numpy as np

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


def small_image(frame: Frame, largest_px: int = LARGEST_PX) -> SmallImage:
    """Make the small image of a frame; of a volume, its middle plane.

    Black and white are percentiles of the image's own grey values, 0.1 and 99.9.
    """
    image = frame.image if frame.image.ndim == 2 else frame.image[frame.image.shape[0] // 2]
    rows, columns = image.shape
    block = max(1, -(-max(rows, columns) // largest_px))
    small = block_means(image, block)
    stride = max(1, small.size // SAMPLES)
    black, white = (float(value) for value in np.percentile(small.ravel()[::stride], (DARKEST, BRIGHTEST)))
    white = max(white, black + 1.0)
    levels = np.clip((small - black) * (255.0 / (white - black)), 0, 255).astype(np.uint8)
    height_px, width_px = levels.shape
    pixel_um = frame.info.pixel_size_um
    return SmallImage(
        bytes(imagecodecs.jpeg8_encode(levels, QUALITY)),
        width_px,
        height_px,
        width_px * block * pixel_um,
        height_px * block * pixel_um,
        black,
        white,
    )


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
