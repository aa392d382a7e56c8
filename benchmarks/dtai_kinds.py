"""The two kinds of particles in `dtai-astigmatic`, told by the width of their true boxes, and a PSF model of each.

The frames have no scan, but the true place and depth of each particle: the PSF of a kind is the spline over depth
through the images of its particles at their true places, less what the others add. `W` of the ground truth is the
width of a particle's box; over depth it follows one curve for each kind, and the curves cross at -30 um: particles
nearer to the crossing than the curves can tell have no known kind.
"""

from __future__ import annotations

import csv
from functools import reduce
from operator import add
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from scipy import ndimage

from calibration.alignment.basis import moved_to_middle
from calibration.alignment.depth_spline import SplineSums, best_stiffness
from calibration.matching import nearest_neighbour
from calibration.preparation import faded
from calibration.psf_model import PsfModel

DATA = Path(__file__).parents[2] / "shared" / "data" / "dtai-astigmatic"
SIDE_PX = 1024
WIDTHS = {  # width of the box over depth, px: where the two curves begin
    0: ([-90, -30, -8, 0], [112, 38, 20, 29]),
    1: ([-90, -62, -30, 0], [28, 14, 38, 57]),
}
TOLD_PX = 2.5
"""Difference of the two widths from which they tell the kind: boxes are whole pixels, the curves good to half."""
CURVE_DEGREE = 6
HALF_PX = 62
NEAR_PX = 12.0
"""Distance of neighbours below which what one adds to the other is not known well enough."""
INSIDE_PX = 20
APART_PX = 30.0
"""Distance of neighbours from which an image without them serves as a cut-out."""
DEPTH_UM = (-90.0, 0.0)
NODE_UM = 1.5
ROUNDS = 4
FOLDS = 8
BRIGHT_PIXELS = 500
"""Pixels that decide how stiff the splines over depth are; most others have only noise."""
UNKNOWN = -1


class Frames(NamedTuple):
    """Frames (F, H, W) in contrast without background, and their particles (N,): frame, row, column, offset, depth,
    kind."""

    contrast: np.ndarray
    frame: np.ndarray
    row: np.ndarray
    column: np.ndarray
    dx_px: np.ndarray
    dy_px: np.ndarray
    z_um: np.ndarray
    kind: np.ndarray


def truth() -> dict[str, np.ndarray]:
    """The columns of the ground truth, and `kind`: 0, 1, or -1 where the widths do not tell it."""
    with (DATA / "ground_truth.csv").open() as file:
        rows = [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]
    true = {k: np.array([line[k] for line in rows]) for k in rows[0]}
    z, width = true["Z"], true["W"]
    expected = np.stack([np.interp(z, *curve) for curve in WIDTHS.values()])
    low, high = DEPTH_UM
    for _ in range(ROUNDS):
        kind = np.abs(width - expected).argmin(axis=0)
        sure = np.abs(expected[0] - expected[1]) > TOLD_PX
        for k in (0, 1):
            mine = (kind == k) & sure
            for z0, z1 in ((low, -58.0), (-66.0, -5.0), (-12.0, high)):
                there = (z >= z0) & (z <= z1)
                if (mine & there).sum() > 2 * CURVE_DEGREE:
                    fit = np.polynomial.Chebyshev.fit(z[mine & there], width[mine & there], CURVE_DEGREE // 2)
                    expected[k, there] = fit(z[there])
    true["kind"] = np.where(np.abs(expected[0] - expected[1]) > TOLD_PX, kind, UNKNOWN)
    true["off_px"] = np.abs(width - expected).min(axis=0)
    return true


def image(number: int) -> np.ndarray:
    return tifffile.imread(DATA / f"B{number:05d}.tif")


def background_of(frame: np.ndarray) -> float:
    """Mean grey value without particles: noise is clipped at 0, so that it is not the median."""
    median = float(np.median(frame))
    return float(frame[frame < 3 * median].mean())


def frames_of(numbers: range) -> Frames:
    """Frames with their true particles."""
    true = truth()
    stack, rows = [], []
    for place, number in enumerate(numbers):
        frame = image(number).astype(np.float64)
        stack.append((frame - background_of(frame)) / np.median(frame))
        for n in np.flatnonzero(true["fr"] == number):
            x, y = true["x0"][n], true["y0"][n]
            rows.append(
                (place, round(y), round(x), x - round(x), y - round(y), true["Z"][n], true["kind"][n])
            )
    frame, row, column, dx, dy, z, kind = np.array(rows).T
    return Frames(
        np.array(stack), *(v.astype(int) for v in (frame, row, column)), dx, dy, z, kind.astype(int)
    )


def _places(frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the nearest neighbour and of the frame's edge, px (N,)."""
    apart = np.full(len(frames.row), np.inf)
    for f in range(len(frames.contrast)):
        here = frames.frame == f
        apart[here] = nearest_neighbour(np.column_stack([frames.column, frames.row])[here].astype(float))
    last = SIDE_PX - 1
    edge = np.minimum(
        np.minimum(frames.row, last - frames.row), np.minimum(frames.column, last - frames.column)
    )
    return apart, edge


def _without_others(frames: Frames, drawn: np.ndarray) -> np.ndarray:
    """The image (N, P, P) of each particle, less those `drawn` (N, P, P) for the others.

    Beyond the edge of the frame a particle looks as it is drawn.
    """
    half, size = HALF_PX, 2 * HALF_PX + 1
    padded = np.pad(frames.contrast, ((0, 0), (half, half), (half, half)), constant_values=np.nan)
    total = np.zeros_like(padded)
    windows = [
        np.s_[f, row : row + size, column : column + size]
        for f, row, column in zip(frames.frame, frames.row, frames.column, strict=True)
    ]
    for window, one in zip(windows, drawn, strict=True):
        total[window] += one
    return np.array(
        [np.nan_to_num(padded[w] - total[w]) + one for w, one in zip(windows, drawn, strict=True)], np.float32
    )


def _drawn(frames: Frames, models: list[PsfModel]) -> np.ndarray:
    """The particles (N, P, P) as the models of their kinds have them; 0 for those of unknown kind."""
    drawn = np.zeros((len(frames.row), 2 * HALF_PX + 1, 2 * HALF_PX + 1), np.float32)
    for kind, model in enumerate(models):
        told = np.flatnonzero(frames.kind == kind)
        drawn[told] = model.images(frames.z_um[told], frames.dx_px[told], frames.dy_px[told])
    return drawn


def told_by_image(frames: Frames, models: list[PsfModel]) -> Frames:
    """The frames with the kind of all particles: where it was not known, that whose image fits better."""
    drawn = _drawn(frames, models)
    images = _without_others(frames, drawn)
    kind = frames.kind.copy()
    for n in np.flatnonzero(kind < 0):
        both = [m.images(frames.z_um[n], frames.dx_px[n], frames.dy_px[n])[0] for m in models]
        kind[n] = int(np.argmin([float(((images[n] - one) ** 2).sum()) for one in both]))
    return frames._replace(kind=kind)


def alone(frames: Frames, models: list[PsfModel]) -> tuple[np.ndarray, np.ndarray]:
    """Images (M, P, P) of particles well inside the frames without the others, and which (M,) they are."""
    told = told_by_image(frames, models)
    apart, edge = _places(frames)
    chosen = np.flatnonzero((apart > APART_PX) & (edge > HALF_PX) & (frames.kind >= 0))
    return _without_others(told, _drawn(told, models))[chosen], chosen


def psf_models(frames: Frames) -> list[PsfModel]:
    """The PSF model of each kind: least squares, round by round, others taken off as they are known."""
    size, fade = 2 * HALF_PX + 1, faded(HALF_PX)
    nodes = round((DEPTH_UM[1] - DEPTH_UM[0]) / NODE_UM) + 9
    node = (frames.z_um - DEPTH_UM[0]) / NODE_UM + 4
    apart, edge = _places(frames)
    models: list[PsfModel] = []
    for turn in range(ROUNDS):
        told = told_by_image(frames, models) if turn else frames
        images = _without_others(told, _drawn(told, models))
        middle = moved_to_middle(images[:, None] * fade, frames.dx_px, frames.dy_px)[:, 0]
        # at first only particles that stand alone
        good = (apart > (NEAR_PX if turn else HALF_PX)) & (edge > INSIDE_PX)
        models = []
        for kind in (0, 1):
            mine = np.flatnonzero(good & (told.kind == kind))
            samples = middle[mine].reshape(len(mine), -1).astype(np.float64)
            sums = [
                SplineSums.of(samples[p::FOLDS], node[mine][p::FOLDS], np.ones(len(samples[p::FOLDS])), nodes)
                for p in range(FOLDS)
            ]
            total_sums = reduce(add, sums)
            bright = np.argsort((samples**2).sum(axis=0))[-BRIGHT_PIXELS:]
            rough = [SplineSums(s.normal, s.right[:, bright]) for s in sums]
            stiffness = float(np.median(best_stiffness(rough)))
            spline = total_sums.solve(np.full(samples.shape[1], stiffness)).reshape(nodes, size, size)
            # both lines of focus lie along the axes: mirror images belong to the same particle
            spline = (spline + spline[:, ::-1] + spline[:, :, ::-1] + spline[:, ::-1, ::-1]) / 4
            for axis in (1, 2):
                spline = ndimage.spline_filter1d(spline, order=3, axis=axis, mode="mirror")
            models.append(
                PsfModel(
                    np.ascontiguousarray(spline, np.float32),
                    DEPTH_UM[0] - 4 * NODE_UM,
                    NODE_UM,
                    *DEPTH_UM,
                    pixel_size_um=1.0,
                    polarity="bright",
                )
            )
    return models
