"""The benchmark of detectors in volumes chooses one threshold, goes on where it ended, and averages."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import volumes
from volume_detectors import Detector, Found, catalogue, maxima
from volume_scene import Scene, amplitude_at, draw
from volume_scoring import bound

SHAPE = (6, 48, 48)


def small(first, count):
    return [Scene(snr, 8, seed, SHAPE) for snr in (4, 7) for seed in range(first, first + count)]


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(volumes, "scenes", small)
    monkeypatch.setattr(volumes, "ROWS", tmp_path / "rows.jsonl")
    monkeypatch.setattr(volumes, "THRESHOLDS", tmp_path / "thresholds.json")
    return tmp_path


def test_the_threshold_is_that_with_the_best_mean_f1(results):
    detector = catalogue()["sef3d"]
    chosen = volumes.choose("sef3d", detector, detector.open(None), 2)
    assert chosen["mean_f1"] == max(f1 for _, f1 in chosen["tried"])
    assert dict(map(tuple, chosen["tried"]))[chosen["threshold"]] == chosen["mean_f1"]
    assert chosen["mean_f1"] > 0.9
    assert chosen["volumes"] == 4


def test_a_measurement_goes_on_where_it_ended(results):
    volumes.THRESHOLDS.write_text(json.dumps({"sef3d": {"threshold": 6.0}}), encoding="utf-8")
    seen = []

    def detect(image):
        seen.append(image)
        return maxima(image.astype(float))

    detector = Detector("a filter", lambda _: detect)
    volumes.measure("sef3d", detector, detect, None, 1)
    assert len(seen) == 2
    volumes.measure("sef3d", detector, detect, None, 3)
    assert len(seen) == 6
    rows = volumes.read_rows()
    assert {(row["snr"], row["seed"]) for row in rows} == {(snr, seed) for snr in (4, 7) for seed in range(3)}
    assert "| 6 |" in volumes.table(rows)


def test_errors_at_the_bound_and_as_stated_are_one(results):
    """Detections scattered as the bound says, which state twice that error."""
    rng = np.random.default_rng(0)
    kept = []
    for seed in range(12):
        scene = Scene(7, 10, seed, (10, 96, 96))
        volume = draw(scene)
        least = np.array([bound(c, amplitude_at(7), scene.shape, (1.3,) * 3, 10.0) for c in volume.truth])
        points = volume.truth + least * rng.standard_normal(least.shape)
        kept.append(volumes.errors(scene, volume.truth, Found.of(points, np.ones(len(points)), 2 * least)))
    rows = [{"f1": 1.0, "rmse": 0.1, "cpu_s": 1.0, **one} for one in kept]
    found = volumes.summary(rows)
    assert found["middle"][0] > 20
    np.testing.assert_allclose(found["middle"][1:], 1, atol=0.2)
    np.testing.assert_allclose(found["ends"][1:], 1, atol=0.2)
    np.testing.assert_allclose(found["stated"][1:], 0.5, atol=0.1)


def test_a_detector_without_standard_errors_states_none(results):
    scene = Scene(7, 5, 0, SHAPE)
    volume = draw(scene)
    kept = volumes.errors(scene, volume.truth, Found.of(volume.truth, np.ones(5)))
    assert "stated" not in kept
    assert volumes.errors(scene, volume.truth, Found.of([], [])) == {}
