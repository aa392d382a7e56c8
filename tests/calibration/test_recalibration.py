"""A model is updated from recorded particles: what has changed is found, what has not stays, and each is proven."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_particles import NOISE, SHAPE, flat_field_model, gaussian_psf, record

from calibration.recalibration.at_rest import tracks_at_rest
from calibration.recalibration.estimate import Known, RecalibrationError, recalibrate
from calibration.recalibration.focal_lines import with_blur, with_lines_moved
from calibration.recalibration.image_fit import LocalModels, Windows, fit_windows, jacobian, weights_of
from calibration.recalibration.sightings import lone_rows
from calibration.recalibration.terms import focal_lines, with_depths, with_shape
from engines.refine.field import FieldModel

LINES = "distance of the focal lines"
SURFACE = (0.0, 1.5, -1.0, 0.8, 0.3, -0.6)
WALK = ((2e-4, 0.0), (0.0, 2e-4))
SCAN_UM = (-12, -6, 0, 6, 12)


def found_in(run, model, known=None):
    return recalibrate(model, run.recorded, SHAPE, run.images, known)


def term(found, name):
    return next(one for one in found.terms if one.name == name)


@settings(max_examples=8, deadline=None)
@given(st.floats(-6, 6), st.floats(-6, 6))
def test_moved_focal_lines_are_those_of_a_gaussian_beam(dx_um, dy_um):
    moved = with_lines_moved(gaussian_psf(), dx_um, dy_um)
    true = gaussian_psf((10.0 + dx_um, -10.0 + dy_um))
    z_um = np.linspace(-22, 22, 23)
    wanted, before = true.images(z_um), gaussian_psf().images(z_um)
    off = np.sqrt(((moved.images(z_um) - wanted) ** 2).sum())
    assert off < 0.1 * np.sqrt(((before - wanted) ** 2).sum()) + 0.01 * np.sqrt((wanted**2).sum())
    for line, shift, at in zip(focal_lines(moved), (dx_um, dy_um), (10.0, -10.0), strict=True):
        assert line == pytest.approx(at + shift, abs=0.4)


def test_nothing_moved_is_the_same_model():
    model = gaussian_psf()
    z_um = np.linspace(-30, 30, 25)
    same = with_lines_moved(model, 0, 0).images(
        z_um, half_px=15
    )  # without the window's edge, which cuts the images
    np.testing.assert_allclose(same, model.images(z_um, half_px=15), atol=1e-4)
    np.testing.assert_array_equal(with_blur(model, 0).coefficients, model.coefficients)
    np.testing.assert_array_equal(with_depths(model, 1.0, 0.0).coefficients, model.coefficients)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.8, 1.25), st.floats(-5, 5), st.floats(-20, 20))
def test_scaled_depths_show_the_old_image_at_the_new_depth(scale, offset_um, z_um):
    model = gaussian_psf(field_model=flat_field_model(SURFACE, WALK))
    new = with_depths(model, scale, offset_um)
    np.testing.assert_allclose(new.images(scale * z_um + offset_um), model.images(z_um), atol=1e-4)
    point = np.array([[40.0, 300.0, z_um]])
    # what is seen at a place stays seen there
    np.testing.assert_allclose(
        new.field.to_local(point * [1, 1, scale])[:, :2], model.field.to_local(point)[:, :2], atol=1e-6
    )


def test_a_larger_particle_is_a_blurred_one():
    model = gaussian_psf()
    wider = gaussian_psf(width_px=np.hypot(1.6, 0.3))
    z_um = np.linspace(-20, 20, 9)
    # the light is kept on both: the blur alone tells them apart
    blurred = with_blur(model, 0.3**2 / 2).images(z_um)
    scale = (wider.images(z_um) * blurred).sum((1, 2)) / (blurred**2).sum((1, 2))
    off = wider.images(z_um) - scale[:, None, None] * blurred
    assert np.abs(off).max() < 0.05 * np.abs(wider.images(z_um) - model.images(z_um)).max()


def lone_windows(model, z_um, places, rng, brightness=1.0):
    contrast = brightness * model.images(z_um, *places.T)
    contrast = contrast + rng.normal(0, NOISE, contrast.shape)
    count = len(z_um)
    windows = Windows(
        contrast.astype(np.float32), np.ones(contrast.shape, bool), np.full(count, 100), np.full(count, 150),
        np.full(count, NOISE**2), np.zeros(count),
    )  # fmt: skip
    start = np.zeros((count, 7))
    start[:, 0], start[:, 1], start[:, 2], start[:, 3] = 150, 100, z_um + 1.0, 0.8
    return windows, start


def test_free_fits_find_the_particles_with_the_errors_that_they_state():
    rng, model = np.random.default_rng(0), gaussian_psf()
    z_um, places = rng.uniform(-20, 20, 120), rng.uniform(-0.5, 0.5, (120, 2))
    windows, start = lone_windows(model, z_um, places, rng)
    models = LocalModels(model, SHAPE)
    fitted = fit_windows(windows, models, weights_of(windows, models, start), start)
    assert fitted.good.all()
    error = fitted.theta[:, :3] - np.column_stack([150 + places[:, 0], 100 + places[:, 1], z_um])
    assert np.sqrt(np.mean((error / fitted.sigma) ** 2, axis=0)) == pytest.approx(1.0, abs=0.2)
    assert np.median(fitted.reduced) == pytest.approx(1.0, abs=0.1)


@settings(max_examples=15, deadline=None)
@given(st.floats(-20, 20), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(0.5, 2))
def test_the_derivatives_of_the_fit_are_those_of_the_images(z_um, x, y, brightness):
    models = LocalModels(gaussian_psf(), SHAPE)
    theta = np.array([[x, y, z_um, brightness, 0, 0, 0]])

    def image(at):
        return at[0, 3] * models.images(np.zeros((1, 0)), at, 15)[0, 0].astype(np.float64)

    exact = jacobian(models.images(np.zeros((1, 0)), theta, 15), theta)[0]
    for k, step in enumerate((0.05, 0.05, 0.2, 0.05)):
        by = np.zeros((1, 7))
        by[0, k] = step
        numeric = (image(theta + by) - image(theta - by)) / (2 * step)
        assert np.abs(numeric - exact[k]).max() < 0.03 * np.abs(exact[k]).max() + 1e-4


@pytest.mark.parametrize("distance_um", [18.0, 21.5])
def test_focal_lines_that_have_moved_are_found_and_particles_left_out_prove_it(distance_um):
    run = record(gaussian_psf((distance_um / 2, -distance_um / 2)))
    found = found_in(run, gaussian_psf())
    lines = term(found, LINES)
    assert lines.changed
    assert lines.after[0] == pytest.approx(distance_um, abs=0.15 * abs(distance_um - 20) + 0.1)
    assert lines.chi2_after < lines.chi2_before - 100
    assert found.chi_square[1] < found.chi_square[0]
    assert found.chi_square[1] == pytest.approx(1.0, abs=0.08)
    x_um, y_um = focal_lines(found.model)
    assert abs(x_um - y_um) == pytest.approx(distance_um, abs=0.5)


@pytest.mark.parametrize("seed", range(4))
def test_a_model_that_is_right_stays_as_it_is(seed):
    run = record(gaussian_psf(), moving=12, stuck=18, focus_um=SCAN_UM, frames=3, seed=seed)
    found = found_in(run, gaussian_psf())
    assert not found.changed
    np.testing.assert_array_equal(found.model.coefficients, gaussian_psf().coefficients)
    assert all(one.why for one in found.terms)


def test_larger_particles_are_no_other_astigmatism():
    run = record(gaussian_psf(), size=0.8, seed=1)
    found = found_in(run, gaussian_psf())
    assert not term(found, LINES).changed
    blur = term(found, "blur of larger particles")
    assert blur.changed
    assert blur.after[0] == pytest.approx(0.8**2 / 2, rel=0.2)
    assert found.chi_square[1] < 0.9 * found.chi_square[0]


def test_particles_at_rest_tell_scale_surface_walk_and_offset_of_depth():
    true = gaussian_psf(field_model=flat_field_model(SURFACE, WALK))
    run = record(true, moving=10, stuck=20, focus_um=SCAN_UM, frames=3, scale=1.04, seed=2)
    rough = with_depths(gaussian_psf(), 1 / 1.04, 0.0)
    found = found_in(run, rough, Known(wall_focus_um=0.5))
    assert found.at_rest == 20
    assert term(found, "depth scale").after[0] == pytest.approx(1.04, abs=0.005)
    assert term(found, "depth offset").after[0] == pytest.approx(0.5, abs=0.15)
    u, v = (part.ravel() for part in np.meshgrid(np.linspace(-0.8, 0.8, 9), np.linspace(-0.7, 0.7, 9)))
    field = found.model.field
    x, y = u * max(SHAPE) / 2 + (SHAPE[1] - 1) / 2, v * max(SHAPE) / 2 + (SHAPE[0] - 1) / 2
    np.testing.assert_allclose(field.surface_at(x, y), true.field.surface_at(x, y), atol=0.15)
    np.testing.assert_allclose(field.walk_per_um, WALK, atol=2e-5)
    for name in ("depth scale", "focal surface", "walk with depth"):
        one = term(found, name)
        assert one.changed
        assert one.chi2_after < one.chi2_before / 4
    # depths of the new model are those of the focus drive
    z_um = np.array([-15.0, 0.0, 12.0])
    np.testing.assert_allclose(found.model.images(z_um + 0.5), gaussian_psf().images(z_um), atol=0.05)


def test_a_known_distance_of_two_walls_tells_the_depth_scale_without_moving_the_focus():
    run = record(gaussian_psf(), moving=10, stuck=20, frames=9, walls_um=(-12, 15), scale=1.05, seed=3)
    rough = with_depths(gaussian_psf(), 1 / 1.05, 0.0)
    assert not term(found_in(run, rough), "depth scale").changed
    found = found_in(run, rough, Known(wall_distance_um=27 * 1.3, refraction_factor=1.3))
    assert term(found, "depth scale").after[0] == pytest.approx(1.05, abs=0.01)
    assert any("35.1 um apart" in remark for remark in found.remarks)


def test_where_the_drive_tells_the_scale_the_walls_tell_the_refraction():
    run = record(gaussian_psf(), moving=10, stuck=20, frames=3, focus_um=(-6, 0, 6), walls_um=(-8, 8), seed=4)
    found = found_in(run, gaussian_psf(), Known(wall_distance_um=16 * 1.33))
    assert not term(found, "depth scale").changed
    assert any("refraction_factor of 1.3" in remark for remark in found.remarks)


def test_what_is_missing_is_said_for_each_term():
    found = found_in(record(gaussian_psf(), seed=5), gaussian_psf())
    assert "focus did not move" in term(found, "depth scale").why
    assert "at rest on a flat wall" in term(found, "focal surface").why
    assert "at rest while the focus moved" in term(found, "walk with depth").why


def test_too_few_lone_particles_are_refused():
    run = record(gaussian_psf(), moving=4, frames=2)
    with pytest.raises(RecalibrationError, match=r"8 images of 4 lone particles.*30 of 6 are needed"):
        found_in(run, gaussian_psf())


def test_images_of_another_run_are_refused():
    run, other = record(gaussian_psf()), record(gaussian_psf(), seed=9)
    run.frames = other.frames
    with pytest.raises(RecalibrationError, match="images show no particle of this model"):
        found_in(run, gaussian_psf())


def test_particles_are_lone_only_without_any_neighbour_and_inside_the_image():
    run, model = record(gaussian_psf(), moving=2, frames=1), gaussian_psf()
    rows = run.recorded.part(np.array([0, 1, 0, 1]))
    rows.x_px[:], rows.y_px[:] = (100, 300, 106, 4), (100, 200, 100, 50)
    rows.used[:] = (True, True, False, True)
    np.testing.assert_array_equal(lone_rows(rows, model, SHAPE), [False, True, False, False])


def test_particles_that_drift_or_do_not_follow_the_focus_are_not_at_rest():
    run = record(gaussian_psf(), moving=6, stuck=8, focus_um=SCAN_UM, frames=3)
    everything = np.ones(len(run.recorded), bool)
    np.testing.assert_array_equal(tracks_at_rest(run.recorded, everything), np.arange(6, 14))
    slow = record(gaussian_psf(), moving=0, stuck=8, frames=15).recorded
    assert tracks_at_rest(slow, np.ones(len(slow), bool)).size == 8
    slow.x_px[:] += 0.1 * slow.frame
    assert tracks_at_rest(slow, np.ones(len(slow), bool)).size == 0
    sinking = run.recorded.part(everything)
    sinking.z_um[:] = 0.4 * sinking.z_um
    assert tracks_at_rest(sinking, everything).size == 0


def test_both_shape_terms_are_undone_by_their_opposites():
    model = gaussian_psf()
    back = with_shape(with_shape(model, 1.5, 0.05), -1.5, -0.05)
    z_um = np.linspace(-20, 20, 9)
    assert np.abs(back.images(z_um) - model.images(z_um)).max() < 0.03 * model.images(z_um).max()


def test_a_model_that_varies_over_the_field_is_used_as_it_is_at_each_place():
    plain = gaussian_psf()
    mode = (with_lines_moved(plain, 3.0, 3.0).coefficients - plain.coefficients)[None]
    field = FieldModel(SHAPE, np.zeros(6), np.zeros((2, 2)), mode, np.array([[0.0, 1.0, 0.0]]), 1)
    model = replace(plain, field=field)
    models = LocalModels(model, SHAPE)
    row, column = np.array([180.0, 180.0]), np.array([210.0, 410.0])
    theta = np.array([[0, 0, 5.0, 1, 0, 0, 0]] * 2)
    middle, edge = models.images(models.mix(row, column, np.ones(2)), theta, 15)[:, 0]
    np.testing.assert_allclose(middle, plain.images(5.0, half_px=15)[0], atol=1e-3)
    u = (column[1] - (SHAPE[1] - 1) / 2) / (max(SHAPE) / 2)
    np.testing.assert_allclose(edge, plain.images(5.0 - 3.0 * u, half_px=15)[0], atol=0.03)
