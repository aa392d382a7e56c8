"""Labels of the particles: their positions with standard errors, and why others are left out."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import numpy.typing as npt
from scipy.stats import median_abs_deviation

from calibration.alignment.aligned import Aligned
from calibration.alignment.joint_normal import X, Y, Z
from calibration.alignment.trace_fit import coarse_depth, fit_trace
from calibration.assemble import Assembled
from calibration.particles.seen import Seen
from calibration.result import USED, ParticleTable

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NEIGHBOUR_PX = 35.0
"""Distance of the nearest neighbour, px, as in Franchini & Krevor (2020), section 2.1.2."""
TOUCHING_PART = 0.75
"""Distance of the nearest neighbour over the radius of the largest image. Half or twice as much changes nothing
in a small simulated scan (rms depth error 0.082 um)."""
CROWDED_PART = 0.6
"""The same in a crowded scan."""
KEEP_AT_LEAST = 0.55
"""Part of the particles that must remain before a nearer neighbour is allowed."""
MISFIT_TIMES = 3.0
"""A misfit limit in multiples of the typical one. The largest of the three limits counts; half or twice each of
them changes nothing in a small simulated scan (rms depth error 0.082 um), because second particles have misfits
ten times as large."""
MISFIT_FLOOR = 0.03
"""The same as a part of the image's power: below it the shape of the particles may differ."""
MISFIT_SCATTERS = 5.0
"""The same in standard deviations of the lone particles' misfits."""
SHORTEST_PART = 0.2
"""A misfit limit in multiples of the typical one. The largest of the three limits counts; half or twice each of
them changes nothing in a small simulated scan (rms depth error 0.082 um)."""

NEAR = "another particle is too near"
HIDDEN = "does not look like the others: two particles, dirt or a clump"
UNSETTLED = "cannot be fitted with the PSF model"
SHORT = "seen in too little of its depth range"


def misfit_limit(misfit: FloatArray) -> float:
    """The largest misfit of a single particle, given the misfits of (mostly) lone ones."""
    typical = float(np.median(misfit))
    scatter = float(median_abs_deviation(misfit, scale="normal"))
    return typical + max(MISFIT_SCATTERS * scatter, MISFIT_TIMES * typical, MISFIT_FLOOR)


def neighbour_limit_px(neighbour_px: FloatArray, radius_px: float) -> float:
    """How near a neighbour may be: 35 px as in the paper, or 0.75 of the images' radius where that is more.

    Where that leaves too few particles, 0.75 or, in a crowd, 0.6 of the radius: such neighbours overlap only far
    out of focus, and a large misfit shows them.
    """
    wide = (max(TOUCHING_PART * radius_px, NEIGHBOUR_PX), TOUCHING_PART * radius_px, CROWDED_PART * radius_px)
    return next((px for px in wide if np.mean(neighbour_px > px) >= KEEP_AT_LEAST), wide[-1])


def label(
    seen: Seen,
    aligned: Aligned,
    members: npt.NDArray[np.intp],
    member_misfit: FloatArray,
    made: Assembled,
    limit_px: float,
    others: npt.NDArray[np.intp],
) -> ParticleTable:
    """Positions of all candidates that can be labelled, and why the others are not.

    `members` are the candidates in the alignment. Other candidates without a near neighbour, mostly those cut by
    the image's edge, are fitted with the PSF model; not the `others`, which are in the
    alignment of another kind.
    """
    count, pixel, now = len(seen.found), seen.pixel_size_um, aligned.positions
    z, dx, dy, brightness, misfit = np.full((5, count), np.nan)
    errors = np.full((count, 4), np.nan)
    neighbour_px = seen.found.neighbour_px()
    reason = np.full(count, USED, dtype="<U80")
    reason[neighbour_px <= limit_px] = NEAR
    errors[members] = _standard_errors(aligned, seen.noise_variance)
    typical = np.median(errors[members], axis=0)
    z[members], brightness[members] = now.z_um + made.z_shift_um, now.brightness
    dx[members], dy[members] = now.dx_px + made.x_shift_px, now.dy_px + made.y_shift_px
    misfit[members] = member_misfit
    focus_um = seen.focus_um[seen.plane_used]
    reason[others] = HIDDEN
    for index in np.setdiff1d(np.flatnonzero(reason == USED), members):
        trace, inside = seen.traces.contrast[index][seen.plane_used], seen.traces.inside[index]
        model = made.model.at(float(seen.found.x_px[index]), float(seen.found.y_px[index]))
        fit = fit_trace(
            trace,
            inside,
            focus_um,
            model,
            z_um=coarse_depth(trace, inside, focus_um, model),
            dx_px=float(seen.found.x_px[index] - seen.traces.column[index]),
            dy_px=float(seen.found.y_px[index] - seen.traces.row[index]),
        )
        z[index], dx[index], dy[index] = fit.z_um, fit.dx_px, fit.dy_px
        brightness[index], misfit[index] = fit.brightness, fit.misfit(seen.noise_variance)
        errors[index] = typical * math.sqrt(1 / max(float(inside.mean()), 0.05))
        if not fit.settled:
            reason[index] = UNSETTLED
    height, width = seen.shape
    x_px = np.where(np.isfinite(dx), seen.traces.column + dx, seen.found.x_px)
    y_px = np.where(np.isfinite(dy), seen.traces.row + dy, seen.found.y_px)
    outside = (x_px < 0) | (y_px < 0) | (x_px > width - 1) | (y_px > height - 1)
    reason[(reason == USED) & outside] = UNSETTLED
    reason[(reason == USED) & ~(misfit <= misfit_limit(member_misfit))] = HIDDEN
    depth = z[:, None] - focus_um
    planes_seen = ((depth >= made.model.z_min_um) & (depth <= made.model.z_max_um)).sum(axis=1)
    whole = min(len(focus_um), (made.model.z_max_um - made.model.z_min_um) / seen.step_um)
    reason[(reason == USED) & (planes_seen < SHORTEST_PART * whole)] = SHORT
    return ParticleTable(
        x_um=np.asarray(x_px * pixel, np.float64),
        y_um=np.asarray(y_px * pixel, np.float64),
        z_um=z,
        sigma_x_um=errors[:, X] * pixel,
        sigma_y_um=errors[:, Y] * pixel,
        sigma_z_um=errors[:, Z],
        brightness=brightness,
        misfit=misfit,
        neighbour_px=neighbour_px,
        complete=seen.traces.complete,
        reason=reason,
    )


def merged(tables: list[ParticleTable], members: list[npt.NDArray[np.intp]]) -> ParticleTable:
    """One table of those of several kinds: a candidate is of the kind in whose alignment it is, the others of that
    which leaves least of it."""
    if len(tables) == 1:
        return tables[0]
    left = np.array([np.where(table.used, table.misfit, np.inf) for table in tables])
    kind = left.argmin(axis=0)
    for number, mine in enumerate(members):
        kind[mine] = number
    row = np.arange(len(kind))
    columns = {
        item.name: np.array([getattr(table, item.name) for table in tables])[kind, row]
        for item in fields(ParticleTable)
        if item.name != "kind"
    }
    return ParticleTable(**columns, kind=kind.astype(np.int64))


def _standard_errors(aligned: Aligned, noise_variance: float) -> FloatArray:
    """Standard errors (N, 4) from the curvature, with the residuals' variance where that exceeds the noise's."""
    variance = np.maximum(aligned.chi2.mean(axis=1), noise_variance)
    errors: FloatArray = np.sqrt(aligned.variances * variance[:, None])
    return errors
