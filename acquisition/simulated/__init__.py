"""A simulated microscope: particles in a laminar channel flow, seen by Python devices of the real core.

Load it like any other microscope, by a configuration file: `core.loadSystemConfiguration(config_path())`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from stream.errors import ConfigurationError


def config_path(name: str = "simulated") -> Path:
    """Return the configuration file `name`.cfg of this package: `simulated` (the demo) or `paper`."""
    folder = Path(str(resources.files(__name__)))
    path = folder / f"{name}.cfg"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in folder.glob("*.cfg")))
        raise ConfigurationError(f"there is no simulated microscope {name!r}: choose one of {known}")
    return path
