"""Numbers, warnings and tables of a calibration's report."""

from __future__ import annotations

from typing import Any

import numpy as np

from calibration.field.summary import summary_of
from calibration.particles.labels import HIDDEN, NEAR, SHORT, UNSETTLED
from calibration.result import Calibration

FAULTS_IN_FRONT = 8  # faults of the scan shown at the top; all are in the table below
# Labels scatter about their surface by this many times their standard error before it is reported. A scatter of 3
# does not come from noise; real glass is not smooth to better than the standard error, so 1 would warn always.
SCATTERS = 3.0
ADVICE = {
    NEAR: "fewer particles, or a larger field; --neighbour PX allows nearer ones",
    HIDDEN: "look at it in the scan: overlapping particles, an aggregate, dirt, or another size",
    UNSETTLED: "mostly particles cut off by the edge of the image",
    SHORT: "scan further on the side where it was cut off",
}


def facts(found: Calibration, images: int) -> list[dict[str, str]]:
    """The main results as `name` and `value`; `images` is the number of labelled images."""
    table, planes, model = found.particles, found.focal_planes, found.model
    used = table.used
    shown = [
        ("particles used of those found", f"{used.sum()} of {len(table)}"),
        ("depth range", f"{model.z_min_um:+.0f} to {model.z_max_um:+.0f} µm"),
    ]
    for kind, (own, lines) in enumerate(zip(found.kinds, found.kind_planes, strict=True)):
        mine = used & (table.kind == kind)
        text = f"{mine.sum()} particles, {own.z_min_um:+.0f} to {own.z_max_um:+.0f} µm"
        if lines.astigmatic:
            text += f", focal planes at {lines.xz_um:+.1f}, {lines.yz_um:+.1f} µm"
        shown.append((f"kind {kind}", text))
    if planes.astigmatic:
        shown.append(("focal planes along x and y", f"{planes.xz_um:+.1f}, {planes.yz_um:+.1f} µm"))
    else:
        shown.append(("astigmatism", "none"))
    error_um = np.median(np.stack([table.sigma_x_um, table.sigma_y_um, table.sigma_z_um])[:, used], axis=1)
    shown.append(
        ("standard error of the labels in x, y, z", ", ".join(f"{um:.2g}" for um in error_um) + " µm")
    )
    shown += _validated(found)
    if found.surface is not None and found.surface.is_surface:
        shown.append(
            ("rms distance of the particles from a smooth surface", f"{found.surface.residual_um:.2g} µm")
        )
    shown += [
        ("noise of one image", f"{100 * found.noise.contrast_sd:.2g} % of the background"),
        ("signal-to-noise ratio of one image, mean over depth", f"{signal_to_noise(found):.1f}"),
        ("planes used of those taken", f"{found.plane_used.sum()} of {len(found.focus_um)}"),
        ("images at each plane", f"{found.repeats}"),
        ("labelled images", f"{images}"),
    ]
    return [{"name": name, "value": value} for name, value in shown]


def _validated(found: Calibration) -> list[tuple[str, str]]:
    rows = found.validation
    if rows is None or not len(rows):
        return []
    numbers = summary_of(rows, found.model)
    if "rms_z_um" not in numbers:
        return []
    rms = ", ".join(f"{numbers[f'rms_{axis}_um']:.2g}" for axis in "xyz")
    stated = ", ".join(f"{numbers[f'stated_{axis}_um']:.2g}" for axis in "xyz")
    modes = 0 if found.named is None else found.named.modes
    return [
        ("rms error of left-out particles in x, y, z (stated)", f"{rms} ({stated}) µm"),
        ("left-out particles on the right side of focus", f"{100 * numbers['right_side']:.1f} %"),
        ("modes of the PSF over the field", f"{modes}"),
    ]


def signal_to_noise(found: Calibration) -> float:
    """Largest contrast of the PSF model over the noise of one image, mean over the depth range.

    The paper's definition: background minus the particle's darkest pixel, over the background's deviation.
    """
    model = found.model
    images = model.images(np.linspace(model.z_min_um, model.z_max_um, 101))
    return float(images.max(axis=(1, 2)).mean()) / max(found.noise.contrast_sd, 1e-12)


def problems(found: Calibration, *, width_curve: bool) -> list[str]:
    """Warnings, then faults of the scan: to be known before the labels are relied on.

    `width_curve`: whether the file has the curve from which the classical detector reads depth.
    """
    faults = [fault.text for fault in found.faults]
    if len(faults) > FAULTS_IN_FRONT:
        more = len(faults) - FAULTS_IN_FRONT
        faults = [*faults[:FAULTS_IN_FRONT], f"{more} more faults of the scan are listed below"]
    return [*found.warnings, *_scatter(found), *_no_curve(found, width_curve), *faults]


def _no_curve(found: Calibration, width_curve: bool) -> list[str]:
    if width_curve or not found.focal_planes.astigmatic:
        return []
    return [
        "there is no width curve, since a Gaussian does not fit the images at all depths: the classical detector "
        "cannot measure depth with this file"
    ]


def _scatter(found: Calibration) -> list[str]:
    """A warning if labels scatter about a smooth surface by more than their standard errors."""
    surface, table = found.surface, found.particles
    if surface is None or not surface.is_surface:
        return []
    stated_um = float(np.median(table.sigma_z_um[table.used]))
    if surface.typical_um < SCATTERS * stated_um:
        return []
    times = surface.typical_um / stated_um
    return [
        f"depths scatter by {surface.typical_um:.2g} µm about a smooth surface, {times:.0f} times their standard "
        f"error of {stated_um:.2g} µm: either the particles do not lie on it, or they differ from one another by "
        "more than noise; rely on the larger value"
    ]


def left_out_table(found: Calibration) -> list[dict[str, str]]:
    """Particles left out by reason, most frequent first, as `count`, `reason` and `advice`."""
    counts = found.particles.left_out()
    return [
        {"count": f"{counts[reason]}", "reason": reason, "advice": ADVICE.get(reason, "")}
        for reason in sorted(counts, key=lambda reason: -counts[reason])
    ]


def surface_in_words(found: Calibration) -> str:
    """Tilt and curvature of the particles' surface; empty if they fill a volume or are too few."""
    surface = found.surface
    if surface is None or not surface.is_surface:
        return ""
    half_um = np.array(found.shape[::-1]) * found.model.pixel_size_um / 2
    across = 2 * np.array([surface.tilt_x, surface.tilt_y]) * half_um
    bend = np.array([surface.bend_xx, surface.bend_yy]) * half_um**2
    return (
        f"They lie on a smooth surface to {surface.residual_um:.2g} µm (rms). It rises by {across[0]:+.2g} µm over "
        f"the width of the image and by {across[1]:+.2g} µm over its height, and curves by {bend[0]:+.2g} and "
        f"{bend[1]:+.2g} µm from the middle to the edges."
    )


def measured(found: Calibration) -> dict[str, Any]:
    """Noise, background and surface with all digits."""
    return {
        "noise": found.noise.to_dict(),
        "surface": None if found.surface is None else found.surface.to_dict(),
        "rotation_of_the_lens_deg": found.focal_planes.rotation_deg,
    }
