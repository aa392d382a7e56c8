"""The tables of other programs: TrackMate, ThunderSTORM, Picasso, trackpy, ParticleTracker, DefocusTracker, ImageJ.

For each program: the columns by which its table is recognised, and what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from liveptv.tables.units import PIXEL


@dataclass(frozen=True, slots=True)
class Dialect:
    """A program's table: columns that only it has, and by our name its column and the unit of it.

    The unit is "" where it stands in the table, and "?" where the program does not say it.
    """

    name: str
    marks: frozenset[str]
    columns: Mapping[str, tuple[str, str]]
    first: int = 0
    note: str = ""


def _dialect(
    name: str, marks: str, columns: Mapping[str, tuple[str, str]], first: int = 0, note: str = ""
) -> Dialect:
    return Dialect(name, frozenset(marks.split("|")), columns, first, note)


DIALECTS = (
    _dialect(
        "TrackMate's spots",
        "position_x|position_y|frame",
        {
            "frame": ("frame", ""),
            "x_um": ("position_x", ""),
            "y_um": ("position_y", ""),
            "z_um": ("position_z", ""),
            "track": ("track_id", ""),
        },
    ),
    _dialect(
        "ThunderSTORM",
        "frame|x [nm]|y [nm]|intensity [photon]",
        {
            "frame": ("frame", ""),
            "x_um": ("x [nm]", "nm"),
            "y_um": ("y [nm]", "nm"),
            "z_um": ("z [nm]", "nm"),
            "sigma_x_um": ("uncertainty [nm]|uncertainty_xy [nm]", "nm"),
            "sigma_y_um": ("uncertainty [nm]|uncertainty_xy [nm]", "nm"),
            "sigma_z_um": ("uncertainty_z [nm]", "nm"),
        },
        first=1,
    ),
    _dialect(
        "Picasso",
        "frame|x|y|photons|lpx|lpy",
        {
            "frame": ("frame", ""),
            "x_um": ("x", PIXEL),
            "y_um": ("y", PIXEL),
            "sigma_x_um": ("lpx", PIXEL),
            "sigma_y_um": ("lpy", PIXEL),
            "track": ("group", ""),
        },
        note="depth is left out",
    ),
    _dialect(
        "trackpy",
        "frame|x|y|mass",
        {
            "frame": ("frame", ""),
            "x_um": ("x", PIXEL),
            "y_um": ("y", PIXEL),
            "sigma_x_um": ("ep", PIXEL),
            "sigma_y_um": ("ep", PIXEL),
            "track": ("particle", ""),
        },
        note="depth is left out",
    ),
    _dialect(
        "ParticleTracker (MOSAIC)",
        "trajectory|frame|x|y|m0",
        {
            "frame": ("frame", ""),
            "x_um": ("x", PIXEL),
            "y_um": ("y", PIXEL),
            "track": ("trajectory", ""),
        },
        note="depth is left out",
    ),
    _dialect(
        "DefocusTracker",
        "fr|x|y|z|cm",
        {"frame": ("fr", ""), "x_um": ("x", "?"), "y_um": ("y", "?"), "track": ("id", "")},
        first=1,
        note="depth is left out: --columns z=Z[um] reads it",
    ),
    _dialect(
        "ImageJ's results",
        "area|x|y|slice",
        {"frame": ("slice", ""), "x_um": ("x", "?"), "y_um": ("y", "?")},
        first=1,
    ),
    _dialect(
        "ImageJ's results",
        "area|x|y|frame",
        {"frame": ("frame", ""), "x_um": ("x", "?"), "y_um": ("y", "?")},
        first=1,
    ),
)
