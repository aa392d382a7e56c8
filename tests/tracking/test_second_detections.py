import numpy as np
import pytest
from flows import FRAME_S, channel_flow, info, second_detection_scores, with_second_detections
from pydantic import ValidationError
from scipy.spatial import KDTree

from stream.messages import Detections, TrackFlag, Tracks
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

SECOND_DETECTION = int(TrackFlag.SECOND_DETECTION)


def track_all(detections: list[Detections], **chosen) -> list[Tracks]:
    tracker = OnlineTracker(TrackerSettings(**chosen))
    return [tracker.step(d) for d in detections]


def flagged(tracks: Tracks) -> set[int]:
    return {int(t) for t in tracks.track[(tracks.flags.astype(int) & SECOND_DETECTION) > 0]}


def scene(paths, frames: int, noise: float = 0.05, seed: int = 0, confidence=0.9) -> list[Detections]:
    """Detections of particles at `paths(frame)`, an (N, 2) array; NaN where one is not seen."""
    rng = np.random.default_rng(seed)
    found = []
    for frame in range(frames):
        where = np.asarray(paths(frame), float)
        seen = np.isfinite(where[:, 0])
        x, y = (where + rng.normal(0, noise, where.shape))[seen].T
        found.append(
            Detections.from_columns(
                info(frame), x_um=x, y_um=y, sigma_x_um=noise, sigma_y_um=noise, brightness=1.0,
                confidence=np.broadcast_to(confidence, seen.shape)[seen],
            )
        )  # fmt: skip
    return found


def crowd(frame: int, seed: int = 5, count: int = 60) -> np.ndarray:
    """Particles far from the origin that wander and drift, to learn from."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.3, (200, count, 2))
    speeds = rng.uniform(0, 1.0, (count, 1)) * np.array([[1.0, 0.0]])
    return rng.uniform(40, 400, (count, 2)) + speeds * frame + steps[:frame].sum(axis=0)


@pytest.mark.parametrize("displacement", [0.15, 1.2])
def test_second_detections_of_particles_in_a_channel_flow_are_found_and_others_are_not(displacement):
    sequence, _ = with_second_detections(channel_flow(700, displacement, 80, seed=3), share=0.1)
    rows = track_all(sequence.detections)
    precision, recall, pairs = second_detection_scores(rows, sequence.truth)
    assert pairs > 60
    assert precision >= 0.95
    assert recall >= 0.9


@pytest.mark.parametrize(("brownian", "share"), [(0.02, 0.02), (0.05, 0.01), (0.2, 0.0)])
def test_particles_at_rest_beside_one_another_are_hardly_ever_taken_for_one(brownian, share):
    """Errors are 0.1 um: steps much smaller than these tell little."""
    sequence = channel_flow(500, 0.0, 80, seed=3, brownian=brownian)
    neighbours = len(KDTree(sequence.positions[-1][:, :2]).query_pairs(5.0))
    assert neighbours > 150
    assert len(flagged(track_all(sequence.detections)[-1])) <= share * neighbours


def test_in_a_plane_flow_neighbours_with_nearly_the_same_velocity_are_not_taken_for_one():
    sequence = channel_flow(500, 0.15, 80, seed=3, planar=True)
    assert len(flagged(track_all(sequence.detections)[-1])) <= 3


def test_second_detections_are_flagged_and_nothing_else_changes():
    sequence, _ = with_second_detections(channel_flow(200, 0.15, 40, seed=4), share=0.2)
    with_test, without = track_all(sequence.detections), track_all(sequence.detections, double_test="off")
    flags = Tracks.COLUMNS.index("flags")
    for one, other in zip(with_test, without, strict=True):
        assert np.array_equal(
            np.delete(one.table, flags, 0), np.delete(other.table, flags, 0), equal_nan=True
        )
        assert np.array_equal(one.flags.astype(int) & ~SECOND_DETECTION, other.flags)
    assert flagged(with_test[-1])
    assert not flagged(without[-1])


def test_of_a_pair_the_younger_is_flagged_and_of_the_same_age_the_less_confident():
    def late(frame):
        second = crowd(frame)[0] + 1.5 if frame >= 10 else [np.nan, np.nan]
        return np.vstack([crowd(frame), [second]])

    rows = track_all(scene(late, 70))
    (second,) = rows[10].track[(rows[10].age_frames == 0) & (rows[10].detection == 60)]
    assert flagged(rows[-1]) == {int(second)}

    def together(frame):
        return np.vstack([crowd(frame), crowd(frame)[:1] + 1.5])

    confidence = np.full(61, 0.9)
    confidence[0] = 0.6
    assert flagged(track_all(scene(together, 70, confidence=confidence))[-1]) == {0}


def test_when_the_particles_own_track_ends_its_second_detection_counts():
    def paths(frame):
        where = np.vstack([crowd(frame), crowd(frame)[:1] + 1.5])
        if frame >= 60:
            where[0] = np.nan
        return where

    rows = track_all(scene(paths, 75))
    assert flagged(rows[58]) == {60}
    assert flagged(rows[-1]) == set()


def test_tracks_that_part_were_two_particles_after_all():
    def paths(frame):
        beside = 1.5 + max(frame - 60, 0) * 0.8
        return np.vstack([crowd(frame), crowd(frame)[:1] + np.array([0, beside])])

    rows = track_all(scene(paths, 75))
    assert flagged(rows[58]) == {60}
    assert not flagged(rows[-1])


def test_by_the_papers_rule_close_tracks_with_the_same_motion_are_one_particle():
    def paths(frame):
        drift = np.array([2.0 * frame, 0.0])
        return np.array([[0, 0], [1.5, 1.0], [0, 50], [-2.0 + 0.1 * frame, 51], [0, 90], [20, 90]]) + drift

    rows = track_all(scene(paths, 40), mode="hungarian", min_length_frames=5)
    assert flagged(rows[8]) == set()
    assert flagged(rows[-1]) == {1}


def test_a_particle_detected_three_times_keeps_one_track_that_counts():
    def paths(frame):
        at = crowd(frame)[:1]
        return np.vstack([crowd(frame), at + 1.5, at - [1.0, 1.5]])

    assert flagged(track_all(scene(paths, 80))[-1]) == {60, 61}


def test_frames_in_which_a_second_detection_is_missed_say_nothing():
    def paths(frame):
        second = crowd(frame)[:1] + 1.5
        if frame % 7 == 5:
            second[:] = np.nan
        return np.vstack([crowd(frame), second])

    assert flagged(track_all(scene(paths, 90))[-1]) == {60}


def test_the_likelihood_test_is_refused_where_no_flow_is_learnt():
    with pytest.raises(ValidationError, match="double_test likelihood needs mode flow"):
        TrackerSettings(mode="hungarian", double_test="likelihood")


def test_how_many_second_detections_there_are_is_known_live():
    sequence, _ = with_second_detections(channel_flow(300, 0.15, 50, seed=6), share=0.1)
    tracker = OnlineTracker(TrackerSettings(frame_rate_hz=1 / FRAME_S))
    for detections in sequence.detections:
        tracks = tracker.step(detections)
    assert tracker.second_detections == len(flagged(tracks)) > 5
