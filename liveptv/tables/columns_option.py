"""What a user says about the columns of a table: the option `--columns`, and the size of a pixel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from liveptv.tables.units import SUFFIX
from stream.errors import ConfigurationError

LENGTHS = ("x_um", "y_um", "z_um", "sigma_x_um", "sigma_y_um", "sigma_z_um", "z_other_um")
TARGETS = (
    "frame", *LENGTHS, "brightness", "confidence", "p_other", "chi_square", "kind", "p_kind", "time_offset_s",
    "track", "snr",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user says about a table: `columns` by our name, and the size of a pixel; empty if nothing.

    `may_be_um`: the pixel size may be meant for another table. `keep_pixels`: positions stay in pixels.
    """

    columns: Mapping[str, Given] = field(default_factory=dict)
    pixel_size_um: float | None = None
    keep_pixels: bool = False
    may_be_um: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """A column that the user names: its `text`, as written, and the unit in `x_nm=...`, if any."""

    text: str
    unit: str = ""


def parse_columns(text: str | None) -> dict[str, Given]:
    """Read `--columns x=POSITION_X[um],y=POSITION_Y[um],frame=FRAME[1]`. Raises `ConfigurationError`."""
    found: dict[str, Given] = {}
    for part in _parts(text or ""):
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key or not value:
            raise ConfigurationError(
                f"--columns {part!r}: write it as x=NAME[um],y=NAME[um],frame=NAME (names as in the table)"
            )
        match = SUFFIX.match(key)
        name, unit = (match["name"].lower(), match["unit"].lower()) if match else (key.lower(), "")
        target = f"{name}_um" if f"{name}_um" in LENGTHS else {"particle": "track"}.get(name, name)
        if target not in TARGETS:
            known = ", ".join(target.removesuffix("_um") for target in TARGETS)
            raise ConfigurationError(f"--columns: there is no {key!r}; name one of {known}")
        if target in found:
            raise ConfigurationError(f"--columns names {key} twice")
        found[target] = Given(value, unit)
    return found


def _parts(text: str) -> list[str]:
    """Split at the commas that begin another `name=`."""
    return [part for part in re.split(r",(?=\s*\w+\s*=)", text) if part.strip()]
