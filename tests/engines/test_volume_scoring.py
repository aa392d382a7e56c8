"""The stand-in scene has the published facts, and the scores of what is found in it are what their names say."""

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from volume_scene import SIGMA, SNRS, Scene, amplitude_at, draw, expected, write
from volume_scoring import bound, is_at_end, is_lone, pairs, score

SMALL = Scene(4.0, 20, 3, (6, 40, 48))
some = st.lists(st.tuples(*[st.floats(0, 12)] * 3), max_size=5)


def as_points(values):
    return np.array(values, float).reshape(-1, 3)


@pytest.mark.parametrize("snr", SNRS)
def test_the_peak_of_a_particle_follows_from_the_published_ratio(snr):
    peak = amplitude_at(snr) + 10
    assert (peak - 10) / math.sqrt(peak) == pytest.approx(snr)


def test_a_seed_fixes_the_stack_and_another_gives_another():
    one, again, other = draw(SMALL), draw(SMALL), draw(replace(SMALL, seed=4))
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.truth, again.truth)
    assert (one.image != other.image).any()


def test_particles_are_anywhere_in_the_stack_its_ends_included():
    truth = draw(Scene(1.0, 4000, 0, (6, 40, 48))).truth
    part = (truth + 0.5) / (6, 40, 48)
    assert 0 <= part.min() < 0.005
    assert 0.995 < part.max() <= 1
    np.testing.assert_allclose(part.mean(axis=0), 0.5, atol=0.03)


def test_the_noise_is_that_of_light_around_what_is_expected():
    scene = Scene(7.0, 30, 1, (6, 60, 60))
    volume = draw(scene)
    mean = expected(volume.truth, volume.amplitude, scene.shape, SIGMA) + 10
    deviations = (volume.image - mean) / np.sqrt(mean)
    assert deviations.mean() == pytest.approx(0, abs=0.03)
    assert deviations.std() == pytest.approx(1, abs=0.03)


def test_read_noise_offset_and_an_uneven_background_can_be_asked_for():
    plain = Scene(2.0, 0, 5, (4, 60, 60))
    noisy = draw(replace(plain, read=5.0, offset=100.0)).image.astype(float)
    assert noisy.mean() == pytest.approx(110, abs=0.3)
    assert noisy.std() == pytest.approx(math.sqrt(10 + 25), abs=0.2)
    uneven = draw(replace(plain, unevenness=0.8)).image.astype(float)
    assert uneven.mean(axis=0).std() > 1.5 * draw(plain).image.astype(float).mean(axis=0).std()


def test_particles_outside_the_stack_send_only_their_tails_into_it():
    light = expected(
        np.array([[3.0, 20.0, 300.0], [-50.0, 5.0, 5.0]]), np.array([9.0, 9.0]), (6, 40, 48), SIGMA
    )
    assert not light.any()
    near = expected(np.array([[3.0, 20.0, 49.3]]), np.array([9.0]), (6, 40, 48), SIGMA)
    assert (
        near.max() == pytest.approx(near[3, 20, 47]) == pytest.approx(9 * math.exp(-0.5 * (2.3 / 1.3) ** 2))
    )


def test_written_stacks_know_their_voxels_and_their_truth(tmp_path):
    from acquisition.recording import open_recording

    volume = draw(SMALL)
    write(tmp_path, "a", volume)
    recording = open_recording(tmp_path / "a.ome.tif", run_id="r", volumes=True)
    assert (recording.info.depth, recording.info.height, recording.info.width) == SMALL.shape
    assert recording.info.pixel_size_um == pytest.approx(0.1)
    recording.close()
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "frame,x_um,y_um,z_um,amplitude"
    assert len(lines) == 1 + SMALL.particles
    assert float(lines[1].split(",")[1]) == pytest.approx(0.1 * volume.truth[0, 2], abs=1e-5)


@given(some, some)
@settings(max_examples=60, deadline=None)
def test_no_other_pairing_has_a_smaller_sum_of_distances_cut_off_at_the_gate(true, found):
    true, found = as_points(true), as_points(found)
    rows, columns, apart = pairs(true, found, 5.0)
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    assert (apart < 5).all()
    few, many = (true, found) if len(true) <= len(found) else (found, true)
    costs = np.minimum(np.linalg.norm(few[:, None] - many[None], axis=-1), 5.0)
    best = min(
        (
            sum(costs[i, j] for i, j in enumerate(order))
            for order in itertools.permutations(range(len(many)), len(few))
        ),
        default=0.0,
    )
    assert apart.sum() + 5.0 * (len(few) - len(apart)) == pytest.approx(best)


def test_f1_counts_missed_and_false_particles_alike():
    truth = as_points([(0, 0, 0), (0, 0, 20), (0, 0, 40)])
    found = as_points([(0, 0, 1), (0, 3, 20), (0, 0, 60), (0, 30, 0)])
    result = score(truth, found)
    assert (result.right, result.found, result.true) == (2, 4, 3)
    assert result.f1 == pytest.approx(4 / 7)
    assert result.rmse == pytest.approx(math.sqrt((1 + 9) / 2))
    assert score(as_points([]), as_points([])).f1 == 1
    assert score(truth, as_points([])).f1 == 0


@pytest.mark.parametrize(
    ("snr", "mid", "end"), [(1, 0.477, 0.85), (2, 0.219, 0.39), (4, 0.095, 0.17), (7, 0.047, 0.086)]
)
def test_the_bound_is_that_of_the_facts(snr, mid, end):
    """Section 4 of the facts: sigma of 1.3 voxels, 10 slices, background of 10."""
    shape, peak = (10, 512, 512), amplitude_at(snr)
    np.testing.assert_allclose(bound(np.array([4.5, 60.3, 80.1]), peak, shape, SIGMA, 10.0), mid, rtol=0.02)
    assert bound(np.array([0.0, 60.3, 80.1]), peak, shape, SIGMA, 10.0)[0] == pytest.approx(end, rel=0.1)


def test_lone_particles_and_those_at_the_ends_are_told():
    truth = as_points([(0, 0, 0), (0, 0, 7), (5, 30, 30), (9, 60, 60)])
    assert is_lone(truth, 8.0).tolist() == [False, False, True, True]
    assert is_at_end(truth, 10, 2.5).tolist() == [True, True, False, True]
    assert is_lone(truth[:1]).tolist() == [True]
