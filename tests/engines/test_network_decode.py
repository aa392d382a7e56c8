from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import as_planes, empty_maps, put
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from engines.network.decode import _strongest_first, decode, slots_of
from engines.network.layout import CHANNELS, LOGIT, SIGMA_X, STRIDE

places = st.tuples(st.floats(0, 95), st.floats(0, 63), st.floats(-1, 1))
quick = settings(max_examples=60, deadline=None)


def test_no_particle_is_found_where_there_is_none():
    assert decode(empty_maps()).shape == (0, 8)


@quick
@given(places, st.integers(0, 1), st.floats(0.6, 1))
def test_one_particle_in_is_one_out_at_its_place(place, slot, p):
    maps = empty_maps()
    put(maps, *place, p=p, slot=slot)
    (found,) = decode(maps)
    np.testing.assert_allclose(found[:4], [*place, 1.0], atol=1e-4)
    np.testing.assert_allclose(found[4:7], [0.05 * STRIDE, 0.05 * STRIDE, 0.05], rtol=1e-3)
    assert found[7] == pytest.approx(p, abs=1e-3)


@quick
@given(places, places, st.floats(0, 0.03))
def test_two_at_one_centre_stay_two(place, other, apart):
    """Both sure: even if they lie at the same depth, they are two."""
    x, y, z = place
    maps = empty_maps()
    put(maps, x, y, z, slot=0)
    put(maps, x, y, z + apart, slot=1)
    found = decode(maps)
    assert len(found) == 2
    np.testing.assert_allclose(np.sort(found[:, 2]), [z, z + apart], atol=1e-4)


@quick
@given(places, st.lists(st.floats(0.1, 1), min_size=2, max_size=6), st.randoms())
def test_a_particle_whose_probability_is_split_is_one(place, parts, random):
    """Cells and slots around it say the same place, together they are sure of it."""
    x, y, z = place
    maps = empty_maps()
    row, column = int((y + 0.5) / STRIDE), int((x + 0.5) / STRIDE)
    around = [
        (i, j, slot)
        for i in range(max(0, row - 1), min(16, row + 2))
        for j in range(max(0, column - 1), min(24, column + 2))
        for slot in (0, 1)
    ]
    for part, (i, j, slot) in zip(parts, random.sample(around, len(parts)), strict=True):
        put(maps, x, y, z, p=part / sum(parts), slot=slot, cell=(i, j))
    (found,) = decode(maps)
    np.testing.assert_allclose(found[:3], place, atol=1e-4)
    assert found[7] > 0.85


@quick
@given(st.lists(places, min_size=1, max_size=12))
def test_sure_particles_are_all_found_each_once(wanted):
    maps = empty_maps()
    put_in = set()
    for x, y, z in wanted:
        cell = (int((y + 0.5) / STRIDE), int((x + 0.5) / STRIDE))
        slot = 0 if (*cell, 0) not in put_in else 1
        if (*cell, slot) in put_in:
            continue
        put_in.add((*cell, slot))
        put(maps, x, y, z, slot=slot)
    assert len(decode(maps)) == len(put_in)


def test_a_doubtful_one_beside_a_sure_one_is_not_counted_and_a_lone_one_neither():
    maps = empty_maps()
    put(maps, 20, 20, 0.0, p=0.99)
    put(maps, 24, 20, 0.8, p=0.3, slot=1)
    put(maps, 80, 50, 0.0, p=0.4)
    (found,) = decode(maps)
    assert found[0] == pytest.approx(20, abs=1e-3)
    assert found[7] == pytest.approx(1.0, abs=0.01)


def test_hypotheses_of_one_particle_that_differ_give_it_their_confidence():
    maps = empty_maps()
    put(maps, 40, 30, -0.5, p=0.55)
    put(maps, 40, 30, 0.5, p=0.4, slot=1)
    (found,) = decode(maps)
    assert found[2] == pytest.approx(-0.5, abs=1e-4)
    assert found[7] == pytest.approx(0.95, abs=1e-3)


@quick
@given(st.lists(st.tuples(places, st.integers(0, 1), st.floats(0.05, 1), st.floats(0.03, 2)), max_size=12))
def test_planes_and_maps_are_two_forms_of_one_answer(wanted):
    maps = empty_maps()
    for place, slot, p, sigma in wanted:
        put(maps, *place, p=p, slot=slot, sigma=sigma)
    from_maps, from_planes = slots_of(maps), slots_of(as_planes(maps))
    assert len(from_maps) == len(from_planes)
    pairs = linear_sum_assignment(cdist(from_maps, from_planes, "chebyshev"))
    np.testing.assert_allclose(from_planes[pairs[1]], from_maps[pairs[0]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channel", [LOGIT, CHANNELS + LOGIT, SIGMA_X])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_planes_that_are_no_numbers_are_refused(channel, value):
    maps = empty_maps()
    put(maps, 41, 30, 0.0)
    planes = as_planes(maps)
    planes[channel, 7, 10] = value if channel != SIGMA_X else np.nan
    with pytest.raises(ValueError, match="not finite numbers"):
        decode(planes)


def test_values_that_are_no_numbers_are_refused():
    maps = empty_maps()
    maps[3, 4, 0, LOGIT] = np.nan
    with pytest.raises(ValueError, match="not finite numbers"):
        decode(maps)


@quick
@given(st.lists(st.sampled_from([0.0, 0.03, 0.5, 0.5 + 1e-9, 0.99, 1.0, 1.3]), max_size=40))
def test_the_strongest_come_first_and_equals_in_their_order(probabilities):
    rows = np.zeros((len(probabilities), 8))
    rows[:, 0], rows[:, 7] = np.arange(len(rows)), probabilities
    expected = sorted(range(len(rows)), key=lambda n: -probabilities[n])
    assert _strongest_first(rows)[:, 0].tolist() == expected
