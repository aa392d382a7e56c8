"""What OME metadata say of pixel size, times and focus positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from acquisition.stacks.stack import NAN, to_s, to_um


@dataclass(frozen=True, slots=True)
class OmePlane:
    """Facts of one plane; NaN where unknown."""

    time_s: float = NAN
    focus_um: float = NAN
    exposure_ms: float = NAN


UNKNOWN = OmePlane()


@dataclass(frozen=True, slots=True)
class OmeFacts:
    """Facts of a whole image; `planes` is how many planes its metadata promise."""

    pixel_size_um: float = NAN
    frame_rate_hz: float = NAN
    z_step_um: float = NAN
    planes: int = 0
    by_plane: Mapping[tuple[int, int], OmePlane] = field(default_factory=dict)

    def plane(self, t: int, z: int) -> OmePlane:
        """Facts of the plane at time index `t` and z index `z`."""
        known = self.by_plane.get((t, z), UNKNOWN)
        if known.focus_um == known.focus_um or not self.z_step_um > 0:
            return known
        return OmePlane(known.time_s, z * self.z_step_um, known.exposure_ms)


def ome_facts(xml: str | None) -> OmeFacts:
    """Read the first image of an OME-XML text; nothing is known where it cannot be parsed."""
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return OmeFacts()
    name = root.tag[: root.tag.rfind("}") + 1]
    pixels = root.find(f"{name}Image/{name}Pixels")
    if pixels is None:
        return OmeFacts()
    interval_s = to_s(_value(pixels, "TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    planes = {
        (int(_value(plane, "TheT", 0)), int(_value(plane, "TheZ", 0))): OmePlane(
            to_s(_value(plane, "DeltaT"), plane.get("DeltaTUnit", "s")),
            to_um(_value(plane, "PositionZ"), plane.get("PositionZUnit", "µm")),
            1e3 * to_s(_value(plane, "ExposureTime"), plane.get("ExposureTimeUnit", "s")),
        )
        for plane in pixels.iter(f"{name}Plane")
    }
    sizes = [_value(pixels, f"Size{axis}", 1) for axis in "CZT"]
    return OmeFacts(
        pixel_size_um=to_um(_value(pixels, "PhysicalSizeX"), pixels.get("PhysicalSizeXUnit", "µm")),
        frame_rate_hz=1 / interval_s if interval_s > 0 else NAN,
        z_step_um=to_um(_value(pixels, "PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit", "µm")),
        planes=int(sizes[0] * sizes[1] * sizes[2]),
        by_plane=planes,
    )


def _value(element: ElementTree.Element, name: str, default: float = NAN) -> float:
    try:
        return float(element.get(name, default))
    except ValueError:
        return default
