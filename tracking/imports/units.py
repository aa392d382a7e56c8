"""Names of units of length and time in other programs' files."""

from __future__ import annotations

LENGTHS_UM = {
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "micrometers": 1.0, "micrometres": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "nanometers": 1e-3,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "millimeters": 1e3,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6, "meters": 1e6,
    "angstrom": 1e-4, "inch": 25_400.0,
}  # fmt: skip
PIXELS = {"pixel", "pixels", "px"}
SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "µs": 1e-6, "microsecond": 1e-6,
    "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
}  # fmt: skip


def length_um(unit: object) -> float | None:
    """The size of a unit of length, um; None if it is not known, or pixels."""
    return LENGTHS_UM.get(_plain(unit))


def seconds(unit: object) -> float | None:
    """The length of a unit of time, s; None if it is not known, or frames."""
    return SECONDS.get(_plain(unit))


def is_pixels(unit: object) -> bool:
    """Whether lengths are in pixels."""
    return _plain(unit) in PIXELS


def _plain(unit: object) -> str:
    return unit.strip().casefold() if isinstance(unit, str) else ""
