"""Converts units of length and time, as spelled in files, to um and s."""

from __future__ import annotations

import math

_PREFIXES = {
    "": ("", 1.0), "k": ("kilo", 1e3), "d": ("deci", 1e-1), "c": ("centi", 1e-2), "m": ("milli", 1e-3),
    "u": ("micro", 1e-6), "n": ("nano", 1e-9), "p": ("pico", 1e-12),
}  # fmt: skip
UM_PER_M = 1e6

UM_PER_UNIT = {
    **{f"{short}m": UM_PER_M * factor for short, (_, factor) in _PREFIXES.items()},
    **{f"{long}meter": UM_PER_M * factor for long, factor in _PREFIXES.values()},
    "u": 1.0, "micron": 1.0, "angstrom": 1e-4, "å": 1e-4, "ångström": 1e-4, "inch": 25_400.0, "inche": 25_400.0,
    "in": 25_400.0,
}  # fmt: skip
S_PER_UNIT = {
    **{f"{short}s": factor for short, (_, factor) in _PREFIXES.items()},
    **{f"{short}sec": factor for short, (_, factor) in _PREFIXES.items()},
    **{f"{long}second": factor for long, factor in _PREFIXES.values()},
    "min": 60.0, "minute": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "d": 86_400.0, "day": 86_400.0,
}  # fmt: skip


def to_um(value: float, unit: str) -> float:
    """A length in um; NaN for an unknown unit."""
    return value * UM_PER_UNIT.get(_plain(unit, UM_PER_UNIT), math.nan)


def to_s(value: float, unit: str) -> float:
    """A time in s; NaN for an unknown unit."""
    return value * S_PER_UNIT.get(_plain(unit, S_PER_UNIT), math.nan)


def _plain(text: str, known: dict[str, float]) -> str:
    """The name of a unit as in the tables: `\\u00B5m`, `μm`, `Micrometres` and `microns` are the same."""
    name = text.strip().replace("\\u00B5", "u").replace("\\u00b5", "u").replace("Â", "")
    name = name.lower().rstrip(".").replace("metre", "meter")
    name = name.replace("µ", "u").replace("μ", "u")
    if name not in known and name.endswith("s"):
        name = name[:-1]
    return name
