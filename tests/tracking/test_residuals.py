import numpy as np
import pytest
from flows import channel_flow
from hypothesis import given, settings
from hypothesis import strategies as st

from tracking.analysis.grid import velocity_field
from tracking.analysis.residuals import displacement_residuals, error_map, nearest_offsets
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

SIGMA = np.array([0.1, 0.2, 1.5])


def steady(tracks=80, frames=150, seed=0, sigma=SIGMA):
    """Rows of particles that move steadily, each with a velocity of its own, in random order."""
    rng = np.random.default_rng(seed)
    track, frame = (a.ravel() for a in np.meshgrid(np.arange(tracks), np.arange(frames), indexing="ij"))
    start, step = rng.uniform(0, 500, (3, tracks)), rng.normal(0, 1, (3, tracks))
    where = start[:, track] + step[:, track] * frame + rng.normal(0, sigma[:, None], (3, track.size))
    mixed = rng.permutation(track.size)
    errors = np.broadcast_to(sigma[:, None], where.shape)
    return track[mixed], frame[mixed], where[:, mixed], errors


def test_the_residuals_of_steady_tracks_are_the_errors_of_their_points():
    found = displacement_residuals(*steady())
    assert found.track.tolist() == list(range(80))
    assert (found.displacements == 149).all()
    assert np.median(found.error_um, axis=1) == pytest.approx(SIGMA, rel=0.05)
    assert found.stated_um[:, 0] == pytest.approx(SIGMA)
    assert found.ratio == pytest.approx(1.0, abs=0.03)


def test_errors_stated_too_small_show_as_a_ratio_above_one():
    track, frame, where, sigma = steady()
    assert displacement_residuals(track, frame, where, sigma / 2).ratio == pytest.approx(2.0, abs=0.06)


def test_displacements_across_missing_frames_are_left_out():
    found = displacement_residuals([1] * 5, [0, 1, 3, 4, 5], np.zeros((3, 5)), np.ones((3, 5)), min_length=3)
    assert found.displacements.tolist() == [3]
    assert sorted(found.row.tolist()) == [0, 2, 3]


def test_short_tracks_and_empty_tables_give_nothing():
    assert displacement_residuals(*steady(frames=90)).track.size == 0
    assert displacement_residuals([], [], np.empty((3, 0)), np.empty((3, 0))).row.size == 0


def test_without_depth_the_errors_in_the_plane_are_still_found():
    track, frame, where, sigma = steady()
    where[2] = np.nan
    found = displacement_residuals(track, frame, where, sigma)
    assert found.ratio[:2] == pytest.approx(1.0, abs=0.03)
    assert np.isnan(found.ratio[2])


@pytest.mark.parametrize("displacement", [0.15, 1.2])
def test_the_residuals_of_tracked_particles_reproduce_their_detections_errors(displacement):
    tracker = OnlineTracker(TrackerSettings())
    parts = []
    for number, found in enumerate(channel_flow(300, displacement, 120, seed=2, brownian=0.0).detections):
        tracks = tracker.step(found)
        good = (tracks.flags == 0) & (number > 20)
        columns = (
            tracks.x_um,
            tracks.y_um,
            tracks.z_um,
            tracks.sigma_x_um,
            tracks.sigma_y_um,
            tracks.sigma_z_um,
        )
        parts.append(
            np.vstack([tracks.track[good], np.full(good.sum(), number), *(c[good] for c in columns)])
        )
    track, frame, *columns = np.concatenate(parts, axis=1)
    residuals = displacement_residuals(track, frame, columns[:3], columns[3:], min_length=30)
    assert residuals.track.size > 20
    assert residuals.ratio[1:] == pytest.approx(1.0, abs=0.05)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-9, 9), st.integers(-9, 9)), max_size=12))
def test_the_nearest_neighbour_is_the_nearest_of_the_same_frame(rows):
    frame, x, y = np.array(rows, float).reshape(-1, 3).T
    offset = nearest_offsets(frame, x, y)
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i and frame[j] == frame[i]]
        expected = min((np.hypot(x[j] - x[i], y[j] - y[i]) for j in others), default=np.inf)
        assert np.hypot(*offset[:, i]) == pytest.approx(expected)


def test_errors_are_mapped_by_where_the_neighbour_is():
    rng = np.random.default_rng(0)
    offset = rng.uniform(-10, 10, (2, 40_000))
    near = np.hypot(*offset) < 4
    residual = rng.normal(0, np.where(near, 2.0, 1.0) * np.sqrt(2), (3, 40_000))
    edges, errors = error_map(offset, residual, 10.0, 5)
    assert edges.tolist() == [-10, -6, -2, 2, 6, 10]
    assert errors[:, 2, 2] == pytest.approx(2.0, rel=0.1)
    assert errors[:, 0, 4] == pytest.approx(1.0, rel=0.1)
    assert np.isnan(error_map(offset[:, :10], residual[:, :10], 10.0, 5)[1]).all()


def test_the_field_of_a_channel_is_found_within_its_standard_error_in_every_cell():
    rng = np.random.default_rng(1)
    height, y = rng.uniform(0, 100, 6000), rng.uniform(-50, 50, 6000)
    truth = 3 * height + 0.5 * y
    sigma = rng.uniform(1, 3, 6000)
    field = velocity_field(
        height, y, truth + rng.normal(0, sigma), np.linspace(0, 100, 11), np.linspace(-50, 50, 6), sigma
    )
    assert field.velocity_um_s.shape == (10, 5)
    pull = (field.velocity_um_s - 3 * field.a_um - 0.5 * field.b_um) / field.standard_error_um_s
    assert np.abs(pull).max() < 4.5
    assert field.tracks.sum() > 5900


def test_cells_without_tracks_are_empty():
    field = velocity_field([1, 1, 9], [1, 1, 9], [2, 4, 7], [0, 5, 10], [0, 5, 10])
    assert field.tracks.tolist() == [[2, 0], [0, 0]]
    assert field.velocity_um_s[0, 0] == 3.0
    assert np.isnan(field.velocity_um_s[1]).all()
