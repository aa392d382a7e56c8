"""What the self-check measures during a run, in words: for the live page and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PREFIX = "check_"
REGIONS, DEPTHS = 9, 5
"""Regions of the image, three in a row, and parts of the depth range that the detector's checks tell apart."""


def checks_of(gauges: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The numbers of the self-check among the gauges of the stages, `check_` left out of their names."""
    return {
        name.removeprefix(PREFIX): value
        for some in gauges
        for name, value in some.items()
        if name.startswith(PREFIX)
    }


def in_words(checks: Mapping[str, float]) -> list[dict[str, str]]:
    """A row for each check that has a result, as `name` and `value`."""
    rows = [
        ("focal planes, apart since the calibration", _with_error(checks, "separation", "µm", 1)),
        ("images turned since the calibration", _with_error(checks, "turned", "°", 1)),
        ("blur beside the calibration's, by region", _grid(checks, "wider_px2", REGIONS, "px²", "+.2f")),
        (
            "chi-square of the fits, by region (as calibrated: 1)",
            _grid(checks, "chi_square_field", REGIONS, "", ".2f"),
        ),
        ("chi-square, from low to high z", _grid(checks, "chi_square_depth", DEPTHS, "", ".2f")),
        ("focus drift since the beginning", _with_error(checks, "focus_drift_um", "µm", 1)),
        ("light since the beginning", _percent(checks, "light")),
        ("brightness of particles since the beginning", _percent(checks, "brightness")),
        ("scatter along tracks over stated error, x, y, z", _scatter(checks)),
        ("particles seen twice", _percent(checks, "cut_in_two", 1)),
        ("places with dust", f"{checks['dust']:.0f}" if "dust" in checks else ""),
    ]
    return [{"name": name, "value": value} for name, value in rows if value]


def _with_error(checks: Mapping[str, float], name: str, unit: str, digits: int) -> str:
    error = name.removesuffix("_um") + "_error" + ("_um" if name.endswith("_um") else "")
    if name not in checks or error not in checks:
        return ""
    return f"{checks[name]:+.{digits}f} ± {checks[error]:.{digits}f} {unit}"


def _percent(checks: Mapping[str, float], name: str, digits: int = 0) -> str:
    return f"{100 * checks[name]:.{digits}f} %" if name in checks else ""


def _grid(checks: Mapping[str, float], name: str, cells: int, unit: str, style: str) -> str:
    """Values row by row, "?" where not known."""
    values = [checks.get(f"{name}_{k}") for k in range(cells)]
    if all(value is None for value in values):
        return ""
    words = ["?" if value is None else format(value, style) for value in values]
    wide = 3 if cells == REGIONS else cells
    lines = [" ".join(words[k : k + wide]) for k in range(0, cells, wide)]
    return " / ".join(lines) + (f" {unit}" if unit else "")


def _scatter(checks: Mapping[str, float]) -> str:
    values = [checks.get(f"scatter_{axis}") for axis in "xyz"]
    if all(value is None for value in values):
        return ""
    words = ", ".join("?" if value is None else f"{value:.2f}" for value in values)
    widened = [f"{axis} by {checks[f'widened_{axis}']:.2f}" for axis in "xyz" if f"widened_{axis}" in checks]
    return words + (f"; stated errors widened: {', '.join(widened)}" if widened else "")
