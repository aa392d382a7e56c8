import numpy as np
import pytest
from flows import DEPTH, FRAME_S, SPACING, channel_flow
from hypothesis import given, settings
from hypothesis import strategies as st

from tracking.analysis.velocity import diffusion_coefficient, per_track_summary, velocity_profile
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

DT = 0.02


def walkers(tracks=300, frames=60, diffusion=0.8, error=0.05, velocity=(3.0, 0.0, 0.0), seed=0, keep=1.0):
    """Rows of a drifting random walk: track, frame, x, y, z, in random order."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, np.sqrt(2 * diffusion * DT), (tracks, frames, 3)) + np.array(velocity) * DT
    seen = np.cumsum(steps, axis=1) + rng.uniform(0, 50, (tracks, 1, 3)) + rng.normal(0, error, steps.shape)
    track, frame = np.meshgrid(np.arange(tracks), np.arange(frames), indexing="ij")
    chosen = rng.permutation(track.size)[: int(keep * track.size)]
    return track.ravel()[chosen], frame.ravel()[chosen], *seen.reshape(-1, 3)[chosen].T


@pytest.mark.parametrize("keep", [1.0, 0.9])
def test_the_diffusion_coefficient_of_a_random_walk_is_found_within_its_error(keep):
    pulls = []
    for seed in range(6):
        track, frame, x, y, _ = walkers(seed=seed, keep=keep)
        found = diffusion_coefficient(track, frame, x, y, DT)
        assert found.standard_error_um2_s < 0.04
        assert found.localisation_um == pytest.approx(0.05, abs=0.03)
        pulls.append((found.um2_s - 0.8) / found.standard_error_um2_s)
    assert abs(np.mean(pulls)) < 1.5
    assert np.std(pulls) < 2.5


def test_a_common_drift_is_not_diffusion():
    track, frame, x, y, _ = walkers(velocity=(60.0, -20.0, 0.0))
    assert diffusion_coefficient(track, frame, x, y, DT).um2_s == pytest.approx(0.8, rel=0.05)
    assert diffusion_coefficient(track, frame, x, y, DT, remove_drift=False).um2_s > 20


def test_too_few_rows_give_no_diffusion_coefficient():
    assert np.isnan(diffusion_coefficient([], [], [], [], DT).um2_s)
    assert np.isnan(diffusion_coefficient([1, 1], [0, 1], [0.0, 1.0], [0.0, 0.0], DT, min_length=2).um2_s)


def test_velocities_of_tracks_come_with_errors_that_cover_the_truth():
    track, frame, x, y, z = walkers(velocity=(3.0, 1.0, -2.0))
    summary = per_track_summary(track, frame * DT, x, y, z)
    pull = (summary.velocity_um_s - np.array([[3.0], [1.0], [-2.0]])) / summary.sigma_um_s
    assert np.allclose(pull.std(axis=1), 1.0, atol=0.2)
    assert np.allclose(pull.mean(axis=1), 0.0, atol=0.25)
    assert np.median(summary.median_um_s[0]) == pytest.approx(3.0, abs=0.4)
    assert (summary.length == 60).all()


def test_short_tracks_are_left_out_of_the_summary():
    summary = per_track_summary(
        [7, 7, 7, 9, 9], [0, 1, 2, 0, 1], [0, 1, 2, 0, 5], np.zeros(5), np.zeros(5), 3
    )
    assert summary.track.tolist() == [7]
    assert summary.velocity_um_s[:, 0] == pytest.approx([1, 0, 0])
    assert len(per_track_summary([], [], [], [], []).track) == 0


def test_frames_that_all_have_the_same_time_tell_no_velocity_and_the_profile_stays_empty():
    track, frame, x, y, z = walkers()
    summary = per_track_summary(track, np.zeros(len(frame)), x, y, z)
    assert len(summary.track) > 0
    for unknown in (summary.velocity_um_s, summary.sigma_um_s, summary.median_um_s):
        assert np.isnan(unknown).all()
    assert len(velocity_profile(summary.z_um, summary.velocity_um_s[0], summary.sigma_um_s[0]).height_um) == 0


def test_a_track_without_passing_time_does_not_spoil_the_others():
    track, frame, x, y, z = walkers()
    time_s = np.where(track == track.max(), 0.0, frame * DT)
    summary = per_track_summary(track, time_s, x, y, z)
    assert np.isnan(summary.velocity_um_s[:, -1]).all()
    assert np.isfinite(summary.velocity_um_s[:, :-1]).all()
    assert np.isfinite(summary.median_um_s[:, :-1]).all()


def test_without_depth_the_velocity_in_the_plane_is_still_found():
    track, frame, x, y, z = walkers()
    summary = per_track_summary(track, frame * DT, x, y, np.full_like(z, np.nan))
    assert np.isfinite(summary.velocity_um_s[:2]).all()
    assert np.isnan(summary.velocity_um_s[2]).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=6), min_size=1, max_size=8))
def test_medians_along_tracks_are_medians(speeds):
    track = np.concatenate([np.full(len(s) + 1, i) for i, s in enumerate(speeds)])
    x = np.concatenate([np.cumsum([0.0, *s]) for s in speeds])
    time = np.concatenate([np.arange(len(s) + 1) for s in speeds])
    summary = per_track_summary(track, time, x, x, x, 3)
    expected = [np.median(np.diff(np.cumsum([0.0, *s]))) for s in speeds if len(s) >= 2]
    assert summary.median_um_s[0] == pytest.approx(expected, abs=1e-9)


def test_the_profile_of_a_channel_is_found_within_its_standard_error():
    rng = np.random.default_rng(0)
    height = rng.uniform(0, 100, 4000)
    truth = 4 * 50 * height / 100 * (1 - height / 100)
    sigma = rng.uniform(1, 10, height.size)
    profile = velocity_profile(height, truth + rng.normal(0, sigma), sigma, bins=np.linspace(0, 100, 21))
    expected = 4 * 50 * profile.height_um / 100 * (1 - profile.height_um / 100)
    pull = (profile.velocity_um_s - expected) / profile.standard_error_um_s
    assert len(profile.height_um) == 20
    assert 3980 <= profile.tracks.sum() == profile.used.sum() <= 4000
    assert np.abs(pull).max() < 4
    assert 0.5 < pull.std() < 1.5


def test_two_particles_taken_for_one_do_not_bend_the_profile():
    rng = np.random.default_rng(0)
    height = rng.uniform(0, 100, 400)
    velocity = 4 * 50 * height / 100 * (1 - height / 100)
    mixed = rng.choice(400, 20, replace=False)
    with_mixed = np.where(np.isin(np.arange(400), mixed), 0.1 * velocity, velocity)
    bins = np.linspace(0, 100, 11)
    profile = velocity_profile(height, with_mixed, bins=bins)
    clean = velocity_profile(height, velocity, bins=bins)
    assert np.abs(profile.velocity_um_s - clean.velocity_um_s).max() < 2.0
    assert np.abs(velocity_profile(height, with_mixed, bins=bins, clip=None).velocity_um_s
                  - clean.velocity_um_s).max() > 2.5  # fmt: skip
    in_the_middle = mixed[velocity[mixed] > 35]
    assert not profile.used[in_the_middle].any()


def test_values_that_are_not_finite_or_outside_the_bins_are_left_out():
    profile = velocity_profile([1, 1, np.nan, 9, 1], [2, 2, 2, 2, np.inf], bins=[0, 5])
    assert profile.tracks.tolist() == [2]
    assert profile.velocity_um_s.tolist() == [2.0]
    assert len(velocity_profile([], []).height_um) == 0


@pytest.mark.parametrize("displacement", [0.15, 1.2])
def test_tracked_particles_of_a_channel_flow_show_its_profile_within_three_percent_of_the_maximum(
    displacement,
):
    tracker = OnlineTracker(TrackerSettings())
    parts = []
    for detections in channel_flow(500, displacement, 80, seed=2).detections:
        tracks = tracker.step(detections)
        good = tracks.flags == 0
        time_s = np.full(good.sum(), tracks.info.time_s)
        parts.append(
            np.vstack([time_s, tracks.track[good], tracks.x_um[good], tracks.y_um[good], tracks.z_um[good]])
        )
    time_s, track, x, y, z = np.concatenate(parts, axis=1)
    summary = per_track_summary(track, time_s, x, y, z)
    profile = velocity_profile(summary.z_um, summary.velocity_um_s[0], summary.sigma_um_s[0], bins=12)
    fastest = displacement * SPACING / FRAME_S
    depth = profile.height_um / DEPTH
    assert np.abs(profile.velocity_um_s - 4 * fastest * depth * (1 - depth)).max() < 0.03 * fastest
