"""Particles in volumes: each at the time of its slices, in partial volumes, switching between two motions."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from liveptv.config import Experiment, build_experiment
from liveptv.tables import read_detection_table
from liveptv.workflows.offline import track_table
from stream.messages import Detections, FrameInfo, TrackFlag
from stream.volume_info import VolumeInfo
from tracking.as_detected import as_kept, detections_in
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
from tracking.trajectories.file import read_trajectories

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from volume_tracks import WORLDS, measure

PERIOD_S = 0.1
Z_UM = tuple(np.arange(10.0).tolist())
UP_S = tuple((0.01 * np.arange(10)).tolist())
DOWN_S = UP_S[::-1]


def frame_of(frame, volume, places, sigma_um=0.05, **columns):
    """Detections of one volume."""
    info = FrameInfo("run", frame, frame, PERIOD_S * frame, 0, 0.0, focus_um=3.0, volume=volume)
    x, y, z = places
    return Detections.from_columns(
        info, x_um=x, y_um=y, z_um=z, sigma_x_um=sigma_um, sigma_y_um=sigma_um, sigma_z_um=sigma_um,
        brightness=20.0, confidence=1.0, **columns,
    )  # fmt: skip


def own_times(start, velocity, begins_s, time_s):
    """When each particle is imaged: where its height meets that of a slice, s after the volume's time."""
    offset = np.zeros(start.shape[1])
    for _ in range(50):
        z = start[2] + velocity[2] * (begins_s + offset)
        offset = np.interp(z, Z_UM, time_s)
    return offset


@pytest.mark.parametrize("drive", ["up", "down", "both"])
@pytest.mark.parametrize("is_said", [True, False], ids=["times of detections", "times of slices only"])
def test_a_particle_has_the_time_of_its_slices_so_that_its_velocity_has_no_bias(drive, is_said):
    rng = np.random.default_rng(2)
    start = np.stack([rng.uniform(0, 400, 40), rng.uniform(0, 400, 40), rng.uniform(1, 3, 40)])
    velocity = np.stack([np.full(40, 30.0), np.full(40, -20.0), np.full(40, 4.0)])
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(14):
        is_up = drive == "up" or (drive == "both" and frame % 2 == 0)
        times = UP_S if is_up else DOWN_S
        offset = own_times(start, velocity, PERIOD_S * frame, times)
        places = start + velocity * (PERIOD_S * frame + offset) + rng.normal(0, 0.01, start.shape)
        said = {"time_offset_s": offset} if is_said else {}
        volume = VolumeInfo(Z_UM, times, upwards=is_up)
        tracks = tracker.step(frame_of(frame, volume, places, 0.01, **said))
    assert tracks.track.tolist() == list(range(40))
    np.testing.assert_allclose(tracks.time_offset_s, offset, atol=1e-3)
    for name, true in (("vx_um_s", 30.0), ("vy_um_s", -20.0), ("vz_um_s", 4.0)):
        assert np.median(getattr(tracks, name)) == pytest.approx(true, rel=0.02)


def test_particles_in_missing_slices_are_not_missed():
    rng = np.random.default_rng(5)
    places = np.stack([rng.uniform(0, 400, 60), rng.uniform(0, 400, 60), np.repeat([1.0, 8.0], 30)])
    tracker = OnlineTracker(TrackerSettings(max_gap_frames=1))
    for frame in range(16):
        gone = (0, 1, 2, 3, 4) if 8 <= frame < 12 else ()
        seen = places[:, places[2] > 4.5] if gone else places
        volume = VolumeInfo(Z_UM, (), gone)
        tracks = tracker.step(frame_of(frame, volume, seen + rng.normal(0, 0.05, seen.shape)))
        flags = tracks.flags.astype(int)
        assert np.count_nonzero(flags & TrackFlag.PREDICTED) == (30 if gone else 0)
    assert sorted(tracks.track.tolist()) == list(range(60))
    assert tracker.counts["ended"] == 0


def test_a_slice_that_is_there_and_a_particle_that_is_not_end_the_track():
    rng = np.random.default_rng(6)
    places = rng.uniform(0, 400, (3, 60)) * np.array([[1], [1], [0.02]])
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(16):
        seen = places[:, :30] if frame >= 10 else places
        tracks = tracker.step(frame_of(frame, VolumeInfo(Z_UM), seen + rng.normal(0, 0.05, seen.shape)))
    assert len(tracks) == 30
    assert tracker.counts["ended"] == 30


def test_tracks_do_not_go_on_with_particles_that_appear_where_others_have_vanished():
    short = replace(WORLDS["brownian"], step=0.6, life=12.0)
    found = measure(short, 150, 4, 0, TrackerSettings())
    assert found.ratio >= 0.93
    assert found.f1 >= 0.99


@pytest.mark.parametrize("name", ["middle", "directed", "switches seldom", "tall voxels"])
def test_virus_like_tracks_are_nearly_those_of_perfect_links(name):
    assert measure(WORLDS[name], 100, 4, 0, TrackerSettings()).ratio >= 0.95


def test_images_are_tracked_as_before_unless_it_is_said():
    rng = np.random.default_rng(8)
    start = rng.uniform(0, 100, (3, 50))
    rows = {}
    for motion in ("auto", "flow", "switching"):
        noise = np.random.default_rng(9)
        tracker = OnlineTracker(TrackerSettings(motion=motion))
        rows[motion] = [
            tracker.step(frame_of(frame, None, start + 0.3 * frame + noise.normal(0, 0.05, start.shape)))
            for frame in range(8)
        ]
    for auto, flow in zip(rows["auto"], rows["flow"], strict=True):
        np.testing.assert_array_equal(auto.table, flow.table)
    last = rows["switching"][-1]
    assert last.track.tolist() == list(range(50))
    assert np.isnan(last.time_offset_s).all()


def test_the_time_of_a_detection_is_what_a_file_gives_back():
    times = np.linspace(0, 0.0913, 20)
    found = frame_of(
        0, VolumeInfo(Z_UM, UP_S), np.random.default_rng(3).uniform(0, 9, (3, 20)), time_offset_s=times
    )
    settings = TrackerSettings()
    kept = as_kept(found, settings)
    np.testing.assert_allclose(kept.time_offset_s, times, rtol=2e-5)
    again = detections_in(OnlineTracker(settings).step(kept))
    np.testing.assert_array_equal(again.time_offset_s, kept.time_offset_s)


def test_a_table_with_times_of_its_own_is_tracked_as_volumes_and_they_are_in_the_file(tmp_path):
    rng = np.random.default_rng(4)
    places = rng.uniform(0, 200, (3, 30)) * np.array([[1], [1], [0.04]])
    offset = 0.01 * places[2]
    lines = ["frame,x_um,y_um,z_um,sigma_x_um,sigma_y_um,sigma_z_um,brightness,confidence,time_offset_s"]
    for frame in range(8):
        for (x, y, z), at in zip((places + 0.4 * frame * np.array([[1], [0], [0]])).T, offset, strict=True):
            lines.append(f"{frame},{x:.5f},{y:.5f},{z:.5f},0.05,0.05,0.05,20,0.9,{at:.7f}")
    path = tmp_path / "detections.csv"
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    assert read_detection_table(path).time_offset_s[:30] == pytest.approx(offset, abs=1e-6)
    output = tmp_path / "tracks.h5"
    settings: Experiment = build_experiment(
        {"run": {"output": output}, "tracker": {"frame_rate_hz": 10.0}}, "track"
    )
    track_table(path, settings)
    rows = read_trajectories(output)
    assert rows.knows("time_offset_s")
    first = rows.frame == 0
    np.testing.assert_allclose(np.sort(rows.time_offset_s[first]), np.sort(offset), rtol=1e-4)
    assert np.bincount(rows.track).tolist() == [8] * 30


@pytest.mark.parametrize("count", [12, 100])
@pytest.mark.parametrize("sigma_um", [0.003, 0.02])
def test_slow_particles_that_all_go_straight_are_known_to(count, sigma_um):
    """Steps are a hundredth of the distance to the next particle: random steps of that size explain them too."""
    rng = np.random.default_rng(0)
    start = np.stack([rng.uniform(0, 30, count), rng.uniform(0, 30, count), rng.uniform(0, 4, count)])
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(40):
        places = start + np.array([[0.05], [0.025], [0.0]]) * frame + rng.normal(0, sigma_um, start.shape)
        tracks = tracker.step(frame_of(frame, VolumeInfo(Z_UM, ()), places, sigma_um))
    velocity = [np.median(speed) for speed in (tracks.vx_um_s, tracks.vy_um_s, tracks.vz_um_s)]
    np.testing.assert_allclose(velocity, [0.5, 0.25, 0.0], atol=0.05)
