import numpy as np
import pytest

from tracking.flow_field import FlowField

ERROR = np.array([[0.01], [0.01], [1.0]])


def learnt(
    velocity, axes=3, samples=9000, frames=30, seed=0, low=(0, 0, 0), high=(200, 200, 50)
) -> FlowField:
    rng = np.random.default_rng(seed)
    field = FlowField(axes)
    field.cover(np.array(low, float), np.array(high, float))
    for _ in range(frames):
        position = rng.uniform(low, high, (samples // frames, 3)).T.copy()
        field.learn(position, np.array(velocity(*position)), np.ones(position.shape[1], bool))
    return field


def poiseuille(x, y, z):
    return 400 * (z / 50) * (1 - z / 50), 0 * y, 0 * z


def test_nothing_is_known_before_anything_was_seen():
    velocity, variance = FlowField(3).at(np.ones((3, 2)), np.ones((3, 2)))
    assert np.isnan(velocity).all()
    assert np.isnan(variance).all()


def test_a_few_particles_tell_the_flow_of_the_whole_not_of_each_place():
    field = learnt(lambda x, y, z: (0 * x + 7.0, 0 * y, 0 * z), samples=60)
    velocity, _ = field.at(np.array([[190.0], [10.0], [45.0]]), ERROR)
    assert velocity[:, 0] == pytest.approx([7.0, 0, 0], abs=1e-6)


def test_a_channel_profile_is_learnt_within_a_few_percent_of_its_maximum():
    field = learnt(poiseuille)
    z = np.linspace(3, 47, 12)
    position = np.array([np.full(12, 90.0), np.full(12, 110.0), z])
    velocity, variance = field.at(position, np.broadcast_to(ERROR, (3, 12)).copy())
    assert np.abs(velocity[0] - poiseuille(*position)[0]).max() < 5
    assert np.all(np.abs(velocity[0] - poiseuille(*position)[0]) < 3 * np.sqrt(variance[0]))


def test_an_uncertain_depth_makes_an_uncertain_velocity_where_there_is_shear():
    field = learnt(poiseuille)
    place = np.array([[100.0], [100.0], [4.0]])
    sharp = field.at(place, ERROR * 0)[1][0, 0]
    blurred = field.at(place, ERROR)[1][0, 0]
    shear = 400 / 50 * (1 - 2 * 4 / 50)
    assert blurred - sharp == pytest.approx(shear**2, rel=0.25)


def test_in_the_plane_the_shear_across_the_channel_is_learnt():
    field = learnt(lambda x, y, z: (2.0 * y, 0 * y, 0 * z), axes=2, high=(200, 200, 0))
    velocity, _ = field.at(np.array([[50.0], [120.0], [0.0]]), ERROR)
    assert velocity[0, 0] == pytest.approx(240.0, abs=3.0)


def test_the_grid_grows_without_forgetting():
    field = learnt(lambda x, y, z: (0 * x + 7.0, 0 * y + 1.0, 0 * z))
    before = field.samples
    field.cover(np.array([-500.0, 0, 0]), np.array([900.0, 300, 80]))
    velocity, _ = field.at(np.array([[100.0], [100.0], [25.0]]), ERROR)
    assert field.samples == pytest.approx(before)
    assert velocity[:, 0] == pytest.approx([7.0, 1.0, 0.0], abs=1e-6)


def test_a_change_of_the_flow_replaces_what_was_known():
    rng = np.random.default_rng(1)
    field = learnt(lambda x, y, z: (0 * x + 7.0, 0 * y, 0 * z))
    for _ in range(300):
        position = rng.uniform((0, 0, 0), (200, 200, 50), (300, 3)).T.copy()
        field.learn(position, np.array([[-3.0], [0], [0]]) * np.ones(300), np.ones(300, bool))
    velocity, _ = field.at(np.array([[100.0], [100.0], [25.0]]), ERROR)
    assert velocity[0, 0] == pytest.approx(-3.0, abs=0.1)
