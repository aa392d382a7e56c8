"""Lists what can be used: the simulated microscopes and the adapters of the installed Micro-Manager."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymmcore

from acquisition.configuration import SIMULATED
from acquisition.microscope.core import adapter_paths, close_core, reason
from acquisition.microscope.pymmcore import UniMMCore


def installed_devices() -> dict[str, Any]:
    """Versions, the simulated microscopes, and the adapter libraries with their devices.

    A library that cannot be loaded (for example because a driver is missing) has the reason instead.
    """
    core = UniMMCore(adapter_paths=adapter_paths())
    try:
        return {
            "core": core.getVersionInfo(),
            "device_interface": core.getAPIVersionInfo(),
            "pymmcore": pymmcore.__version__,
            "simulated": list(SIMULATED),
            "folders": adapter_paths(),
            "configurations": sorted(
                path.name for folder in adapter_paths() for path in Path(folder).glob("*.cfg")
            ),
            "adapters": {str(name): _devices(core, str(name)) for name in core.getDeviceAdapterNames()},
        }
    finally:
        close_core(core)


def _devices(core: UniMMCore, library: str) -> list[str]:
    try:
        return [str(device) for device in core.getAvailableDevices(library)]
    except RuntimeError as error:
        return [f"cannot be loaded: {reason(error)}"]
