"""Axes and scales in the metadata of an OME-Zarr image, versions 0.1 to 0.5 (pure functions).

An image lists its levels of resolution; a level's transformations come first, those of the whole image after them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from acquisition.stacks.scales import NO_UNITS, Said, Scales, interval, length, number
from acquisition.stacks.tiff_facts import PIXEL, STEP
from stream.errors import SourceError

OLD_AXES = "TCZYX"
"""The fixed axes of versions 0.1 and 0.2."""


def zarr_axes(image: Mapping[str, Any], dimensions: int) -> str:
    """The names of the axes of an image. Raises `SourceError` if they are unknown."""
    axes = image.get("axes")
    if axes is None:
        if "coordinateSystems" in image:
            raise SourceError("its version is later than 0.5; write it as OME-Zarr 0.4 or 0.5")
        return OLD_AXES[-dimensions:]
    if not isinstance(axes, Sequence) or len(axes) != dimensions:
        raise SourceError(f"it names {len(axes)} axes, but its array has {dimensions}; write it again")
    return "".join(_letter(axis, dimensions - place) for place, axis in enumerate(axes))


def _letter(axis: object, from_end: int) -> str:
    """T, C, Z, Y or X; the last spatial axis is x, whatever its name."""
    name, kind = (
        (str(axis.get("name", "")), axis.get("type")) if isinstance(axis, Mapping) else (str(axis), None)
    )
    known = {"time": "T", "channel": "C"}.get(str(kind))
    if known is not None:
        return known
    letter = {"TIME": "T", "CHANNEL": "C", "DEPTH": "Z", "HEIGHT": "Y", "WIDTH": "X"}.get(
        name.upper(), name.upper()
    )
    if letter in {"T", "C", "Z", "Y", "X"}:
        return letter
    return {1: "X", 2: "Y", 3: "Z"}.get(from_end, "Q") if kind == "space" else "Q"


def zarr_scales(image: Mapping[str, Any], level: Mapping[str, Any], axes: str) -> Scales:
    """Scales of one level of an image whose axes are called `axes`."""
    count = len(axes)
    scale, shift = [1.0] * count, [0.0] * count
    remarks: list[str] = []
    is_scaled = False
    unread: dict[int, object] = {}
    for owner, where in ((level, "its level of full resolution"), (image, "the image")):
        kinds = [step.get("type") for step in owner.get("coordinateTransformations") or ()]
        if kinds.count("scale") > 1:
            remarks.append(f"{where} has {kinds.count('scale')} scales instead of one: they are multiplied")
        for step in owner.get("coordinateTransformations") or ():
            kind = step.get("type")
            values = step.get(kind) if kind in {"scale", "translation"} else None
            if kind == "identity":
                continue
            if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
                inside = f" in {step['path']!r}" if "path" in step else ""
                remarks.append(
                    f"a coordinate transformation ({kind}{inside}) is not supported: the scales are not used"
                )
                return Scales(remarks=tuple(remarks))
            numbers = [number(value) for value in values]
            if kind == "scale":
                unread.update((at, value) for at, value in enumerate(values) if math.isnan(number(value)))
                is_scaled = True
                scale = [one * other for one, other in zip(scale, numbers, strict=True)]
                shift = [one * other for one, other in zip(shift, numbers, strict=True)]
            else:
                shift = [one + other for one, other in zip(shift, numbers, strict=True)]
    if not is_scaled:
        return Scales(remarks=tuple(remarks))
    units = _units(image, count)
    by_axis: dict[str, tuple[Any, str]] = {
        name: (unread.get(place, scale[place]), units[place]) for place, name in enumerate(axes)
    }
    x, y = (_length(*by_axis.get(name, (1.0, "")), PIXEL) for name in "XY")
    z = _length(*by_axis.get("Z", (1.0, "")), STEP)
    first_um = shift[axes.index("Z")] * z.value / by_axis["Z"][0] if z and by_axis["Z"][0] else 0.0
    return Scales(x, y, z, _interval(*by_axis.get("T", (1.0, ""))), first_um, tuple(remarks))


def _units(image: Mapping[str, Any], count: int) -> list[str]:
    axes = image.get("axes") or [""] * count
    return [str(axis.get("unit") or "") if isinstance(axis, Mapping) else "" for axis in axes]


def _length(size: Any, unit: str, what: str) -> Said:
    """A length; without a unit it is taken as um, except for 1, which means unknown."""
    if unit.strip().lower() not in NO_UNITS or size == 1.0:
        return length(size, unit, what)
    found = length(size, "um", what)
    return (
        replace(found, remark=f"{what} has no unit in the file: um assumed ({size:g} um)") if found else found
    )


def _interval(size: Any, unit: str) -> Said:
    if unit.strip().lower() not in NO_UNITS or size == 1.0:
        return interval(size, unit, place="scale")
    found = interval(size, "s", place="scale")
    text = f"the time between frames has no unit in the file: s assumed ({size:g} s)"
    return replace(found, remark=text) if found else found
