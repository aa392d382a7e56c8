from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.evaluation import depth_edges, evaluate, within
from calibration.matching import match, match_tables, nearest_neighbour
from stream.errors import ConfigurationError


def table(points: list[tuple[float, ...]], frame: float = 0) -> dict[str, np.ndarray]:
    rows = np.array(points, dtype=float).reshape(-1, 3)
    return {
        "frame": np.full(rows.shape[0], frame),
        "x_um": rows[:, 0],
        "y_um": rows[:, 1],
        "z_um": rows[:, 2],
    }


def cost_of(truth: np.ndarray, found: np.ndarray, gate_xy: float, gate_z: float | None) -> np.ndarray:
    plane = np.hypot(*(truth[:, None, :2] - found[None, :, :2]).transpose(2, 0, 1)) / gate_xy
    depth = np.zeros_like(plane) if gate_z is None else np.abs(truth[:, None, 2] - found[None, :, 2]) / gate_z
    return np.where((plane <= 1) & (depth <= 1), np.hypot(plane, depth), math.inf)


def best_by_trying_all(cost: np.ndarray) -> tuple[int, float]:
    """Most pairs, then least cost, over every way to pair rows with columns."""
    rows, columns = cost.shape
    if rows > columns:
        return best_by_trying_all(cost.T)
    best = (0, 0.0)
    for choice in itertools.permutations(range(columns), rows):
        values = [cost[i, j] for i, j in enumerate(choice) if math.isfinite(cost[i, j])]
        score = (-len(values), sum(values))
        best = min(best, score)
    return -best[0], best[1]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 5), st.sampled_from([None, 30.0]))
def test_the_matching_is_the_best_of_all(seed: int, true: int, found: int, gate_z: float | None) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.uniform(0, [8, 8, 80], (n, 3)) for n in (true, found))
    rows, columns = match(a, b, 4.0, gate_z)
    cost = cost_of(a, b, 4.0, gate_z)
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    pairs, total = best_by_trying_all(cost) if true and found else (0, 0.0)
    assert len(rows) == pairs
    assert cost[rows, columns].sum() == pytest.approx(total)


def test_a_perfect_detector_misses_nothing() -> None:
    truth = table([(0, 0, 0), (50, 0, 10), (0, 50, -20)])
    score = evaluate(truth, truth)
    assert (score.missed, score.false, score.matched) == (0, 0, 3)
    assert score.errors["z"].rms_um == 0
    assert math.isnan(score.errors["x"].calibration)


def test_a_hand_made_case() -> None:
    truth = table([(0, 0, 0), (100, 0, 0), (103, 0, 0), (300, 0, 0)])
    found = table([(1, 0, 6), (100, 1, 0), (500, 0, 0), (300, 0, 50)])
    found |= {"sigma_x_um": np.full(4, 0.5), "sigma_y_um": np.ones(4), "sigma_z_um": np.full(4, 3.0)}
    score = evaluate(truth, found, gate_xy_um=4, gate_z_um=30, lone_um=28)
    assert (score.frames, score.true_particles, score.detections, score.matched) == (1, 4, 4, 2)
    assert (score.missed, score.false) == (0.5, 0.5)
    assert score.errors["x"].bias_um == pytest.approx(0.5)
    assert score.errors["x"].rms_um == pytest.approx(math.sqrt(0.5))
    assert score.errors["x"].calibration == pytest.approx(math.sqrt(2))
    assert score.errors["z"].median_um == pytest.approx(3)
    assert score.errors["z"].calibration == pytest.approx(math.sqrt(2))
    assert (score.lone.particles, score.lone.missed) == (2, 0.5)
    close = next(group for group in score.by_distance if group.from_um == 2)
    assert (close.particles, close.missed) == (2, 0.5)
    in_plane = evaluate(truth, found, gate_xy_um=4, gate_z_um=None)
    assert in_plane.matched == 3


def test_every_true_particle_is_in_one_range_of_distances() -> None:
    rng = np.random.default_rng(0)
    truth = table([tuple(p) for p in rng.uniform(0, 60, (40, 3))]) | {"frame": np.repeat([0, 1], 20)}
    truth = {k: np.append(v, [9.0]) for k, v in truth.items()}
    score = evaluate(truth, truth)
    assert sum(group.particles for group in score.by_distance) == 41


def test_frames_are_not_mixed_and_need_no_order() -> None:
    truth = table([(0, 0, 0), (9, 9, 0), (0, 0, 0)]) | {"frame": np.array([2, 0, 1])}
    found = table([(0, 0, 0), (9, 9, 0)]) | {"frame": np.array([1, 1])}
    score = evaluate(truth, found)
    assert (score.frames, score.matched, score.missed, score.false) == (3, 1, pytest.approx(2 / 3), 0.5)


def test_without_depth_the_score_is_in_the_plane() -> None:
    truth = table([(0, 0, 40), (50, 0, -40)])
    found = table([(1, 0, math.nan), (51, 0, math.nan)])
    score = evaluate(truth, found)
    assert not score.depth
    assert score.matched == 2
    assert set(score.errors) == {"x", "y"}
    assert score.gate_z_um is None
    del found["z_um"]
    assert evaluate(truth, found).matched == 2


def test_nothing_found_and_nothing_there() -> None:
    nothing, something = table([]), table([(0, 0, 0)])
    assert evaluate(something, nothing).missed == 1
    assert math.isnan(evaluate(something, nothing).false)
    assert evaluate(nothing, something).false == 1
    empty = evaluate(nothing, nothing)
    assert (empty.frames, empty.matched) == (0, 0)


def test_the_score_can_be_written_as_json() -> None:
    plain = evaluate(table([(0, 0, 0)]), table([(1, 0, 0)])).to_dict()
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again["lone"]["to_um"] is None
    assert again["errors"]["x"] == {
        "bias_um": 1, "rms_um": 1, "median_um": 1, "calibration": None, "calibration_robust": None
    }  # fmt: skip
    assert (again["by_depth"], again["depth_covered"]) == ([], None)


def test_a_large_table_is_matched_in_a_moment() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, [2000, 2000, 100], (20_000, 3))
    truth = table([tuple(p) for p in points]) | {"frame": np.repeat(np.arange(100), 200)}
    found = truth | {"x_um": truth["x_um"] + rng.normal(0, 0.3, 20_000)}
    score = evaluate(truth, found)
    assert score.missed < 0.01
    assert score.errors["x"].rms_um == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_um": None}, "no column x_um"),
        ({"y_um": np.zeros(5)}, "differ in length"),
        ({"x_um": np.array([math.nan])}, "without frame, x or y"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(change: dict, says: str) -> None:
    wrong = {k: v for k, v in (table([(0, 0, 0)]) | change).items() if v is not None}
    with pytest.raises(ConfigurationError, match=says):
        evaluate(wrong, table([(0, 0, 0)]))
    with pytest.raises(ConfigurationError, match="gates must be positive"):
        evaluate(table([(0, 0, 0)]), table([(0, 0, 0)]), gate_xy_um=0)


def test_a_single_point_has_no_neighbour() -> None:
    assert nearest_neighbour(np.zeros((1, 2))).tolist() == [math.inf]
    assert nearest_neighbour(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [5.0, 5.0]


def spread(count: int = 4000, seed: int = 0) -> dict[str, np.ndarray]:
    """Particles far apart, evenly over depths of 200 um."""
    rng = np.random.default_rng(seed)
    x, y = np.unravel_index(np.arange(count), (100, -(-count // 100)))
    return table(list(zip(50.0 * x, 50.0 * y, rng.uniform(-100, 100, count), strict=True)))


def measured(
    truth: dict[str, np.ndarray], sigma_um: tuple[float, ...], seed: int = 1
) -> dict[str, np.ndarray]:
    """The truth with Gaussian errors that are stated as they are."""
    rng = np.random.default_rng(seed)
    found = dict(truth)
    for axis, sigma in zip("xyz", sigma_um, strict=True):
        found[f"{axis}_um"] = truth[f"{axis}_um"] + rng.normal(0, sigma, truth["frame"].size)
        found[f"sigma_{axis}_um"] = np.full(truth["frame"].size, sigma)
    return found


def rows(of: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[chosen] for name, values in of.items()}


def test_a_detector_that_is_blind_far_from_focus_covers_the_part_of_the_depths_that_it_sees() -> None:
    truth = spread()
    whole = evaluate(truth, truth)
    assert (whole.depth_covered, len(whole.by_depth)) == (1.0, 34)
    seen = evaluate(truth, rows(truth, np.abs(truth["z_um"]) < 60))
    assert seen.depth_covered == pytest.approx(0.6, abs=0.03)
    assert [group.missed for group in seen.by_depth[:5]] == [1.0] * 5
    rng = np.random.default_rng(2)
    half_blind = (np.abs(truth["z_um"]) < 60) | (rng.random(4000) < 0.3)
    assert evaluate(truth, rows(truth, half_blind)).depth_covered == pytest.approx(0.6, abs=0.03)
    weak_all_over = evaluate(truth, rows(truth, rng.random(4000) < 0.3))
    assert weak_all_over.depth_covered > 0.9


def test_a_range_of_depths_without_particles_says_nothing_about_the_detector() -> None:
    truth = rows(spread(), np.abs(spread()["z_um"]) > 50)
    score = evaluate(truth, truth)
    assert min(group.particles for group in score.by_depth) == 0
    assert score.depth_covered == 1.0


def test_a_detector_without_depth_has_a_recall_over_the_true_depth() -> None:
    truth = spread()
    flat = {k: v for k, v in rows(truth, truth["z_um"] < 0).items() if k != "z_um"}
    score = evaluate(truth, flat)
    assert not score.depth
    assert score.depth_covered == pytest.approx(0.5, abs=0.03)
    assert set(score.by_depth[0].errors) == {"x", "y"}
    truth["z_um"] = np.full(4000, math.nan)
    assert evaluate(truth, flat).by_depth == []


def test_a_detector_that_finds_nothing_covers_nothing() -> None:
    assert evaluate(spread(), table([])).depth_covered == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=80, max_size=300))
def test_every_depth_is_in_one_part_of_the_range(depths: list[float]) -> None:
    depth_um = np.append(np.array(depths), math.nan)
    edges = depth_edges(depth_um)
    if edges.size:
        chosen = [within(depth_um, low, high) for low, high in itertools.pairwise(edges)]
        np.testing.assert_array_equal(np.sum(chosen, axis=0), np.isfinite(depth_um))
    else:
        assert np.ptp(depths) == 0


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5.0), st.integers(0, 1000))
def test_stated_errors_that_are_too_small_by_a_factor_show_that_factor(factor: float, seed: int) -> None:
    truth = spread(1500)
    found = measured(truth, (0.1, 0.2, 2.0), seed)
    for axis in "xyz":
        found[f"sigma_{axis}_um"] = found[f"sigma_{axis}_um"] / factor
    for errors in evaluate(truth, found).errors.values():
        assert errors.calibration == pytest.approx(factor, rel=0.1)
        assert errors.calibration_robust == pytest.approx(factor, rel=0.15)


def test_a_few_large_errors_do_not_change_what_is_said_of_the_usual_one() -> None:
    truth = spread()
    found = measured(truth, (0.1, 0.1, 1.0))
    found["x_um"][:80] += 3.0
    errors = evaluate(truth, found).errors["x"]
    assert errors.calibration > 3
    assert errors.calibration_robust == pytest.approx(1.0, abs=0.08)


def test_what_was_matched_tells_where_the_false_detections_are() -> None:
    truth = table([(0, 0, 0), (100, 0, 0)]) | {"frame": np.array([0, 1])}
    found = table([(0, 1, 0), (6, 8, 0), (0, 0, 0), (0, 0, 0)]) | {"frame": np.array([0, 0, 1, 2])}
    matched = match_tables(truth, found)
    assert matched.found.tolist() == [True, False]
    assert matched.false_um.tolist() == [10.0, 100.0, math.inf]
    assert (matched.detections, matched.frames) == (4, 3)
    assert matched.error_um[:, 0].tolist() == [0, 1, 0]
    assert np.isnan(matched.error_um[:, 1]).all()
    assert np.isnan(matched.sigma_um).all()
