"""A scan of a mixture is calibrated as one of several kinds of particles, and a scan of one kind as that."""

import numpy as np
import pytest
from small_scan import SmallScan

from calibration.calibration_file import describe_calibration, read_calibration, write_calibration
from calibration.cutout_images import read_cutouts
from calibration.errors import CalibrationError
from calibration.kinds.two_groups import best_cut, least_separation
from calibration.pipeline import calibrate
from calibration.preparation import Options
from calibration.scan.planes import FocusScan
from calibration.training.material import from_calibration

LEAST = 5


class Sizes(SmallScan):
    """Particles of `size` times the typical width; those of a larger size are brighter."""

    def __init__(self, of, spread=0.0, **given):
        self.size = np.ones(given["particles"])
        super().__init__(**given)
        count = len(self.x_px)
        self.kind = self.rng.permutation(np.repeat(np.arange(len(of)), [n for _, n in of]))[:count]
        self.size = np.array([s for s, _ in of])[self.kind] * (1 + spread * self.rng.uniform(-1, 1, count))

    def clean(self, focus_um):
        total = np.zeros(self.shape)
        rows, columns = np.arange(self.shape[0])[:, None], np.arange(self.shape[1])[None, :]
        sx, sy = self.widths_px(self.z_um - focus_um)
        for x, y, b, a, c, s in zip(self.x_px, self.y_px, self.brightness, sx, sy, self.size, strict=True):
            # a larger particle is wider in focus, and as wide as another far from it
            wide, high = np.hypot(a, 1.5 * (s - 1)), np.hypot(c, 1.5 * (s - 1))
            spot = np.exp(-((columns - x) ** 2) / (2 * wide**2) - (rows - y) ** 2 / (2 * high**2))
            total += b * s * self.contrast * 4.0 / (wide * high) * spot
        return total


def run(scan, path, kinds=None):
    with FocusScan(scan.write(path)) as opened:
        calibrated = calibrate(opened, Options(kinds=kinds))
        write_calibration(path.with_suffix("").with_suffix(".h5"), calibrated, opened)
    return calibrated.calibration


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A scan of two sizes, 1 : 2, its calibration and the file of it."""
    scan = Sizes([(1.0, 14), (2.0, 9)], spread=0.05, particles=23, shape=(300, 420), seed=4, repeats=2)
    path = tmp_path_factory.mktemp("kinds") / "scan.ome.tif"
    return scan, run(scan, path), path.with_suffix("").with_suffix(".h5")


def test_two_sizes_are_told_apart_and_the_more_frequent_is_the_first(mixture):
    scan, found, _ = mixture
    table = found.particles
    true, _ = scan.match(table)
    assert len(found.kinds) == 2
    assert found.kinds[0] is found.model
    assert table.used.sum() >= 20
    np.testing.assert_array_equal(table.kind[table.used], scan.kind[true][table.used])


def test_each_kind_has_its_own_psf_and_depth_0_midway_between_its_focal_lines(mixture):
    scan, found, _ = mixture
    table = found.particles
    true, _ = scan.match(table)
    for kind, planes in enumerate(found.kind_planes):
        mine = table.used & (table.kind == kind)
        away = (table.z_um - scan.z_um[true])[mine]
        assert np.median(away) == pytest.approx(0, abs=1.0)
        assert np.std(away) < 0.3
        assert planes.xz_um - planes.yz_um == pytest.approx(scan.separation_um, abs=4)
    first, second = (model.images([30.0])[0] for model in found.kinds)
    assert (second > 0.5 * second.max()).sum() > 1.2 * (first > 0.5 * first.max()).sum()


def test_the_file_has_both_kinds_and_says_so(mixture):
    scan, found, path = mixture
    again = read_calibration(path)
    assert len(again.kinds) == 2
    for ours, theirs in zip(found.kinds, again.kinds, strict=True):
        np.testing.assert_array_equal(ours.coefficients, theirs.coefficients)
        assert theirs.misfit is not None
    np.testing.assert_array_equal(again.particles.kind, found.particles.kind)
    assert again.kind_planes == found.kind_planes
    numbers = describe_calibration(path)["kinds"]
    assert [row["particles_used"] for row in numbers] == np.bincount(scan.kind).tolist()
    assert all(row["validation"]["right_side"] > 0.95 for row in numbers)


def test_training_images_of_a_mixture_have_both_kinds(mixture):
    _, found, path = mixture
    cutouts = read_cutouts(path)
    np.testing.assert_array_equal(cutouts.kind, found.particles.kind[cutouts.trace])
    material = from_calibration(path, "test")()
    assert material.kinds == 2
    assert len(material.others) == 1
    scene = material.training[0].draw(np.random.default_rng(0), (128, 128), 4)
    assert set(scene.particles.kind) == {0, 1}


def test_one_kind_of_which_no_two_are_of_the_same_size_stays_one(tmp_path):
    scan = Sizes([(1.5, 23)], spread=0.15, particles=23, shape=(300, 420), seed=4, repeats=2)
    found = run(scan, tmp_path / "scan.ome.tif")
    assert found.kinds == ()
    assert found.particles.used.sum() >= 20
    assert describe_calibration(tmp_path / "scan.h5")["kinds"] == []


def test_as_many_kinds_as_the_user_says(tmp_path):
    scan = Sizes([(1.0, 8), (2.0, 8)], particles=16, shape=(300, 420), seed=5, repeats=2)
    assert run(scan, tmp_path / "scan.ome.tif", kinds=1).kinds == ()
    with pytest.raises(
        CalibrationError, match=r"\d+ particles .* cannot be divided into 3 kinds of 5 or more"
    ):
        run(scan, tmp_path / "more.ome.tif", kinds=3)


@pytest.mark.parametrize("draw", ["uniform", "normal", "exponential", "triangular"])
def test_a_continuous_distribution_is_not_two_groups(draw):
    more = {"triangular": (0.0, 0.5, 1.0)}.get(draw, ())
    for count in (12, 40, 200):
        for seed in range(20):
            values = getattr(np.random.default_rng(seed), draw)(*more, size=count)
            assert best_cut(values, LEAST)[1] < least_separation(count, LEAST)


def test_two_sizes_with_a_gap_are_two_groups():
    rng = np.random.default_rng(0)
    for count in (20, 40, 200):
        second = np.arange(count) % 2 == 1
        values = np.where(second, 2.0, 1.0) * (1 + 0.1 * rng.uniform(-1, 1, count))
        upper, d = best_cut(values, LEAST)
        np.testing.assert_array_equal(upper, second)
        assert d > least_separation(count, LEAST)
