"""Live 3D particle tracking velocimetry: the public Python interface (docs/python.md) and the application.

What is not in `__all__` is private: it may move or change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from liveptv.shadowed_packages import protect

__version__ = "0.1.0"

protect()

if TYPE_CHECKING:
    from liveptv.api.calibrating import calibrate
    from liveptv.api.calibrations import CalibrationView, open_calibration
    from liveptv.api.comparing import compare
    from liveptv.api.converting import convert
    from liveptv.api.detecting import detect
    from liveptv.api.diffusing import Diffusion, diffusion
    from liveptv.api.evaluating import Scores, evaluate
    from liveptv.api.experiments import Run, experiment, run
    from liveptv.api.flows import Flow, flow
    from liveptv.api.frames import DetectionFrame, TrackFrame
    from liveptv.api.images import Images
    from liveptv.api.object_models import ObjectModel
    from liveptv.api.profiles import Profile
    from liveptv.api.recordings import Recording, read_recording
    from liveptv.api.simulating import simulate, simulate_objects
    from liveptv.api.tracking import retrack, track
    from liveptv.api.training import Training, train
    from liveptv.api.trajectories import TrajectoryView, open_trajectories
    from liveptv.config import Experiment
    from liveptv.models import SHIPPED_MODEL
    from stream.errors import LivePTVError

__all__ = [
    "SHIPPED_MODEL",
    "CalibrationView",
    "DetectionFrame",
    "Diffusion",
    "Experiment",
    "Flow",
    "Images",
    "LivePTVError",
    "ObjectModel",
    "Profile",
    "Recording",
    "Run",
    "Scores",
    "TrackFrame",
    "Training",
    "TrajectoryView",
    "__version__",
    "calibrate",
    "compare",
    "convert",
    "detect",
    "diffusion",
    "evaluate",
    "experiment",
    "flow",
    "open_calibration",
    "open_trajectories",
    "read_recording",
    "retrack",
    "run",
    "simulate",
    "simulate_objects",
    "track",
    "train",
]

# Imported when they are first used: every worker process imports `liveptv`, and few need any of this.
_PLACES = {
    "SHIPPED_MODEL": "liveptv.models",
    "CalibrationView": "liveptv.api.calibrations",
    "DetectionFrame": "liveptv.api.frames",
    "Diffusion": "liveptv.api.diffusing",
    "Experiment": "liveptv.config",
    "Flow": "liveptv.api.flows",
    "Images": "liveptv.api.images",
    "LivePTVError": "stream.errors",
    "ObjectModel": "liveptv.api.object_models",
    "Profile": "liveptv.api.profiles",
    "Recording": "liveptv.api.recordings",
    "Run": "liveptv.api.experiments",
    "Scores": "liveptv.api.evaluating",
    "TrackFrame": "liveptv.api.frames",
    "Training": "liveptv.api.training",
    "TrajectoryView": "liveptv.api.trajectories",
    "calibrate": "liveptv.api.calibrating",
    "compare": "liveptv.api.comparing",
    "convert": "liveptv.api.converting",
    "detect": "liveptv.api.detecting",
    "diffusion": "liveptv.api.diffusing",
    "evaluate": "liveptv.api.evaluating",
    "experiment": "liveptv.api.experiments",
    "flow": "liveptv.api.flows",
    "open_calibration": "liveptv.api.calibrations",
    "open_trajectories": "liveptv.api.trajectories",
    "read_recording": "liveptv.api.recordings",
    "retrack": "liveptv.api.tracking",
    "run": "liveptv.api.experiments",
    "simulate": "liveptv.api.simulating",
    "simulate_objects": "liveptv.api.simulating",
    "track": "liveptv.api.tracking",
    "train": "liveptv.api.training",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'liveptv' has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
