"""Pixel size, times and focus positions in OME metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from acquisition.stacks.scales import NAN, Scales, interval, length, number
from acquisition.stacks.tiff_facts import PIXEL, STEP, unread_stamps
from acquisition.stacks.units import to_s, to_um


@dataclass(frozen=True, slots=True)
class OmePlane:
    """Metadata of one plane; NaN if unknown."""

    time_s: float = NAN
    focus_um: float = NAN
    exposure_ms: float = NAN


UNKNOWN = OmePlane()
UNSCALED = Scales()


@dataclass(frozen=True, slots=True)
class OmeFacts:
    """Metadata of an image; `planes` is the number of planes that it should have."""

    scales: Scales = UNSCALED
    planes: int = 0
    by_plane: Mapping[tuple[int, int], OmePlane] = field(default_factory=dict)

    def plane(self, t: int, z: int) -> OmePlane:
        """Metadata of the plane at time index `t` and z index `z`."""
        return self.by_plane.get((t, z), UNKNOWN)


def ome_facts(xml: str | None) -> OmeFacts:
    """Read the first image of an OME-XML text; empty if it cannot be parsed."""
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return OmeFacts()
    name = root.tag[: root.tag.rfind("}") + 1]
    pixels = root.find(f"{name}Image/{name}Pixels")
    if pixels is None:
        return OmeFacts()
    units = {plane.get("DeltaTUnit", "s") for plane in pixels.iter(f"{name}Plane") if plane.get("DeltaT")}
    unknown = sorted(unit for unit in units if not math.isfinite(to_s(1.0, unit)))
    said = [plane.get("DeltaT") for plane in pixels.iter(f"{name}Plane")]
    odd = unread_stamps("DeltaT", [text for text in said if text and math.isnan(number(text))], len(said))
    scales = Scales(
        length(pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit", "µm"), PIXEL),
        length(pixels.get("PhysicalSizeY"), pixels.get("PhysicalSizeYUnit", "µm"), PIXEL),
        length(pixels.get("PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit", "µm"), STEP),
        interval(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"), place="TimeIncrement"),
        remarks=(
            *((odd,) if odd else ()),
            *(f"the times of planes are in {unit!r}, an unknown unit: not used" for unit in unknown),
        ),
    )
    planes = {
        (_whole(plane, "TheT", 0), _whole(plane, "TheZ", 0)): OmePlane(
            to_s(number(plane.get("DeltaT")), plane.get("DeltaTUnit", "s")),
            to_um(number(plane.get("PositionZ")), plane.get("PositionZUnit", "µm")),
            1e3 * to_s(number(plane.get("ExposureTime")), plane.get("ExposureTimeUnit", "s")),
        )
        for plane in pixels.iter(f"{name}Plane")
    }
    return OmeFacts(scales, math.prod(_whole(pixels, f"Size{axis}", 1) for axis in "CZT"), planes)


def _whole(element: ElementTree.Element, name: str, default: int) -> int:
    value = number(element.get(name, default))
    return int(value) if math.isfinite(value) else default
