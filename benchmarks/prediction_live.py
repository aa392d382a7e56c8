"""Live runs with and without predictions: a replay at 24 full frames/s, and the demonstration at 30 frames/s.

A simulated microscope draws its frames on the cores that are to detect in them; a real camera does not. So the full
frames are a recording (`moving_particles.py`, kept uncompressed), which is replayed at its own pace with the rules
of a camera: frames wait for nobody, the newest is given, results have an age limit. Reading one takes 1 to 2 ms. A
frame's age counts from when it was due.

`latency` runs each way several times in turn, and gives the median of each number; and once with as many frames at
a time as the settings have on this computer. `demo` is `liveptv demo` without
its page.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import never_late
import numpy as np
from moving_particles import OPTICS, RATE_HZ, Flow, sequence

from liveptv.config import Experiment, build_experiment
from liveptv.models import SHIPPED_MODEL
from liveptv.workflows.run import RunOutcome
from stream.messages import TrackFlag
from tracking.trajectories.file import TrajectoryFile

FULL = Flow(shape=(1440, 2560), particles=200, spacings=0.02, frames=480)
QUICK = Flow(shape=(720, 1280), particles=50, spacings=0.02, frames=120)
FRAMES_MB = 8
"""MiB that are copied at a time when a recording is written."""
COUNTS = ("predicted_frames", "predicted", "searched", "ghosts", "reduced", "dropped_late")
FIRST = 60
"""Frames that count as the first ones, in which predictions begin: 2 s of the demonstration."""


def recording_of(flow: Flow, cache: Path) -> Path:
    """The frames of a flow as a recording that is read without any decoding, written unless it is in `cache`."""
    path = cache / flow.name / "images.h5"
    if not path.is_file():
        images = sequence(flow, cache).images
        part = path.with_suffix(".part")
        with h5py.File(part, "w") as file:
            frames = file.create_dataset("images", images.shape, images.dtype)
            frames.attrs.update(axes="TYX", pixel_size_um=OPTICS.pixel_size_um, frame_rate_hz=RATE_HZ)
            step = max(1, FRAMES_MB * 2**20 // images[0].nbytes)
            for first in range(0, len(images), step):
                frames[first : first + step] = images[first : first + step]
        part.replace(path)
    return path


def replay(home: Path, recording: Path, prediction: str, workers: int | None, seconds: float) -> Experiment:
    """A recording as if it came from a camera."""
    detector = {"model": str(SHIPPED_MODEL), "prediction": prediction, "workers": workers}
    data: dict[str, Any] = {
        "run": {"output": str(home / "tracks.h5"), "overwrite": True, "seconds": seconds},
        "recording": {"path": str(recording), "pace": True},
        "link": {"policy": "live"},
        "detector": detector,
    }
    return build_experiment(data, "the benchmark")


def row_of(outcome: RunOutcome, frames: np.ndarray[Any, Any], limit_ms: float) -> dict[str, Any]:
    """Ages after the start, what became of the frames and of the particles, and where frames are missing."""
    with TrajectoryFile(outcome.files.tracks) as file:
        flags = file.rows(0, file.row_count)["flags"].astype(np.int64)
    counts = outcome.result.counts["detect"]
    numbers = frames["frame"].astype(np.int64)
    missing = np.setdiff1d(np.arange(outcome.account.exposed), numbers)
    return (
        never_late.ages(frames, limit_ms)
        | never_late.balance(outcome)
        | {
            "missing_at_first": int((missing < FIRST).sum()),
            "missing_later": int((missing >= FIRST).sum()),
            "rows": flags.size,
            "reduced_rows": int(((flags & TrackFlag.REDUCED) > 0).sum()),
        }
        | {name: counts[name] for name in COUNTS if name in counts}
    )


def load() -> float | None:
    """Processes that want a core, mean of the last minute; None where the system does not know."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def latency_rows(
    cache: Path, ways: dict[str, str], workers: int, rounds: int, seconds: float, flow: Flow = FULL
) -> Iterator[dict[str, Any]]:
    """Each way in turn, `rounds` times with so many `workers`, and once with as many as the settings have.

    A row for each run, then the medians.
    """
    recording = recording_of(flow, cache)
    cases = [(name, workers) for turn in range(rounds) for name in list(ways)[:: 1 if turn % 2 == 0 else -1]]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for name, count in [*cases, *((name, None) for name in ways)]:
        with tempfile.TemporaryDirectory(prefix="prediction-") as folder:
            before = load()
            experiment = replay(Path(folder), recording, ways[name], count, seconds)
            outcome, frames, _ = never_late.measure(experiment)
            row = row_of(outcome, frames, 3e3 / RATE_HZ)
        yield {"part": "live", "case": case_of(flow), "way": name, "workers": count, "load": before} | row
        if count is not None:
            found[name].append(row)
    for name, rows in found.items():
        numbers = [key for key, value in rows[0].items() if isinstance(value, int | float)]
        medians = {key: round(statistics.median(row.get(key, 0) for row in rows), 2) for key in numbers}
        row = {"part": "live", "case": f"{case_of(flow)}, medians", "way": name, "workers": workers}
        yield row | {"runs": len(rows)} | medians


def case_of(flow: Flow) -> str:
    """In words."""
    height, width = flow.shape
    return f"{RATE_HZ:g} frames/s of {height} x {width} px, {flow.particles} particles"


def demo_rows(ways: dict[str, str], rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    """The demonstration's microscope at 30 frames/s, with the settings of `liveptv demo`."""
    for turn in range(rounds):
        for name in ways if turn % 2 == 0 else reversed(ways):
            with tempfile.TemporaryDirectory(prefix="prediction-") as folder:
                before = load()
                detector = {"model": str(SHIPPED_MODEL), "prediction": ways[name]}
                experiment = never_late.experiment(Path(folder), detector, never_late.RATE_HZ, seconds)
                outcome, frames, _ = never_late.measure(experiment)
                row = {"part": "live", "case": "demo", "way": name, "load": before}
                yield row | row_of(outcome, frames, never_late.default_age_limit_ms(never_late.RATE_HZ))
