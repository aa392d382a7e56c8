import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracking.candidates import CandidateWorkspace, within_distance

COORDINATE = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3), st.just(1e9))


def clouds(axes: int):
    point = st.lists(COORDINATE, min_size=axes, max_size=axes)
    cloud = st.lists(point, max_size=12).map(lambda rows: np.array(rows, float).reshape(-1, axes).T.copy())
    return st.tuples(cloud, cloud)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from([2, 3]).flatmap(clouds), st.floats(1e-3, 50))
def test_exactly_the_points_within_the_radius_are_found(pair, radius_um):
    origins, points = pair
    indptr, indices, squares = within_distance(origins, points, radius_um, CandidateWorkspace(1, 1, 1))
    for row in range(origins.shape[1]):
        expected = ((points - origins[:, [row]]) ** 2).sum(axis=0)
        found = slice(indptr[row], indptr[row + 1])
        clear = np.abs(expected - radius_um**2) > 1e-6 * radius_um**2
        inside = np.flatnonzero((expected <= radius_um**2) & clear)
        assert set(inside) <= set(indices[found]) <= set(np.flatnonzero((expected <= radius_um**2) | ~clear))
        assert len(set(indices[found])) == len(indices[found])
        assert squares[found] == pytest.approx(expected[indices[found]], rel=1e-9, abs=1e-12)


def test_thousands_of_points_in_a_workspace_that_has_to_grow():
    rng = np.random.default_rng(0)
    origins, points = rng.uniform(0, 300, (3, 2000)), rng.uniform(0, 300, (3, 3000))
    indptr, indices, _ = within_distance(origins, points, 30.0, CandidateWorkspace(1, 1, 1))
    squares = ((origins[:, :, None] - points[:, None, :]) ** 2).sum(axis=0)
    assert np.array_equal(np.diff(indptr), (squares <= 900.0).sum(axis=1))
    assert np.all(squares[np.repeat(np.arange(2000), np.diff(indptr)), indices] <= 900.0)
