"""What changes over the field of view, in words: for the report and for the terminal, which draws no figures."""

from __future__ import annotations

import numpy as np

from calibration.field.named import NamedTerms
from calibration.result import Calibration

LEAST_SAID_UM = 0.05  # less rounds to nothing


def field_in_words(found: Calibration) -> str:
    """One or two sentences about what changes over the field."""
    named = found.named
    if named is None:
        return ""
    sentences = (_of_modes(named), _of_surface(found, named), _of_walk(named))
    return " ".join(sentence for sentence in sentences if sentence)


def _of_modes(named: NamedTerms) -> str:
    if named.modes:
        what = " and ".join(
            name
            for name, degree in (("place", named.degree), ("brightness", named.brightness_degree))
            if degree
        )
        gain = 100 * (1 - np.sqrt(min(score for _, score in named.scores)))
        many = "1 mode" if named.modes == 1 else f"{named.modes} modes"
        return (
            f"Images depend on {what}: {many}, with which left-out particles are measured {gain:.0f} % better than "
            "with one image."
        )
    if not any("place" in name for name, _ in named.scores):
        return "One image serves the whole field: the particles are too few to see whether images change over it."
    return "One image serves the whole field: more terms do not measure left-out particles better."


def _of_surface(found: Calibration, named: NamedTerms) -> str:
    unseen = ""
    if named.surface_unseen_um > LEAST_SAID_UM:
        unseen = (
            f" What particles do not show of it adds {named.surface_unseen_um:.1f} µm to the stated errors."
        )
    if not named.surface_applied:
        if found.surface is None:
            return "The particles are too few to see a focal surface; none is taken off depths."
        if not found.surface.is_surface:
            return "The particles do not lie on a slide, so no focal surface can be seen; none is taken off depths."
        return f"No focal surface stands out from the particles' scatter; none is taken off depths.{unseen}"
    curve = ", ".join(f"{um:+.1f}" for um in named.curve_um)
    curved = f"curved by {curve} µm from the middle to the edge (x, y)"
    if not any(named.tilt_um):
        return f"The focal surface is {curved}; this is taken off all depths. A tilt is the slide's.{unseen}"
    tilt = ", ".join(f"{um:+.1f}" for um in named.tilt_um)
    return (
        f"The focal surface is tilted by {tilt} µm from edge to edge (x, y)"
        + (f" and {curved}" if any(named.curve_um) else "")
        + "; it is taken off all depths, as if the slide were level (--slide tilted: the tilt is the slide's)."
        + unseen
    )


def _of_walk(named: NamedTerms) -> str:
    out = []
    if named.walk_applied:
        way = "outwards" if named.walk_percent > 0 else "inwards"
        out.append(f"Images at the edge move {way} by {abs(named.walk_percent):.2f} % of their depth.")
    if named.stage_removed:
        x, y = named.stage_um
        out.append(
            f"The stage moved sideways by {x:.1f}, {y:.1f} µm (x, y) during the scan; this is taken out."
        )
    return " ".join(out)
