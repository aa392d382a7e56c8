"""Units of length in the headers of tables: nm, um, mm, pixels, and how they are written."""

from __future__ import annotations

import re

PIXEL = "px"
UM_PER_UNIT = {
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "micrometers": 1.0, "micrometre": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6,
}  # fmt: skip
PIXEL_UNITS = {"px", "pixel", "pixels", "pix"}
UNIT_AT_END = re.compile(r"^(?P<name>.*?)[\s_]*[\[(](?P<unit>[^\])]*)[\])]$")
SUFFIX = re.compile(r"^(?P<name>.+)_(?P<unit>um|nm|px|mm|µm|μm)$", re.IGNORECASE)


def split_unit(name: str) -> tuple[str, str]:
    """`x [nm]`, `X (µm)` or `x_um` as the name and our name of the unit; "" for no unit or one nobody knows."""
    for pattern in (UNIT_AT_END, SUFFIX):
        match = pattern.match(name.strip())
        if match and known_unit(match["unit"]):
            return match["name"].strip().lower(), known_unit(match["unit"])
    return name.strip().lower(), ""


def known_unit(text: str) -> str:
    """Our name of a unit of length: a key of `UM_PER_UNIT`, `px`, or "" for what is none."""
    plain = text.strip().strip("()[]").strip().lower()
    if plain in PIXEL_UNITS:
        return PIXEL
    return plain if plain in UM_PER_UNIT else ""
