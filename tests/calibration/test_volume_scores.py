from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.volumes.scoring import match_volumes, score_volumes
from liveptv.cli.volume_scores import parse_voxel
from stream.errors import ConfigurationError

VOXEL = (0.1, 0.1, 0.3)


def table(points: np.ndarray, frame: object = 0, **more: np.ndarray) -> dict[str, np.ndarray]:
    frames = np.broadcast_to(np.asarray(frame), len(points))
    return {"frame": frames, "x_um": points[:, 0], "y_um": points[:, 1], "z_um": points[:, 2], **more}


def best_number(distance: np.ndarray) -> tuple[int, float]:
    """Most pairs no farther apart than 1, then the least total distance, over every way to pair."""
    rows, columns = distance.shape
    if rows > columns:
        return best_number(distance.T)
    best = (0, 0.0)
    for choice in itertools.permutations(range(columns), rows):
        values = [distance[i, j] for i, j in enumerate(choice) if distance[i, j] <= 1]
        best = min(best, (-len(values), sum(values)))
    return -best[0], best[1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5), st.floats(0.5, 8))
def test_the_matching_in_3d_is_the_best_of_all(seed: int, true: int, found: int, gate: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.uniform(0, [1, 1, 3], (n, 3)) for n in (true, found))
    matches = match_volumes(table(a), table(b), gate, VOXEL)
    distance = np.sqrt((((a[:, None] - b[None]) / VOXEL) ** 2).sum(axis=2)) / gate
    pairs, total = best_number(distance)
    assert matches.found.sum() == matches.true.sum() == pairs
    errors = matches.error_um[:, matches.found] / np.array(VOXEL)[:, None] / gate
    assert np.sqrt((errors**2).sum(axis=0)).sum() == pytest.approx(total)


def test_f1_precision_recall_and_errors_of_a_known_case() -> None:
    truth = table(np.array([[0.0, 0, 0], [5, 5, 1], [9, 9, 2], [20, 20, 2]]))
    seen = np.array([[0.1, 0, 0.3], [5, 5.1, 1], [9, 9, 1.7], [15, 15, 0]])
    sigma = {f"sigma_{axis}_um": np.full(4, 0.1) for axis in "xyz"}
    result = score_volumes(match_volumes(truth, table(seen, **sigma), 5, VOXEL), 5, "voxels", VOXEL)
    assert (result.all.precision, result.all.recall, result.all.f1) == (0.75, 0.75, 0.75)
    assert result.all.axes["x"].rms_um == pytest.approx(0.1 / math.sqrt(3))
    assert result.all.axes["z"].rms_voxels == pytest.approx(math.sqrt(2 / 3))
    assert result.all.rmse_voxels == pytest.approx(math.sqrt((2 + 1 + 1) / 3))
    assert result.all.axes["z"].true_over_stated == pytest.approx(3 * math.sqrt(2 / 3))
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_gate_is_a_sphere_in_voxels() -> None:
    truth = table(np.zeros((1, 3)))
    inside, outside = np.array([[0.0, 0.0, 0.89]]), np.array([[0.25, 0.0, 0.6]])
    assert match_volumes(truth, table(inside), 3, VOXEL).found.all()
    assert not match_volumes(truth, table(outside), 3, VOXEL).found.any()


def test_volumes_of_one_snr_have_a_precision_of_their_own() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 50, (40, 3))
    frame = np.repeat([0, 1], 20)
    truth = table(points, frame, snr=np.where(frame == 0, 2.0, 7.0))
    seen = np.vstack([points[:10], points[20:], rng.uniform(100, 150, (5, 3))])
    found = table(seen, np.r_[np.zeros(10), np.ones(20), np.zeros(5)])
    low, high = score_volumes(match_volumes(truth, found, 1, (1, 1, 1)), 1, "um").by_snr
    assert (low.recall, high.recall) == (0.5, 1.0)
    assert low.precision == pytest.approx(10 / 15)
    assert high.f1 == 1.0


def test_brightness_within_a_volume_has_a_recall_but_no_precision() -> None:
    points = np.random.default_rng(1).uniform(0, 50, (40, 3))
    truth = table(points, brightness=np.repeat([10.0, 50.0], 20))
    dim, bright = score_volumes(match_volumes(truth, table(points[10:]), 1, (1, 1, 1)), 1, "um").by_brightness
    assert (dim.recall, bright.recall) == (0.5, 1.0)
    assert math.isnan(dim.precision)
    assert math.isnan(dim.f1)


def test_volumes_without_depths_are_refused() -> None:
    points = np.array([[0.0, 0.0, math.nan]])
    with pytest.raises(ConfigurationError, match="without frame, x, y or z"):
        match_volumes(table(points), table(points), 1, (1, 1, 1))


@pytest.mark.parametrize("text", ["0.1,0.1", "a,b,c", "0,1,1", "1,1,nan", "1,1,1e9"])
def test_a_voxel_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--voxel-size"):
        parse_voxel(text)


def test_a_voxel_is_given_along_z_y_x() -> None:
    assert parse_voxel("0.3,0.2,0.1") == (0.1, 0.2, 0.3)
