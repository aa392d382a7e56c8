"""A focus that jumped without saying so: found and corrected, where the images then match better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from calibration.alignment.aligned import Aligned
from calibration.alignment.plane_check import apparent_focus
from calibration.focus_check import JUMP_STEPS, REACH_STEPS, largest_jump
from calibration.particles.seen import Seen, align_members, misfit_of_members
from calibration.scan.faults import Fault

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

MOST_JUMPS = 3
"""Most jumps that are corrected; a scan with more is not worth it."""
JUMP_ROUNDS = 6
"""Most measurements of one jump."""
SAME_JUMP = 3
"""Planes within which a jump is the same one."""
SETTLED_STEPS = 0.15
"""Remaining jump, in steps, that is left."""
FITS_BETTER = 0.8
"""Median misfit after over before, below which a correction is accepted."""


def without_jumps(
    seen: Seen, members: IndexArray, aligned: Aligned
) -> tuple[Seen, Aligned, FloatArray, list[Fault]]:
    """Correct the focus of all planes after an unstated jump, where the images then match better.

    At first only a part of a jump is visible, because the PSF adapts to the wrong positions; so it is measured
    again after each correction.
    """
    misfit, faults = misfit_of_members(seen, members, aligned), []
    for _ in range(MOST_JUMPS):
        tried, better, plane, total_um = seen, aligned, -1, 0.0
        for _ in range(JUMP_ROUNDS):
            apparent_um, _ = apparent_focus(better, tried.focus_um, reach_um=REACH_STEPS * seen.step_um)
            least = JUMP_STEPS if plane < 0 else SETTLED_STEPS
            found = largest_jump(apparent_um - tried.focus_um, seen.step_um, least_steps=least)
            if found is None or (plane >= 0 and abs(found[0] - plane) > SAME_JUMP):
                break
            plane, by_um = (found[0] if plane < 0 else plane), found[1]
            focus_um = tried.focus_um.copy()
            focus_um[plane:] += by_um
            total_um += by_um
            tried = replace(tried, focus_um=focus_um)
            better = align_members(tried, members, better.positions)
        after = misfit_of_members(tried, members, better) if plane >= 0 else misfit
        if plane < 0 or np.median(after) > FITS_BETTER * np.median(misfit):
            break
        text = f"from plane {plane} (focus {seen.focus_um[plane]:.2f} um) on, the images match a focus "
        text += f"{total_um:+.1f} um from the stated one: a missing plane, or a focus drive that slipped; corrected"
        faults.append(Fault("focus wrong", plane, text))
        seen, aligned, misfit = tried, better, after
    return seen, aligned, misfit, faults
