"""Check of each plane's stated focus against its images: steady offsets are corrected, other planes left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.alignment.aligned import Aligned
from calibration.alignment.plane_check import apparent_focus
from calibration.consecutive import runs
from calibration.errors import CalibrationError
from calibration.scan.faults import Fault
from engines.robust_sigma import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

REACH_STEPS = 25
"""How far from the stated focus the images are compared, in steps: wrong positions further away are still seen to
be wrong, but not located. The time is proportional to it."""
WRONG_STEPS = 0.6
"""Offset, in steps, above which a plane is wrong. Half or twice as much changes nothing in a small simulated scan
(rms depth error 0.082 um); the scatter of a good focus drive is 0.1 step."""
WRONG_SCATTERS = 5.0
"""The same in standard deviations of all planes' offsets, for scans with a large scatter."""
WORSE = 2.0
"""Ratio of squared residuals at the stated and at the apparent focus above which a single plane is wrong: an
offset that hardly worsens the fit is not significant."""
STEADY = 5
"""Planes in a row with the same offset that are corrected instead of left out."""
SIDE = 3
"""Planes on each side of a jump whose median is compared; a single wrong plane is no jump."""
JUMP_STEPS = 0.5
"""Least jump, in steps."""
JUMP_SCATTERS = 5.0
"""Offset, in steps, above which a plane is wrong: labels need the focus to a fraction of a step. Half or twice as
much changes nothing in a small simulated scan (rms depth error 0.082 um)."""
MIN_PLANES = 10


@dataclass(frozen=True, slots=True, eq=False)
class CheckedFocus:
    """Focus (K,) as corrected, as the images show it (NaN: no particle is visible), and which planes to use."""

    focus_um: FloatArray
    apparent_um: FloatArray
    used: BoolArray
    faults: list[Fault]


def check_focus(aligned: Aligned, focus_um: FloatArray, step_um: float) -> CheckedFocus:
    """Compare stated and apparent focus (K,) of all planes.

    Raises `CalibrationError` where most of the stated positions cannot be right.
    """
    apparent_um, worse = apparent_focus(aligned, focus_um, reach_um=REACH_STEPS * step_um)
    off_um = apparent_um - focus_um
    off_um = off_um - np.nanmedian(off_um)
    wrong = wrong_planes(off_um, worse, step_um)
    corrected, used = focus_um.copy(), np.ones(len(focus_um), np.bool_)
    faults = []
    for first, stop in runs(wrong):
        by_um = float(np.median(off_um[first:stop]))
        steady = stop - first >= STEADY and float(np.ptp(off_um[first:stop])) < step_um
        if steady:
            corrected[first:stop] += by_um
        else:
            used[first:stop] = False
        where = f"plane {first} (focus {focus_um[first]:.2f} um): its images match"
        if stop - first > 1:
            last = stop - 1
            where = (
                f"planes {first} to {last} (focus {focus_um[first]:.2f} to {focus_um[last]:.2f} um): their "
            )
            where += "images match"
        what = "corrected" if steady else "left out"
        faults.append(
            Fault("focus wrong", first, f"{where} a focus {by_um:+.1f} um from the stated one; {what}")
        )
    if used.sum() < MIN_PLANES:
        raise CalibrationError(
            "in most planes the images do not match the stated focus position; check --z-step, and whether the "
            "focus drive moved"
        )
    return CheckedFocus(corrected, apparent_um, used, faults)


def wrong_planes(off_um: FloatArray, worse: FloatArray, step_um: float) -> BoolArray:
    """Planes (K,) that match much worse than those around, and long runs that are all off by the same amount.

    A long run counts if it reaches an end of the scan, as after a missing plane, or is off by over two steps.
    """
    scatter = SIGMA_OF_MAD * float(np.nanmedian(np.abs(off_um)))
    limit_um = max(WRONG_STEPS * step_um, WRONG_SCATTERS * scatter)
    far: BoolArray = np.abs(np.nan_to_num(off_um)) > limit_um
    wrong = far & (np.nan_to_num(worse) > WORSE)
    for first, stop in runs(far):
        run = off_um[first:stop]
        to_an_end = not np.isfinite(off_um[stop:]).any() or not np.isfinite(off_um[:first]).any()
        if stop - first >= STEADY and float(np.ptp(run)) < step_um:
            wrong[first:stop] = to_an_end or abs(float(np.median(run))) > 2 * step_um
    return wrong


def largest_jump(
    off_um: FloatArray, step_um: float, *, least_steps: float = JUMP_STEPS
) -> tuple[int, float] | None:
    """The largest lasting jump of apparent minus stated focus: the first plane after it, and its size, um.

    None where no jump exceeds the scatter. The planes on both sides are compared by medians of three.
    """
    known = np.flatnonzero(np.isfinite(off_um))
    if known.size < 4 * SIDE:
        return None
    values = off_um[known]
    medians = np.median(np.lib.stride_tricks.sliding_window_view(values, SIDE), axis=1)
    jumps = medians[SIDE:] - medians[:-SIDE]
    scatter = SIGMA_OF_MAD * float(np.median(np.abs(jumps)))
    at = int(np.argmax(np.abs(jumps)))
    if abs(jumps[at]) < max(least_steps * step_um, JUMP_SCATTERS * scatter):
        return None
    return int(known[at + SIDE]), float(jumps[at])
