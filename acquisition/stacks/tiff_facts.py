"""Scales, times and focus positions in the metadata of ImageJ, Micro-Manager and TIFF tags (pure functions)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from acquisition.stacks.scales import (
    LEAST_UM,
    NAN,
    NEARLY,
    SAME,
    Said,
    Scales,
    interval,
    length,
    number,
    printed_size,
)

PIXEL = "the pixel size"
STEP = "the step between planes"
CENTIMETRE_TAG, INCH_TAG = 3, 2
"""Values of the tag ResolutionUnit."""

ELAPSED = ("elapsedtimems",)
"""Keys with a time in ms, reduced to letters and digits in lower case."""
CLOCK_READINGS = ("timereceivedbycore", "receivedtime", "time")
"""Keys with a date and a time of day, the finest first."""
PLACE_KEYS = {
    "position": ("positionindex",), "channel": ("channelindex",), "z": ("sliceindex", "slice"),
    "t": ("frameindex", "frame"),
}  # fmt: skip
"""Keys with the place of a plane, the most reliable first."""
PLACE_NAMES = {"position": "positionname", "channel": "channel"}
NUMBER = re.compile(r"-?[0-9]{1,15}")
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,:](\d{1,9}))?\s*([+-]\d\d:?\d\d|Z)?")


def imagej_scales(facts: Mapping[str, Any], x_per_unit: float, y_per_unit: float) -> Scales:
    """Scales of an ImageJ file; its resolution tags count pixels per unit."""
    unit = str(facts.get("unit") or "")
    y_unit = str(facts.get("yunit") or unit)
    if unit.strip().lower() in {"inch", "inches", "in"}:
        x, y = printed_size(x_per_unit, "inch"), printed_size(y_per_unit, "inch")
    else:
        x, y = (
            length(None if np.isnan(per_unit) else _inverse(per_unit), name, PIXEL)
            for per_unit, name in ((x_per_unit, unit), (y_per_unit, y_unit))
        )
    step = length(facts.get("spacing"), str(facts.get("zunit") or unit), STEP)
    if not step:
        step = Said()  # ImageJ writes a spacing without a unit if nobody set one
    between = interval(facts.get("finterval"), str(facts.get("tunit") or "s"), place="finterval")
    speed = number(facts.get("fps"))
    remarks: tuple[str, ...] = ()
    if not between and speed > 0:
        remarks = (
            f"{speed:g} frames/s is the display speed in ImageJ, not the frame rate of the camera: not used",
        )
    return Scales(x, y, step, between, remarks=remarks)


def plain_scales(x_per_unit: float, y_per_unit: float, unit_tag: int) -> Scales:
    """Scales of a TIFF that has only its resolution tags."""
    unit = {CENTIMETRE_TAG: "cm", INCH_TAG: "inch"}.get(unit_tag)
    x, y = (Said() if unit is None else printed_size(pixels, unit) for pixels in (x_per_unit, y_per_unit))
    if not (x and y) and x_per_unit > 0 and y_per_unit > 0 and abs(x_per_unit / y_per_unit - 1) > NEARLY:
        ratio = x_per_unit / y_per_unit
        return Scales(
            Said(NAN, f"the resolution tags say that a pixel is {ratio:.4g} times as tall as wide: not used")
        )
    return Scales(x, y)


def micromanager_scales(summary: Mapping[str, Any], first: Mapping[str, Any]) -> Scales:
    """Scales of a Micro-Manager file, from its summary and the metadata of its first plane."""
    said = next(
        (
            value
            for value in (summary.get("PixelSize_um"), summary.get("PixelSizeUm"), first.get("PixelSizeUm"))
            if value is not None and number(value) != 0
        ),
        None,
    )
    pixel = length(said, "um", PIXEL)
    if said is None:
        pixel = Said(NAN, _unset_pixel(summary, first))
    step = number(summary.get("z-step_um"))
    return Scales(
        pixel,
        pixel,
        length(step, "um", STEP) if step > 0 else Said(),
        # 0 means that the camera determines the interval
        interval(summary.get("Interval_ms") if number(summary.get("Interval_ms")) else None, "ms"),
    )


def _unset_pixel(summary: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """The remark about a pixel size of 0, which is written if nobody set one."""
    keys = ("PixelSize_um", "PixelSizeUm")
    key = next((key for facts in (summary, first) for key in keys if facts.get(key) is not None), "")
    return f"{PIXEL} is 0 in the file ({key}): not used" if key else ""


@dataclass(frozen=True, slots=True, eq=False)
class PlaneColumns:
    """Metadata of each plane (N,): times, s, focus, um, exposure, ms (NaN if unknown); camera numbers (-1)."""

    time_s: npt.NDArray[np.float64]
    focus_um: npt.NDArray[np.float64]
    exposure_ms: npt.NDArray[np.float64]
    camera_frame: npt.NDArray[np.int64]
    remark: str = ""
    pixel_change: str = ""


def micromanager_planes(count: int, planes: Iterable[Mapping[str, Any]]) -> PlaneColumns:
    """Collect Micro-Manager's metadata of `count` planes."""
    clocks = {name: np.full(count, NAN) for name in (*ELAPSED, *CLOCK_READINGS)}
    spelled = dict.fromkeys(clocks, "")
    unread: dict[str, list[Any]] = {}
    focus_um, exposure_ms, pixel_um = np.full((3, count), NAN)
    numbers = np.full(count, -1, np.int64)
    for place, facts in enumerate(planes):
        for key, value in _entries(facts):
            name = _letters(key)
            if name in clocks:
                clocks[name][place] = 1e-3 * number(value) if name in ELAPSED else _moment_s(value)
                spelled[name] = key
                if not np.isfinite(clocks[name][place]) and not isinstance(value, float | None):
                    unread.setdefault(name, []).append(value)
            elif name == "pixelsizeum":
                pixel_um[place] = number(value)
            elif name == "zpositionum":
                focus_um[place] = number(value)
            elif name == "exposurems":
                exposure_ms[place] = number(value)
            elif name == "imagenumber" and str(value).isdigit() and int(value) < 2**62:
                numbers[place] = int(value)
    time_s, name = _best_clock(clocks)
    remark = ""
    if name in CLOCK_READINGS:
        why = (
            f"{spelled[ELAPSED[0]]} does not contain them"
            if spelled[ELAPSED[0]]
            else "there are no elapsed times"
        )
        remark = f"the times of frames are those of {spelled[name]}, because {why}"
    remark = "; ".join(
        [
            text
            for text in (remark, *(unread_stamps(spelled[key], unread[key], count) for key in unread))
            if text
        ]
    )
    return PlaneColumns(time_s, focus_um, exposure_ms, numbers, remark, _pixel_change(pixel_um))


def unread_stamps(key: str, values: Sequence[object], count: int) -> str:
    """The remark about invalid time stamps in `key`; "" if there are none."""
    if not values:
        return ""
    are = "is not a time" if len(values) == 1 else "are not times"
    which = f"{len(values)} of the {count} time stamps ({key})"
    return f"{which} {are}, such as {str(values[0])[:40]!r}: not used"


def _pixel_change(pixel_um: npt.NDArray[np.float64]) -> str:
    """The remark about a pixel size (N,), um, that changes within a recording; NaN for planes without one."""
    known = np.flatnonzero(np.isfinite(pixel_um))
    if not known.size:
        return ""
    first_um = pixel_um[known[0]]
    other = known[np.abs(pixel_um[known] - first_um) > SAME * max(abs(first_um), LEAST_UM)]
    if not other.size:
        return ""
    return f"pixels of {first_um:g} um, but of {pixel_um[other[0]]:g} um from frame {other[0]} on"


def _best_clock(clocks: Mapping[str, npt.NDArray[np.float64]]) -> tuple[npt.NDArray[np.float64], str]:
    """The first clock that most planes have and that changes; else the first one that any plane has."""
    for name, stamps in clocks.items():
        known = stamps[np.isfinite(stamps)]
        if 2 * known.size > stamps.size and known.size > 1 and np.ptp(known) > 0:
            return stamps, name
    return next(
        ((stamps, name) for name, stamps in clocks.items() if np.isfinite(stamps).any()),
        (clocks[ELAPSED[0]], ELAPSED[0]),
    )


def _entries(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values, nested ones first, so that outer ones override them."""
    for key, value in facts.items():
        if not isinstance(value, dict):
            continue
        if "scalar" in value:
            yield key, value["scalar"]
            continue
        for inner, nested in value.items():
            yield inner, nested.get("scalar") if isinstance(nested, dict) else nested
    for key, value in facts.items():
        if not isinstance(value, dict):
            yield key, value


def micromanager_place(facts: Mapping[str, Any]) -> dict[str, int | str]:
    """The place of a plane in Micro-Manager's metadata: `position`, `channel`, `z`, `t`.

    Values are numbers, or names if there is no number. Names in addition to numbers are under `position name`,
    `channel name`.
    """
    said = {_letters(key): value for key, value in _entries(facts)}
    found: dict[str, int | str] = {}
    for axis, keys in PLACE_KEYS.items():
        number = next((int(str(said[key])) for key in keys if NUMBER.fullmatch(str(said.get(key)))), None)
        name = said.get(PLACE_NAMES.get(axis, ""))
        if number is not None:
            found[axis] = number
        if isinstance(name, str) and name:
            found.setdefault(axis, name)
            found[f"{axis} name"] = name
    return found


_KNOWN: dict[str, str] = {}


def _letters(key: str) -> str:
    """A key in lower case without punctuation; cached, as each plane has the same hundred keys."""
    found = _KNOWN.get(key)
    if found is None:
        found = "".join(sign for sign in key.lower() if sign.isalnum())
        if len(_KNOWN) < 10_000:
            _KNOWN[key] = found
    return found


def _moment_s(value: object) -> float:
    """Seconds of a date with a time of day, such as `2019-06-03 12:34:56.123 -0700`; NaN for anything else."""
    match = MOMENT.fullmatch(str(value).strip())
    if match is None:
        return NAN
    date, time, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{'' if zone is None else zone}")
    except ValueError:
        return NAN
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)


def _inverse(value: float) -> float:
    return 1 / value if value else np.inf
