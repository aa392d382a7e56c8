"""Python code that an experiment runs: detectors, controllers and devices that are not part of it; their files.

An experiment file may name a detector and a controller (Python files), and a Micro-Manager configuration may name
devices that are Python classes. All run with all rights of whoever starts the experiment.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

from acquisition.configuration import SIMULATED
from engines.settings import DetectorSettings
from liveptv.config import Experiment
from liveptv.shadowed_packages import ROOT_PACKAGES
from stream.errors import LivePTVError

PYTHON_DEVICES = ("#py pyDevice,", "#py Device,")


def code_that_will_run(experiment: Experiment) -> list[str]:
    """A line for each piece of foreign Python code: detector, controller, and devices of the configuration.

    None of it is imported. A configuration that cannot be read gives no lines; opening it reports why.
    """
    return detector_code(experiment.detector) + controller_code(experiment) + device_code(experiment)


def detector_code(settings: DetectorSettings) -> list[str]:
    """The line of `code_that_will_run` about the detector, which `liveptv detect` runs too."""
    if settings.file is None:
        return []
    return [f"the detector {settings.file.absolute()} is Python code and will be run"]


def controller_code(experiment: Experiment) -> list[str]:
    """The lines of `code_that_will_run` about the controller, which `liveptv control` runs too."""
    controller = experiment.controller
    if controller is None or controller.file is None:
        return []
    return [f"the controller {controller.file.absolute()} is Python code and will be run"]


def device_code(experiment: Experiment) -> list[str]:
    """The lines of `code_that_will_run` about devices, which a scan runs too."""
    if experiment.microscope is None or experiment.microscope.config in SIMULATED:
        return []
    from acquisition.microscope.core import find_config

    try:
        path = find_config(experiment.microscope.config)
        text = path.read_text(encoding="utf-8", errors="replace")
    except (LivePTVError, OSError):
        return []
    lines = []
    for line in text.splitlines():
        if line.startswith(PYTHON_DEVICES):
            cells = [cell.strip() for cell in line.split(",")]
            if len(cells) >= 4 and cells[2].partition(".")[0] not in ROOT_PACKAGES:
                label, module, name = cells[1:4]
                lines.append(
                    f"the device {label} of {path.name} is Python code and will be run: {name} in {_place(module)}"
                )
    return lines


def _place(module: str) -> str:
    """The file or folder that a module would be imported from; its name if there is none."""
    root, *rest = module.split(".")
    try:
        spec = PathFinder.find_spec(root)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return f"the module {module}, which cannot be found"
    folders = list(spec.submodule_search_locations or ())
    if not folders:
        return str(spec.origin)
    inner = Path(folders[0]).joinpath(*rest)
    return str(next((p for p in (inner.with_suffix(".py"), inner) if rest and p.exists()), Path(folders[0])))
