"""From volumes of beads to a calibration: find, choose, fit, measure the noise and the PSF, and check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits

from calibration.errors import CalibrationError
from calibration.volumes.beads.background import background_of, noise_of
from calibration.volumes.beads.finding import Candidates, find, half_of, size_of_beads
from calibration.volumes.beads.selecting import MISFIT, ODD_SIZE, Selection, select
from calibration.volumes.noise import (
    Levels,
    MeasuredNoise,
    background_levels,
    bead_levels,
    joined,
    noise_from,
)
from calibration.volumes.psf.choosing import Choice, choose
from calibration.volumes.psf.fitting import LINEAR, BeadFits, fit_beads
from calibration.volumes.psf.measuring import measure
from calibration.volumes.psf.pooling import common_gaussian
from calibration.volumes.psf.shapes import GaussianShape, Shape
from calibration.volumes.result import Triple, VolumeCalibration
from calibration.volumes.summary import BeadState, result_of
from calibration.volumes.windows import Windows, cut
from engines.robust_sigma import SIGMA_OF_MAD
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

FEWEST_BEADS = 3
"""Beads that a calibration needs: with two, one that is two beads in one cannot be told."""
WINDOW = 3.5
"""Half a window over the PSF's standard deviation, where the Gaussian is fitted: it has fallen to 0.2 % there."""
MEASURED_WINDOW, WIDEST_WINDOW = 4.0, 7.0
"""The same where the measured PSF is made, at least and at most: tails and rings are part of it."""
SEEN_TAIL = 0.01
"""Part of the peak from which a tail is worth a larger window."""
OFF_PX = 1.4
"""A bead whose fit lies farther from its candidate, voxels, is another one."""
ALIKE = (0.05, 0.2)
"""Widths of beads of one kind may differ from the median by 4 times their scatter and their own standard errors,
with the scatter between these parts: 5 % by which the PSF may change over the field, 20 % where it surely is not
one PSF."""
GROUND_ERROR = 0.02
"""Standard error of the background's map, over the noise of a voxel: that of medians of 16 x 16 x 3 voxels is 0.05,
and the map is smooth. With twice as much, 1 % of the peak of a wide halo is still taken for background."""
EXCESS = 3.0
"""A bead's misfit may exceed the typical one this many times."""


def calibrate_volumes(
    volumes: npt.NDArray[Any],
    voxel_um: Triple,
    *,
    dark: tuple[float, float] | None = None,
    bead_diameter_um: float | None = None,
    remarks: tuple[str, ...] = (),
    on_progress: Callable[[str, float], None] = lambda _what, _part: None,
) -> VolumeCalibration:
    """Calibrate from volumes (T, Z, H, W) of uint8 or uint16 with voxels of `voxel_um` (z, y, x).

    `dark` is the offset and the read noise of a dark reference. Raises `CalibrationError` where there are too few
    usable beads, with what is wrong with the others.
    """
    # products of many small matrices: threads of the linear algebra only wait for each other
    with threadpool_limits(1):
        return _calibrate(volumes, voxel_um, dark, bead_diameter_um, remarks, on_progress)


def _calibrate(
    volumes: npt.NDArray[Any],
    voxel_um: Triple,
    dark: tuple[float, float] | None,
    bead_diameter_um: float | None,
    remarks: tuple[str, ...],
    on_progress: Callable[[str, float], None],
) -> VolumeCalibration:
    on_progress("finding", 0.0)
    sigma = size_of_beads(volumes)
    if sigma is None:
        raise CalibrationError(
            "no beads were found: none is ten times as strong as the noise; use brighter beads or a longer exposure"
        )
    found = find(volumes, sigma)
    selection = select(volumes, found, sigma)
    on_progress("finding", 1.0)
    used = np.flatnonzero(selection.used)
    _enough(len(used), selection.reason)
    background = np.stack([background_of(volume) for volume in volumes])
    ground = background_levels(volumes, background, _free(volumes.shape, found, sigma))
    on_progress("fitting", 0.0)
    state = _gaussian(volumes, found, selection, used, sigma, ground, dark)
    on_progress("fitting", 1.0)
    reason = selection.reason.copy()
    reason[np.setdiff1d(used, state.rows)] = ODD_SIZE
    _enough(len(state.rows), reason)
    shape, choice = _choose(volumes, background, found, selection, state, ground, dark, on_progress)
    odd = _misfits(state, shape)
    if odd.any() and np.count_nonzero(~odd) >= FEWEST_BEADS:
        reason[state.rows[odd]] = MISFIT
        state = _gaussian(volumes, found, selection, state.rows[~odd], state.gaussian.sigma, ground, dark)
        shape, choice = _choose(volumes, background, found, selection, state, ground, dark, on_progress)
    return result_of(
        volumes,
        voxel_um,
        found,
        reason,
        selection,
        state,
        shape,
        choice,
        background,
        bead_diameter_um,
        remarks,
    )


def _enough(count: int, reason: npt.NDArray[np.str_]) -> None:
    if count >= FEWEST_BEADS:
        return
    names, counts = np.unique(reason[reason != ""], return_counts=True)
    why = "; ".join(
        f"{n} left out: {name}" for n, name in sorted(zip(counts, names, strict=True), reverse=True)
    )
    raise CalibrationError(
        f"only {count} of {len(reason)} beads can be used, at least {FEWEST_BEADS} are needed"
        + (f" ({why})" if why else "")
        + "; take a stack of lone beads that reaches beyond them at both ends"
    )


def _free(shape: tuple[int, ...], found: Candidates, sigma: FloatArray) -> BoolArray:
    """Which voxels (T, Z, H, W) are far from every candidate."""
    free = np.ones(shape, bool)
    reach = np.ceil(4 * sigma).astype(int)
    for time, *middle in found.place.tolist():
        box = tuple(slice(max(0, m - r), m + r + 1) for m, r in zip(middle, reach, strict=True))
        free[(time, *box)] = False
    return free


def _cut(
    volumes: npt.NDArray[Any],
    found: Candidates,
    selection: Selection,
    rows: IntArray,
    sigma: FloatArray,
    reach: float,
) -> Windows:
    """Windows of the candidates `rows`, without the voxels near their neighbours."""
    others = [selection.others[row] for row in rows.tolist()]
    half = half_of(sigma, reach, volumes.shape[1:])
    return cut(volumes, found.place[rows], half, others=others, reach=3.0 * sigma)


def _gaussian(
    volumes: npt.NDArray[Any],
    found: Candidates,
    selection: Selection,
    rows: IntArray,
    sigma: FloatArray,
    ground: Levels,
    dark: tuple[float, float] | None,
) -> BeadState:
    """The common Gaussian, the noise, and the beads that are alike."""
    levels = ground
    noise = noise_from(levels, dark) if levels.mean.size else _plain_noise(volumes)
    for _ in range(2):
        windows = _cut(volumes, found, selection, rows, sigma, WINDOW)
        own = fit_beads(windows, GaussianShape(sigma), noise.model, free_width=True, bound=2.0)
        alike = _alike(own)
        if alike.sum() < FEWEST_BEADS:
            raise CalibrationError(
                f"the {len(rows)} beads that could be used are not alike: only {int(alike.sum())} can be fitted "
                "with one size; take a stack of lone beads of one kind"
            )
        rows, windows = rows[alike], windows.some(alike)
        gaussian, errors, fits = common_gaussian(windows, noise.model, sigma)
        sigma = gaussian.sigma
        levels = joined(ground, bead_levels(windows, gaussian, fits, noise.model))
        noise = noise_from(levels, dark)
    gaussian, errors, fits = common_gaussian(windows, noise.model, sigma)
    return BeadState(rows, windows, noise, levels, gaussian, errors, fits)


def _plain_noise(volumes: npt.NDArray[Any]) -> MeasuredNoise:
    """The noise where beads cover the whole volume."""
    return MeasuredNoise(Noise(0.0, 0.0, float(np.median(noise_of(volumes[0])) ** 2)), np.inf, 0.0, False)


def _alike(own: BeadFits) -> BoolArray:
    """Which beads have the widths of the rest and lie where they were found."""
    log, error = own.parameters[:, LINEAR:], own.errors[:, LINEAR:]
    typical = np.median(log, axis=0)
    off = np.abs(log - typical)
    scatter = np.clip(SIGMA_OF_MAD * np.median(off, axis=0), ALIKE[0] / 4, ALIKE[1] / 4)
    near = (off < 4 * np.hypot(scatter, np.minimum(error, 0.25))).all(axis=1)
    return np.asarray(near & (np.abs(own.offset) < OFF_PX).all(axis=1) & np.isfinite(own.chi_square))


def _choose(
    volumes: npt.NDArray[Any],
    background: FloatArray,
    found: Candidates,
    selection: Selection,
    state: BeadState,
    ground: Levels,
    dark: tuple[float, float] | None,
    on_progress: Callable[[str, float], None],
) -> tuple[Shape, Choice]:
    """Gaussian or measured, by cross-validation; the state gets the windows and fits of the choice."""
    on_progress("choosing", 0.0)
    windows = _cut(volumes, found, selection, state.rows, state.gaussian.sigma, WIDEST_WINDOW)
    least = half_of(state.gaussian.sigma, MEASURED_WINDOW, volumes.shape[1:])
    windows = windows.inner(extent(windows, background, state.fits.amplitude, state.noise.model, least))
    level = background[tuple(windows.centre.T)]
    windows = windows.on_ground(background, GROUND_ERROR * np.sqrt(state.noise.model.variance(level)))
    fits = fit_beads(windows, state.gaussian, state.noise.model, state.fits.parameters)
    shape: Shape = state.gaussian
    choice = choose(windows, fits, state.gaussian, state.noise.model, _groups(found.place[state.rows]))
    on_progress("choosing", 0.5)
    if choice.measured:
        shape, fits = measure(windows, fits, state.gaussian, state.noise.model, choice.freedom)
    state.levels = joined(ground, bead_levels(windows, shape, fits, state.noise.model))
    state.noise = noise_from(state.levels, dark)
    if choice.measured:
        shape, fits = measure(windows, fits, state.gaussian, state.noise.model, choice.freedom, rounds=2)
    state.windows, state.fits = windows, fits
    on_progress("choosing", 1.0)
    return shape, choice


def extent(
    windows: Windows, background: FloatArray, amplitude: FloatArray, noise: Noise, least: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Half the edges of a window, voxels, that holds what the mean bead shows above `SEEN_TAIL` and its noise.

    Never less than `least` and never more than `windows`, which are cut from volumes with this `background`
    (T, Z, H, W); `amplitude` (N,) is that of the beads.
    """
    ground = cut(background, windows.centre, windows.half).values
    weight = np.where(windows.counts, amplitude[:, None, None, None], 0.0)
    power = np.maximum((weight**2).sum(axis=0), 1e-30)
    mean = (weight * (windows.values - ground)).sum(axis=0) / power
    error = np.sqrt((weight**2 * noise.variance(windows.values)).sum(axis=0)) / power
    seen = mean > np.maximum(SEEN_TAIL, 5 * error)
    half = list(least)
    for axis, most in enumerate(windows.half):
        along = seen.any(axis=tuple(a for a in range(3) if a != axis))
        far = np.abs(np.flatnonzero(along) - most).max(initial=0)
        half[axis] = int(min(max(least[axis], far + 1), most))
    return half[0], half[1], half[2]


def _groups(place: IntArray) -> IntArray:
    """A number for each bead, the same for sightings within 2 voxels of each other at several time points."""
    pairs = KDTree(place[:, 1:]).query_pairs(2.5, output_type="ndarray")
    group = np.arange(len(place))
    for first, second in pairs.tolist():
        group[group == group[second]] = group[first]
    return group


def _misfits(state: BeadState, shape: Shape) -> BoolArray:
    """Which beads fit far worse than is typical of beads as bright."""
    image = shape.image(state.fits.offset, state.windows.half)
    counts = state.windows.counts
    signal = state.fits.amplitude[:, None, None, None] * image
    ground = state.fits.parameters[:, 4, None, None, None]
    power = np.where(counts, signal**2 / state.noise.model.variance(ground + signal), 0.0)
    voxels = np.maximum(counts.reshape(len(counts), -1).sum(axis=1), 1)
    power = power.reshape(len(counts), -1).sum(axis=1) / voxels
    excess = state.fits.chi_square - 1
    typical = max(float(np.median(excess / power)), 0.0)
    return np.asarray(excess > 5 * np.sqrt(2 / voxels) + EXCESS * typical * power + 0.05)
