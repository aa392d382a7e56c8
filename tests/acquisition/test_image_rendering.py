import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.physics.image_table import cache_file, load_bank
from acquisition.physics.optics import OpticsModel, particle_images
from acquisition.physics.rendering import Renderer, simulate_images
from stream.errors import ConfigurationError

THIN = OpticsModel(range_um=30, visible_um=24)
SHAPE = (160, 180)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return load_bank(OpticsModel(), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def silent(bank):
    return Renderer(bank, SHAPE, np.uint16, snr=math.inf)


def contrast_of(renderer, x_px, y_px, z_um):
    image = np.empty(renderer.shape, renderer.dtype)
    pixel = renderer.bank.optics.pixel_size_um
    renderer.render(*(np.atleast_1d(np.asarray(v, float)) for v in (x_px * pixel, y_px * pixel, z_um)), image)
    return 1 - image / renderer.background


@settings(max_examples=40, deadline=None)
@given(x=st.floats(80, 90), y=st.floats(75, 85), z=st.floats(-204, 204))
def test_the_centroid_of_a_lone_particle_is_its_true_position(silent, x, y, z):
    contrast = contrast_of(silent, np.array([x]), np.array([y]), z)
    rows, columns = np.indices(SHAPE)
    assert (contrast * columns).sum() / contrast.sum() == pytest.approx(x, abs=0.02)
    assert (contrast * rows).sum() / contrast.sum() == pytest.approx(y, abs=0.02)


@pytest.mark.parametrize("z", [-200.5, -76.5, -40.0, 1.5, 74.0, 100.5, 199.0])
def test_the_table_draws_what_the_optics_compute(silent, z):
    contrast = contrast_of(silent, np.array([85.37]), np.array([79.82]), z)
    exact = particle_images(silent.bank.optics, z, 0.37, -0.18)[0]
    half = silent.bank.optics.half_size_px
    drawn = contrast[80 - half : 81 + half, 85 - half : 86 + half]
    assert np.abs(drawn - exact).max() < 0.015 * exact.max()


def test_overlapping_shadows_add(silent):
    one = contrast_of(silent, np.array([80.0]), np.array([80.0]), 40.0)
    other = contrast_of(silent, np.array([86.0]), np.array([82.0]), -40.0)
    both = contrast_of(silent, np.array([80.0, 86]), np.array([80.0, 82]), np.array([40.0, -40]))
    np.testing.assert_allclose(both, one + other, atol=1e-4)


def test_particles_out_of_depth_or_out_of_sight_leave_no_mark(silent):
    x, y = np.array([80.0, 80, -300, 80]), np.array([80.0, 80, 80, 900])
    assert not contrast_of(silent, x, y, np.array([250.0, -400, 0, 0])).round(4).any()


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (179.0, 159.0), (-20.0, 80.0), (90.0, 170.0)])
def test_particles_at_the_rim_are_cut_not_moved(bank, silent, x, y):
    wide = Renderer(bank, (320, 340), np.uint16, snr=math.inf)
    cut = contrast_of(silent, np.array([x]), np.array([y]), -150.0)
    whole = contrast_of(wide, np.array([x + 80]), np.array([y + 80]), -150.0)
    np.testing.assert_allclose(cut, whole[80:240, 80:260], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_signal_to_noise_ratio_is_the_papers(bank, dtype):
    renderer = Renderer(bank, (300, 400), dtype, snr=5.6, seed=3)
    empty = np.empty((300, 400), dtype)
    renderer.render(*[np.empty(0)] * 3, empty)
    z_um = np.arange(-204, 205, 6.0)
    signal = [particle_images(bank.optics, z).max() * renderer.background for z in z_um]
    assert np.mean(signal) / empty.std() == pytest.approx(5.6, rel=0.02)
    assert empty.mean() == pytest.approx(renderer.background, abs=0.05 * empty.std())


def test_noise_differs_from_frame_to_frame_and_repeats_with_the_seed(bank):
    def frames(seed):
        renderer = Renderer(bank, (64, 200), seed=seed)
        pair = np.empty((2, 64, 200), np.uint8)
        for image in pair:
            renderer.render(*[np.empty(0)] * 3, image)
        return pair

    first = frames(1)
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(first, frames(1))
    assert not np.array_equal(first, frames(2))


def test_neighbouring_pixels_and_rows_have_independent_noise(bank):
    image = np.empty((300, 400), np.uint16)
    Renderer(bank, (300, 400), np.uint16).render(*[np.empty(0)] * 3, image)
    residual = image - image.mean()
    for shifted in (residual[1:] * residual[:-1], residual[:, 1:] * residual[:, :-1]):
        assert abs(shifted.mean()) < 0.02 * image.var()


def test_shading_darkens_the_corners_and_the_particles_in_proportion(bank):
    flat = Renderer(bank, SHAPE, np.uint16, snr=math.inf)
    shaded = Renderer(bank, SHAPE, np.uint16, snr=math.inf, shading=0.3)
    position = [np.array([v]) for v in (80 * 0.8, 80 * 0.8, 40.0)]
    images = [np.empty(SHAPE, np.uint16) for _ in range(2)]
    for renderer, image in zip((flat, shaded), images, strict=True):
        renderer.render(*position, image)
    light = images[1] / images[0]
    assert light[0, 0] == pytest.approx(0.7, abs=0.01)
    assert light[80, 90] == pytest.approx(1.0, abs=0.01)
    assert np.abs(np.diff(light, axis=1)).max() < 0.01


def test_fluorescent_particles_are_brighter_than_the_background(tmp_path):
    glowing = OpticsModel(polarity="bright", range_um=30, visible_um=24)
    renderer = Renderer(load_bank(glowing, tmp_path), SHAPE, snr=math.inf)
    image = np.empty(SHAPE, np.uint8)
    renderer.render(np.array([64.0]), np.array([64.0]), np.array([0.0]), image)
    assert image.max() > 1.5 * np.median(image)
    assert image.min() >= np.median(image) - 1


@pytest.mark.parametrize(
    "buffer",
    [np.empty((10, 10), np.uint8), np.empty(SHAPE, np.uint8), np.empty(SHAPE[::-1], np.uint16).T],
)
def test_a_buffer_that_does_not_fit_is_refused(silent, buffer):
    with pytest.raises(ConfigurationError, match="draws"):
        silent.render(*[np.empty(0)] * 3, buffer)


@pytest.mark.parametrize("wrong", [{"dtype": np.float32}, {"shape": (0, 5)}, {"shading": 1.5}])
def test_a_renderer_refuses_what_it_cannot_draw(bank, wrong):
    with pytest.raises(ConfigurationError):
        Renderer(bank, **{"shape": SHAPE, **wrong})


def test_one_picture_comes_with_the_particles_that_can_be_seen_in_it():
    image, truth = simulate_images(THIN, [10, 20, 900], [10, 20, 10], [0, 28, 0], (60, 80), snr=8, seed=1)
    assert image.shape == (60, 80)
    assert truth.x_um.tolist() == [10]
    assert truth.z_um.tolist() == [0]


def test_images_are_computed_once_and_then_read(tmp_path, monkeypatch):
    first = load_bank(THIN, tmp_path)
    monkeypatch.setattr("acquisition.physics.image_table.fine_images", None)
    np.testing.assert_array_equal(load_bank(THIN, tmp_path).images, first.images)
    assert [path.name for path in tmp_path.iterdir()] == [cache_file(THIN, tmp_path).name]


@pytest.mark.parametrize("damage", [b"", b"not an archive", None])
def test_a_damaged_cache_file_is_rebuilt(tmp_path, caplog, damage):
    good = load_bank(THIN, tmp_path)
    path = cache_file(THIN, tmp_path)
    intact = bytearray(path.read_bytes())
    intact[len(intact) // 2] ^= 0xFF
    path.write_bytes(bytes(intact) if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_bank(THIN, tmp_path).images, good.images)
    assert "rebuilt" in caplog.text
    caplog.clear()
    load_bank(THIN, tmp_path)
    assert not caplog.text


def test_a_cache_folder_that_cannot_be_written_only_costs_time(tmp_path, caplog):
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert load_bank(THIN, blocked / "images").images.any()
    assert "the next start computes them again" in caplog.text


def test_other_optics_have_another_cache_file(tmp_path):
    assert cache_file(THIN, tmp_path) != cache_file(OpticsModel(), tmp_path)
