"""Whether the camera's rate and exposure suit the velocities, and what else limits: findings in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tracking.physics.planning.view import View

Level = Literal["good", "caution", "fails"]

SURE = 0.1
"""Probability of a nearer particle at which a link of a new track counts as uncertain."""
BLUR_OVER_ERROR, BLUR_OVER_IMAGE = 3.0, 0.5
"""Way during the exposure, over the localisation error and over the diameter of a particle's image, from which it
is a caution: as an even smear it has a standard deviation of 1 / sqrt(12) of itself."""
SHORT = 3.0
"""Times the shortest track that counts, below which the typical one is short."""
SNR_GOOD = 0.3
"""Step sqrt(D dt) over the localisation error from which D is told well; below it a lower rate would tell more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and the numbers in words."""

    what: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Camera:
    """Exposure, s; how far the tracker reaches where the velocity is not known, um (None: twice the mean spacing),
    and whether it predicts; diameter of the particle's image, um (None: not known); bytes of an image (0: images
    are not kept), and free bytes of the disk.
    """

    exposure_s: float
    reach_um: float | None
    predicts: bool
    image_diameter_um: float | None
    bytes_a_frame: float = 0.0
    free_bytes: float = math.inf


def findings(
    view: View, camera: Camera, fastest_um_s: float, frames: float, wants_diffusion: bool, depth_um: float
) -> list[Finding]:
    """All of them, for the largest velocity in the channel; `depth_um` is that of what is seen in one image."""
    error_um = float(min(view.localisation.sigma_um[:2].min(axis=1)))
    seen = view.particles_per_um3 * view.image_um[0] * view.image_um[1] * depth_um
    found = [_exposure(view, camera), _linking(view, camera, fastest_um_s, seen)]
    found += [_blur(camera, fastest_um_s, error_um), _length(view, fastest_um_s), _crowd(view, camera, seen)]
    if wants_diffusion:
        found.append(_steps(view, error_um))
    if camera.bytes_a_frame:
        found.append(_disk(view, camera, frames))
    return [one for one in found if one is not None]


def _exposure(view: View, camera: Camera) -> Finding | None:
    if camera.exposure_s * view.frame_rate_hz <= 1.0 + 1e-9:
        return None
    text = f"{1e3 * camera.exposure_s:g} ms is longer than a frame at {view.frame_rate_hz:g} Hz"
    return Finding("exposure", "fails", text)


def _linking(view: View, camera: Camera, fastest_um_s: float, seen: float) -> Finding:
    """Displacement of the fastest particles against the distance between particles, and the tracker's reach.

    The distance is the mean one of places in the image, 1 / sqrt(number / area). The probability that another
    particle is nearer than a new one's next place is 1 - exp(-pi d^2 number / area).
    """
    moves = fastest_um_s / view.frame_rate_hz
    spacing = math.sqrt(view.image_um[0] * view.image_um[1] / max(seen, 1e-9))
    reach = camera.reach_um if camera.reach_um is not None else 2.0 * spacing
    nearer = -math.expm1(-math.pi * (moves / spacing) ** 2)
    text = f"{moves:.3g} µm a frame at most, particles {spacing:.3g} µm apart, tracker's reach {reach:.3g} µm"
    if moves > reach:
        return Finding(
            "links", "fails", f"{text}: the fastest are not linked; at least {fastest_um_s / reach:.3g} Hz"
        )
    if nearer > SURE:
        kind = "until their velocity is known" if camera.predicts else "in each frame"
        needed = fastest_um_s / (spacing * math.sqrt(-math.log1p(-SURE) / math.pi))
        text += (
            f": another particle is nearer in {100 * nearer:.0f} % {kind}; {needed:.3g} Hz would make it 10 %"
        )
        return Finding("links", "caution" if camera.predicts else "fails", text)
    return Finding("links", "good", text)


def _blur(camera: Camera, fastest_um_s: float, error_um: float) -> Finding:
    way = fastest_um_s * camera.exposure_s
    limit = BLUR_OVER_ERROR * error_um
    if camera.image_diameter_um is not None:
        limit = max(BLUR_OVER_IMAGE * camera.image_diameter_um, limit)
    text = f"{way:.3g} µm during the exposure at most"
    if way > limit:
        return Finding(
            "motion blur", "caution", f"{text}; below {1e3 * limit / fastest_um_s:.2g} ms it does not matter"
        )
    return Finding("motion blur", "good", text)


def _length(view: View, fastest_um_s: float) -> Finding:
    crossing = view.image_um[0] / max(fastest_um_s, 1e-12) * view.frame_rate_hz * view.found
    least = view.min_length
    text = (
        f"the fastest particles are seen {min(crossing, 1e6):.0f} times"
        if crossing < 1e6
        else "particles stay"
    )
    if crossing < least:
        needed = fastest_um_s * least / view.image_um[0] / view.found
        return Finding("track length", "fails", f"{text}; {least} are needed: at least {needed:.3g} Hz")
    return Finding("track length", "caution" if crossing < SHORT * least else "good", text)


def _crowd(view: View, camera: Camera, seen: float) -> Finding:
    """Source density: the part of the image that particle images would cover (Barnkob & Rossi 2020)."""
    text = f"{seen:.0f} particles in an image"
    if camera.image_diameter_um is None:
        return Finding("particles", "good" if seen >= 1 else "caution", text)
    covered = seen * math.pi * camera.image_diameter_um**2 / 4.0 / (view.image_um[0] * view.image_um[1])
    text += f", whose images cover {100 * covered:.2g} % of it"
    level: Level = "caution" if covered > 0.2 or seen < 1 else "good"
    return Finding("particles", level, text + ("; many overlap" if covered > 0.2 else ""))


def _steps(view: View, error_um: float) -> Finding:
    step = math.sqrt(view.diffusion_um2_s / view.frame_rate_hz)
    text = f"{step:.3g} µm a frame, {step / error_um:.2g} times the localisation error"
    if step < SNR_GOOD * error_um:
        better = view.diffusion_um2_s / (SNR_GOOD * error_um) ** 2
        return Finding(
            "Brownian steps", "caution", f"{text}: at {better:.2g} Hz each frame would tell more of D"
        )
    return Finding("Brownian steps", "good", text)


def _disk(view: View, camera: Camera, frames: float) -> Finding:
    rate, total = camera.bytes_a_frame * view.frame_rate_hz, camera.bytes_a_frame * frames
    text = f"{rate / 1e6:.3g} MB/s, {total / 1e9:.3g} GB of images; {camera.free_bytes / 1e9:.3g} GB are free"
    return Finding("disk", "fails" if total > camera.free_bytes else "good", text)
