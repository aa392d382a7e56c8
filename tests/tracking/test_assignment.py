import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from tracking.assignment import AssignmentWorkspace, assign

NO_LINK = 7.0


def random_problem(rng: np.random.Generator, rows: int, columns: int, fill: float, ties: bool):
    """Dense costs with inf where the gate is closed, and the same in compressed rows."""
    dense = rng.integers(0, 12, (rows, columns)) * 1.0 if ties else rng.uniform(-5.0, 12.0, (rows, columns))
    dense[rng.random((rows, columns)) > fill] = np.inf
    open_ = np.isfinite(dense)
    indptr = np.concatenate([[0], np.cumsum(open_.sum(axis=1))]).astype(np.int32)
    indices = np.nonzero(open_)[1].astype(np.int32)
    return dense, indptr, indices, dense[open_]


def total(dense: np.ndarray, row_to_column: np.ndarray) -> float:
    linked = row_to_column >= 0
    return dense[linked, row_to_column[linked]].sum() + NO_LINK * (~linked).sum()


def optimum(dense: np.ndarray) -> float:
    rows = len(dense)
    private = np.full((rows, rows), 1e6)
    np.fill_diagonal(private, NO_LINK)
    square = np.hstack([np.where(np.isfinite(dense), dense, 1e6), private])
    chosen = linear_sum_assignment(square)
    return square[chosen].sum()


def check(seed: int, workspace: AssignmentWorkspace) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, 40, 2)
    dense, indptr, indices, costs = random_problem(rng, rows, columns, rng.uniform(0.02, 1.0), seed % 2 == 0)
    found = assign(indptr, indices, costs, NO_LINK, workspace)
    taken = found[found >= 0]
    assert len(np.unique(taken)) == len(taken)
    assert total(dense, found) == pytest.approx(optimum(dense), abs=1e-9)


def test_it_equals_scipys_optimum_on_random_gated_problems_with_ties_and_rows_without_candidates():
    workspace = AssignmentWorkspace(2, 2)
    for seed in range(400):
        check(seed, workspace)


@pytest.mark.slow
def test_it_equals_scipys_optimum_on_3000_random_gated_problems():
    workspace = AssignmentWorkspace()
    for seed in range(1000, 4000):
        check(seed, workspace)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_choice_of_links_is_cheaper(data):
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    cell = st.one_of(st.just(float("inf")), st.integers(-3, 9).map(float), st.floats(-1e3, 1e3))
    dense = np.array(
        data.draw(st.lists(st.lists(cell, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    )
    open_ = np.isfinite(dense)
    indptr = np.concatenate([[0], np.cumsum(open_.sum(axis=1))]).astype(np.int32)
    found = assign(
        indptr, np.nonzero(open_)[1].astype(np.int32), dense[open_], NO_LINK, AssignmentWorkspace()
    )
    assert total(dense, found) == pytest.approx(optimum(dense), abs=1e-9)


def test_entries_dearer_than_no_link_and_nan_are_never_taken():
    indptr = np.array([0, 2, 3], np.int32)
    found = assign(
        indptr, np.array([0, 1, 1], np.int32), np.array([np.nan, 8.0, 7.0]), NO_LINK, AssignmentWorkspace()
    )
    assert found.tolist() == [-1, -1]


def test_an_empty_problem_has_an_empty_answer():
    none = np.zeros(1, np.int32)
    assert len(assign(none, none[:0], np.empty(0), NO_LINK, AssignmentWorkspace())) == 0


def test_one_large_component_needs_no_recursion_and_stays_exact():
    rng = np.random.default_rng(5)
    count, width = 3000, 40
    indices = (np.arange(count)[:, None] + np.arange(width)[None, :]) % count
    costs = rng.uniform(0.0, 6.0, (count, width))
    indptr = np.arange(0, count * width + 1, width, dtype=np.int32)
    found = assign(indptr, indices.ravel().astype(np.int32), costs.ravel(), NO_LINK, AssignmentWorkspace())
    dense = np.full((count, count), 1e6)
    np.put_along_axis(dense, indices, costs, axis=1)
    best = linear_sum_assignment(dense)
    assert dense[np.arange(count), found].sum() == pytest.approx(dense[best].sum(), abs=1e-7)
