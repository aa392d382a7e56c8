"""Links of switching particles are decided once more a frame later: wrong ones are mended, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveptv.workflows.retrack import TracksAgain
from stream.messages import Detections, FrameInfo, TrackFlag
from stream.volume_info import VolumeInfo
from tracking.as_detected import as_kept
from tracking.settings import TrackerSettings
from tracking.switching.second_look import SecondLook
from tracking.tracker import OnlineTracker
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter
from tracking.trajectories.relinking import renamed

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from volume_tracks import WORLDS, detect, measure, move

PERIOD_S = 0.1
UM = 0.1
CROWD = replace(WORLDS["middle"], persistence=6.0, life=20.0)


def crowd(seed: int, frames: int, size=(40.0, 40.0, 9.0), particles=24, step=1.0, missed=0.1):
    """Detections (3, N), um, of each frame, of particles that take steps, run, are missed, appear and vanish."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 1, (particles, 3)) * size
    velocity = np.where(rng.random((particles, 1)) < 0.5, rng.normal(0, 2.0, (particles, 3)), 0.0)
    found = []
    for _ in range(frames):
        seen = place[rng.random(particles) >= missed]
        false = rng.uniform(0, 1, (rng.poisson(1.0), 3)) * size
        found.append(UM * (np.concatenate([seen, false]) + rng.normal(0, 0.1, (len(seen) + len(false), 3))).T)
        turns = rng.random((particles, 1)) < 0.15
        other = np.where(rng.random((particles, 1)) < 0.5, rng.normal(0, 2.0, (particles, 3)), 0.0)
        velocity = np.where(turns, other, velocity)
        place = place + velocity + step * rng.normal(0, 1, (particles, 3)) * (velocity == 0.0)
        anew = rng.random((particles, 1)) < 0.05
        place = np.where(anew, rng.uniform(0, 1, (particles, 3)) * size, np.abs(place))
    return found


def frame_of(number: int, places, slices=True) -> Detections:
    volume = VolumeInfo(tuple((UM * np.arange(10)).tolist())) if slices else None
    info = FrameInfo("run", number, number, PERIOD_S * number, 0, 0.0, volume=volume)
    x, y, z = places
    return Detections.from_columns(
        info, x_um=x, y_um=y, z_um=z, sigma_x_um=0.01, sigma_y_um=0.01, sigma_z_um=0.01, brightness=20.0,
        confidence=1.0,
    )  # fmt: skip


def followed(frames):
    """The track of each detection of each frame, as is known a frame later, and how many were changed."""
    tracker, of_detection, changed = OnlineTracker(TrackerSettings()), [], 0
    for number, places in enumerate(frames):
        rows = tracker.step(frame_of(number, places))
        assert (np.diff(rows.track) > 0).all()
        assert np.array_equal(np.sort(rows.detection[rows.detection >= 0]), np.arange(places.shape[1]))
        assert ((rows.flags.astype(int) & TrackFlag.PREDICTED > 0) == (rows.detection < 0)).all()
        told = np.isfinite(rows.track_before)
        changed += int(told.sum())
        if told.any():
            now, was = rows.track[told].astype(int), rows.track_before[told].astype(int)
            of_detection[-1] = renamed(of_detection[-1], was, now)
        here = np.full(places.shape[1], -1)
        there = rows.detection >= 0
        here[rows.detection[there].astype(int)] = rows.track[there]
        of_detection.append(here)
        assert tracker.alive == len(rows)
        assert tracker.counts["born"] - tracker.counts["ended"] == len(rows)
    assert tracker.counts.get("relinked", 0) == changed
    return of_detection, changed


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 2.0), st.floats(0.0, 0.4))
def test_no_row_is_lost_and_no_track_is_twice_in_a_frame(seed, step, missed):
    of_detection, _ = followed(crowd(seed, 14, step=step, missed=missed))
    for here in of_detection:
        assert (here >= 0).all()
        assert len(set(here.tolist())) == here.size


def test_links_of_crowds_are_changed():
    assert sum(followed(crowd(seed, 14))[1] for seed in range(10)) > 20


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_detections_does_not_matter(seed):
    frames = crowd(seed, 12)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(places.shape[1]) for places in frames]
    found, _ = followed(frames)
    again, _ = followed([places[:, order] for places, order in zip(frames, orders, strict=True)])
    names: dict[int, int] = {}
    for here, there, order in zip(found, again, orders, strict=True):
        for one, other in zip(here[order].tolist(), there.tolist(), strict=True):
            assert names.setdefault(one, other) == other
    assert len(set(names.values())) == len(names)


def test_more_links_are_right_than_when_each_is_decided_at_once(monkeypatch):
    with_it = measure(CROWD, 300, 4, 0, TrackerSettings())
    monkeypatch.setattr(SecondLook, "look", lambda *_: {})
    at_once = measure(CROWD, 300, 4, 0, TrackerSettings())
    assert with_it.f1 > at_once.f1
    assert with_it.limit - with_it.ratio < 0.85 * (at_once.limit - at_once.ratio)


def test_two_that_have_exchanged_their_tracks_get_them_back():
    """One stops where another begins to move: the nearer link is the wrong one, and the next position tells."""
    rng = np.random.default_rng(4)
    others = np.stack([rng.uniform(20, 60, 60), rng.uniform(20, 60, 60), rng.uniform(1, 8, 60)])
    speed = np.where(np.arange(60) % 2, 1.0, 0.0) * np.array([[0.8], [0.3], [0.0]])
    truth, mistakes = [], 0
    for number in range(40):
        places = others + speed * number + 0.12 * rng.normal(0, 1, (3, 60)) * (speed[:1] == 0.0)
        truth.append(places)
    of_detection, _ = followed([0.5 * places for places in truth])
    for here in of_detection[8:-1]:
        mistakes += int((here != of_detection[-2]).sum())
    assert mistakes == 0


def test_tracked_again_the_rows_are_the_same_to_the_last_bit(tmp_path):
    tracker = OnlineTracker(TrackerSettings(motion="switching"))
    sent = [
        tracker.step(as_kept(frame_of(number, places, slices=False), tracker.settings))
        for number, places in enumerate(crowd(3, 30))
    ]
    assert tracker.counts["relinked"] > 3
    path = tmp_path / "tracks.h5"
    attributes = {"configuration": {"tracker": tracker.settings.model_dump(mode="json")}}
    with TrajectoryWriter(path, run_id="run", attributes=attributes) as writer:
        for tracks in sent:
            writer.append(tracks)
        writer.finalize({}, "done")
    with TrajectoryFile(path) as file:
        again = list(TracksAgain(file, tracker.settings))
    for one, other in zip(sent, again, strict=True):
        np.testing.assert_array_equal(one.table, other.table)


def test_all_tracks_end_where_the_tracker_is_told_so():
    tracker, frames = OnlineTracker(TrackerSettings()), crowd(1, 12)
    for number, places in enumerate(frames[:6]):
        before = tracker.step(frame_of(number, places))
    tracker.finish()
    for number, places in enumerate(frames[6:], 6):
        after = tracker.step(frame_of(number, places))
    assert after.track.min() > before.track.max()
    assert tracker.counts["born"] - tracker.counts["ended"] == len(after)


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_lost_frames_do_no_harm(gap):
    tracker, frames = OnlineTracker(TrackerSettings()), crowd(2, 24)
    for number, places in enumerate(frames):
        if 8 <= number < 8 + gap:
            continue
        rows = tracker.step(frame_of(number, places))
        assert len(set(rows.track.tolist())) == len(rows)
    assert tracker.counts["born"] - tracker.counts["ended"] == len(rows)


def test_particles_of_the_benchmark_are_detected_as_often_as_it_says():
    """Guards the scene that the results are measured on: what is missed and what is false."""
    truth = move(CROWD, 100, 1)
    seen = detect(truth, 4, 1)
    assert (seen.particle < 0).mean() == pytest.approx(seen.missed, rel=0.3)


def test_after_warming_up_the_first_volumes_compile_nothing():
    code = """
import subprocess
import sys
sys.path.insert(0, sys.argv[1])
from test_second_look import crowd, frame_of
from tracking.settings import TrackerSettings
from tracking.switching import hindsight, life, links, merging, motion
from tracking.tracker import OnlineTracker

def compiled():
    every = [f for module in (hindsight, life, links, merging, motion) for f in vars(module).values()]
    return sum(len(f.signatures) for f in every if hasattr(f, "signatures"))

tracker = OnlineTracker(TrackerSettings())
tracker.warmup_switching()
before = compiled()
for number, places in enumerate(crowd(3, 30)):
    tracker.step(frame_of(number, places))
assert tracker.counts["relinked"] > 0
print(before, compiled())
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(said[0]) == int(said[1]) > 0
