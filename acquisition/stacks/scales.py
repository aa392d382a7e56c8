"""Pixel size, plane spacing and frame interval from a file, with checks of their plausibility."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from acquisition.stacks.units import to_s, to_um
from stream.errors import SourceError

NAN = math.nan
LEAST_UM, MOST_UM = 1e-4, 1e4
"""Range of a pixel size or focus step, um: from below an atom to a centimetre."""
LEAST_S, MOST_S = 1e-7, 1e6
"""Range of a frame interval, s: from 10 MHz to eleven days."""
SAME = 1e-3
"""Sizes along x and y that differ by no more than this fraction are equal, up to rounding."""
NEARLY = 1e-2
"""Sizes that differ by no more than this fraction are two measurements of the same; their mean is
used, which is off by half of that at most."""
PRINTING_DPI = (72, 75, 96, 100, 120, 144, 150, 180, 200, 240, 250, 300, 350, 360, 400, 600, 720, 1200, 2400)
"""Resolutions, pixels per inch, that programs write by default into any image."""
FINEST_PRINT_UM = 25.0
"""A larger pixel in the resolution tags of a TIFF, um, belongs to a print."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
NO_UNITS = ("", "pixel", "pixels", "px", "reference frame", "none", "null", "arbitrary", "unitless")


@dataclass(frozen=True, slots=True)
class Said:
    """A quantity from a file, NaN if unknown; `remark` tells what is implausible or was assumed."""

    value: float = NAN
    remark: str = ""

    def __bool__(self) -> bool:
        """Whether there is a value."""
        return math.isfinite(self.value)


def length(value: object, unit: str, what: str) -> Said:
    """A length in um. `what` names it in the remark, for example `the pixel size`."""
    return _quantity(value, unit, what, to_um, LEAST_UM, MOST_UM, "um")


def interval(value: object, unit: str, what: str = "the time between frames", *, place: str = "") -> Said:
    """A frame interval in s, called `place` in the file. Many programs write 0 if they do not know it."""
    if number(value) == 0:
        return Said(NAN, _zero(what, place))
    return _quantity(value, unit, what, to_s, LEAST_S, MOST_S, "s")


def _zero(what: str, place: str) -> str:
    return f"{what} is 0 in the file{f' ({place})' if place else ''}: not used"


def rate(value: object, what: str = "the frame rate", *, place: str = "") -> Said:
    """A frame rate, called `place` in the file, as the interval in s."""
    if value is None:
        return Said()
    if number(value) == 0:
        return Said(NAN, _zero(what, place))
    hz = number(value)
    if not 1 / MOST_S <= hz <= 1 / LEAST_S:
        return Said(NAN, f"{what} of {value} frames/s in the file is implausible: not used")
    return Said(1 / hz)


def _quantity(
    value: object,
    unit: str,
    what: str,
    convert: Callable[[float, str], float],
    least: float,
    most: float,
    name: str,
) -> Said:
    if value is None:
        return Said()
    found = number(value)
    if math.isnan(found):
        return Said(NAN, f"{what} is {str(value)!r} in the file, which is not a number: not used")
    if unit.strip().lower() in NO_UNITS:
        return (
            Said()
            if found in {0.0, 1.0}
            else Said(NAN, f"{what} has no unit in the file ({found:g}): not used")
        )
    converted = convert(found, unit)
    if math.isnan(converted):
        return Said(NAN, f"{what} is in {unit!r} in the file, an unknown unit: not used")
    if not least <= converted <= most:
        return Said(NAN, f"{what} of {converted:g} {name} in the file is implausible: not used")
    if isinstance(value, str) and "," in value:
        return Said(converted, f"{what} is {value!r} in the file: read as {found:g}")
    return Said(converted)


def number(value: object) -> float:
    """A number, also from text with a decimal point or comma; NaN for anything else.

    `1,234` is not read: it can mean 1.234 or 1234.
    """
    if isinstance(value, complex | np.complexfloating):
        return NAN
    if (
        isinstance(value, str)
        and DECIMAL_COMMA.fullmatch(value.strip())
        and not THOUSANDS.fullmatch(value.strip())
    ):
        value = value.replace(",", ".")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return NAN


def printed_size(pixels: float, unit: str) -> Said:
    """The pixel size, um, from `pixels` per inch or centimetre in the resolution tags of a TIFF.

    Nothing for the resolution of a print, which most programs write by default.
    """
    if not (math.isfinite(pixels) and pixels > 0):
        return Said()
    size_um = to_um(1 / pixels, unit)
    dpi = to_um(1.0, "inch") / size_um
    is_print = any(abs(dpi - print_dpi) < 0.01 * print_dpi for print_dpi in PRINTING_DPI)
    if is_print or not LEAST_UM <= size_um <= FINEST_PRINT_UM:
        return Said()
    return Said(size_um, f"{size_um:g} um per pixel, from the resolution tags ({pixels:g} pixels per {unit})")


def check_pixel_change(name: str, change: str, given_um: float | None) -> None:
    """Raise `SourceError` if the pixel size changes within the file `name` and the user gives none."""
    if change and given_um is None:
        raise SourceError(
            f"{name} has {change}: the objective or the binning was changed, and tracks cannot continue across "
            "that; save the two parts as separate files, or give --pixel-size UM if the file is wrong"
        )


def pixel_size(
    x_um: float,
    y_um: float,
    name: str,
    given_um: float | None = None,
    ask_model: Callable[[], float | None] = lambda: None,
) -> tuple[float, str]:
    """The size of the (square) pixels, um, and a remark about it.

    `given_um` takes precedence; if the file `name` has none, `ask_model` is called, then 1 um is assumed.
    Raises `SourceError` for pixels that are not square.
    """
    uneven = "" if _ratio(x_um, y_um) <= NEARLY else f"pixels of {x_um:g} um (x) by {y_um:g} um (y)"
    if given_um is not None:
        return given_um, f"{uneven}; {given_um:g} um is used for both (--pixel-size)" if uneven else ""
    if uneven:
        raise SourceError(
            f"{name} has {uneven}, but pixels must be square: resample it (ImageJ: Image > "
            "Scale), or give --pixel-size UM if the file is wrong"
        )
    found_um = x_um if x_um > 0 else y_um
    if found_um > 0:
        if _ratio(x_um, y_um) <= SAME:
            return found_um, ""
        mean_um = (x_um + y_um) / 2
        return mean_um, f"pixels of {x_um:g} um (x) by {y_um:g} um (y): {mean_um:g} um is used for both"
    model_um = ask_model()
    if model_um is not None:
        return model_um, f"{model_um:g} um per pixel assumed, as in the model (--pixel-size)"
    return 1.0, "1 um per pixel assumed (--pixel-size)"


def _ratio(x_um: float, y_um: float) -> float:
    """Relative difference of two sizes; 0 if one is unknown."""
    return abs(x_um - y_um) / max(x_um, y_um) if x_um > 0 and y_um > 0 else 0.0


NOTHING = Said()


@dataclass(frozen=True, slots=True)
class Scales:
    """Scales from a file: pixel size along x and y, um, plane spacing, um, frame interval, s.

    `z_first_um` is the focus position of the first plane. `remarks` are added to those of the values.
    """

    x: Said = NOTHING
    y: Said = NOTHING
    z: Said = NOTHING
    interval: Said = NOTHING
    z_first_um: float = 0.0
    remarks: tuple[str, ...] = ()

    @property
    def rate_hz(self) -> float:
        """Time points per second, NaN if unknown."""
        return 1 / self.interval.value

    @property
    def pixel_remarks(self) -> tuple[str, ...]:
        """Remarks about the pixel size."""
        return tuple(dict.fromkeys(text for text in (self.x.remark, self.y.remark) if text))
