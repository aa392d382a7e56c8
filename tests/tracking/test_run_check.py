import numpy as np
import pytest

from stream.messages import Detections, FrameInfo, Tracks
from stream.volume_info import VolumeInfo
from tracking.run_check.check import RunCheck
from tracking.run_check.focus import shift_of
from tracking.run_check.scatter import ScatterCheck, ratio_of, sums_of
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

RATE_HZ = 12.0
SIGMA = np.array([0.08, 0.08, 0.7])
WIDE, HIGH, DEEP = 800.0, 600.0, 200.0
FASTEST = 150.0


def run(
    seconds=26.0,
    particles=60,
    scatter=(1.0, 1.0, 1.0),
    drift=lambda _: 0.0,
    focus=lambda _: 0.0,
    sinking=0.0,
    flow=lambda _: FASTEST,
    diffusion=0.05,
    stuck=0,
    cut=0.0,
    seed=0,
):
    """What is told, with times, of particles in a channel whose focus drifts; and the check."""
    rng = np.random.default_rng(seed)
    place = rng.uniform([0, 0, 0], [WIDE, HIGH, DEEP], (particles, 3))
    double = rng.random(particles) < cut
    fixed = np.zeros(particles, bool)
    fixed[:stuck] = True
    place[fixed, 2] = 1.0
    tracker, check, told = OnlineTracker(TrackerSettings()), RunCheck(), []
    for number in range(int(seconds * RATE_HZ)):
        now = number / RATE_HZ
        speed = 4 * flow(now) * place[:, 2] * (DEEP - place[:, 2]) / DEEP**2
        step = np.column_stack([speed / RATE_HZ, 0 * speed, np.full(particles, -sinking / RATE_HZ)])
        step += np.sqrt(2 * diffusion / RATE_HZ) * rng.standard_normal((particles, 3))
        place += np.where(fixed[:, None], 0.0, step)
        out = (place[:, 0] > WIDE) | (place[:, 2] < 0) | (place[:, 2] > DEEP)
        place[out] = rng.uniform([0, 0, 0], [WIDE, HIGH, DEEP], (int(out.sum()), 3))
        double[out] = rng.random(int(out.sum())) < cut
        seen = place - np.array([0.0, 0.0, focus(now) + drift(now)])
        seen = np.vstack([seen, seen[double] + [3.0, 0.0, 0.0]])
        seen = seen + np.array(scatter) * SIGMA * rng.standard_normal(seen.shape)
        info = FrameInfo("run", number, number, now, 0, now, focus_um=focus(now), pixel_size_um=0.8)
        columns = {f"{a}_um": seen[:, k] for k, a in enumerate("xyz")}
        columns |= {f"sigma_{a}_um": np.full(len(seen), SIGMA[k]) for k, a in enumerate("xyz")}
        detections = Detections.from_columns(info, brightness=50.0, confidence=1.0, **columns)
        told += [(now, text) for text in check.look(tracker.step(check.widened(detections)))]
    return told, check


@pytest.mark.parametrize("seed", range(3))
def test_a_run_as_calibrated_is_told_nothing_though_particles_sink_and_diffuse(seed):
    told, check = run(seed=seed, sinking=0.3, diffusion=0.3)
    assert told == []
    assert check.facts()["check_scatter_z"] == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("began_s", [0.0, 9.0])
def test_a_slow_drift_of_the_focus_is_told_by_the_flow(began_s, seed):
    told, _ = run(drift=lambda s: 3.0 * np.clip((s - began_s) / 14.0, 0, 1), seed=seed)
    assert len(told) == 1
    assert "the focus has risen by" in told[0][1]
    assert "velocity profile" in told[0][1]
    assert told[0][0] < 26


def test_a_drift_downwards_is_told_as_that():
    told, _ = run(drift=lambda s: -4.0 * np.clip((s - 8) / 10.0, 0, 1))
    assert "the focus has sunk by" in told[0][1]


def test_a_jump_of_the_focus_is_told_at_once():
    told, _ = run(seconds=12.0, drift=lambda s: 3.0 * (s > 8.0))
    assert len(told) == 1
    assert "jumped in frame" in told[0][1]
    assert 8.0 <= told[0][0] < 8.5


def test_a_focus_that_moves_on_command_or_a_flow_that_changes_is_no_drift():
    told, _ = run(focus=lambda s: 20.0 * (s > 9.0), flow=lambda s: FASTEST * (1.0 if s < 12 else 1.2))
    assert told == []


def test_stuck_particles_show_a_drift_where_the_flow_does_not():
    plug = lambda _: 0.0  # noqa: E731
    told, _ = run(stuck=12, flow=plug, drift=lambda s: 0.3 * s, seconds=5.0)
    assert told == []  # nothing moves, so nothing is stuck
    told, _ = run(stuck=12, drift=lambda s: 0.4 * s, seconds=18.0)
    assert len(told) == 1


@pytest.mark.parametrize("axis", [0, 2])
def test_positions_that_scatter_more_than_stated_widen_their_errors(axis):
    scatter = np.ones(3)
    scatter[axis] = 1.5
    told, check = run(scatter=scatter, particles=150)
    assert len(told) == 1
    assert f"({'xyz'[axis]} by 1." in told[0][1]
    info = FrameInfo("run", 10_000, 10_000, 900.0, 0, 0.0)
    names = {f"sigma_{a}_um": [1.0] for a in "xyz"}
    widened = check.widened(Detections.from_columns(info, x_um=[1.0], **names))
    found = np.array([widened.sigma_x_um[0], widened.sigma_y_um[0], widened.sigma_z_um[0]])
    assert found == pytest.approx(np.where(np.arange(3) == axis, 1.5, 1.0), abs=0.15)


def test_detections_pass_unchanged_while_errors_hold():
    check = RunCheck()
    detections = Detections.from_columns(FrameInfo("run", 0, 0, 0.0, 0, 0.0), x_um=[1.0, 2.0])
    assert check.widened(detections) is detections


def test_errors_are_measured_whatever_velocity_and_diffusion():
    rng = np.random.default_rng(0)
    sigma, step = 0.5, 2.0
    path = np.cumsum(3.0 + step * rng.standard_normal((20_000, 4)), axis=1) + sigma * rng.standard_normal(
        (20_000, 4)
    )
    first, second = (np.diff(np.diff(path, axis=1), axis=1)).T
    terms = -(0.5 * (first**2 + second**2) + 2 * first * second) / (2 * sigma**2)
    found = ratio_of(sums_of(np.column_stack([terms] * 3)))
    assert np.abs(found.value - 1.0).max() < 4 * found.error[0]


def test_particles_cut_in_two_are_told():
    told, check = run(cut=0.15, particles=80)
    assert any("seen twice" in text for _, text in told)
    assert check.facts()["check_cut_in_two"] > 0.05


def test_a_profile_without_velocities_says_nothing():
    assert shift_of(np.empty((0, 6)), np.empty((0, 6))) is None
    still = np.column_stack(
        [np.linspace(0, 100, 200)] * 2 + [np.zeros(200)] * 2 + [np.ones(200), np.arange(200) // 2]
    )
    found = shift_of(still, still)
    assert found is None or not np.isfinite(found[1]) or found[1] > 1e3


def test_frames_without_tracks_are_no_trouble():
    check = RunCheck()
    for number in range(400):
        assert check.look(Tracks.empty(FrameInfo("run", number, number, number / 10, 0, 0.0))) == []
    assert check.facts() == {"check_cut_in_two": 0.0}


def test_the_drive_is_suspected_where_upward_and_downward_volumes_differ_in_height():
    rng = np.random.default_rng(3)
    check = ScatterCheck()
    places = rng.uniform(0, 50, (3, 100))
    told = []
    for frame in range(80):
        volume = VolumeInfo((0.0, 1.0), upwards=frame % 2 == 0)
        seen = places + rng.normal(0, 0.05, places.shape)
        seen[2] += 0.15 if volume.upwards else -0.15
        info = FrameInfo("run", frame, frame, 0.1 * frame, 0, 0.0, focus_um=1.0, volume=volume)
        told += check.look(
            Tracks.from_columns(
                info, track=np.arange(100.0), x_um=seen[0], y_um=seen[1], z_um=seen[2], sigma_x_um=0.05,
                sigma_y_um=0.05, sigma_z_um=0.05, age_frames=20.0 + frame, detection=np.arange(100.0), flags=0.0,
            )
        )  # fmt: skip
    assert len(told) == 1
    assert "liveptv lag" in told[0]
    assert "z by" in told[0]
