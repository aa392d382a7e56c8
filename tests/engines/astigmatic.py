"""Synthetic astigmatic images with an exact truth: elliptical Gaussians on a flat background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.classical.widths import WidthCurve
from stream.messages import Frame, FrameInfo

PIXEL_SIZE_UM = 0.8
FOCUS_UM = 75.0
BACKGROUND = 180.0
FloatArray = npt.NDArray[np.float64]


def widths_px(z_um: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Widths of a particle's image: sharp in y at -75 um (long along x), sharp in x at +75 um."""
    z = np.asarray(z_um, dtype=np.float64)
    return (
        1.3 * np.hypot(1, (z - FOCUS_UM) / 17.0),
        1.3 * np.hypot(1, (z + FOCUS_UM) / 17.0),
    )


def amplitude(z_um: npt.ArrayLike) -> FloatArray:
    """Contrast in grey values: the same light spread over the image's area, at most 16."""
    sx, sy = widths_px(z_um)
    return 16 * 12.0 / np.maximum(12.0, sx * sy)


def curve(polarity: str = "dark") -> WidthCurve:
    """The exact width curve of these images."""
    z_um = np.linspace(-180, 180, 181)
    sx, sy = widths_px(z_um)
    light = amplitude(z_um)
    return WidthCurve(
        z_um, sx * PIXEL_SIZE_UM, sy * PIXEL_SIZE_UM, light / light.max(), PIXEL_SIZE_UM, polarity
    )


def draw(
    shape: tuple[int, int],
    x_px: npt.ArrayLike,
    y_px: npt.ArrayLike,
    sigma_x_px: npt.ArrayLike,
    sigma_y_px: npt.ArrayLike,
    height: npt.ArrayLike,
) -> FloatArray:
    """Sum of elliptical Gaussians, (H, W)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for x, y, sx, sy, a in np.broadcast(
        *(np.atleast_1d(v) for v in (x_px, y_px, sigma_x_px, sigma_y_px, height))
    ):
        image += a * np.exp(-((columns - x) ** 2) / (2 * sx**2)) * np.exp(-((rows - y) ** 2) / (2 * sy**2))
    return image


def particles(
    rng: np.random.Generator, shape: tuple[int, int], x_px: FloatArray, y_px: FloatArray, z_um: FloatArray
) -> npt.NDArray[np.uint8]:
    """A camera image of dark particles with noise of 1.3 grey values."""
    sx, sy = widths_px(z_um)
    image = BACKGROUND - draw(shape, x_px, y_px, sx, sy, amplitude(z_um)) + rng.normal(0, 1.3, shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def frame(number: int, image: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> Frame:
    """A frame as a source would make it."""
    info = FrameInfo("run", number, number, 0.04 * number, 0, 0.0, pixel_size_um=PIXEL_SIZE_UM)
    return Frame(info, image)


def grid(shape: tuple[int, int], spacing_px: int) -> tuple[FloatArray, FloatArray]:
    """Positions on a square grid, none near the edge."""
    half = spacing_px // 2
    rows, columns = np.mgrid[half : shape[0] - half + 1 : spacing_px, half : shape[1] - half + 1 : spacing_px]
    return columns.ravel().astype(np.float64), rows.ravel().astype(np.float64)


def run(engine, images):
    """The results of images that are submitted one after the other."""
    found = []
    for number, image in enumerate(images):
        engine.submit(frame(number, image))
        found += engine.results(0.0)
    while engine.pending:
        found += engine.results(10.0)
    return found
