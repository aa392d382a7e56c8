"""The lag of a scanning drive is measured with beads, as well as their noise allows."""

import numpy as np
import pytest

from acquisition.physics.fluorescence import FluorescenceModel, FluorescenceRenderer
from acquisition.volumes.lag import LagError, estimate_lag, find_beads

SHAPE = (128, 128)
Z_UM = np.arange(16) * 0.4


def stacks(*lags_um, beads=40, seed=0, peak=120.0, **model):
    """Volumes of resting beads, one for each distance (or one a slice) that the drive is behind, um."""
    rng = np.random.default_rng(seed)
    drawn = FluorescenceModel(peak=peak, **model)
    renderer = FluorescenceRenderer(drawn, SHAPE, "uint16", seed=seed)
    x, y = rng.uniform(1, 0.2 * SHAPE[0] - 1, (2, beads))
    height = rng.uniform(1.0, Z_UM[-1] - 1.0, beads)
    found = []
    for lag_um in lags_um:
        stack = np.empty((Z_UM.size, *SHAPE), np.uint16)
        for z_um, out in zip(Z_UM - lag_um, stack, strict=True):
            renderer.render(x, y, height - z_um, np.ones(beads), out)
        found.append(stack)
    return found


@pytest.mark.parametrize("lag_um", [0.0, 0.13, 0.4, -0.21])
@pytest.mark.parametrize("optics", ["confocal", "light_sheet"])
def test_the_lag_is_found_within_its_standard_error(lag_um, optics):
    up, down = stacks(lag_um, -lag_um, kind=optics, seed=3)
    found = estimate_lag(up, down, Z_UM)
    assert found.beads > 15
    assert found.error_um < 0.02
    assert found.lag_up_um == found.lag_down_um == pytest.approx(lag_um, abs=5 * found.error_um)
    assert not found.separate
    assert not found.changes


def test_its_standard_error_is_true():
    pulls = []
    for seed in range(12):
        up, down = stacks(0.1, -0.1, seed=seed, peak=60)
        found = estimate_lag(up, down, Z_UM)
        pulls.append((found.lag_up_um - 0.1) / found.error_um)
    assert 0.5 < np.std(pulls) < 1.8
    assert abs(np.mean(pulls)) < 1.2


def test_with_a_volume_at_rest_both_lags_are_found():
    up, down, rest = stacks(0.3, -0.1, 0.0, seed=5)
    found = estimate_lag(up, down, Z_UM, rest)
    assert found.separate
    assert found.lag_up_um == pytest.approx(0.3, abs=0.03)
    assert found.lag_down_um == pytest.approx(0.1, abs=0.03)


def test_one_without_a_volume_at_rest_is_half_of_the_shift():
    up, down = stacks(0.3, -0.1, seed=5)
    found = estimate_lag(up, down, Z_UM)
    assert found.shift_um == pytest.approx(0.4, abs=0.03)
    assert found.lag_up_um == found.lag_down_um == found.shift_um / 2


def test_a_lag_that_changes_along_the_stack_is_told():
    growing = 0.4 * np.arange(16) / 15
    up, rest = stacks(growing, 0.0, beads=60, peak=200, seed=1)
    assert estimate_lag(up, rest, Z_UM).changes
    assert not estimate_lag(*stacks(0.2, -0.2, beads=60, peak=200, seed=1), Z_UM).changes


def test_without_beads_it_says_so():
    up, down = stacks(0.1, -0.1, beads=1)
    with pytest.raises(LagError, match="beads"):
        estimate_lag(up, down, Z_UM)
    noise = np.random.default_rng(0).poisson(10, (16, 64, 64))
    assert len(find_beads(noise.astype(float))[0]) < 3


@pytest.mark.parametrize(
    ("z_um", "words"), [(Z_UM[:-1], "height of each slice"), (Z_UM[::-1], "rise"), (np.zeros(16), "rise")]
)
def test_volumes_and_heights_that_do_not_fit_are_refused(z_um, words):
    up, down = stacks(0.1, -0.1, beads=5)
    with pytest.raises(LagError, match=words):
        estimate_lag(up, down, z_um)
