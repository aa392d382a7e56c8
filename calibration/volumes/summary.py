"""What a calibration of volumes says, put together from what is known of its beads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationError
from calibration.volumes.beads.finding import Candidates
from calibration.volumes.beads.selecting import Selection
from calibration.volumes.noise import Levels, MeasuredNoise
from calibration.volumes.psf.choosing import Choice
from calibration.volumes.psf.fitting import LINEAR, BeadFits, fit_beads
from calibration.volumes.psf.measuring import fine_samples
from calibration.volumes.psf.sections import sections_of
from calibration.volumes.psf.shapes import GaussianShape, MeasuredShape, Shape
from calibration.volumes.psf.variation import variation_of
from calibration.volumes.result import BeadTable, Triple, VolumeCalibration
from calibration.volumes.windows import Windows
from calibration.volumes.words import warnings_of
from engines.volumes.psf import VolumePsf

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class BeadState:
    """The beads that are still used and what is known so far."""

    rows: IntArray
    windows: Windows
    noise: MeasuredNoise
    levels: Levels
    gaussian: GaussianShape
    errors: FloatArray
    fits: BeadFits


def result_of(
    volumes: npt.NDArray[Any],
    voxel_um: Triple,
    found: Candidates,
    reason: npt.NDArray[np.str_],
    selection: Selection,
    state: BeadState,
    shape: Shape,
    choice: Choice,
    background: FloatArray,
    bead_diameter_um: float | None,
    remarks: tuple[str, ...],
) -> VolumeCalibration:
    """The calibration in um, from volumes (T, Z, H, W) and what is known of their beads."""
    voxel = np.asarray(voxel_um)
    own = fit_beads(
        state.windows, state.gaussian, state.noise.model, state.fits.parameters, free_width=True, bound=2.0
    )
    place = found.place[state.rows][:, 1:] + state.fits.offset
    psf, peak = _psf(shape, state, voxel, bead_diameter_um)
    calibration = VolumeCalibration(
        psf=replace(psf, misfit=choice.misfit),
        noise=state.noise,
        levels=state.levels,
        choice=choice,
        gaussian_um=_triple(state.gaussian.sigma * voxel),
        gaussian_errors=_triple(state.errors),
        background=(
            float(background.mean()),
            float(background.min()),
            float(background.max()),
        ),
        beads=_table(found, reason, state, own, voxel, peak),
        sections=sections_of(state.windows, state.fits, shape, state.gaussian, voxel, peak),
        variation=variation_of(own.parameters[:, LINEAR:], own.errors[:, LINEAR:], place, volumes.shape[1:]),
        shape=volumes.shape,
        voxel_um=voxel_um,
        lone_sigmas=selection.distance,
        bead_diameter_um=bead_diameter_um,
        remarks=remarks,
    )
    return warnings_of(calibration)


def _psf(
    shape: Shape, state: BeadState, voxel_um: FloatArray, bead_diameter_um: float | None
) -> tuple[VolumePsf, float]:
    """The PSF for detectors, corrected for the size of the beads where it is known, and the shape's greatest
    value."""
    sigma_um = state.gaussian.sigma * voxel_um
    part = np.ones(3)
    if bead_diameter_um is not None:
        # a ball of diameter D adds D^2 / 20 to the variance along each axis
        squared = 1 - bead_diameter_um**2 / 20 / sigma_um**2
        if squared.min() < 0.25:
            raise CalibrationError(
                f"beads of {bead_diameter_um:g} um cannot look as small as these (standard deviations of "
                f"{', '.join(f'{s:.3g}' for s in sigma_um)} um along z, y, x); check --bead-diameter, --pixel-size "
                "and --z-step"
            )
        part = np.sqrt(squared)
    if not isinstance(shape, MeasuredShape):
        z, y, x = sigma_um * part
        return VolumePsf.gaussian(x, y, z, voxel_um.tolist()), 1.0
    samples, spacing = fine_samples(shape, state.windows.half)
    psf = VolumePsf.measured(samples, (spacing * voxel_um * part).tolist(), voxel_um.tolist())
    # of the Gaussian that fits best: the filter for it finds more than one that is as wide as the halo
    return replace(psf, sigma_um=_triple(sigma_um * part)), float(samples.max())


def _table(
    found: Candidates,
    reason: npt.NDArray[np.str_],
    state: BeadState,
    own: BeadFits,
    voxel_um: FloatArray,
    peak: float,
) -> BeadTable:
    count = len(found)

    def column(values: FloatArray, rest: FloatArray | None = None) -> FloatArray:
        filled = np.full(count, np.nan) if rest is None else rest.astype(np.float64)
        filled[state.rows] = values
        return filled

    fits, place = state.fits, found.place[:, 1:] * voxel_um
    exact = place[state.rows] + fits.offset * voxel_um
    errors, widths = fits.errors[:, :3] * voxel_um, np.exp(own.parameters[:, LINEAR:]) * voxel_um
    return BeadTable(
        time=found.place[:, 0],
        **{f"{axis}_um": column(exact[:, k], place[:, k]) for k, axis in enumerate("zyx")},
        strength=found.strength,
        brightness=column(fits.amplitude * peak, found.amplitude),
        **{f"sigma_{axis}_um": column(errors[:, k]) for k, axis in enumerate("zyx")},
        **{f"width_{axis}_um": column(widths[:, k]) for k, axis in enumerate("zyx")},
        **{f"width_error_{axis}": column(own.errors[:, LINEAR + k]) for k, axis in enumerate("zyx")},
        chi_square=column(fits.chi_square),
        reason=reason,
    )


def _triple(values: FloatArray) -> Triple:
    z, y, x = (float(v) for v in values)
    return z, y, x
