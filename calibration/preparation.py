"""Preparation of a scan: bad images are left out, polarity and noise are measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationError
from calibration.noise import NoiseModel, background_field, neighbour_correlation, photon_transfer
from calibration.scan.candidates import Candidates, find_candidates
from calibration.scan.contrast import Background, Polarity, ScanSums, lamp_gains, make_background
from calibration.scan.cutouts import TraceImages, corners
from calibration.scan.faults import (
    Fault,
    brightness_faults,
    damage_fault,
    position_faults,
    repetition_faults,
)
from calibration.scan.planes import FocusScan, ScanPlane

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

SPOT_PX = 2.0
"""Width of the spot filter's inner Gaussian, px: about that of a focused particle. Half or twice as much changes
nothing in a small simulated scan (rms depth error 0.082 um)."""
AROUND_PX = 8.0
"""Width of its outer Gaussian, px; half or twice as much changes nothing either."""
MIN_PLANES = 10
TAPER_PX = 4
"""Width, px, of the edge over which a cut-out fades to 0, so that its Fourier shift has no ringing. Half or twice
as much changes the error in the plane by 5 %, that in depth not."""


@dataclass(frozen=True, slots=True)
class Options:
    """The user's options; None where the scan decides.

    `slide`: particles on a slide show the sum of its tilt and the focal surface's. On a `level` slide all of it is
    the focal surface's; on a `tilted` one all of the tilt is the slide's, and only the curvature is the focal
    surface's. `kinds` of particles are looked for, None: as many as there are.
    """

    bright: Path | None = None
    dark: Path | None = None
    polarity: Polarity | None = None
    neighbour_px: float | None = None
    slide: Literal["level", "tilted"] = "level"
    kinds: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The planes of a scan in order of focus, with the good images of each."""

    planes: list[ScanPlane]
    images: list[tuple[int, ...]]
    gains: FloatArray
    faults: list[Fault]

    @property
    def focus_um(self) -> FloatArray:
        """(K,), rising."""
        return np.array([plane.focus_um for plane in self.planes])


def prepare(scan: FocusScan) -> Prepared:
    """Leave out bad images and sort the planes by focus. Raises `CalibrationError` for too few planes."""
    bright_faults, flashed = brightness_faults(scan)
    copy_faults, copies = repetition_faults(scan)
    faults = damage_fault(scan) + bright_faults + copy_faults + position_faults(scan.planes)
    kept = []
    for plane in scan.planes:
        good = tuple(image for image in plane.images if image not in flashed | copies)
        if good:
            kept.append((plane, good))
    kept.sort(key=lambda pair: pair[0].focus_um)
    if len(kept) < MIN_PLANES:
        raise CalibrationError(
            f"{scan.path} has {len(kept)} good planes, too few to follow a particle through the focus; scan at "
            f"least {MIN_PLANES}, better 100"
        )
    planes, images = [plane for plane, _ in kept], [good for _, good in kept]
    return Prepared(planes, images, lamp_gains(scan, images), sorted(faults, key=lambda fault: fault.plane))


def find_spots(mean: Float32Array) -> Candidates:
    """The particles in a scan's mean contrast (H, W)."""
    return find_candidates(mean, spot_px=SPOT_PX, around_px=AROUND_PX)


def which_polarity(sums: ScanSums) -> Polarity:
    """Whether particles are darker or brighter than the background: the polarity of the stronger spots."""
    strength: dict[Polarity, float] = {}
    names: tuple[Polarity, Polarity] = ("dark", "bright")
    for polarity in names:
        background = make_background(sums.mean, polarity)
        spots = find_spots(background.contrast(sums.mean[None].astype(np.float32)))
        strength[polarity] = float(np.sort(spots.ratio)[-20:].sum()) if len(spots) else 0.0
    return max(names, key=lambda name: strength[name])


def measure_noise(
    scan: FocusScan,
    sums: ScanSums,
    background: Background,
    found: Candidates,
    prepared: Prepared,
    half_px: int,
) -> NoiseModel:
    """Noise and background between the particles."""
    free = np.ones(scan.shape, np.bool_)
    for x, y in zip(found.x_px.round().astype(int), found.y_px.round().astype(int), strict=True):
        free[max(y - half_px, 0) : y + half_px + 1, max(x - half_px, 0) : x + half_px + 1] = False
    read, gain = photon_transfer(sums.mean - background.dark, sums.variance)
    where = free if free.sum() > 1000 else np.ones_like(free)
    light = background.light if background.polarity == "dark" else np.full(scan.shape, background.scale)
    variance = float(np.mean(sums.variance[where] / light[where].astype(np.float64) ** 2))
    middle = len(prepared.images) // 2
    images = scan.read(prepared.images[middle]).astype(np.float64)
    correlation = neighbour_correlation(images[0] - images[1]) if len(images) > 1 else 0.0
    one_plane = background.contrast(images, float(prepared.gains[middle]))
    field_sd, length_x, length_y = background_field(one_plane, free, variance / len(images))
    levels = np.array([facts.median for facts in scan.facts])
    return NoiseModel(
        read_variance=read,
        gain=gain,
        contrast_sd=math.sqrt(variance),
        neighbour_correlation=correlation,
        background_grey=float(np.median(background.light)),
        background_sd=float(np.std(levels) / max(np.mean(levels), 1e-9)),
        field_sd=field_sd,
        field_length_x_px=length_x,
        field_length_y_px=length_y,
    )


def at_most(found: Candidates, count: int) -> Candidates:
    """At most `count` of the candidates: those farthest from their neighbours."""
    if len(found) <= count:
        return found
    chosen = np.sort(np.argsort(found.neighbour_px())[::-1][:count])
    return Candidates(found.x_px[chosen], found.y_px[chosen], found.height[chosen], found.ratio[chosen])


def faded(half_px: int) -> Float32Array:
    """What images (P, P) are multiplied by: 1 inside a circle, falling to 0 at the edge."""
    y, x = np.mgrid[-half_px : half_px + 1, -half_px : half_px + 1]
    fade: Float32Array = np.clip((half_px - np.hypot(x, y)) / TAPER_PX, 0, 1).astype(np.float32)
    return fade


def tidy(traces: TraceImages) -> None:
    """Subtract each image's own background, measured in its corners, and let it fade to 0 outside a circle."""
    corner, fade = corners(traces.half_px), faded(traces.half_px)
    for index, inside in enumerate(traces.inside):
        trace = traces.contrast[index]
        where = corner & inside
        if where.any():
            trace -= np.median(trace[:, where], axis=1)[:, None, None]
        trace *= fade * inside
