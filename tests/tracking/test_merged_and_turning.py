"""Two particles that are one detection are both followed by it; who meets an end of the stack turns back there."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.messages import Detections, FrameInfo
from stream.volume_info import VolumeInfo
from tracking.flow_field import FlowField
from tracking.settings import TrackerSettings
from tracking.switching import merging, motion
from tracking.tracker import OnlineTracker

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from volume_tracks import WORLDS, measure

SIZE = np.array([60.0, 60.0, 12.0])
FRAME_S = 0.1


def merged(points, within, scale):
    """Points (3, N) of which those nearer than `within` times `scale` (3,) are one, in their middle."""
    points = points.copy()
    gone = np.zeros(points.shape[1], np.bool_)
    for a in range(points.shape[1]):
        near = np.linalg.norm((points - points[:, [a]]) / scale[:, None], axis=0) < within
        near[: a + 1] = False
        for b in np.flatnonzero(near & ~gone):
            if not gone[a]:
                points[:, a] = (points[:, a] + points[:, b]) / 2
                gone[b] = True
    return points[:, ~gone]


def learnt(within, sigma, frames=300, particles=60):
    rng = np.random.default_rng(0)
    resolution, scale = merging.Resolution(), sigma / np.exp(np.log(sigma).mean())
    for _ in range(frames):
        points = merged(rng.uniform(0, 1, (3, particles)) * SIZE[:, None], within, scale)
        resolution.learn(points, np.tile(sigma[:, None] ** 2, points.shape[1]), SIZE)
    return resolution.width_um


def test_how_near_two_particles_are_one_detection_is_learnt_from_the_pairs_that_lack():
    """A Gaussian with this width lacks as many pairs as a ball in which all are merged."""
    width = learnt(1.0, np.ones(3))
    expected = (4.0 / 3.0 * math.pi) ** (1 / 3) / math.sqrt(2.0 * math.pi)
    np.testing.assert_allclose(width, expected, rtol=0.2)


def test_nothing_is_merged_where_no_pairs_lack():
    assert learnt(0.0, np.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_width_is_longer_where_errors_are():
    width = learnt(1.0, np.array([0.5, 0.5, 1.5]))
    assert width[2] / width[0] == pytest.approx(3.0)
    assert width[1] == width[0]


def test_two_points_say_nothing_of_how_near_they_are_one():
    resolution = merging.Resolution()
    resolution.learn(np.zeros((3, 2)), np.ones((3, 2)), SIZE)
    assert not resolution.width_um.any()


def predicted(places, sigma=0.1):
    """State of tracks at `places` (3, N) with one standard error in each axis, equally likely in each model."""
    count = places.shape[1]
    state = np.zeros((motion.STATES, count))
    for m in range(motion.MODELS):
        state[m * motion.ROWS + motion.P : m * motion.ROWS + motion.P + 3] = places
        state[m * motion.ROWS + motion.PP : m * motion.ROWS + motion.PP + 3] = sigma**2
        state[motion.MU + m] = 1.0 / motion.MODELS
    state[motion.EXISTS] = 1.0
    return state


coordinates = st.floats(-50.0, 50.0)


@settings(deadline=None)
@given(
    st.tuples(*[coordinates] * 3), st.tuples(*[coordinates] * 3), st.floats(1e-3, 1.0), st.floats(1e-3, 1.0)
)
def test_a_detection_in_the_middle_says_of_either_that_it_is_where_it_was_predicted(a, b, error, spread):
    place = np.array([a, b]).T
    middle = place.mean(axis=1, keepdims=True)
    spreads = np.full((3, 2), spread**2)
    of_z, of_variance = np.zeros((3, 1)), np.zeros((3, 1))
    for i, k in ((0, 1), (1, 0)):
        merging.as_of_one(
            i, k, 3, middle, np.full((3, 1), error**2), 0, place, spreads, of_z, of_variance
        )  # fmt: skip
        np.testing.assert_allclose(of_z[:, 0], place[:, i], atol=1e-9)
        assert (of_variance > 3.999 * error**2 + 0.999 * spread**2).all()


def pairs(places, width=1.0):
    n = places.shape[1]
    out = np.full(n, -1), np.zeros(n), np.zeros((3, n)), np.zeros((3, n)), np.full(n, 0.9)
    partner, chance, place, spread, seen = out
    merging.pair_up(predicted(places), n, 3, np.full(3, width), partner, chance, place, spread, seen)
    return partner, chance, seen


def test_the_nearer_two_particles_are_the_likelier_they_are_one_detection():
    apart = np.array([0.0, 0.5, 1.0, 2.0])
    chances = []
    for distance in apart:
        partner, chance, seen = pairs(np.array([[10.0, 10.0 + distance], [5.0, 5.0], [3.0, 3.0]]))
        assert partner.tolist() == [1, 0]
        assert chance[0] == chance[1]
        np.testing.assert_allclose(seen, 0.9 * (1.0 - 0.5 * chance))
        chances.append(chance[0])
    assert (np.diff(chances) < 0).all()
    assert chances[0] <= merging.MOST


def test_particles_far_apart_are_seen_one_by_one():
    partner, chance, seen = pairs(np.array([[10.0, 20.0], [5.0, 5.0], [3.0, 3.0]]))
    assert partner.tolist() == [-1, -1]
    assert not chance.any()
    assert (seen == 0.9).all()


def test_of_three_in_a_row_the_middle_one_is_paired_with_the_nearer():
    partner, _, _ = pairs(np.array([[10.0, 10.4, 11.3], [5.0] * 3, [3.0] * 3]))
    assert partner.tolist() == [1, 0, 1]


def test_tracks_are_better_where_merged_detections_are_known_for_what_they_are(monkeypatch):
    with_it = measure(WORLDS["middle"], 500, 4, 1, TrackerSettings())
    monkeypatch.setattr(merging.Resolution, "learn", lambda *_: None)
    without = measure(WORLDS["middle"], 500, 4, 1, TrackerSettings())
    assert with_it.ratio > without.ratio


def directed(z_um, speed_um_s, sigma_um=0.05):
    """One track that surely moves along z."""
    state = predicted(np.array([[5.0], [5.0], [z_um]]), sigma_um)
    state[motion.MU : motion.MU + 3, 0] = 1e-4, 1.0 - 2e-4, 1e-4
    state[motion.ROWS + motion.V + 2, 0] = speed_um_s
    state[motion.ROWS + motion.VV : motion.ROWS + motion.VV + 3, 0] = 1e-4
    return state


def at_next_frame(state, ends=(0.0, 9.0)):
    given = motion.Motion(
        np.full((2, 3), 1e-4), np.full(3, 0.01), np.full(3, 100.0), np.zeros(3), np.array(ends), FRAME_S
    )
    motion.predict_one(state, 0, 3, FRAME_S, given, FlowField(3).flow, np.zeros((6, 3)))
    at = motion.ROWS + 2
    return state[at + motion.P, 0], state[at + motion.V, 0], state[at + motion.PP, 0]


@settings(deadline=None)
@given(st.floats(0.2, 8.8), st.floats(-60.0, 60.0))
def test_who_would_leave_the_stack_is_predicted_to_have_turned_back(z_um, speed_um_s):
    straight = z_um + FRAME_S * speed_um_s
    z, v, variance = at_next_frame(directed(z_um, speed_um_s))
    spread = 0.2  # of the predictions: far from an end, or far beyond it, nothing is in doubt
    assert variance > 0.0
    if spread < straight < 9.0 - spread:
        assert (z, v) == pytest.approx((straight, speed_um_s), rel=1e-3, abs=1e-3)
    elif straight < -spread or straight > 9.0 + spread:
        end = 0.0 if straight < 0.0 else 9.0
        assert (z, v) == pytest.approx((2.0 * end - straight, -speed_um_s), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("beyond", [-0.02, 0.0, 0.02])
def test_where_it_is_in_doubt_who_turns_both_are_in_the_prediction(beyond):
    z, v, variance = at_next_frame(directed(8.5, 5.0 + 10.0 * beyond))
    assert z < 9.0
    assert abs(v) < 5.0
    _, _, sure = at_next_frame(directed(5.0, 5.0 + 10.0 * beyond))
    assert variance >= sure


def test_particles_that_turn_back_at_the_ends_of_the_stack_keep_their_tracks():
    rng = np.random.default_rng(1)
    count, z_um = 80, tuple(np.arange(10.0).tolist())
    start = rng.uniform(0, 1, (3, count)) * np.array([[120.0], [120.0], [9.0]])
    velocity = np.stack([rng.normal(0, 8, count), rng.normal(0, 8, count), rng.choice([-1, 1], count) * 12.0])
    tracker, names, frames = OnlineTracker(TrackerSettings()), [], 50
    for frame in range(frames):
        places = start + velocity * FRAME_S * frame
        fold = np.mod(places[2], 18.0)
        places[2] = np.where(fold > 9.0, 18.0 - fold, fold)
        x, y, z = places + rng.normal(0, 0.05, places.shape)
        info = FrameInfo("run", frame, frame, FRAME_S * frame, 0, 0.0, volume=VolumeInfo(z_um))
        found = Detections.from_columns(
            info, x_um=x, y_um=y, z_um=z, sigma_x_um=0.05, sigma_y_um=0.05, sigma_z_um=0.05, brightness=20.0,
            confidence=1.0,
        )  # fmt: skip
        rows = tracker.step(found)
        here = np.full(count, -1)
        there = rows.detection >= 0
        here[rows.detection[there].astype(int)] = rows.track[there]
        names.append(here)
    turned = 12.0 * FRAME_S * (frames - 15) / 9.0  # so often each one, after tracks have settled
    changed = sum(int((a != b).sum()) for a, b in pairwise(names[14:]))
    assert changed < 0.01 * turned * count
