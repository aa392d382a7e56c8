"""D of each axis and its standard error from all tracks, by the estimator that suits the data.

Covariance-based where sqrt(D dt) is larger than the localisation error (signal-to-noise ratio above 1), maximum
likelihood below (Vestergaard et al. 2014, section VI; Michalet & Berglund 2012). A known localisation error makes
the covariance-based one sufficient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from stream.errors import ConfigurationError
from tracking.physics.diffusion.averages import block_moments
from tracking.physics.diffusion.covariance import Estimates, Moments, localisation_um, moments, solve
from tracking.physics.diffusion.drift import (
    LARGER,
    SHORT_SHARE,
    CommonFlow,
    common_flow,
    drift_together,
    of_long_tracks,
    own_velocities,
    without_flow,
    without_own_velocities,
)
from tracking.physics.diffusion.lasting import AXES, DEPTH, AxisDiffusion, with_lasting_errors
from tracking.physics.diffusion.likelihood import likeliest
from tracking.physics.diffusion.populations import Populations, populations
from tracking.physics.diffusion.segments import LONGEST, Segments, cut_into_segments
from tracking.physics.diffusion.shear import (
    NOT_TO_BE_USED,
    WORTH_CORRECTING,
    corrected,
    excess_um2_s,
    known_shear,
    known_well,
    noise_of_shear,
    shear_of,
    without_shear,
)
from tracking.physics.diffusion.weights import weights_of

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LIKELIHOOD_BELOW = 1.0  # signal-to-noise ratio
LONGEST_OF_ALL = 256
"""Displacements in a segment for the likelihood at most: 32 / SNR^2 of them are needed to tell steps from errors;
with more, slow changes of the flow begin to count."""
NEEDED = 32.0


@dataclass(frozen=True, slots=True, eq=False)
class DiffusionResult:
    """D of all tracks: `um2_s` and its standard error, the mean of the `axes` that are used.

    `anisotropy_p`: probability of axes that differ as much or more if D is the same along all (NaN with one axis).
    `displacements` of `tracks` were used, `cut` were taken for wrong links. `interval_s` is the mean time of a
    displacement. `drift` is what was removed: the "own" velocity of each segment, the "common" drift of all
    particles, or "none". `segments` and `sums` are what `in_cells` and `by_track` need, `longer` are
    segments of up to 256 displacements.
    """

    um2_s: float
    standard_error_um2_s: float
    axes: tuple[AxisDiffusion, ...]
    anisotropy_p: float
    tracks: int
    displacements: int
    cut: int
    interval_s: float
    exposure_s: float
    drift: str
    populations: Populations | None
    segments: Segments
    sums: Moments
    longer: Segments

    @property
    def used(self) -> BoolArray:
        """Which axes the mean is of (axes,)."""
        return np.array([axis.used for axis in self.axes], np.bool_)

    @property
    def weight(self) -> FloatArray:
        """What each axis counts in the mean (axes,), 0 for those that are not used; they add up to 1."""
        return weights_of(self.axes, self.interval_s, self.displacements)

    @property
    def known(self) -> BoolArray:
        """Which axes `sums` tell D of, (axes,): not one that a sheared flow adds to where a common drift was
        removed, as that is not the flow."""
        return np.array([self.drift != "common" or not axis.shear_um2_s for axis in self.axes], np.bool_)

    @property
    def in_plane(self) -> BoolArray:
        """Which of x and y D in the plane is of, (2,) or in 1D (1,): of those used the ones that shear
        does not add to, if there are any. What shear adds depends on the place, and what is subtracted for it on
        errors of depth that are not the same everywhere."""
        plane = self.axes[:DEPTH]
        used = np.array([axis.used for axis in plane], np.bool_)
        clear = used & np.array([axis.shear_um2_s == 0.0 for axis in plane], np.bool_)
        return clear if clear.any() else used

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, in plain types; what is not finite becomes None."""
        kinds = () if self.populations is None else self.populations.kinds
        return {
            "um2_s": plain(self.um2_s),
            "standard_error_um2_s": plain(self.standard_error_um2_s),
            "anisotropy_p": plain(self.anisotropy_p),
            "tracks": self.tracks,
            "displacements": self.displacements,
            "cut": self.cut,
            "interval_s": plain(self.interval_s),
            "exposure_s": plain(self.exposure_s),
            "drift": self.drift,
            "axes": [
                {name: plain(getattr(axis, name)) for name in AxisDiffusion.__slots__} for axis in self.axes
            ],
            "spread": 0.0 if self.populations is None else self.populations.spread,
            "kinds": [
                {
                    "um2_s": plain(kind.um2_s),
                    "standard_error_um2_s": plain(kind.standard_error_um2_s),
                    "share": plain(kind.share),
                    "standard_error_share": plain(kind.standard_error_share),
                    "stuck": kind.stuck,
                }
                for kind in kinds
            ],
        }


def plain(value: Any) -> Any:
    """A number that is not finite as None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def diffusion_of(
    track: npt.ArrayLike,
    time_s: npt.ArrayLike,
    position_um: npt.ArrayLike,
    sigma_um: npt.ArrayLike | None = None,
    *,
    exposure_s: float = 0.0,
    localisation: float | None = None,
    drift: bool = True,
    without_outliers: bool = True,
    kinds: bool = True,
    gradient: Callable[[FloatArray], FloatArray] | None = None,
) -> DiffusionResult:
    """D from trajectories.

    Parameters
    ----------
    track, time_s
        Track and time of each row, (N,), in any order. Missing frames are gaps in time.
    position_um
        (axes, N), one to three axes. Rows that are not finite are left out.
    sigma_um
        Stated standard errors, (axes, N). Only their ratios are used, by the likelihood.
    exposure_s
        Exposure time; it only matters for the localisation error, unless that is given.
    localisation
        Localisation error of all axes, um, where it is known; left out: estimated.
    drift
        Whether particles move with a flow or a drift: the common one of all is removed, or the velocity of each
        segment, as the data say (`tracking.physics.diffusion.drift`). False takes none.
    without_outliers
        Whether displacements that are far too long are taken for wrong links and cut.
    kinds
        Whether to look for several kinds of D among the tracks.
    gradient
        Of a flow that is known: that of its velocity along a by the position along b, 1/s, (axes, axes, K) at
        places (axes, K). Left out: from the tracks.

    Raises `ConfigurationError` for arrays that do not belong together.
    """
    if exposure_s < 0 or (localisation is not None and localisation < 0):
        raise ConfigurationError("exposure and localisation error cannot be negative")
    segments = cut_into_segments(track, time_s, position_um, sigma_um, without_outliers=without_outliers)
    if len(segments.moved_um) > len(AXES):
        raise ConfigurationError(f"positions have {len(segments.moved_um)} axes; give one to three")
    known = None if localisation is None else np.full(len(segments.moved_um), localisation)
    sums = moments(segments, drift=drift)
    first = solve(sums, exposure_s=exposure_s, localisation_um=known)
    errors = _localisation(first, exposure_s)
    shear = np.zeros(len(errors))
    usable, chosen = np.ones(len(errors), np.bool_), np.zeros(len(errors), np.bool_)
    raw = segments
    if drift:
        flow = shear_of(segments) if gradient is None else known_shear(gradient(segments.place_um))
        shear = excess_um2_s(segments, flow, known_well(first.um2_s[:, 0], first.standard_error_um2_s[:, 0]))
        chosen = shear > WORTH_CORRECTING * np.abs(first.um2_s[:, 0] - shear)
        shear = np.where(chosen, shear, 0.0)
        if chosen.any():
            noise = noise_of_shear(segments, flow, errors)
            segments = without_shear(segments, flow, chosen)
            sums = corrected(moments(segments, drift=True), noise, chosen)
            first = solve(sums, exposure_s=exposure_s, localisation_um=known)
            errors = _localisation(first, exposure_s)
            added = noise.sum(axis=2) @ np.array([0.5, 1.0]) / max(segments.over_s.sum(), 1e-300)
            others = first.um2_s[~chosen, 0] if not chosen.all() else first.um2_s[:, 0]
            usable = ~chosen | (added < NOT_TO_BE_USED * np.minimum(first.um2_s[:, 0], others.min()))
    own = drift
    together = None
    if drift and segments.steps.size and usable.any() and not chosen[usable].any():
        together = _common(
            track, time_s, position_um, sigma_um, without_outliers, usable, first.standard_error_um2_s[:, 0]
        )
    if together is not None:
        own = False
        segments = without_flow(of_long_tracks(raw), together[0])
        sums = without_own_velocities(moments(segments, drift=False), together[1])
        before, first = first, solve(sums, exposure_s=exposure_s, localisation_um=known)
        first = before.where(chosen, first)  # the common drift is that along the others
        errors = _localisation(first, exposure_s)
    axes = []
    for axis, error in enumerate(errors):
        d, interval = float(first.um2_s[axis, 0]), segments.interval_s
        snr = _ratio(d, interval, error)
        found = (d, float(first.standard_error_um2_s[axis, 0]), float(error), "covariance")
        if snr < LIKELIHOOD_BELOW and known is None and shear[axis] == 0:
            longest = int(min(max(NEEDED / max(snr, 1e-3) ** 2, LONGEST), LONGEST_OF_ALL))
            longer = cut_into_segments(
                track, time_s, position_um, sigma_um, longest=longest, without_outliers=without_outliers
            )
            longer = longer if together is None else without_flow(longer, together[0])
            best = likeliest(
                longer, axis, d, float(first.value[axis, 0, 1]), exposure_s=exposure_s, drift=own
            )
            if math.isfinite(best.standard_error_um2_s):
                found = (best.um2_s, best.standard_error_um2_s, best.localisation_um, "likelihood")
        axes.append(
            AxisDiffusion(
                AXES[axis], *found[:3], _ratio(found[0], interval, found[2]), found[3], float(shear[axis]),
                bool(usable[axis]) and math.isfinite(found[0]) and found[1] > 0,
            )
        )  # fmt: skip
    longer = cut_into_segments(
        track, time_s, position_um, sigma_um, longest=LONGEST_OF_ALL, without_outliers=without_outliers
    )
    longer = longer if together is None else without_flow(longer, together[0])
    if known is None and segments.steps.size:
        axes = with_lasting_errors(axes, block_moments(longer, drift=own))
    mean, error, p = _mean(axes, segments)
    used = np.array([axis.used for axis in axes], np.bool_)
    among = None
    if kinds and used.any():
        of_axes = np.array([axis.localisation_um for axis in axes])
        among = populations(segments, mean, of_axes, used, exposure_s=exposure_s, drift=own)
    return DiffusionResult(
        mean,
        error,
        tuple(axes),
        p,
        int(np.unique(segments.track).size),
        int(segments.steps.sum()),
        segments.cut,
        segments.interval_s,
        exposure_s,
        "none" if not drift else "own" if own else "common",
        among,
        segments,
        sums,
        longer,
    )


def _common(
    track: npt.ArrayLike,
    time_s: npt.ArrayLike,
    position_um: npt.ArrayLike,
    sigma_um: npt.ArrayLike | None,
    without_outliers: bool,
    usable: BoolArray,
    error_with_own: FloatArray,
) -> tuple[CommonFlow, FloatArray] | None:
    """The drift of all particles, and the variance of their own velocities, (axes,), which is small.

    None where they drift each by itself along a `usable` axis (axes,), or too few tracks tell. `error_with_own`
    (axes,) is the standard error of D with the velocity of each segment removed.
    """
    every = cut_into_segments(
        track, time_s, position_um, sigma_um, longest=LONGEST_OF_ALL, without_outliers=without_outliers
    )
    longest = of_long_tracks(every)
    if longest.steps.sum() < (1.0 - SHORT_SHARE) * every.steps.sum():
        return None
    flow = common_flow(longest)
    rest = without_flow(longest, flow)
    variance, error = own_velocities(rest)
    found = solve(moments(rest, drift=False))
    d, of_d = found.um2_s[usable, 0], found.standard_error_um2_s[usable, 0]
    if not (of_d < LARGER * error_with_own[usable]).all():
        return None
    if not drift_together(variance[usable], error[usable], rest.interval_s, d, of_d):
        return None
    return flow, np.where(usable, variance, 0.0)


def _localisation(found: Estimates, exposure_s: float) -> FloatArray:
    return np.array([localisation_um(float(d), float(s), exposure_s) for d, s in found.value[:, 0]])


def _ratio(um2_s: float, interval_s: float, error_um: float) -> float:
    if not um2_s > 0:
        return 0.0 if math.isfinite(um2_s) else math.nan
    return math.sqrt(um2_s * interval_s) / error_um if error_um > 0 else math.inf


def _mean(axes: list[AxisDiffusion], segments: Segments) -> tuple[float, float, float]:
    """Mean D, its standard error, and the probability of the differences between the axes."""
    used = [axis for axis in axes if axis.used]
    if not used:
        return math.nan, math.nan, math.nan
    d = np.array([axis.um2_s for axis in used])
    error = np.array([axis.standard_error_um2_s for axis in used])
    weight = weights_of(used, segments.interval_s, int(segments.steps.sum()))
    mean = float(weight @ d)
    p = math.nan
    if len(used) > 1:
        inverse = 1.0 / error**2
        middle = float(inverse @ d / inverse.sum())
        p = float(chi2.sf(float((inverse * (d - middle) ** 2).sum()), len(used) - 1))
    return mean, math.sqrt(float((weight**2 * error**2).sum())), p
