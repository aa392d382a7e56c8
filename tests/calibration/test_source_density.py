"""How dense training images are, and the ray tracer that draws the yardstick's images."""

import sys
from pathlib import Path

import numpy as np
import pytest
from training_particles import gaussian_model

from calibration.psf_model import PsfModel
from calibration.training.material import MOST_PER_PX, density_per_px, image_area_px

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import source_density
from ray_images import Microscope


def spot_model(sigma_px):
    """Round particles that look the same at each depth."""
    y, x = np.mgrid[-20:21, -20:21]
    spot = 0.1 * np.exp(-(x**2 + y**2) / (2 * sigma_px**2))
    return PsfModel.from_images(
        np.repeat(spot[None], 21, axis=0), -40.0, 4.0, pixel_size_um=0.8, polarity="bright"
    )


@pytest.mark.parametrize("sigma_px", [2.5, 3.5])
def test_images_are_as_large_as_their_tenth_of_the_peak(sigma_px):
    assert image_area_px(spot_model(sigma_px)) == pytest.approx(2 * np.pi * sigma_px**2 * np.log(10), rel=0.1)


def test_small_particles_are_trained_up_to_a_source_density_of_a_half():
    model = spot_model(2.0)
    _, most = density_per_px(model)
    assert most * image_area_px(model) == pytest.approx(0.5)


def test_no_particles_are_trained_less_densely_than_those_of_the_paper():
    for model in (gaussian_model(), spot_model(8.0)):
        fewest, most = density_per_px(model)
        assert fewest < MOST_PER_PX <= most


PLAIN = Microscope(numerical_aperture=0.05, cylinder_um=1e9, rays=20_000)


def test_a_particle_in_focus_is_imaged_at_its_size():
    hits = PLAIN.hits(0.0, np.random.default_rng(0))
    radius_px = PLAIN.particle_um / 2 * PLAIN.magnification / PLAIN.camera_pixel_um
    # over the surface of half a sphere, seen from in front: the mean square of the distance is 2/3 R^2
    assert np.sqrt((hits**2).sum(axis=0).mean()) == pytest.approx(radius_px * np.sqrt(2 / 3), rel=0.05)


@pytest.mark.parametrize("z_um", [-60.0, 60.0])
def test_a_defocused_image_is_as_wide_as_the_cone_of_rays(z_um):
    hits = PLAIN.hits(z_um, np.random.default_rng(0))
    f, m = PLAIN.focal_length_um, PLAIN.magnification
    object_um, camera_um = f * (1 + 1 / m) + z_um, f * (1 + m)
    aperture_um = np.tan(np.arcsin(PLAIN.numerical_aperture)) * f * (1 + 1 / m)
    edge_um = aperture_um * abs(camera_um * (1 / f - 1 / object_um) - 1)  # a thin lens
    size_um = PLAIN.particle_um / 2 * camera_um / object_um
    expected_px = np.sqrt(edge_um**2 / 2 + size_um**2 * 2 / 3) / PLAIN.camera_pixel_um
    assert np.sqrt((hits**2).sum(axis=0).mean()) == pytest.approx(expected_px, rel=0.03)


def test_a_cylindrical_lens_moves_the_focus_along_one_axis_alone():
    astigmatic = Microscope(numerical_aperture=0.05)
    depths = np.arange(-100.0, 41.0, 5.0)
    rng = np.random.default_rng(0)
    widths = np.array([astigmatic.hits(z, rng).std(axis=1) for z in depths])
    sharpest = depths[widths.argmin(axis=0)]
    assert abs(sharpest[1]) <= 5.0
    # thin lenses: image distance f (1 + M), the cylinder at a third of it
    f, m = astigmatic.focal_length_um, astigmatic.magnification
    behind = f * (1 + m) * 2 / 3
    image = 1 / (1 / behind - 1 / astigmatic.cylinder_um)  # where rays must meet without the cylinder
    distance = f * (1 + m) / 3 + image
    assert sharpest[0] == pytest.approx(1 / (1 / f - 1 / distance) - f * (1 + 1 / m), abs=7.0)


def test_images_of_a_source_density_hold_as_many_particles():
    area_px = 300.0
    images, truth = source_density.draw(Microscope(rays=50), 0.2, area_px)
    a_frame = len(truth["x_um"]) / len(images)
    assert a_frame * area_px / np.prod(source_density.SHAPE) == pytest.approx(0.2, rel=0.01)
    assert np.abs(truth["z_um"]).max() <= source_density.RANGE_UM / 2


def test_what_is_found_counts_where_its_depth_is_right_to_a_tenth_of_the_range():
    truth = {
        "frame": np.zeros(3, int),
        "x_um": np.array([0.0, 30, 60]),
        "y_um": np.zeros(3),
        "z_um": np.zeros(3),
    }
    found = truth | {"z_um": np.array([0.0, 8.0, 9.0])}
    row = source_density.summary(0.1, truth, found, 0.0)
    assert row["recall"] == pytest.approx(66.67)
    assert row["recall_at_any_depth"] == 100
