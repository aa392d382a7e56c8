from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.comparison.volumes.card import hourglass_card, is_of_comparison
from engines.comparison.volumes.input import MULTIPLE, normalised, padded
from engines.comparison.volumes.maxima import local_maxima
from engines.comparison.volumes.targets import EXTRA_WEIGHT, binary_mask, density_map, weight_map
from engines.network.card_text import KEY
from stream.errors import ConfigurationError

SHAPE = (6, 12, 16)
place = st.tuples(*(st.floats(-0.49, count - 0.51) for count in SHAPE))


@given(points=st.lists(place, max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_density_map_is_the_largest_of_the_gaussians_around_the_points(points):
    found = density_map(np.array(points).reshape(-1, 3), SHAPE)
    grid = np.stack(np.indices(SHAPE), axis=-1)
    expected = np.zeros(SHAPE)
    for point in points:
        expected = np.maximum(expected, np.exp(-0.5 * ((grid - point) ** 2).sum(axis=-1)))
    assert found.shape == SHAPE
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_a_point_far_outside_leaves_no_trace():
    assert not density_map(np.array([[2.0, -40.0, 5.0], [99.0, 3.0, 3.0]]), SHAPE).any()


@given(points=st.lists(place, min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_each_particle_has_its_voxel_and_the_six_around_it_in_the_mask(points):
    mask = binary_mask(np.array(points), SHAPE)
    grid = np.stack(np.indices(SHAPE), axis=-1)
    nearest = np.rint(np.array(points))
    steps = np.abs(grid[..., None, :] - nearest).sum(axis=-1).min(axis=-1)
    np.testing.assert_array_equal(mask, steps <= 1)


def test_voxels_near_a_particle_weigh_eleven_times_as_much():
    weights = weight_map(density_map(np.array([[3.0, 6.0, 8.0]]), SHAPE))
    assert set(np.unique(weights)) == {1.0, 1.0 + EXTRA_WEIGHT}
    assert weights[3, 6, 8] == weights[3, 6, 10] == 1 + EXTRA_WEIGHT
    assert weights[3, 6, 12] == weights[0, 0, 0] == 1


@given(volume=arrays(np.float32, (4, 6, 7), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])))
@settings(max_examples=100, deadline=None)
def test_maxima_are_exceeded_by_no_neighbour_and_no_two_of_them_touch(volume):
    voxels, values = local_maxima(volume, 0.5)
    bordered = np.pad(volume, 1)
    for (z, y, x), value in zip(voxels, values, strict=True):
        assert value == volume[z, y, x] >= 0.5
        assert value == bordered[z : z + 3, y : y + 3, x : x + 3].max()
    assert (np.diff(values) <= 0).all()
    apart = np.abs(voxels[:, None] - voxels[None]).max(axis=-1) + 9 * np.eye(len(voxels))
    assert (apart > 1).all()
    assert bool(len(values)) == bool((volume >= 0.5).any())


def test_a_saturated_plateau_is_one_particle_in_its_middle():
    volume = np.zeros(SHAPE, np.float32)
    volume[2:5, 4:7, 6:9] = 1.0
    voxels, values = local_maxima(volume, 0.5)
    np.testing.assert_array_equal(voxels, [[3, 5, 7]])
    assert values.tolist() == [1.0]


def test_scale_and_offset_of_grey_values_do_not_matter_nor_do_slices_without_an_image():
    volume = np.random.default_rng(0).integers(0, 200, (5, 8, 8)).astype(np.uint16)
    plain = normalised(volume)
    np.testing.assert_allclose(normalised(volume * 3 + 100), plain, atol=1e-5)
    assert plain.mean() == pytest.approx(0, abs=1e-5)
    assert plain.std() == pytest.approx(1, abs=1e-5)
    missing = np.array([False, False, True, False, False])
    partial = volume.copy()
    partial[2] = 0
    given_slices = normalised(partial, missing)
    assert not given_slices[2].any()
    np.testing.assert_allclose(given_slices[~missing], normalised(volume[~missing]), atol=1e-6)
    assert not normalised(partial, np.ones(5, bool)).any()
    assert not normalised(np.full((2, 4, 4), 7, np.uint8)).any()


@pytest.mark.parametrize("shape", [(10, 8, 8), (5, 9, 11), (1, 3, 1), (3, 1, 6)])
def test_a_stack_of_any_size_is_continued_to_one_that_the_network_can_take(shape):
    volume = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    whole = padded(volume)
    assert all(count % of == 0 for count, of in zip(whole.shape, MULTIPLE, strict=True))
    np.testing.assert_array_equal(whole[: shape[0], : shape[1], : shape[2]], volume)
    assert set(np.unique(whole)) == set(np.unique(volume))


GOOD = {"schema_version": 1, "kind": "detnet3d", "threshold": 0.4, "made_from": "drawn"}


def test_a_card_is_read_as_it_was_written():
    card = hourglass_card({KEY: json.dumps(GOOD)}, "a.onnx")
    assert (card.kind, card.threshold) == ("detnet3d", 0.4)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (None, "is not DetNet3D"),
        ("[" * 5000, "is not DetNet3D"),
        (json.dumps({"kind": "volume"}), "is not DetNet3D"),
        (json.dumps(GOOD | {"schema_version": 7}), "newer liveptv"),
        (json.dumps(GOOD | {"threshold": 0}), "damaged"),
        (json.dumps(GOOD | {"schema_version": "one"}), "damaged"),
    ],
)
def test_another_card_is_refused(card, said):
    metadata = {} if card is None else {KEY: card}
    assert is_of_comparison(metadata) == (card is not None and "detnet3d" in card)
    with pytest.raises(ConfigurationError, match=said):
        hourglass_card(metadata, "a.onnx")
