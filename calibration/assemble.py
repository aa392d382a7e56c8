"""The PSF model from aligned traces: its depth range, its centre, and the depth z = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from calibration.alignment.aligned import Aligned
from calibration.alignment.denoise import wiener
from calibration.alignment.depth_spline import support_level
from calibration.consecutive import runs
from calibration.errors import CalibrationError
from calibration.focal_planes import FocalPlanes, find_focal_planes
from calibration.psf_model import PsfModel
from calibration.scan.contrast import Polarity

FloatArray = npt.NDArray[np.float64]

IN_SIGHT = 8.0
"""Signal, in standard deviations of one image's noise summed over the image, above which a particle is visible.
Half as much changes nothing in a small simulated scan (rms depth error 0.082 um): the traces' mutual prediction
limits the range first."""
EXTENT_LEVEL = 0.1
"""Part of the peak at which an image ends for the neighbour limit. The outer rings below it carry little of the
power."""
MIN_NODES = 8
"""Fewest depths of a usable PSF model: a spline has four nodes at each end beyond its range."""
LARGEST_PERCENTILE = 95
"""Percentile of the images' radii that counts as the largest; the last 5 % may touch a neighbour."""


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """The PSF model, its node images (J, P, P) at `z_um` (J,), and how the alignment's coordinates map to its own.

    A trace at depth `z` and offset (dx, dy) of the alignment is at `z + z_shift_um`, `dx + x_shift_px`,
    `dy + y_shift_px` of the model.
    """

    model: PsfModel
    images: FloatArray
    z_um: FloatArray
    focal_planes: FocalPlanes
    z_shift_um: float
    x_shift_px: float
    y_shift_px: float
    radius_px: float


def assemble(aligned: Aligned, *, noise_sd: float, pixel_size_um: float, polarity: Polarity) -> Assembled:
    """Make the model. `noise_sd` is that of one image's contrast.

    Raises `CalibrationError` if the scan covers too little depth.
    """
    known = aligned.information > support_level(aligned.information)
    signal = np.sqrt((aligned.node_values() ** 2).sum(axis=1)) / noise_sd
    in_sight = runs(known & (signal > IN_SIGHT) & aligned.predicted)
    first, stop = max(in_sight, key=lambda run: run[1] - run[0], default=(0, 0))
    if stop - first < MIN_NODES:
        raise CalibrationError(
            f"particles are visible in only {stop - first} steps of the scan; scan in smaller steps, or further"
        )
    chosen = np.zeros(len(known), np.bool_)
    chosen[first:stop] = True
    images, z_um = aligned.images(chosen), aligned.nodes_um()[chosen]
    planes = find_focal_planes(images, z_um)
    dx, dy = centre_of(images)
    size = images.shape[-1]
    phase = np.exp(2j * np.pi * (fft.fftfreq(size)[:, None] * dy + fft.rfftfreq(size)[None, :] * dx))
    centred = wiener(fft.irfft2(fft.rfft2(images) * phase, s=(size, size)))
    middle_um = planes.middle_um
    model = PsfModel.from_images(
        centred,
        float(z_um[0] - middle_um),
        aligned.node_um,
        pixel_size_um=pixel_size_um,
        polarity=polarity,
    )
    return Assembled(
        model=model,
        images=centred,
        z_um=z_um - middle_um,
        focal_planes=planes.moved(middle_um),
        z_shift_um=-middle_um,
        x_shift_px=dx,
        y_shift_px=dy,
        radius_px=image_radius(centred),
    )


def image_radius(images: FloatArray) -> float:
    """How far from the middle, px, images (J, P, P) reach along x or y at 10 % of their peak.

    One image in twenty may be larger, for example because it touches a neighbour.
    """
    half = images.shape[-1] // 2
    reach = []
    for image in images:
        smooth = ndimage.uniform_filter(image, 3)
        bright = smooth > EXTENT_LEVEL * smooth.max()
        labels, _ = ndimage.label(bright)
        own = labels == labels[np.unravel_index(np.argmax(smooth), smooth.shape)]
        rows, columns = np.nonzero(own)
        spans = [np.abs(rows - half).max(), np.abs(columns - half).max()]
        reach.append(float(max(spans)))
    return float(np.percentile(reach, LARGEST_PERCENTILE))


def centre_of(images: FloatArray) -> tuple[float, float]:
    """Offset (x, y), px, of the point about which images are symmetric, all depths taken together.

    Twice this offset is where an image and itself turned by 180 degrees correlate best.
    """
    size = images.shape[-1]
    spectrum = fft.rfft2(images)
    norm = (images**2).sum(axis=(1, 2))[:, None, None]
    correlation = fft.irfft2((spectrum**2 / norm).sum(axis=0), s=(size, size))
    # the peak lies near twice the middle pixel, modulo the size
    middle = (2 * (size // 2)) % size
    around = np.roll(correlation, (size // 2 - middle, size // 2 - middle), axis=(0, 1))
    reach = 6
    part = around[size // 2 - reach : size // 2 + reach + 1, size // 2 - reach : size // 2 + reach + 1]
    peak = np.unravel_index(int(np.argmax(part)), part.shape)
    row, column = (int(np.clip(place, 1, 2 * reach - 1)) for place in peak)
    shift = []
    for before, at, after, place in (
        (part[row, column - 1], part[row, column], part[row, column + 1], column),
        (part[row - 1, column], part[row, column], part[row + 1, column], row),
    ):
        curve = before - 2 * at + after
        vertex = 0.5 * (before - after) / curve if curve < 0 else 0.0
        shift.append((place - reach + float(np.clip(vertex, -1, 1))) / 2)
    return shift[0], shift[1]
