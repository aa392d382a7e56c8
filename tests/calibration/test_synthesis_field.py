"""Training images of a field of view over which particles look different."""

from dataclasses import replace

import numpy as np
import pytest
from training_particles import FIELD_SHAPE, HALF_PX, SILENCE, gaussian_cutouts, gaussian_model, uneven_model

from calibration.errors import CalibrationError
from calibration.synthesis import CutAndPaste, Layout, Rendered
from calibration.synthesis.choosing import FEWEST, choose_nearby

HEIGHT, WIDTH = FIELD_SHAPE
SPARSE = Layout(density_per_px=(4e-5, 4e-5), overlapped=0.0)


def placed_cutouts(count=400):
    places = np.random.default_rng(5).uniform((0, 0), (WIDTH, HEIGHT), (count, 2))
    return replace(gaussian_cutouts(count=count), place_px=places)


def lone(scene, margin_px):
    found = scene.particles
    height, width = scene.images.shape[1:]
    kept = (np.abs(found.x_px - width / 2) < width / 2 - margin_px) & (found.nearest_px > 80)
    return found.where(kept & (np.abs(found.y_px - height / 2) < height / 2 - margin_px))


def test_a_rendered_particle_looks_as_it_does_at_its_place_in_the_field():
    model = uneven_model()
    scene = Rendered(model, SILENCE, None, SPARSE).draw(np.random.default_rng(1), (128, 160), 250)
    truth = lone(scene, HALF_PX)
    assert len(truth) > 30
    inner = slice(HALF_PX - 8, HALF_PX + 9)
    wrong = []
    for n in range(len(truth)):
        x, y = round(truth.x_px[n]), round(truth.y_px[n])
        origin = scene.origin_px[truth.frame[n]]
        u, v = model.field.place(truth.x_px[n] + origin[0], truth.y_px[n] + origin[1])
        local = replace(model, coefficients=model.field.local(model.coefficients, u, v))
        image = scene.images[truth.frame[n], y - HALF_PX : y + HALF_PX + 1, x - HALF_PX : x + HALF_PX + 1]
        here, mean = (
            some.images(truth.z_um[n], truth.x_px[n] - x, truth.y_px[n] - y)[0] for some in (local, model)
        )
        np.testing.assert_allclose(image[inner, inner], here[inner, inner], atol=2e-6)
        wrong.append(np.abs(image - mean)[inner, inner].max() / mean.max())
    assert max(wrong) > 0.1


def test_images_lie_anywhere_in_the_field_and_begin_with_it_where_they_cover_it():
    source = Rendered(uneven_model(), SILENCE, None, SPARSE)
    origin = source.draw(np.random.default_rng(0), (96, 128), 400).origin_px
    assert origin.min() >= 0
    assert (origin.max(axis=0) <= [WIDTH - 128, HEIGHT - 96]).all()
    assert (np.ptp(origin, axis=0) > 0.95 * np.array([WIDTH - 128, HEIGHT - 96])).all()
    assert not source.draw(np.random.default_rng(0), (304, 400), 2).origin_px.any()


def test_a_field_without_modes_changes_no_training_image():
    even = gaussian_model()
    model = replace(
        even, field=replace(uneven_model().field, modes=np.zeros((0, 31, 57, 57)), weights=np.zeros((0, 3)))
    )
    one, other = (
        Rendered(some, SILENCE, None, SPARSE).draw(np.random.default_rng(2), (96, 96), 4)
        for some in (even, model)
    )
    np.testing.assert_array_equal(one.images, other.images)
    assert other.origin_px is None


def test_cutouts_are_pasted_near_the_place_where_they_were_seen():
    cutouts = placed_cutouts(2000)
    source = CutAndPaste(cutouts, SILENCE, None, Layout((1e-3, 1e-3)), field_shape=FIELD_SHAPE)
    scene = source.draw(np.random.default_rng(3), (128, 128), 60)
    truth = scene.particles
    own = cutouts.place_px[np.abs(cutouts.z_um[None] - truth.z_um[:, None]).argmin(axis=1)]
    at = np.column_stack([truth.x_px, truth.y_px]) + scene.origin_px[truth.frame]
    apart = np.hypot(*(own - at).T)
    assert np.median(apart) < 0.12 * WIDTH
    assert np.percentile(apart, 99) < 0.25 * WIDTH
    share, _ = np.histogram(truth.z_um, 4, (-60, 60), density=True)
    assert share * 120 == pytest.approx(np.ones(4), abs=0.1)


def test_where_few_cutouts_were_seen_the_nearest_are_taken():
    depths = np.linspace(-10, 10, 12)
    places = np.column_stack([np.arange(12.0) * 30, np.zeros(12)])
    wanted = np.repeat([[0.0, 330.0, 0.0]], 500, axis=0)
    random = np.random.default_rng(0).random(500)
    chosen = choose_nearby(depths, places, wanted, 20.0, 1.0, random)
    assert set(chosen) == set(range(12 - FEWEST, 12))
    by_depth = choose_nearby(depths, places, wanted, 0.1, 1.0, random)
    assert set(by_depth) == {4, 5, 6, 7}
    assert set(choose_nearby(depths[:2], places[:2], wanted, 0.1, 1.0, random)) == {0, 1}


def test_cutouts_without_places_cannot_be_pasted_by_place():
    with pytest.raises(CalibrationError, match="without places"):
        CutAndPaste(gaussian_cutouts(), SILENCE, field_shape=FIELD_SHAPE)
