"""A track's velocity is the most likely one, and its standard error is that of its errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import ConfigurationError
from tracking.physics.tracks.velocities import track_velocities


def brownian_tracks(count=800, length=(5, 60), diffusion=0.3, seed=0, sigma=(0.1, 0.1, 0.6)):
    """Detections at uneven times, each with its own error; and the true velocities (3, count)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(*length, count)
    track = np.repeat(np.arange(count), lengths)
    first = np.append(0, np.cumsum(lengths)[:-1])
    gap = rng.uniform(0.02, 0.08, track.size)
    time = np.cumsum(gap) - np.repeat(np.cumsum(gap)[first], lengths)
    steps = rng.normal(0, np.sqrt(2 * diffusion * gap), (3, track.size))
    steps[:, first] = 0
    walk = np.cumsum(steps, axis=1)
    walk -= walk[:, first][:, track]
    velocity = rng.normal(0, 20, (3, count))
    error = np.array(sigma)[:, None] * rng.uniform(0.5, 2.0, track.size)
    found = velocity[:, track] * time + walk + rng.normal(size=walk.shape) * error
    return track, time, found, np.broadcast_to(error, found.shape), velocity


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), diffusion=st.floats(0, 5))
def test_velocity_and_error_are_those_of_generalised_least_squares(seed, diffusion):
    track, time, found, sigma, _ = brownian_tracks(1, (2, 12), seed=seed)
    got = track_velocities(track, time, found, sigma, diffusion, min_length=2)
    dt, displacement = np.diff(time), np.diff(found, axis=1)
    for axis in range(3):
        variance = sigma[axis] ** 2
        covariance = np.diag(2 * diffusion * dt + variance[1:] + variance[:-1])
        covariance -= np.diag(variance[1:-1], 1) + np.diag(variance[1:-1], -1)
        information = dt @ np.linalg.solve(covariance, dt)
        expected = dt @ np.linalg.solve(covariance, displacement[axis]) / information
        assert got.velocity_um_s[axis, 0] == pytest.approx(expected, rel=1e-9)
        assert got.velocity_sigma_um_s[axis, 0] == pytest.approx(information**-0.5, rel=1e-9)


def test_the_stated_errors_are_the_actual_ones_for_short_and_for_long_tracks():
    track, time, found, sigma, velocity = brownian_tracks(4000)
    got = track_velocities(track, time, found, sigma, 0.3)
    ratio = (got.velocity_um_s - velocity[:, got.track]) / got.velocity_sigma_um_s
    for chosen in (got.length < 15, got.length > 40):
        assert ratio[:, chosen].std() == pytest.approx(1.0, abs=0.04)


def test_the_diffusion_coefficient_is_found_where_it_is_not_given():
    track, time, found, sigma, velocity = brownian_tracks(3000)
    got = track_velocities(track, time, found, sigma)
    assert got.spread_um2[0] * 3 / got.duration_s == pytest.approx(0.3, rel=0.1)
    ratio = (got.velocity_um_s - velocity[:, got.track]) / got.velocity_sigma_um_s
    assert ratio.std() == pytest.approx(1.0, abs=0.04)


def test_detections_without_standard_errors_get_those_of_the_scatter():
    track, time, found, sigma, velocity = brownian_tracks(3000, diffusion=0.05)
    stated = track_velocities(track, time, found, np.full_like(sigma, np.nan))
    ratio = (stated.velocity_um_s - velocity[:, stated.track]) / stated.velocity_sigma_um_s
    assert ratio.std(axis=1) == pytest.approx(1.0, abs=0.15)


def test_the_order_of_the_rows_does_not_matter():
    track, time, found, sigma, _ = brownian_tracks(50)
    order = np.random.default_rng(1).permutation(track.size)
    first = track_velocities(track, time, found, sigma, 0.3)
    second = track_velocities(track[order], time[order], found[:, order], sigma[:, order], 0.3)
    assert second.velocity_um_s == pytest.approx(first.velocity_um_s)
    assert (second.track == first.track).all()


def test_long_tracks_are_cut_into_pieces_of_a_time_and_short_ones_are_left_out():
    track = np.repeat([0, 1], [100, 4])
    time = np.concatenate([np.arange(100) / 10, np.arange(4) / 10])
    found = np.stack([3.0 * time, -time, 0 * time])
    got = track_velocities(track, time, found, np.full_like(found, 0.1), 0.0, longest_s=2.5)
    assert got.length.tolist() == [25, 25, 25, 25]
    assert got.time_s == pytest.approx([1.2, 3.7, 6.2, 8.7])
    assert got.velocity_um_s[0] == pytest.approx(3.0)


def test_no_tracks_give_no_velocities_and_lengths_must_agree():
    nothing = np.empty(0)
    assert len(track_velocities(nothing, nothing, np.empty((3, 0)), np.empty((3, 0)))) == 0
    with pytest.raises(ConfigurationError, match="differ in length"):
        track_velocities([0, 0], [0.0], np.zeros((3, 2)), np.zeros((3, 2)))
