import math

import numpy as np
import pytest
from pydantic import ValidationError

from acquisition.physics.mie import extinction_efficiency, scattering_amplitudes
from acquisition.physics.optics import BRIGHT_PEAK_CONTRAST, OpticsModel, particle_images

OPTICS = OpticsModel()


@pytest.fixture(scope="module")
def stack():
    z_um = np.array([-204.0, -150, -110, -75, -40, 0, 40, 75, 110, 150, 204])
    return z_um, particle_images(OPTICS, z_um)


def extents_px(image):
    """Columns and rows between the outermost pixels at a tenth of the peak."""
    rows, columns = np.nonzero(np.abs(image) > 0.1 * np.abs(image).max())
    return np.ptp(columns) + 1, np.ptp(rows) + 1


def centroid_px(image):
    rows, columns = np.indices(image.shape)
    return (image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()


def test_mie_gives_the_published_efficiency_of_bohren_and_huffman():
    # Bohren & Huffman (1983), appendix A: sample output of BHMIE
    assert extinction_efficiency(2 * math.pi * 0.525 / 0.6328, 1.55) == pytest.approx(3.10543, abs=1e-5)


def test_mie_obeys_the_optical_theorem():
    x, m = 17.5, 1.0794
    forward = scattering_amplitudes(x, m, np.zeros(1))[0][0]
    assert extinction_efficiency(x, m) == pytest.approx(4 / x**2 * forward.real, rel=1e-12)


def test_small_spheres_scatter_like_dipoles():
    angle = np.linspace(0, math.pi, 19)
    s1, s2 = scattering_amplitudes(0.01, 1.2, angle)
    np.testing.assert_allclose(s2 / s1, np.cos(angle), atol=1e-4)


def test_contrast_is_nine_percent_in_the_focal_lines_and_below_one_percent_at_the_ends(stack):
    z_um, images = stack
    peak = dict(zip(z_um, images.max(axis=(1, 2)), strict=True))
    assert peak[-75] == pytest.approx(0.09, abs=0.006)
    assert peak[75] == pytest.approx(0.09, abs=0.006)
    assert 0.006 < peak[204] <= peak[-204] < 0.01


def test_images_are_5_to_76_pixels_wide_like_the_papers(stack):
    _, images = stack
    sizes = np.array([extents_px(image) for image in images])
    assert sizes.min() == 5
    assert 68 <= sizes.max() <= 78


def test_images_are_long_along_x_below_and_along_y_above_the_mid_plane(stack):
    for z, image in zip(*stack, strict=True):
        along_x, along_y = extents_px(image)
        if z != 0:
            assert (along_x > along_y) == (z < 0)


def test_the_width_grows_steadily_beyond_the_focal_lines():
    sizes = [extents_px(image) for image in particle_images(OPTICS, np.arange(90, 205, 15.0))]
    columns, rows = np.array(sizes).T
    assert np.all(np.diff(columns) >= 0)
    assert np.all(np.diff(rows) > 0)


def test_turning_the_image_over_nearly_exchanges_x_and_y():
    below, above = particle_images(OPTICS, [-110, 110])
    assert np.corrcoef(below.ravel(), above.T.ravel())[0, 1] > 0.97


def test_fluorescent_images_exchange_x_and_y_exactly():
    below, above = particle_images(OpticsModel(polarity="bright"), [-75, 75])
    np.testing.assert_allclose(below, above.T, atol=1e-4)
    assert below.min() == pytest.approx(-BRIGHT_PEAK_CONTRAST, rel=0.1)


def test_the_light_a_particle_removes_does_not_depend_on_its_depth(stack):
    removed = stack[1].sum(axis=(1, 2))
    assert np.ptp(removed) < 0.01 * removed.mean()


def test_images_are_mirror_symmetric(stack):
    for image in stack[1]:
        np.testing.assert_allclose(image, image[::-1], atol=1e-5)
        np.testing.assert_allclose(image, image[:, ::-1], atol=1e-5)


def test_a_shift_moves_the_centroid_by_itself():
    image = particle_images(OPTICS, 30.0, 0.3, -0.2)[0]
    x, y = centroid_px(image)
    assert x - OPTICS.half_size_px == pytest.approx(0.3, abs=0.005)
    assert y - OPTICS.half_size_px == pytest.approx(-0.2, abs=0.005)


def test_a_lens_turned_by_a_right_angle_exchanges_the_axes():
    turned = particle_images(OpticsModel(rotation_deg=90.0), -75)[0]
    np.testing.assert_allclose(turned, particle_images(OPTICS, -75)[0].T, atol=1e-5)


def test_a_lower_condenser_aperture_gives_bright_rings():
    rings = particle_images(OpticsModel(condenser_na=0.10), 0.0)[0]
    assert rings.min() < -0.02 < particle_images(OPTICS, 0.0)[0].min()


def test_coarse_pixels_are_computed_on_a_finer_grid_and_keep_the_light():
    coarse = OpticsModel(pixel_size_um=1.6, range_um=60, visible_um=50)
    fine = OpticsModel(range_um=60, visible_um=50)
    assert coarse.oversampling == 2
    light = [particle_images(o, 20.0).sum() * o.pixel_size_um**2 for o in (coarse, fine)]
    assert light[0] == pytest.approx(light[1], rel=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"condenser_na": 0.2},
        {"numerical_aperture": 1.2, "medium_index": 1.1},
        {"range_um": 10.0},
        {"lens": 1},
    ],
)
def test_impossible_optics_are_refused(wrong):
    with pytest.raises(ValidationError):
        OpticsModel(**wrong)
