"""A whole run in which the detector is told of the tracker's particles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from small_run import Run, kill, small_experiment

import engines.factory
from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer
from engines.engine import EngineInfo
from engines.engine_around import EngineAround
from engines.prediction_choice import LAG
from liveptv.config import build_experiment
from liveptv.models import SHIPPED_MODEL
from stream.messages import Frame, Predictions
from tracking.trajectories.file import read_trajectories

FRAMES = 40
SHAPE = (200, 256)


class Told(EngineAround):
    """A network that says that it can use predictions, and remembers which it was given."""

    def __init__(self, engine):
        super().__init__(engine)
        self.given: dict[int, Predictions | None] = {}

    @property
    def info(self) -> EngineInfo:
        info = self._engine.info
        known = sum(len(p) for p in self.given.values() if p is not None)
        counts = {"predicted": known, "searched": 5, "ghosts": 1, "tiles_px": 0.25}
        return replace(info, details=info.details | {"prediction": counts})

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        self.given[frame.info.frame] = predicted
        super().submit(frame, predicted)


@pytest.fixture
def told(monkeypatch):
    """The engines that are opened from now on."""
    opened, open_engine = [], engines.factory.open_engine

    def open_told(*arguments, **more):
        opened.append(Told(open_engine(*arguments, **more)))
        return opened[-1]

    monkeypatch.setattr(engines.factory, "open_engine", open_told)
    return opened


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Images of particles that drift through the field at their heights."""
    rng = np.random.default_rng(4)
    renderer = Renderer(load_bank(OpticsModel()), SHAPE, np.uint8, snr=8.0, seed=1, shading=0.0)
    x, y, z = (rng.uniform(low, high, 14) for low, high in ((0, 200), (0, 150), (-120, 120)))
    images = np.empty((FRAMES, *SHAPE), np.uint8)
    for frame in range(FRAMES):
        renderer.render((x + 1.5 * frame) % 260 - 5, y, z, images[frame])
    path = tmp_path_factory.mktemp("recording") / "flow.tif"
    tifffile.imwrite(path, images, photometric="minisblack")
    return path


def experiment(folder, recording, **detector):
    folder.mkdir()
    data = {
        "run": {"output": str(folder / "tracks.h5")},
        "recording": {"path": str(recording), "frame_rate_hz": 25.0, "pixel_size_um": 0.8},
        "detector": {"model": str(SHIPPED_MODEL), "workers": 2, **detector},
        "session": {"mode": "threads"},
    }
    return build_experiment(data, "the test")


def test_a_run_tells_its_detector_what_its_tracker_knows_and_two_runs_are_alike(tmp_path, told, recording):
    runs = [Run(experiment(tmp_path / name, recording)) for name in ("one", "two")]
    for run, engine in zip(runs, told, strict=True):
        assert run.result.ok
        assert run.frames()[0] == list(range(FRAMES))
        ages = {n: p.info.frame - n for n, p in engine.given.items() if p is not None}
        assert set(ages.values()) == {-LAG}
        assert len(ages) > FRAMES / 2
        assert len(engine.given[FRAMES - 1]) > 5
        counts = run.result.counts["detect"]
        assert counts["predicted_frames"] == len(ages)
        assert counts["ghosts"] == 1
        assert run.result.counts["track"]["predictions"] == FRAMES
        began, ended = (event["text"] for event in run.events("prediction"))
        assert f"{LAG} frames old" in began
        assert "% of particles fitted from their prediction" in ended
        assert "the network read 25.0 % of the pixels" in ended
        assert "fitted from their prediction" in run.outcome.report.page.read_text("utf-8")
    one, two = (engine.given for engine in told)
    for number, predicted in one.items():
        again = two[number]
        assert (predicted is None) == (again is None)
        if predicted is not None and again is not None:
            np.testing.assert_array_equal(predicted.table, again.table)
    rows = [read_trajectories(run.files.tracks) for run in runs]
    np.testing.assert_array_equal(rows[0].track, rows[1].track)
    np.testing.assert_array_equal(rows[0].z_um, rows[1].z_um)


def test_without_predictions_the_detector_is_told_nothing(tmp_path, told, recording):
    run = Run(experiment(tmp_path / "off", recording, prediction="off"))
    assert run.result.ok
    assert set(told[0].given.values()) == {None}
    assert not run.events("prediction")
    assert "predictions" not in run.result.counts["track"]
    assert "predicted_frames" not in run.result.counts["detect"]


def uses_predictions(run) -> bool:
    """Whether the detector said that it can use predictions."""
    return run.events("engine")[0]["details"].get("prediction", False) is not False


def network(folder, **more):
    """A run with the simulated microscope, whose detector has a network, in processes."""
    detector = {"model": str(SHIPPED_MODEL), "polarity": "auto", "diameter_px": None, "workers": 1}
    return small_experiment(folder, detector=detector, **more)


def test_a_killed_detector_finds_the_predictions_again_and_loses_no_frame(tmp_path):
    run = Run(network(tmp_path, rate=15, frames=200), kill("detect"), act_after=40)
    frames, _ = run.frames()
    assert run.result.ok
    assert frames == list(range(200))
    assert [event["stage"] for event in run.events("process")].count("detect") == 2
    began = [event for event in run.events("prediction") if "waits" in event]
    assert len(began) == 2 * uses_predictions(run)
    after = run.result.counts["detect"]
    assert (after.get("predicted_frames", 0) > 100) == uses_predictions(run)


def test_a_run_that_loses_its_tracker_still_ends_and_keeps_what_was_tracked(tmp_path):
    run = Run(network(tmp_path, rate=15, frames=100_000), kill("track"), act_after=40)
    frames, _ = run.frames()
    assert not run.result.ok
    assert run.result.failures[0].startswith("track ended without reporting why")
    assert frames == list(range(len(frames)))
    assert len(frames) >= run.acted_at


def test_a_live_run_uses_the_newest_predictions(tmp_path):
    run = Run(network(tmp_path, rate=10, frames=100, link={"policy": "live", "age_limit_ms": 10_000.0}))
    assert run.result.ok
    counts = run.result.counts["detect"]
    assert (counts.get("predicted_frames", 0) > counts["sent"] / 4) == uses_predictions(run)
