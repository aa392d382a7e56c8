"""The two published networks, by name."""

from __future__ import annotations

from typing import Literal

Kind = Literal["detnet3d", "dm-detnet3d"]
MASK: Kind = "detnet3d"
DENSITY: Kind = "dm-detnet3d"
TITLES: dict[Kind, str] = {MASK: "DetNet3D", DENSITY: "DM-DetNet3D"}
