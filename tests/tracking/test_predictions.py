"""What the tracker tells the detector: where its particles will be, and how well it knows that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flows import FRAME_S, channel_flow, info

from stream.messages import Detections, Predictions, TrackFlag, Tracks
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

AXES = ("x", "y", "z")


def stack(table: Predictions, *names: str) -> np.ndarray:
    return np.array([getattr(table, name) for name in names])


def ahead(known: Predictions, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Place and variance (3, N) so many frames later, as `Predictions` says."""
    t = frames * FRAME_S
    place = stack(known, "x_um", "y_um", "height_um")
    speed = stack(known, *(f"v{a}_um_s" for a in AXES))
    pp, pv, vv = (stack(known, *(f"{part}_{a}" for a in AXES)) for part in ("pp", "pv", "vv"))
    q = stack(known, *(f"q{a}_um2_s" for a in AXES))
    return place + t * speed, pp + 2 * t * pv + t * t * vv + q * t


def errors_ahead(frames: int, **flow) -> np.ndarray:
    """Errors of predictions over their stated standard errors, (3, N), in a flow whose truth is known."""
    sequence = channel_flow(300, frames=60, seed=5, missed=0.0, false=0.0, **flow)
    tracker, found = OnlineTracker(TrackerSettings()), []
    for number, detections in enumerate(sequence.detections[:-frames]):
        tracks = tracker.step(detections)
        if number < 30:
            continue
        known = tracker.predictions()
        row = {int(t): int(d) for t, d in zip(tracks.track, tracks.detection, strict=True)}
        place, variance = ahead(known, frames)
        who = [row.get(int(t), -1) for t in known.track]
        later = sequence.particles[number + frames]
        for n, d in enumerate(who):
            there = np.flatnonzero(later == sequence.truth[number][d]) if d >= 0 else ()
            if len(there) and known.flags[n] == 0 and known.hits[n] > 15:
                truth = sequence.positions[number + frames][there[0]]
                found.append((place[:, n] - truth) / np.sqrt(variance[:, n]))
    return np.array(found).T


@pytest.mark.parametrize("frames", [1, 4, 8])
def test_a_particle_is_within_the_stated_errors_of_its_prediction(frames):
    off = errors_ahead(frames)
    assert off.shape[1] > 1000
    beyond = (np.abs(off) > 2.0).mean(axis=1)
    assert (beyond < 0.12).all()  # 0.05 of a normal distribution; the filter itself is that good
    assert (np.abs(np.median(off, axis=1)) < 0.3).all()
    assert (np.median(np.abs(off), axis=1) > 0.2).all()  # nor are the errors stated far too large


def moved(frame: int, **more) -> Detections:
    """Ten particles at known heights that move along x; `focus_um` only changes where they are seen."""
    at = info(frame, **more)
    focus_um = more.get("focus_um", 0.0)
    n = np.arange(10.0)
    where = {"x_um": 20.0 * n + 2.0 * frame, "y_um": 30.0 * (n % 3), "z_um": 5.0 + n - focus_um}
    errors = {"sigma_x_um": 0.1, "sigma_y_um": 0.1, "sigma_z_um": 0.5}
    return Detections.from_columns(at, **where, **errors, brightness=100.0 + n, kind=n % 2, p_kind=0.9)


def followed(frames: int = 12, **more) -> tuple[OnlineTracker, Tracks]:
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(frames):
        tracks = tracker.step(moved(frame, **more))
    return tracker, tracks


def test_predictions_are_the_filters_state_of_every_confirmed_track():
    tracker, tracks = followed()
    known = tracker.predictions()
    assert len(known) == 10
    np.testing.assert_array_equal(known.track, tracks.track)
    np.testing.assert_allclose(known.x_um, 20.0 * np.arange(10) + 22.0, atol=0.2)
    np.testing.assert_allclose(known.height_um, 5.0 + np.arange(10), atol=0.5)
    np.testing.assert_array_equal(known.vx_um_s, tracks.vx_um_s)
    np.testing.assert_allclose(known.vv_x, tracks.sigma_vx_um_s**2)
    np.testing.assert_array_equal(known.hits, 12)
    np.testing.assert_array_equal(known.missed, 0)
    np.testing.assert_allclose(known.brightness, 100.0 + np.arange(10))
    np.testing.assert_array_equal(known.kind, np.arange(10) % 2)
    assert (known.pp_x * known.vv_x > known.pv_x**2).all()
    assert (stack(known, "qx_um2_s", "qy_um2_s", "qz_um2_s") > 0).all()


def test_a_move_of_the_focus_moves_no_prediction():
    tracker, _ = followed(focus_um=3.0)
    before = tracker.predictions()
    tracker.step(moved(12, focus_um=13.0))
    after = tracker.predictions()
    np.testing.assert_allclose(after.height_um, before.height_um, atol=0.2)
    assert (before.info.focus_um, after.info.focus_um) == (3.0, 13.0)


def test_without_a_focus_reading_heights_are_above_the_last_known_focus():
    tracker, _ = followed(focus_um=3.0)
    unread = moved(12, focus_um=3.0)
    tracker.step(Detections(replace(unread.info, focus_um=np.nan), unread.table))
    known = tracker.predictions()
    assert known.info.focus_um == 3.0
    assert known.info.frame == 12
    np.testing.assert_allclose(known.height_um, 5.0 + np.arange(10), atol=0.5)


def test_a_track_that_was_missed_says_for_how_long_and_keeps_its_brightness():
    tracker, _ = followed()
    for frame in (12, 13):
        found = moved(frame)
        tracker.step(Detections(found.info, found.table[:, :-1]))
    known = tracker.predictions()
    assert known.missed[-1] == 2
    assert int(known.flags[-1]) & TrackFlag.PREDICTED
    assert known.brightness[-1] == pytest.approx(109.0)
    assert (known.missed[:-1] == 0).all()


def test_the_brightness_follows_the_last_detections():
    tracker, _ = followed()
    for frame in range(12, 32):
        found = moved(frame)
        tracker.step(replace_column(found, "brightness", 2.0 * found.brightness))
    grown = tracker.predictions().brightness / (100.0 + np.arange(10))
    assert ((grown > 1.7) & (grown < 2.0)).all()
    tracker.step(replace_column(moved(32), "brightness", np.full(10, np.nan)))
    np.testing.assert_allclose(tracker.predictions().brightness / (100.0 + np.arange(10)), grown)


def replace_column(found: Detections, name: str, values: np.ndarray) -> Detections:
    table = found.table.copy()
    table[found.COLUMNS.index(name)] = values
    return Detections(found.info, table)


def test_at_the_start_tentative_tracks_are_not_predicted():
    tracker = OnlineTracker(TrackerSettings(confirm_hits=4))
    sizes = []
    for frame in range(5):
        tracker.step(moved(frame))
        sizes.append(len(tracker.predictions()))
    assert sizes == [0, 0, 0, 10, 10]


def test_in_a_known_flow_new_particles_are_predicted_and_flagged_from_their_second_detection_on():
    sequence = channel_flow(200, frames=40, seed=2)
    tracker = OnlineTracker(TrackerSettings())
    seen = 0
    for number, detections in enumerate(sequence.detections):
        tracks = tracker.step(detections)
        known = tracker.predictions()
        tentative = (known.flags.astype(int) & TrackFlag.TENTATIVE) > 0
        np.testing.assert_array_equal(tentative, known.hits < 3)
        if number > 10:
            assert (known.hits >= 2).all()
            young = (tracks.age_frames == 1) & (tracks.detection >= 0)
            assert set(tracks.track[young]) <= set(known.track[tentative])
            seen += int(tentative.sum())
    assert seen > 30


@pytest.mark.parametrize("count", [50, 300])
@pytest.mark.parametrize("brownian", [0.1, 0.4])
def test_three_frames_are_enough_to_know_how_far_predictions_are_off(count, brownian):
    """The first guess of the random step is 1 um, a tenth of the distance between neighbours."""
    sequence = channel_flow(count, frames=12, seed=4, brownian=brownian, missed=0.0, false=0.0)
    tracker, off = OnlineTracker(TrackerSettings()), []
    for number, detections in enumerate(sequence.detections[:8]):
        tracks = tracker.step(detections)
        if number < 2:
            continue
        known = tracker.predictions()
        row = dict(zip(tracks.track.astype(int).tolist(), tracks.detection.astype(int).tolist(), strict=True))
        place, variance = ahead(known, 4)
        later = sequence.particles[number + 4]
        for n, track in enumerate(known.track.astype(int).tolist()):
            there = np.flatnonzero(later == sequence.truth[number][row[track]]) if row[track] >= 0 else ()
            if len(there):
                truth = sequence.positions[number + 4][there[0]]
                off.append((place[:2, n] - truth[:2]) / np.sqrt(variance[:2, n]))
    median = np.median(np.abs(off), axis=0)
    assert len(off) > 3 * count
    assert ((median > 0.35) & (median < 1.0)).all()  # 0.67 of a normal distribution


def test_in_2d_and_without_a_filter_nothing_is_predicted():
    flat, plain = OnlineTracker(TrackerSettings()), OnlineTracker(TrackerSettings(mode="hungarian"))
    for frame in range(12):
        flat.step(replace_column(moved(frame), "z_um", np.full(10, np.nan)))
        plain.step(moved(frame))
    assert (len(flat.predictions()), len(plain.predictions())) == (0, 0)


def test_predictions_change_nothing_in_the_tracker():
    sequence = channel_flow(200, frames=40, seed=2)
    asked, unasked = OnlineTracker(TrackerSettings()), OnlineTracker(TrackerSettings())
    for detections in sequence.detections:
        one, other = asked.step(detections), unasked.step(detections)
        known = asked.predictions()
        known.table[:] = -1.0  # a copy: whoever has it may do with it what he likes
        np.testing.assert_array_equal(one.table, other.table)
    assert asked.counts == unasked.counts


def test_a_finished_tracker_predicts_nothing_and_a_fresh_one_cannot():
    tracker, _ = followed()
    tracker.finish()
    assert len(tracker.predictions()) == 0
    with pytest.raises(ValueError, match="before the first frame"):
        OnlineTracker(TrackerSettings()).predictions()
