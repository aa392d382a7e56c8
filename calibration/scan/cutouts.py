"""Square images around each candidate in every plane: the traces of Franchini & Krevor (2020), section 2.1.2."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.stats import median_abs_deviation

from calibration.scan.candidates import Candidates
from calibration.scan.contrast import Background
from calibration.scan.planes import FocusScan

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

LARGEST_HALF_PX = 80
"""Largest half width of a cut-out, px; memory grows with its square."""
SMALLEST_HALF_PX = 8
"""Smallest half width, px."""
POWER_PART = 2e-5
"""Part of the central power at which an image ends. Half or twice as much changes nothing in a small simulated
scan (rms depth error 0.082 um)."""
CROWD_PART = 0.5
"""Part of the level at the edge, which neighbours cause, that an image must exceed. Half or twice as much changes
nothing."""
OUTER_SCATTERS = 4.0
"""Standard deviations of the level at the edge that an image must exceed. Half or twice as much changes the depth
error by 0.003 um."""
QUIET_PX = 6
"""Pixels in a row below the limit at which an image ends."""
ROOM = 1.2
"""Half width over the reach of the image. Half as much cuts images off (the focal lines move by 2.6 um); twice as
much takes in neighbours (depth error 0.20 um, 3 of 18 particles lost)."""
EDGE_PX = 5
"""Pixels added for the tapered edge."""
CORNER = 1.08
"""Radius, over the half width, beyond which a cut-out shows its background. 0.86 changes nothing, at 1.3 few
pixels are left (depth error 0.11 um)."""
FEW = 3
"""Fewest candidates away from the edge; with fewer all are used."""
LOW_QUANTILE = 0.3
"""Quantile over the candidates at which neighbours drop out. 20 % more or less changes the depth error by 0.001
um."""
MOST_LOOKED_AT = 200
"""Most candidates from which the size is measured, which limits the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class TraceImages:
    """Mean contrast (N, K, P, P) of N candidates in K planes; the middle pixel is at `column`, `row` (N,).

    `inside` (N, P, P) is False beyond the edge of the camera's image, where the contrast is 0.
    """

    contrast: Float32Array
    inside: npt.NDArray[np.bool_]
    column: IntArray
    row: IntArray

    @property
    def half_px(self) -> int:
        """Pixels from the middle to the edge."""
        return int(self.contrast.shape[2]) // 2

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """Which of them lie wholly inside the camera's image, (N,)."""
        whole: npt.NDArray[np.bool_] = np.asarray(self.inside.all(axis=(1, 2)))
        return whole


def window(
    image: npt.NDArray[np.floating], row: int, column: int, half: int
) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """The part of an image (H, W) around a pixel, (P, P), and where it is inside; beyond the edge it is 0."""
    height, width = image.shape
    out = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    inside = np.zeros(out.shape, np.bool_)
    top, bottom = max(row - half, 0), min(row + half + 1, height)
    left, right = max(column - half, 0), min(column + half + 1, width)
    place = (slice(top - row + half, bottom - row + half), slice(left - column + half, right - column + half))
    out[place] = image[top:bottom, left:right]
    inside[place] = True
    return out, inside


def corners(half_px: int) -> npt.NDArray[np.bool_]:
    """The corners of cutouts (P, P), which show the background beside the particle."""
    y, x = np.mgrid[-half_px : half_px + 1, -half_px : half_px + 1]
    outside: npt.NDArray[np.bool_] = np.hypot(x, y) > CORNER * half_px
    return outside


def size_of_images(power: npt.NDArray[np.floating], found: Candidates) -> int:
    """Half the size of cutouts, px, that hold the largest images.

    `power` (H, W) is the mean over the planes of the squared contrast, without noise. A low quantile of it over the
    candidates shows how far all of them reach; neighbours drop out, because they are elsewhere around each.
    """
    half = LARGEST_HALF_PX
    height, width = power.shape
    inner = np.flatnonzero(
        (found.x_px >= half)
        & (found.y_px >= half)
        & (found.x_px < width - half)
        & (found.y_px < height - half)
    )
    if inner.size < FEW:
        inner = np.arange(len(found))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    windows = []
    for index in inner[:MOST_LOOKED_AT]:
        part, inside = window(power, round(found.y_px[index]), round(found.x_px[index]), half)
        windows.append(np.where(inside, part, np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # beyond the image's edge there may be no value at all
        typical = np.nan_to_num(np.nanquantile(np.array(windows), LOW_QUANTILE, axis=0))
    # the farthest reach along x or y counts, in strips through the middle
    strip = 4
    along = [
        typical[half - strip : half + strip + 1, :].mean(axis=0),
        typical[:, half - strip : half + strip + 1].mean(axis=1),
    ]
    ring = np.hypot(x, y).round().astype(int).ravel()
    round_about = np.bincount(ring, typical.ravel())[: half + 1] / np.bincount(ring)[: half + 1]
    reach = 0
    for profile in [*(np.maximum(line[half:], line[half::-1]) for line in along), round_about]:
        outer = profile[-half // 5 :]
        level = float(np.median(outer))  # what neighbours add everywhere
        limit = level + max(
            CROWD_PART * abs(level),
            POWER_PART * float(profile[:3].max()),
            OUTER_SCATTERS * float(median_abs_deviation(outer, scale="normal")),
        )
        smooth = ndimage.uniform_filter1d(profile, 3)
        # where it ends for good; farther out are neighbours
        quiet = np.lib.stride_tricks.sliding_window_view(smooth, QUIET_PX).max(axis=1) < limit
        reach = max(reach, int(np.argmax(quiet)) if quiet.any() else len(profile) - 1)
    return int(np.clip(np.ceil(ROOM * reach) + EDGE_PX, SMALLEST_HALF_PX, LARGEST_HALF_PX))


def cut_out(
    scan: FocusScan,
    used: list[tuple[int, ...]],
    gains: FloatArray,
    background: Background,
    found: Candidates,
    half_px: int,
    on_progress: Callable[[float], None] = lambda _: None,
) -> TraceImages:
    """Read all planes once and cut out the candidates."""
    size = 2 * half_px + 1
    rows, columns = found.y_px.round().astype(np.int64), found.x_px.round().astype(np.int64)
    contrast = np.empty((len(found), len(used), size, size), np.float32)
    inside = np.empty((len(found), size, size), np.bool_)
    for number, images in enumerate(used):
        plane = background.contrast(scan.read(images), float(gains[number]))
        for index, (row, column) in enumerate(zip(rows, columns, strict=True)):
            contrast[index, number], inside[index] = window(plane, int(row), int(column), half_px)
        on_progress((number + 1) / len(used))
    return TraceImages(contrast, inside, columns, rows)
