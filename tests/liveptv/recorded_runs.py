"""A live run under load that was recorded: frames come at a camera's pace, and not all reach the detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from acquisition.physics.optics import OpticsModel
from acquisition.recorder.frame_table import FrameRow, head_line, write
from acquisition.recording import open_recording
from calibration.synthesis.from_optics import model_from_optics, noise_for_snr
from calibration.synthesis.layout import Layout
from calibration.synthesis.rendered_source import Rendered
from liveptv.config import build_experiment
from liveptv.files import RunFiles
from liveptv.workflows.run import RunOutcome, run_experiment
from tracking.trajectories.file import TrajectoryFile

PIXEL_UM = OpticsModel().pixel_size_um
SHAPE = (192, 256)


def film(path: Path, frames: int, particles: int = 30, seed: int = 0) -> Path:
    """A film of particles that drift along x, 4 px a frame, in the optics of the shipped network."""
    optics = OpticsModel()
    psf = model_from_optics(optics)
    density = particles / (SHAPE[0] * SHAPE[1])
    source = Rendered(psf, noise_for_snr(psf, 8.0), layout=Layout((density, density)))
    wide = source.draw(np.random.default_rng(seed), (SHAPE[0], SHAPE[1] + 4 * frames), dtype=np.uint8).images[
        0
    ]
    stack = np.stack([wide[:, 4 * n : 4 * n + SHAPE[1]] for n in range(frames)])
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "TYX"})
    return path


@dataclass
class Recorded:
    """A finished run and its recording."""

    outcome: RunOutcome
    notes: list[str]
    images: Path

    @property
    def tracks(self) -> Path:
        return self.outcome.files.tracks


def settings_of(path: Path, output: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {
        "run": {"output": str(output)},
        "recording": {"path": str(path)},
        "session": {"hang_s": 60.0},
    }
    for name, values in sections.items():
        data[name] = {**data.get(name, {}), **values}
    return data


def run(data: dict[str, Any]) -> tuple[RunOutcome, list[str]]:
    experiment = build_experiment(data, "the test")
    notes: list[str] = []
    files = RunFiles.beside(experiment.run.output)
    outcome = run_experiment(experiment, files, on_update=lambda _: None, on_note=notes.append)
    assert outcome.result.ok, outcome.result.failures
    return outcome, notes


def recorded_live_run(
    folder: Path, *, rate_hz: float, frames: int, missing: Sequence[int] = (), seed: int = 0, **sections: Any
) -> Recorded:
    """A run of a film at `rate_hz`, with the frame table that a recorder writes; `missing` frames are not in it."""
    images = film(folder / "tracks.frames.ome.tif", frames, seed=seed)
    recording = {"pace": True, "frame_rate_hz": rate_hz, "pixel_size_um": PIXEL_UM, "axes": "TYX"}
    link = {"policy": "live", **sections.pop("link", {})}
    data = settings_of(images, folder / "tracks.h5", recording=recording, link=link, **sections)
    outcome, notes = run(data)
    run_id = outcome.result.run_id
    source = open_recording(images, run_id=run_id, axes="TYX", frame_rate_hz=rate_hz, pixel_size_um=PIXEL_UM)
    infos = [frame.info for frame in source.frames() if frame.info.frame not in missing]
    source.close()
    if missing:
        kept = tifffile.imread(images)[[info.frame for info in infos]]
        tifffile.imwrite(images, kept, photometric="minisblack", metadata={"axes": "TYX"})
    rows = [FrameRow(index, None, info) for index, info in enumerate(infos)]
    write(folder / "tracks.frames.jsonl", head_line(run_id, "tracks.h5", images.name), rows)
    return Recorded(outcome, notes, images)


def rows_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a trajectory file, predicted ones included, and the entries of its frames."""
    with TrajectoryFile(path) as file:
        return file.rows(0, file.row_count), file.frames
