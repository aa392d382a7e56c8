"""D without the drift: the common one of all particles where the data say so, the velocity of each segment else."""

import numpy as np
import pytest
from brownian_tracks import brownian_tracks

from tracking.physics.diffusion.drift import common_flow, own_velocities, without_flow
from tracking.physics.diffusion.estimate import diffusion_of
from tracking.physics.diffusion.segments import cut_into_segments

D = 0.4


def with_own_velocities(seed, spread_um_s, **made):
    """Tracks whose particles each have another velocity too."""
    track, time_s, position = brownian_tracks(seed, **made)
    own = np.random.default_rng(seed).normal(0, spread_um_s, (len(position), track.max() + 1))
    return track, time_s, position + own[:, track] * time_s


def resting_and_jumping(seed):
    """Steps of which each is shared with the next two frames, as a compressed video does; a common drift."""
    track, time_s, position = brownian_tracks(seed, tracks=300, frames=120, missing=0.0, sigma_um=0.0, axes=2)
    by_track = position.reshape(2, 300, 120)
    held = by_track.copy()
    for frame in range(1, 120):
        held[..., frame] = 0.35 * held[..., frame - 1] + 0.65 * by_track[..., frame]
    return track, time_s, held.reshape(2, -1) + 0.05 * np.random.default_rng(seed).normal(size=position.shape)


def test_own_velocities_are_told_with_their_error():
    found, stated = [], []
    for seed in range(20):
        segments = cut_into_segments(*with_own_velocities(seed, 1.0, tracks=60, frames=60), longest=256)
        variance, error = own_velocities(without_flow(segments, common_flow(segments)))
        found += list(variance)
        stated += list(error)
    assert np.mean(found) == pytest.approx(1.0, abs=4 * np.std(found) / np.sqrt(len(found)) + 0.02)
    assert np.sqrt(np.mean(np.square(stated))) == pytest.approx(np.std(found), rel=0.35)


def test_a_common_drift_is_removed_without_a_velocity_for_each_segment():
    values = []
    for seed in range(15):
        found = diffusion_of(*brownian_tracks(seed, tracks=60, frames=120, velocity_um_s=8.0), kinds=False)
        assert found.drift == "common"
        values.append((found.um2_s, found.standard_error_um2_s))
    value, error = np.array(values).T
    assert value.mean() == pytest.approx(D, abs=4 * value.std() / np.sqrt(15))
    assert np.sqrt((error**2).mean()) == pytest.approx(value.std(ddof=1), rel=0.5)


def test_particles_that_drift_each_by_itself_keep_their_velocities():
    values = []
    for seed in range(15):
        found = diffusion_of(*with_own_velocities(seed, 4.0, tracks=60, frames=120), kinds=False)
        assert found.drift == "own"
        values.append(found.um2_s)
    assert np.mean(values) == pytest.approx(D, abs=4 * np.std(values) / np.sqrt(15))


def test_a_flow_that_differs_across_the_image_is_a_common_one():
    track, time_s, position = brownian_tracks(3, tracks=200, frames=80, um2_s=D)
    position = position.copy()
    position[0] += 0.05 * position[1] * time_s  # 5 um/s from side to side, mean place of each at random
    found = diffusion_of(track, time_s, position, kinds=False)
    assert found.um2_s == pytest.approx(D, abs=4 * found.standard_error_um2_s)


def test_correlated_steps_do_not_count_as_velocities():
    data = resting_and_jumping(0)
    found = diffusion_of(*data, kinds=False)
    assert found.drift == "common"
    without = diffusion_of(*data, kinds=False, drift=False)
    # Without drift, the 3 um/s add 1.5 v^2 dt.
    added = 1.5 * 3.0**2 * 0.04
    assert found.um2_s == pytest.approx(without.um2_s - added, rel=0.03)


def test_a_few_short_tracks_keep_the_velocity_of_each():
    assert diffusion_of(*brownian_tracks(0, tracks=5), kinds=False).drift == "own"
    assert diffusion_of(*brownian_tracks(0, frames=6), kinds=False).drift == "own"
    assert diffusion_of(*brownian_tracks(0), kinds=False, drift=False).drift == "none"
