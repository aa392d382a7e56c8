from itertools import cycle, islice

import numpy as np
import pytest
from flows import FRAME_S, channel_flow, info, link_f1, links_of
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.messages import Detections, TrackFlag, Tracks
from tracking import assignment, candidates, flow_change, flow_field, kalman, process_noise, track_life
from tracking.analysis.metrics import TrackPoints, track_scores
from tracking.second_detections import close_pairs
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker


def detections(frame, x, y, z=np.nan, sigma=0.1, **more) -> Detections:
    table = np.broadcast_arrays(x, y, z, sigma, sigma, 1.0, 5.0, 0.9)
    return Detections.from_columns(info(frame, **more), **dict(zip(Detections.COLUMNS, table, strict=False)))


def track_all(sequence, chosen: TrackerSettings | None = None) -> list[Tracks]:
    tracker = OnlineTracker(chosen or TrackerSettings())
    return [tracker.step(d) for d in sequence.detections]


def grid(side: int = 5, spacing: float = 20.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(side) * spacing, np.arange(side) * spacing)
    return np.array([x.ravel(), y.ravel()])


def walk(tracker: OnlineTracker, frames, velocity: float = 50.0, z=np.nan, **more) -> list[Tracks]:
    """A grid of particles moving along x at `velocity` um/s, seen at the given frame numbers."""
    x, y = grid()
    return [tracker.step(detections(f, x + velocity * f * FRAME_S, y, z, **more)) for f in frames]


@pytest.mark.parametrize("displacement", [0.15, 1.2])
def test_links_of_a_channel_flow_are_right_for_slow_and_fast_flow_without_any_prior(displacement):
    sequence = channel_flow(500, displacement, 60, seed=3)
    rows = track_all(sequence)
    assert link_f1(rows, sequence.truth) >= 0.98
    assert links_of(rows, sequence.truth)[2] <= 1.2


def test_a_badly_centred_detection_ends_no_track_that_was_just_confirmed():
    rng, tracker = np.random.default_rng(0), OnlineTracker(TrackerSettings())
    places = grid(12, 40.0)
    began = 3 * (np.arange(144) % 16)
    steps = np.cumsum(rng.normal(0, 0.2, (60, 2, 144)), axis=0)
    before, kept, asked = np.full(144, -1.0), 0, 0
    for frame in range(60):
        there, fourth = frame >= began, (frame == began + 3) & (frame > 12)
        at = places + steps[frame] + rng.normal(0, 0.1, (2, 144)) + [[2.0 * frame], [0.0]]
        at[1, fourth] += 1.4
        rows = tracker.step(detections(frame, *at[:, there]))
        name, use = np.full(144, -1.0), rows.detection >= 0
        name[np.flatnonzero(there)[rows.detection[use].astype(int)]] = rows.track[use]
        kept, asked = kept + int((name == before)[fourth].sum()), asked + int(fourth.sum())
        before = name
    assert asked > 80
    assert kept > 0.9 * asked


def alpha(sequence, names: list[np.ndarray]) -> float:
    """The challenge's alpha of detections in trajectories (-1 for none), in units of standard errors, gate 5."""
    sigma = np.array([0.1, 0.1, 1.0])
    frame = np.repeat(np.arange(len(names)), [n.size for n in names])
    track = np.concatenate(names)
    found = np.concatenate([np.column_stack([d.x_um, d.y_um, d.z_um]) for d in sequence.detections]) / sigma
    true_frame = np.repeat(np.arange(len(names)), [p.size for p in sequence.particles])
    truth = TrackPoints.of(
        np.concatenate(sequence.particles), true_frame, (np.concatenate(sequence.positions) / sigma).T
    )
    used = track >= 0
    return track_scores(truth, TrackPoints.of(track[used], frame[used], found[used].T), 5.0).alpha


@pytest.mark.parametrize("displacement", [0.15, 1.2])
def test_trajectories_are_nearly_as_good_as_if_every_detection_were_linked_by_its_true_particle(displacement):
    sequence = channel_flow(500, displacement, 80, seed=8)
    names = []
    for found, tracks in zip(sequence.detections, track_all(sequence), strict=True):
        name = np.full(len(found), -1)
        measured = tracks.detection >= 0
        name[tracks.detection[measured].astype(int)] = tracks.track[measured]
        names.append(name)
    assert alpha(sequence, names) >= 0.96 * alpha(sequence, sequence.truth)


def test_the_particles_of_volumes_are_tracked_like_those_of_images():
    rng = np.random.default_rng(3)
    places = rng.uniform(0, 200, (3, 80))
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(12):
        x, y, z = places + 0.5 * frame + rng.normal(0, 0.05, places.shape)
        tracks = tracker.step(detections(frame, x, y, z, focus_um=np.nan))
    assert tracker.axes == 3
    assert sorted(tracks.track) == list(range(80))
    assert np.median(tracks.vz_um_s) == pytest.approx(0.5 / FRAME_S, rel=0.2)


def test_a_fast_plug_flow_is_tracked_once_it_has_been_learnt():
    sequence = channel_flow(500, 1.2, 60, seed=4, plug=True)
    assert link_f1(track_all(sequence)[25:], sequence.truth[25:]) >= 0.98


def test_a_flow_in_the_plane_is_tracked_without_depth():
    sequence = channel_flow(500, 0.15, 60, seed=5, planar=True)
    rows = track_all(sequence)
    assert link_f1(rows, sequence.truth) >= 0.98
    assert np.isnan(rows[-1].z_um).all()
    assert np.isnan(rows[-1].vz_um_s).all()


def test_it_makes_far_fewer_wrong_links_than_plain_frame_to_frame_linking():
    sequence = channel_flow(500, 1.2, 60, seed=6)
    plain = TrackerSettings(mode="hungarian", max_distance_um=14.0, min_length_frames=3)
    wrong = []
    for chosen in (TrackerSettings(), plain):
        found, true, _ = links_of(track_all(sequence, chosen), sequence.truth)
        wrong.append(len(found - true))
    assert wrong[1] > 5 * wrong[0]


def test_the_particles_diffusion_is_learnt_from_the_innovations():
    sequence = channel_flow(1000, 0.1, 80, seed=7, brownian=0.4)
    tracker = OnlineTracker(TrackerSettings())
    for d in sequence.detections:
        tracker.step(d)
    assert tracker.diffusion_um2_s == pytest.approx(0.4**2 / (2 * FRAME_S), rel=0.1)


def test_velocities_and_their_errors_are_those_of_the_particles():
    rng = np.random.default_rng(0)
    x, y = grid(20, 30.0)
    tracker = OnlineTracker(TrackerSettings(diffusion_um2_s=0.0))
    for frame in range(60):
        noise = rng.normal(0, 0.1, (2, x.size))
        tracks = tracker.step(detections(frame, x + 80.0 * frame * FRAME_S + noise[0], y + noise[1]))
    pull = (tracks.vx_um_s - 80.0) / tracks.sigma_vx_um_s
    assert abs(pull.mean()) < 0.3
    assert 0.5 < pull.std() < 1.3


def test_positions_come_out_as_measured_with_the_detections_own_error():
    tracker = OnlineTracker(TrackerSettings())
    rows = walk(tracker, range(5), z=3.0, sigma=0.07)
    last = rows[-1]
    x, _ = grid()
    assert np.allclose(np.sort(last.x_um), np.sort(x + 50.0 * 4 * FRAME_S), atol=1e-12)
    assert np.allclose(last.z_um, 3.0)
    assert np.allclose(last.sigma_x_um, 0.07)
    assert np.allclose(last.brightness, 5.0)
    assert sorted(last.detection) == list(range(25))
    assert np.array_equal(last.age_frames, np.full(25, 4.0))


def test_a_track_is_tentative_until_its_third_detection():
    rows = walk(OnlineTracker(TrackerSettings()), range(4))
    tentative = [set(tracks.flags) for tracks in rows]
    assert tentative == [{TrackFlag.TENTATIVE}, {TrackFlag.TENTATIVE}, {0.0}, {0.0}]


def test_a_missed_particle_is_predicted_flagged_and_found_again_under_its_number():
    tracker = OnlineTracker(TrackerSettings())
    walk(tracker, range(10))
    nothing = tracker.step(detections(10, [], []))
    assert set(nothing.flags) == {TrackFlag.PREDICTED}
    assert set(nothing.detection) == {-1.0}
    x, _ = grid()
    assert np.allclose(np.sort(nothing.x_um), np.sort(x + 50.0 * 10 * FRAME_S), atol=0.2)
    assert (nothing.sigma_x_um > 0).all()
    (after,) = walk(tracker, [11])
    assert sorted(after.track) == list(range(25))
    assert tracker.counts["born"] == 25
    assert tracker.counts["missed"] == 25


def test_gaps_are_bridged_up_to_the_limit_and_no_longer():
    for empty, born in ((3, 25), (4, 50)):
        tracker = OnlineTracker(TrackerSettings(max_gap_frames=3))
        walk(tracker, range(10))
        for frame in range(10, 10 + empty):
            tracker.step(detections(frame, [], []))
        walk(tracker, [10 + empty])
        assert tracker.counts["born"] == born


def test_frames_lost_in_the_camera_are_bridged_by_real_time():
    tracker = OnlineTracker(TrackerSettings())
    walk(tracker, range(10), velocity=400.0)
    x, y = grid()
    late = detections(10, x + 400.0 * 12 * FRAME_S, y, camera_frame=12)
    tracks = tracker.step(late)
    assert sorted(tracks.track) == list(range(25))
    assert np.allclose(tracks.vx_um_s, 400.0, rtol=0.02)


def test_a_long_loss_in_the_camera_ends_all_tracks():
    tracker = OnlineTracker(TrackerSettings())
    walk(tracker, range(10))
    x, y = grid()
    fresh = tracker.step(detections(10, x, y, camera_frame=14))
    assert sorted(fresh.track) == list(range(25, 50))
    assert tracker.counts["ended"] == 25


@pytest.mark.parametrize("gaps", [[3], [5], [10], [1, 9, 4], [10, 2]])
def test_where_only_some_frames_are_tracked_particles_are_followed_as_well_as_in_all_of_them(gaps):
    chosen = np.cumsum(list(islice(cycle(gaps), 40)))
    sequence = channel_flow(count=200, displacement=0.05, frames=int(chosen[-1]) + 1, brownian=0.05)
    tracker = OnlineTracker(TrackerSettings())
    rows = [tracker.step(sequence.detections[frame]) for frame in chosen]
    begun = 5
    assert link_f1(rows[begun:], [sequence.truth[frame] for frame in chosen[begun:]]) > 0.99
    assert not tracker.remark


def test_when_the_detector_falls_behind_tracks_are_kept_and_when_it_recovers_a_loss_ends_them_as_before():
    tracker = OnlineTracker(TrackerSettings())
    walk(tracker, range(10))
    walk(tracker, [12, 15, 18, 21, 24, 28, 34, 40, 46, 52])
    assert tracker.counts["born"] == 25
    walk(tracker, range(53, 60))
    walk(tracker, [64])
    assert tracker.counts["born"] == 50


def test_without_times_the_frame_rate_of_the_settings_is_used():
    tracker = OnlineTracker(TrackerSettings(frame_rate_hz=1.0 / FRAME_S))
    rows = walk(tracker, range(10), time_s=float("nan"))
    assert np.allclose(rows[-1].vx_um_s, 50.0, rtol=0.05)


def test_repeated_and_earlier_frames_are_ignored_and_counted():
    tracker = OnlineTracker(TrackerSettings())
    walk(tracker, [0, 1, 2, 3])
    assert len(walk(tracker, [3])[0]) == 0
    assert len(walk(tracker, [1])[0]) == 0
    assert tracker.counts["duplicates"] == 2
    assert sorted(walk(tracker, [4])[0].track) == list(range(25))


def test_detections_without_a_position_are_ignored_and_counted():
    tracker = OnlineTracker(TrackerSettings())
    x = np.array([0.0, 30.0, np.nan, np.inf, 60.0])
    for frame in range(3):
        tracks = tracker.step(detections(frame, x, np.array([0.0, 30.0, 0.0, 0.0, np.nan]), 1.0))
    assert len(tracks) == 2
    assert tracker.counts["ignored"] == 9
    assert sorted(tracks.detection) == [0, 1]


def test_the_first_particles_decide_between_depth_and_plane():
    x, y = grid()
    deep = OnlineTracker(TrackerSettings())
    deep.step(detections(0, [], []))
    assert deep.axes == 0
    deep.step(detections(1, x, y, np.where(x > 70, np.nan, 1.0)))
    assert deep.axes == 3
    assert deep.counts["ignored"] == (x > 70).sum()
    flat = OnlineTracker(TrackerSettings())
    flat.step(detections(0, x, y, np.where(x > 10, np.nan, 1.0)))
    assert flat.axes == 2
    assert len(flat.step(detections(1, x, y, 1.0))) == 25


def test_a_move_of_the_focus_does_not_look_like_motion():
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(20):
        focus = 100.0 if frame < 10 else 130.0
        tracks = walk(tracker, [frame], z=110.0 - focus, focus_um=focus)[0]
    assert sorted(tracks.track) == list(range(25))
    assert np.allclose(tracks.z_um, -20.0)
    assert np.allclose(tracks.vz_um_s, 0.0, atol=1.0)


def test_standard_errors_that_are_missing_or_impossible_are_replaced_by_the_settings():
    tracker = OnlineTracker(TrackerSettings(sigma_xy_um=0.3))
    x, y = grid()
    sigma = np.where(x > 50, np.nan, np.where(x > 10, -1.0, 0.0))
    tracks = tracker.step(detections(0, x, y, sigma=sigma))
    assert np.allclose(tracks.sigma_x_um, 0.3)


@pytest.mark.parametrize("mode", ["flow", "hungarian"])
def test_thousands_of_births_at_once_and_sudden_emptiness(mode):
    rng = np.random.default_rng(1)
    tracker = OnlineTracker(TrackerSettings(mode=mode))
    for frame, count in enumerate([0, 3, 8000, 0, 0, 5000, 1, 0]):
        tracks = tracker.step(detections(frame, *rng.uniform(0, 500, (2, count)), rng.uniform(0, 50, count)))
        assert len(tracks) >= count
        assert len(set(tracks.track)) == len(tracks)
    tracker.finish()
    assert tracker.counts["ended"] == tracker.counts["born"]


def test_particles_all_in_one_place_and_one_absurd_error_do_no_harm():
    tracker = OnlineTracker(TrackerSettings())
    rng = np.random.default_rng(2)
    for frame in range(4):
        tracks = tracker.step(detections(frame, np.zeros(50), np.zeros(50), 0.0))
        assert len(tracks) >= 50
    for frame in range(4, 8):
        sigma = np.full(50, 0.1)
        sigma[0] = 1e6
        tracks = tracker.step(detections(frame, *rng.uniform(0, 1e5, (2, 50)), 0.0, sigma=sigma))
        assert np.isfinite(tracks.vx_um_s).all()


def test_the_papers_plain_linking_is_frame_to_frame_with_a_distance_and_a_least_length():
    tracker = OnlineTracker(TrackerSettings(mode="hungarian", max_distance_um=2.0, min_length_frames=4))
    rows = walk(tracker, range(6))
    assert [int(tracks.flags[0]) for tracks in rows] == [4, 4, 4, 0, 0, 0]
    assert np.isnan(rows[0].vx_um_s).all()
    assert np.allclose(rows[1].vx_um_s, 50.0)
    assert np.allclose(rows[1].sigma_vx_um_s, 0.1 * np.sqrt(2) / FRAME_S)
    jump = walk(tracker, [6], velocity=50.0 + 2.5 / (6 * FRAME_S))[0]
    assert tracker.counts["born"] == 50
    assert len(jump) == 25


def test_the_same_detections_give_the_same_tracks():
    sequence = channel_flow(200, 0.5, 15, seed=9)
    one, two = track_all(sequence), track_all(sequence)
    assert all(np.array_equal(a.table, b.table, equal_nan=True) for a, b in zip(one, two, strict=True))


ODD = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 5).map(float))
FRAME = st.tuples(
    st.integers(-3, 60), st.integers(-3, 500), ODD, ODD, st.lists(st.tuples(*[ODD] * 6), max_size=6)
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["flow", "hungarian"]), st.lists(FRAME, max_size=12))
def test_no_input_breaks_it_and_every_usable_detection_is_in_exactly_one_row(mode, frames):
    tracker = OnlineTracker(TrackerSettings(mode=mode))
    last = None
    for frame, camera_frame, time_s, focus_um, particles in frames:
        table = np.full((len(Detections.COLUMNS), len(particles)), np.nan)
        table[:6] = np.array(particles, float).reshape(-1, 6).T
        about = info(frame, camera_frame=camera_frame, time_s=time_s, focus_um=focus_um)
        tracks = tracker.step(Detections(about, table))
        if last is not None and frame <= last:
            assert len(tracks) == 0
            continue
        last = frame
        usable = (np.abs(table[: tracker.axes or 2]) < 1e7).all(axis=0)
        used = tracks.detection[tracks.detection >= 0].astype(int)
        assert sorted(used) == list(np.flatnonzero(usable))
        assert len(set(tracks.track)) == len(tracks) == tracker.alive


@pytest.mark.parametrize("mode", ["flow", "hungarian"])
def test_a_live_run_compiles_nothing_once_warmed_up(mode):
    tracker = OnlineTracker(TrackerSettings(mode=mode))
    tracker.warmup()
    modules = (
        assignment, candidates, flow_change, flow_field, kalman, close_pairs, process_noise, track_life
    )  # fmt: skip
    kernels = [v for m in modules for v in vars(m).values() if hasattr(v, "signatures")]
    before = [len(kernel.signatures) for kernel in kernels]
    for sequence in (channel_flow(300, 0.5, 30), channel_flow(300, 0.5, 30, planar=True)):
        live = OnlineTracker(TrackerSettings(mode=mode))
        order = [*range(20), *range(18, -1, -1)]  # the flow turns round
        for frame, at in enumerate(order):
            table = sequence.detections[at].table
            table.flags.writeable = False
            live.step(Detections(info(frame), table))
        assert (live.changes > 0) == (mode == "flow")
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_warming_up_leaves_no_trace():
    tracker = OnlineTracker(TrackerSettings())
    tracker.warmup()
    assert tracker.alive == 0
    assert tracker.counts["born"] == 0
