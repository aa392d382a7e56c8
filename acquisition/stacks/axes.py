"""The meaning of the axes of a recording: from the names in the file, other metadata, or the user."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError

NAN = math.nan
AXES = "TZCYX"
SINGLE = "CTZQRP"
STILL_UM = 1e-3
"""Focus positions that differ by no more than this are equal, um: below the resolution of any focus drive."""


@dataclass(frozen=True, slots=True, eq=False)
class AxisEvidence:
    """Metadata of a file that help to interpret its axes; NaN or None if unknown.

    `interval_s` is the time between frames, `spacing_um` between planes, `pixel_um` the size of a pixel,
    `focus_um` the focus position of each plane.
    """

    interval_s: float = NAN
    spacing_um: float = NAN
    pixel_um: float = NAN
    focus_um: npt.NDArray[np.float64] | None = None


def parse_axes(text: str) -> str:
    """The axes given by a user, such as `TYX`. Raises `ConfigurationError` with the problem."""
    axes = text.strip().upper()
    odd = sorted(set(axes) - set(AXES))
    if odd:
        raise ConfigurationError(
            f"axes {text!r}: {', '.join(odd)} is not an axis; use T (time), Z (focus), C (channel), Y, X, as in TYX"
        )
    if len(set(axes)) != len(axes):
        raise ConfigurationError(f"axes {text!r}: each axis may appear only once")
    if not axes.endswith("YX"):
        raise ConfigurationError(f"axes {text!r}: y and x must be the last two, such as TYX or TZYX")
    return axes


def given_axes(path: Path, shape: Sequence[int], given: str) -> str:
    """The names of all axes of an array, given by the user; axes of length 1 may be left out.

    Raises `ConfigurationError` if they do not fit the array.
    """
    axes = parse_axes(given)
    if len(axes) == len(shape):
        return axes
    wanted = [place for place, size in enumerate(shape[:-2]) if size > 1]
    if len(wanted) != len(axes) - 2:
        raise ConfigurationError(
            f"axes {given!r} are {len(axes)}, but {path.name} has {len(shape)}: its images are an array of "
            f"{' x '.join(map(str, shape))}"
        )
    names = dict(zip(wanted, axes, strict=False))
    rest = iter(name for name in SINGLE if name not in axes)
    return "".join(names.get(place) or next(rest) for place in range(len(shape) - 2)) + "YX"


def decide_axes(axes: str, sizes: Sequence[int], evidence: AxisEvidence, *, is_scan: bool) -> tuple[str, str]:
    """Decide whether planes that a file calls a focus series are one, or times; returns the axes and a remark.

    Many programs call the pages of a video slices. They are times if the focus did not move, if the file has a
    frame interval but no spacing, or if it has neither, unless the recording should be a focus scan (`is_scan`).
    """
    by_name = dict(zip(axes, sizes, strict=True))
    planes = by_name.get("Z", 1)
    if planes == 1 or by_name.get("T", 1) > 1:
        return axes, ""
    called = f"its {planes} planes, which it calls a focus series (Z), are taken as times"
    changed = axes.replace("T", "Q").replace("Z", "T")
    other = "(--axes ZYX if they are not)"
    if evidence.focus_um is not None and np.isfinite(evidence.focus_um).any():
        if np.nanmax(evidence.focus_um) - np.nanmin(evidence.focus_um) > STILL_UM:
            return axes, _moving(planes, is_scan)
        return changed, f"{called}: the focus did not move {other}"
    if is_scan:
        return axes, ""
    has_interval = evidence.interval_s > 0
    if has_interval and not _is_spacing(evidence):
        return changed, f"{called}: it has a frame interval and no spacing {other}"
    if not (has_interval or evidence.spacing_um > 0):
        return changed, f"{called}: it has no information about the focus {other}"
    return axes, _moving(planes, is_scan, evidence.spacing_um)


def _is_spacing(evidence: AxisEvidence) -> bool:
    """Whether the spacing was set on purpose: the default of ImageJ is 1 of any unit, or the pixel size."""
    spacing_um = evidence.spacing_um
    return spacing_um > 0 and not any(
        math.isclose(spacing_um, default, rel_tol=1e-3) for default in (1.0, evidence.pixel_um)
    )


def _moving(planes: int, is_scan: bool, step_um: float = NAN) -> str:
    if is_scan:
        return ""
    step = f", {step_um:g} um apart" if step_um > 0 else ""
    kind = f"a focus series (Z){step}"
    return f"its {planes} planes are taken as {kind}: the focus moves (--axes TYX if they are times)"


def assumed_axes(axes: str, what: str) -> str:
    """The remark about axes without names in the file."""
    return f"the axes of {what} have no names: {axes} assumed (--axes)" if len(axes) > 2 else ""
