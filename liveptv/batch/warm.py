"""Compiles what a batch needs once on each computer: the first worker does, the others wait and load it.

Without it, each of N workers would compile the same for a minute of N cores, on a new installation.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import numpy as np

from liveptv import __version__
from liveptv.config import Experiment
from stream.errors import LivePTVError, OutputError
from stream.writer_lock import Claim

SHAPE = (64, 64)
"""Images that are looked at; what is compiled does not depend on their size."""
PIXELS = ("uint8", "uint16")
SLICES = 6
LONGEST_WAIT_S = 900.0
"""Longest wait for a worker that compiles, s: the fit takes a minute of a free core. After it each compiles
itself.
"""
LOOK_S = 0.5


def warm(experiment: Experiment) -> None:
    """Compile for an experiment, unless that has been done on this computer; waits for a worker that does it."""
    model, detector = experiment.detector.model, experiment.detector
    kind = "2d" if model is None else model.suffix.lower().lstrip(".")
    flat = "flat" if detector.bright is not None else "raw"
    volumes = "volumes" if _has_volumes(experiment) else "images"
    _warm(f"{__version__}-{kind}-{flat}-{detector.refine}-{volumes}", experiment.model_dump_json())


def _has_volumes(experiment: Experiment) -> bool:
    """Whether the recording of this experiment is read as volumes; False if that cannot be told."""
    from acquisition.recorded_run.places import recorded_files
    from liveptv.volumes.reading import has_volumes

    recording = experiment.recording
    if recording is None:
        return False
    try:
        recorded = recorded_files(recording.path)
        path = recording.path if recorded is None else recorded.images
        return recording.z_step_um is not None or has_volumes(path, recording.axes, experiment.detector)
    except LivePTVError:
        return False


@cache
def _warm(what: str, settings: str) -> None:
    from liveptv.kernel_cache import cache_folder, take_over_kernels

    take_over_kernels()
    folder = cache_folder("tracking")
    stamp = folder / f"batch-{what}.warm"
    if stamp.exists():
        return
    claim = _turn(folder / "batch-warm", stamp)
    try:
        if not stamp.exists():
            _compile(Experiment.model_validate_json(settings))
            stamp.touch()
    except LivePTVError:
        return  # what is wrong with the model is told of the first recording
    except OSError:
        return  # a folder that nobody can write to: each compiles for itself
    finally:
        if claim is not None:
            claim.release()


def _turn(place: Path, stamp: Path) -> Claim | None:
    """The lock of those who compile; None if it cannot be had, or there is no need any more."""
    until_s = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < until_s and not stamp.exists():
        try:
            return Claim(place, "compiling")
        except OutputError:
            if not place.parent.is_dir():
                return None
            time.sleep(LOOK_S)
    return None


def _compile(experiment: Experiment) -> None:
    from engines.factory import open_engine, pixel_size_of
    from tracking.tracker import OnlineTracker
    from tracking.trajectories import precision

    precision.warmup()
    volumes = _has_volumes(experiment)
    tracker = OnlineTracker(experiment.tracker)
    tracker.warmup()
    if volumes:
        tracker.warmup_switching()
    pixel_size_um = pixel_size_of(experiment.detector.model) or 1.0
    detector = experiment.detector.model_copy(update={"workers": 1, "bright": None, "dark": None})
    for pixels in PIXELS:
        engine = open_engine(
            detector,
            model=detector.model,
            pixel_size_um=pixel_size_um,
            say=lambda _text: None,
            volumes=volumes,
        )
        try:
            engine.warmup(*SHAPE, np.dtype(pixels), SLICES if volumes else 1)
        finally:
            engine.close()
