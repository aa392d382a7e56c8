"""What the self-check found, as the numbers that a stage reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DETAIL = "self_check"
"""Its name in the details of an engine."""
PREFIX = "check_"
ALARMS = "check_alarms"
"""How often the self-check has told a change: the name in the details of an engine, and of the gauge."""


def gauges_of(facts: Mapping[str, Any]) -> dict[str, float]:
    """Flat numbers of `Inspector.facts`: `check_separation` and `check_separation_error` in um and so on.

    `check_chi_square_field_0` to `_8` are regions row by row, `check_chi_square_depth_0` to `_4` from the lowest
    depth, `check_wider_px2_0` to `_8` variances; what is not known is left out.
    """
    found: dict[str, float] = {}
    for name, (value, error) in facts.get("changes", {}).items():
        found |= {f"{PREFIX}{name}": value, f"{PREFIX}{name}_error": error}
    for name in ("chi_square_field", "chi_square_depth", "wider_px2"):
        for k, value in enumerate(facts.get(name, [])):
            if value is not None:
                found[f"{PREFIX}{name}_{k}"] = value
    if "light" in facts:
        found |= {f"{PREFIX}light": facts["light"], f"{PREFIX}brightness": facts["brightness"][0]}
    if "dust_px" in facts:
        found[f"{PREFIX}dust"] = float(len(facts["dust_px"]))
    return found
