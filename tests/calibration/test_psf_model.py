import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.psf_model import BY_X, BY_Y, BY_Z, VALUE, PsfModel

FIRST_UM, STEP_UM, NODES = -30.0, 3.0, 21
STEP = 1e-3


def gaussian(z_um, dx=0.0, dy=0.0, half=20):
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    sigma_x, sigma_y = 3 + 0.03 * (40 + z_um), 3 + 0.03 * (40 - z_um)
    return np.exp(-((x - dx) ** 2) / (2 * sigma_x**2) - (y - dy) ** 2 / (2 * sigma_y**2))


@pytest.fixture(scope="module")
def model():
    images = np.array([gaussian(FIRST_UM + STEP_UM * j) for j in range(NODES)])
    return PsfModel.from_images(images, FIRST_UM, STEP_UM, pixel_size_um=0.8, polarity="dark")


@settings(max_examples=40, deadline=None)
@given(st.floats(-29, 29), st.floats(-5, 5), st.floats(-5, 5))
def test_a_smooth_particle_is_reproduced_at_any_depth_and_shift(model, z_um, dx, dy):
    image = model.images(z_um, dx, dy, half_px=10)[0]
    assert np.abs(image - gaussian(z_um, dx, dy, 10)).max() < 3e-3


@settings(max_examples=40, deadline=None)
@given(st.floats(-29, 29), st.floats(-5, 5), st.floats(-5, 5))
def test_gradients_are_those_of_the_particle(model, z_um, dx, dy):
    image = model.images_and_gradients(z_um, dx, dy, half_px=10)[0]
    by_x = (gaussian(z_um, dx + STEP, dy, 10) - gaussian(z_um, dx - STEP, dy, 10)) / (2 * STEP)
    by_y = (gaussian(z_um, dx, dy + STEP, 10) - gaussian(z_um, dx, dy - STEP, 10)) / (2 * STEP)
    by_z = (gaussian(z_um + STEP, dx, dy, 10) - gaussian(z_um - STEP, dx, dy, 10)) / (2 * STEP)
    assert np.abs(image[BY_X] - by_x).max() < 2e-3
    assert np.abs(image[BY_Y] - by_y).max() < 2e-3
    assert np.abs(image[BY_Z] - by_z).max() < 2e-3


def test_the_model_passes_through_its_images_at_the_nodes(model):
    assert model.images(FIRST_UM + 6 * STEP_UM)[0] == pytest.approx(gaussian(FIRST_UM + 18), abs=1e-5)


def test_beyond_its_depths_and_its_pixels_there_is_nothing(model):
    assert not model.images([FIRST_UM - 0.1, 30.1]).any()
    wide = model.images_and_gradients(0.0, half_px=30)[0, VALUE]
    assert wide.shape == (61, 61)
    assert not wide[:10].any()
    assert not wide[:, 51:].any()
