"""Where numba keeps the compiled kernels of this installation, and their taking over from the installer.

Names one kernel of each folder that has some: numba decides by folder, and is asked for its decision.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from liveptv.shadowed_packages import HOME
from stream.kernel_cache import foreign_folders, take_over

KERNELS = {
    "acquisition/physics": "acquisition.physics.rendering:_draw",
    "calibration": "calibration.psf_model:_evaluate",
    "calibration/synthesis": "calibration.synthesis.layout:spread_out",
    "calibration/volumes/drawing": "calibration.volumes.drawing.light:add_gaussians",
    "engines": "engines.flatfield:_correct",
    "engines/classical": "engines.classical.maxima:local_maxima",
    "engines/network": "engines.network.preparation:_median",
    "engines/refine": "engines.refine.frame:fit_frame",
    "engines/volumes/fit": "engines.volumes.fit.joint_fit:fit_window",
    "engines/volumes/network": "engines.volumes.network.decode:_merge",
    "engines/volumes/proposing": "engines.volumes.proposing.matched:strengths",
    "engines/volumes/surroundings": "engines.volumes.surroundings.cells:cell_statistics",
    "tracking": "tracking.assignment:solve",
    "tracking/physics/live": "tracking.physics.live.track_sums:follow_frame",
    "tracking/physics/sections": "tracking.physics.sections.spline_table:evaluate",
    "tracking/sides": "tracking.sides.two_branches:predict",
    "tracking/second_detections": "tracking.second_detections.close_pairs:flag",
    "tracking/switching": "tracking.switching.motion:predict_one",
    "tracking/trajectories": "tracking.trajectories.precision:to_steps",
}
"""A kernel of each folder with kernels."""
OWN_FOLDER = "NUMBA_CACHE_DIR"


def cache_folder(folder: str) -> Path:
    """Where numba keeps the kernels of a folder of this program, for this user."""
    module, name = KERNELS[folder].split(":")
    return Path(getattr(import_module(module), name).stats.cache_path)


def cache_folders(folders: Iterable[str] = KERNELS) -> list[Path]:
    """Where numba keeps the kernels of these folders of this program, for this user."""
    return sorted({cache_folder(folder) for folder in folders})


def take_over_kernels() -> int:
    """Copy what an installer has compiled to where numba looks for it, if it cannot be used where it is.

    Costs nothing where the installation belongs to the user, or numba has been told a folder (`NUMBA_CACHE_DIR`);
    returns how many files were copied.
    """
    if os.environ.get(OWN_FOLDER):
        return 0
    places = {HOME / folder: folder for folder in KERNELS}
    foreign = foreign_folders(places)
    return sum(take_over(beside, cache_folder(places[beside.parent])) for beside in foreign)
