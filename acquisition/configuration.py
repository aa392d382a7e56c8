"""Path of the configuration files of the simulated microscope, found without importing it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from stream.errors import ConfigurationError

SIMULATED = ("simulated", "paper", "fluorescence", "light_sheet", "pipeline", "holograms")
"""Configurations of the simulated microscope, which come with the program."""


def config_path(name: str = "simulated") -> Path:
    """Return the configuration file `name`.cfg of a simulated microscope, one of `SIMULATED`."""
    folder = Path(str(resources.files("acquisition"))) / "simulated"
    path = folder / f"{name}.cfg"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in folder.glob("*.cfg")))
        raise ConfigurationError(f"there is no simulated microscope {name!r}; choose one of {known}")
    return path
