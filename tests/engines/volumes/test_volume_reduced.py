"""Where there is no time for the whole fit of a volume, particles are found, and their errors are as stated."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from benchmarks.volume_scene import Scene, draw
from engines.refine.turns import NOTHING, Allowance
from engines.settings import DetectorSettings
from engines.volumes import engine as volume_engine
from engines.volumes.detector import VolumeDetector, Voxel
from engines.volumes.engine import VolumeEngine
from engines.volumes.first_look import FirstLook
from engines.volumes.first_volume import FirstVolume
from engines.volumes.limited_fit import VolumeFits, VolumeLimit
from engines.volumes.psf import VolumePsf
from stream.messages import DetectionFlag, Detections, FitDecision, Frame, FrameInfo
from stream.volume_info import VolumeInfo

SHAPE = (10, 128, 128)
VOXEL = Voxel(0.5, 0.2)
SPOT_UM = (0.26, 0.26, 0.65)
SIGMA = (1.3, 1.3, 1.3)


@pytest.fixture(scope="module")
def detector() -> VolumeDetector:
    return VolumeDetector(VolumePsf.gaussian(*SPOT_UM, VOXEL.zyx_um), VOXEL, DetectorSettings())


def found_in(detector: VolumeDetector, image: np.ndarray, allowed: Allowance) -> np.ndarray:
    heights_um = VOXEL.step_um * np.arange(len(image))
    limit = VolumeLimit(VolumeFits(), 0, allowed)
    table, _ = detector.detect(image, np.zeros(len(image), bool), heights_um, np.zeros(len(image)), limit)
    return table


def places_of(table: np.ndarray) -> np.ndarray:
    """z, y, x in voxels."""
    x, y, z = table[:3]
    return np.stack([z, y, x], axis=1) / VOXEL.zyx_um


def f1_of(table: np.ndarray, truth: np.ndarray) -> float:
    off, nearest = cKDTree(truth).query(places_of(table), distance_upper_bound=3.0)
    hits = len(set(nearest[np.isfinite(off)]))
    return 2 * hits / (len(truth) + table.shape[1])


def flags_of(table: np.ndarray) -> np.ndarray:
    return table[Detections.COLUMNS.index("flags")].astype(int)


@pytest.mark.parametrize("snr", [2, 4, 7])
def test_lone_particles_that_are_not_fitted_whole_are_as_far_off_as_they_state(detector, snr) -> None:
    off, stated, whole = [], [], []
    for seed in range(6):
        volume = draw(Scene(snr, 25, seed, SHAPE))
        table = found_in(detector, volume.image, NOTHING)
        assert (flags_of(table) & DetectionFlag.REDUCED).all()
        apart = cKDTree(volume.truth).query(volume.truth, k=2)[0][:, 1]
        near, nearest = cKDTree(volume.truth).query(places_of(table))
        lone = (apart[nearest] > 6 * SIGMA[0]) & (near < 3)
        off.append((places_of(table) - volume.truth[nearest])[lone])
        stated.append((table[3:6][::-1].T / VOXEL.zyx_um)[lone])
        fitted = found_in(detector, volume.image, Allowance(1.0, 1e6))
        near, nearest = cKDTree(volume.truth).query(places_of(fitted))
        whole.append(
            (places_of(fitted) - volume.truth[nearest])[(apart[nearest] > 6 * SIGMA[0]) & (near < 3)]
        )
    assert len(np.concatenate(off)) > 100
    pull = np.concatenate(off) / np.concatenate(stated)
    assert np.abs(np.sqrt((np.clip(pull, -3, 3) ** 2).mean()) - 1) < 0.15
    rms, rms_whole = (np.sqrt((np.concatenate(part) ** 2).mean()) for part in (off, whole))
    assert rms < 1.05 * rms_whole


def test_a_third_of_the_fit_finds_nearly_all_of_what_the_whole_one_finds(detector) -> None:
    scores: dict[str, list[float]] = {"short": [], "third": [], "whole": []}
    reduced = []
    for seed in range(4):
        volume = draw(Scene(5, 80, seed, SHAPE))
        for name, allowed in (
            ("short", NOTHING),
            ("third", Allowance(share=0.33)),
            ("whole", Allowance(1.0, 1e6)),
        ):
            table = found_in(detector, volume.image, allowed)
            scores[name].append(f1_of(table, volume.truth))
            if name == "third":
                reduced.append((flags_of(table) & DetectionFlag.REDUCED > 0).mean())
    short, third, whole = (np.mean(scores[name]) for name in ("short", "third", "whole"))
    assert 0.4 < np.mean(reduced) < 0.8
    assert short < whole - 0.01
    assert third > whole - 0.003


def test_two_that_are_taken_for_one_state_that_they_may_be_apart(detector) -> None:
    rng = np.random.default_rng(5)
    light = np.full(SHAPE, 10.0)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    centres = np.array([[5, 30 + 20 * i, 30 + 20 * j] for i in range(4) for j in range(4)], float)
    half = 0.8 * SIGMA[0]
    for centre in centres:
        for sign in (-1, 1):
            at = centre + np.array([0, 0, sign * half])
            light += 57 * np.exp(-0.5 * (((grid - at[:, None, None, None]) / 1.3) ** 2).sum(axis=0))
    table = found_in(detector, rng.poisson(light).astype(np.uint16), NOTHING)
    for centre in centres:
        (near,) = np.nonzero(np.abs(places_of(table) - centre).max(axis=1) < half)
        if len(near) == 1:  # both as one
            sigma_y, sigma_x = table[4, near[0]] / 0.2, table[3, near[0]] / 0.2
            assert sigma_x > 0.5 * half
            assert sigma_y < 0.5 * sigma_x


def test_where_there_is_time_for_all_the_result_is_that_of_the_whole_fit(detector) -> None:
    image = draw(Scene(4, 60, 3, SHAPE)).image
    heights_um = VOXEL.step_um * np.arange(len(image))
    whole, _ = detector.detect(image, np.zeros(len(image), bool), heights_um, np.zeros(len(image)))
    assert np.array_equal(found_in(detector, image, Allowance(1.0, 1e6)), whole, equal_nan=True)
    assert not (flags_of(whole) & DetectionFlag.REDUCED).any()


def frames_of(count: int, particles: int = 40, first: int = 0) -> list[Frame]:
    info = VolumeInfo(tuple(VOXEL.step_um * k for k in range(SHAPE[0])))
    return [
        Frame(
            FrameInfo("run", n, n, 0.05 * n, 0, 0.0, pixel_size_um=VOXEL.pixel_um, volume=info),
            draw(Scene(6, particles, n, SHAPE)).image,
        )
        for n in range(first, first + count)
    ]


def opened(workers: int, *, spot_um=SPOT_UM, size_may_join=False, while_waiting=lambda: None) -> VolumeEngine:
    settings = DetectorSettings(workers=workers, spot_um=spot_um)
    return VolumeEngine(
        settings,
        VOXEL.pixel_um,
        say=lambda _text: None,
        size_may_join=size_may_join,
        while_waiting=while_waiting,
    )


def rest_of(engine: VolumeEngine) -> list[Detections]:
    found: list[Detections] = []
    while engine.pending:
        found += engine.results(10.0)
    return found


def replayed(frames: list[Frame], live: list[Detections], engine: VolumeEngine) -> None:
    """Check that volumes come out once more as they were."""
    for frame, found in zip(frames, live, strict=True):
        engine.submit(replace(frame, info=replace(frame.info, decisions=found.info.decisions)))
    for before, after in zip(live, rest_of(engine), strict=True):
        assert np.array_equal(before.table, after.table, equal_nan=True)
        assert before.info.decisions == after.info.decisions


@pytest.mark.parametrize(("live_workers", "replay_workers"), [(1, 2), (3, 1)])
def test_volumes_of_a_run_in_a_hurry_come_out_the_same_once_more(live_workers, replay_workers) -> None:
    frames = frames_of(15)
    live: list[Detections] = []
    with closing(opened(live_workers)) as engine:
        for frame in frames:
            engine.allow_fit(1.0, (1.0, 3.0, 0.0, 2.0, 1e6)[frame.info.frame % 5])
            engine.submit(frame)
            if frame.info.frame % 3:
                live += engine.results(0.0)
        live += rest_of(engine)
        costs, details = engine.costs(), engine.info.details
    assert details["z_um"] == [0.0, 4.5]  # of what the page shows
    assert details["refine"]["reduced"] == sum(cost.reduced for cost in costs) > 0
    assert [cost.frame for cost in sorted(costs)] == list(range(15))
    assert all(cost.network_ms > 0 and cost.reduced <= cost.particles for cost in costs)
    assert {found.info.decisions.fit for found in live} == {FitDecision.LIMITED, FitDecision.NO_TIME}
    assert any(math.isfinite(found.info.decisions.credit) for found in live)
    assert any(found.info.decisions.turns_from >= 0 for found in live)
    with closing(opened(replay_workers)) as engine:
        replayed(frames, live, engine)


class Slow:
    """An estimate of the size that ends when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, right: Callable[[int], bool]) -> None:
        import threading

        self.go, self.calls = threading.Event(), 0
        self._right = right
        monkeypatch.setattr(volume_engine, "look", self._look)

    def _look(self, image, missing, voxel_um, sigma_voxels, dark):
        self.calls += 1
        assert self.go.wait(240)
        psf = VolumePsf.gaussian(*SPOT_UM, voxel_um)
        return FirstLook(psf, SPOT_UM[::-1], 0.0, 7, False) if self._right(self.calls) else None


def test_while_the_size_is_sought_volumes_are_passed_on_without_detections_and_a_replay_does_the_same(
    monkeypatch,
) -> None:
    slow = Slow(monkeypatch, lambda call: call == 2)
    frames = frames_of(6)
    with closing(opened(1, spot_um=None, size_may_join=True)) as engine:
        live: list[Detections] = []
        for frame in frames:
            if frame.info.frame in {2, 4}:  # the first shows too few spots, the second, frame 2, enough
                slow.go.set()
                engine._first.wait(lambda: None)
                slow.go.clear()
            engine.submit(frame)
            live += rest_of(engine)
        counts = engine.counts()
    assert [len(found) > 0 for found in live] == [False] * 4 + [True] * 2
    assert [found.info.decisions.learnt_from for found in live] == [0, 0, 2, 2, 2, 2]
    assert [found.info.decisions.fit is FitDecision.NOT_COMPILED for found in live] == [True] * 4 + [
        False
    ] * 2
    assert counts["no_size"] == 4
    slow.go.set()
    slow.calls = 0
    with closing(opened(2, spot_um=None)) as engine:
        replayed(frames, live, engine)


def test_where_volumes_wait_for_the_size_a_sign_of_life_is_given(monkeypatch) -> None:
    slow = Slow(monkeypatch, lambda call: True)
    lives = []

    def live() -> None:
        lives.append(1)
        if len(lives) == 3:
            slow.go.set()

    with closing(opened(1, spot_um=None, while_waiting=live)) as engine:
        engine.submit(frames_of(1)[0])
        (found,) = rest_of(engine)
    assert len(found)
    assert len(lives) >= 3
    assert found.info.decisions.learnt_from == -1


def test_what_goes_wrong_in_the_estimate_is_raised_in_the_run() -> None:
    def fails(image):
        raise ValueError("no volume")

    size: FirstVolume[int] = FirstVolume()
    size.seek(3, np.zeros((3, 8, 8), np.uint16), fails)
    with pytest.raises(ValueError, match="no volume"):
        size.wait(lambda: None)
