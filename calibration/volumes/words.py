"""What a calibration of volumes says about itself, in lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.volumes.result import VolumeCalibration

FEW_BEADS = 10
NARROW = 0.75
"""Standard deviation in voxels below which positions depend on where in its voxel a particle is."""
ODD_RATIO = (0.7, 12.0)
"""Size along z over that across, um: below a microscope cannot, above a lens of low aperture would be needed."""


def warnings_of(found: VolumeCalibration) -> VolumeCalibration:
    """The calibration with lines about what may be wrong with it."""
    lines = []
    used = int(found.beads.used.sum())
    if used < FEW_BEADS:
        lines.append(f"only {used} beads could be used; ten or more show whether they are alike")
    z, y, x = found.gaussian_um
    across = float(np.sqrt(y * x))
    if not ODD_RATIO[0] <= z / across <= ODD_RATIO[1]:
        lines.append(
            f"the PSF is {z:.3g} um along z and {across:.3g} um across, a ratio of {z / across:.2g}: check "
            "the size of the pixels and the spacing of the slices (--pixel-size, --z-step)"
        )
    narrow = [
        f"{axis} ({size / voxel:.2f})"
        for axis, size, voxel in zip("zyx", found.gaussian_um, found.voxel_um, strict=True)
        if size / voxel < NARROW
    ]
    if narrow:
        lines.append(
            f"the PSF is narrower than {NARROW:g} voxels along {', '.join(narrow)}: positions between voxels are "
            "uncertain there; use smaller voxels"
        )
    lines += [
        f"the PSF's size along {one.width} changes by {100 * one.change:+.0f} +- {100 * one.error:.0f} % from the "
        f"first to the last voxel along {one.over}; one PSF is used for the whole volume"
        for one in found.variation
        if one.matters
    ]
    if not np.isfinite(found.noise.gain_error):
        lines.append(
            "the brightness hardly varies, so all noise is taken as shot noise; --dark tells the offset"
        )
    return replace(found, warnings=tuple(lines))


def psf_in_words(found: VolumeCalibration) -> str:
    """Which PSF was chosen, and why."""
    choice = found.choice
    if not choice.gains:
        return "a Gaussian: too few beads to compare it with a measured PSF"
    best = int(np.argmax(choice.gains))
    gain = f"{choice.gains[best]:+.2f} +- {choice.errors[best]:.2f} in log likelihood per bead left out"
    return (
        f"measured: better than a Gaussian by {gain}"
        if choice.measured
        else f"a Gaussian: a measured PSF gains {gain}"
    )
