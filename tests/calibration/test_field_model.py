"""The field model: what changes over the field of view is found from traces, and nothing where nothing changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.alignment.aligned import Positions
from calibration.alignment.depth_spline import node_weights
from calibration.cautions import corner_warning
from calibration.field.choose import Truncation, folds_of
from calibration.field.cross_validation import Validation, cross_validate
from calibration.field.estimate import FieldFit, Scene, fit_field
from calibration.field.misfit_map import misfit_of
from calibration.field.named import NamedTerms, name_terms
from calibration.field.regression import Problem, Residuals, Sums
from calibration.field.samples import Nodes, Samples, Traces
from calibration.field.stage import moves_as_a_whole, straight_walk
from calibration.field.surface_choice import choose_surface
from calibration.field.terms import Design, Terms
from calibration.field.walk import find_walk
from calibration.psf_model import PsfModel
from engines.refine.field import FieldModel, monomials

SHAPE = (400, 500)
HALF = 250.0
FOCUS_UM = np.arange(-40.0, 41.0, 4.0)
NOISE = 0.01


def gaussian(z_um, dx_px, dy_px, stretch, size=33):
    """An astigmatic image: widths along x and y that grow from focal lines at -15 and +15 um."""
    place = np.arange(size) - size // 2
    sx = np.sqrt(1.5**2 + (stretch * (z_um - 15) / 10) ** 2)
    sy = np.sqrt(1.5**2 + ((z_um + 15) / 10) ** 2)
    image = np.exp(-0.5 * ((place[None, :] - dx_px) / sx) ** 2 - 0.5 * ((place[:, None] - dy_px) / sy) ** 2)
    return (image * 3.0 / (sx * sy)).astype(np.float32)


def scan(count=30, *, walk=0.0, stretch=0.0, stage=0.0, spread_um=1.0, seed=0):
    """Traces of particles on a slide, of optics that change by `stretch` from the middle of the field to its
    edge."""
    rng = np.random.default_rng(seed)
    column, row = rng.integers(20, SHAPE[1] - 20, count), rng.integers(20, SHAPE[0] - 20, count)
    off = rng.uniform(-0.5, 0.5, (2, count))
    x = column + off[0] - (SHAPE[1] - 1) / 2
    y = row + off[1] - (SHAPE[0] - 1) / 2
    height = rng.normal(0, spread_um, count)
    brightness = rng.uniform(0.9, 1.1, count)
    images = np.empty((count, len(FOCUS_UM), 33, 33), np.float32)
    for i in range(count):
        for k, focus in enumerate(FOCUS_UM):
            z = height[i] - focus
            dx, dy = off[0, i] + walk * x[i] * z + stage * focus, off[1, i] + walk * y[i] * z
            images[i, k] = brightness[i] * gaussian(z, dx, dy, 1 + stretch * x[i] / HALF)
    images += rng.normal(0, NOISE, images.shape).astype(np.float32)
    start = Positions(brightness / brightness.mean(), height, off[0], off[1])
    return images, start, Scene(FOCUS_UM, column.astype(float), row.astype(float), SHAPE)


def mean_model():
    z = np.arange(-44.0, 45.0, 4.0)
    images = np.stack([gaussian(depth, 0, 0, 1.0) for depth in z])
    return PsfModel.from_images(
        images, -44.0, 4.0, pixel_size_um=1.0, polarity="bright", z_range_um=(-40.0, 40.0)
    )


def fitted(**optics) -> FieldFit:
    images, start, scene = scan(**optics)
    return fit_field(images, start, scene, mean_model(), NOISE**2)


def test_space_invariant_optics_keep_their_one_image_and_the_places_of_the_alignment():
    fit = fitted()
    assert fit.choice.design == Design()
    assert fit.model.field is None
    np.testing.assert_array_equal(fit.positions.z_um, scan()[1].z_um)


@pytest.fixture(scope="module")
def stretched() -> FieldFit:
    return fitted(stretch=0.3)


def test_images_that_change_over_the_field_are_predicted_at_places_without_a_particle(stretched):
    field = stretched.model.field
    assert field is not None
    assert len(field.modes) >= 1
    depths = np.array([-20.0, 0.0, 10.0, 25.0])
    for x_px in (60.0, 250.0, 440.0):
        true = np.stack([gaussian(z, 0, 0, 1 + 0.3 * (x_px - 249.5) / HALF) for z in depths])
        ours = stretched.model.at(x_px, 200.0).images(depths)
        plain = mean_model().images(depths)
        if abs(x_px - 249.5) > 100:
            assert np.abs(ours - true).max() < 0.35 * np.abs(plain - true).max()
        assert np.abs(ours - true).max() < 0.05 * true.max()


def test_particles_that_fill_a_volume_are_fitted_where_they_are_seen():
    fit = fitted(stretch=0.3, spread_um=20.0)
    assert fit.model.field is not None
    assert np.abs(fit.traces.depth_um).max() > 70
    assert np.abs(fit.positions.z_um - scan(stretch=0.3, spread_um=20.0)[1].z_um).max() < 1.0


def test_left_out_particles_are_measured_with_the_errors_that_are_stated(stretched):
    members = np.arange(30)
    rows = cross_validate(stretched, members, np.ones(30, bool), (NOISE**2, 0.0), stretched.model)
    assert len(rows) > 400
    assert np.isfinite(rows.error_z_um).mean() > 0.98
    assert rows.right_side(80.0).mean() > 0.95
    misfit = misfit_of(rows, stretched.model, None, SHAPE)
    assert misfit is not None
    stated = np.sqrt(rows.sigmas() ** 2 + misfit.at(rows.x_um, rows.y_um, rows.z_um))
    good = rows.right_side(80.0)
    ratio = np.sqrt(np.mean((rows.errors() / stated)[good] ** 2, axis=0))
    assert (np.abs(ratio - 1) < 0.15).all()


def test_named_terms_survive_json(stretched):
    named = name_terms(stretched, None, stretched.model)
    again = NamedTerms.from_dict(named.to_dict())
    assert again.modes == named.modes > 0
    assert again.scores == named.scores
    assert np.isnan(again.tilt_um).all()


def test_a_magnification_that_changes_with_depth_is_found_as_such():
    fit = fitted(walk=2e-4)
    assert fit.model.field is not None
    np.testing.assert_allclose(np.diag(fit.model.field.walk_per_um), 2e-4, rtol=0.02)
    assert np.abs(fit.model.field.walk_per_um - 2e-4 * np.eye(2)).max() < 4e-6


def residuals_of(shift_px):
    change = np.zeros((*shift_px.shape[:2], 4))
    change[..., 1:3] = shift_px + np.random.default_rng(1).normal(0, 0.02, shift_px.shape)
    return Residuals(change, np.full(change.shape, 1 / 0.02**2))


@pytest.mark.parametrize(("apart_um", "told"), [(30.0, True), (0.5, False)])
def test_a_stage_that_walks_in_a_curve_is_told_from_the_optics_by_particles_at_different_heights(
    apart_um, told
):
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-250, 250, (2, 40))
    depth = rng.normal(0, apart_um, 40)[:, None] - FOCUS_UM
    drift = np.stack([0.002 * FOCUS_UM**2, np.zeros_like(FOCUS_UM)], axis=1)
    found = find_walk(
        residuals_of(np.broadcast_to(drift, (40, len(FOCUS_UM), 2))), 1.0, depth, FOCUS_UM, x, y
    )
    assert found is not None
    assert found.is_stage == told
    assert not found.is_optical
    if told:
        np.testing.assert_allclose(found.stage_px[:, 0], drift[:, 0] - drift[:, 0].mean(), atol=0.1)


def test_a_stage_that_walks_straight_is_known_by_images_that_stay_symmetric():
    fit = fitted(stage=0.02)
    travel = fit.stage_px[-1, 0] - fit.stage_px[0, 0]
    assert travel == pytest.approx(0.02 * np.ptp(FOCUS_UM), rel=0.15)
    assert np.abs(fit.stage_px[:, 1]).max() < 0.1


def test_lopsided_images_are_the_optics():
    depth = np.linspace(-30, 30, 9)
    rows, columns = np.mgrid[-16:17, -16:17]
    disc = 1 / (1 + np.exp(np.hypot(rows, columns) - 9))
    tail = np.stack([disc * (1 + 0.5 * z / 30 * columns / 9) for z in depth])
    walk = np.array([(image * columns).sum() / image.sum() for image in tail])
    slope = np.polyfit(depth, walk, 1)[0]
    assert abs(slope) > 0.01
    assert not moves_as_a_whole(tail, depth, np.array([slope, 0.0]))
    still = np.stack([gaussian(z, 0.02 * z, 0, 1.0) for z in depth]).astype(float)
    np.testing.assert_allclose(straight_walk(still, depth), [0.02, 0.0], atol=0.002)


def test_few_particles_have_no_walk():
    depth = np.zeros((7, len(FOCUS_UM))) - FOCUS_UM
    some = residuals_of(np.zeros((7, len(FOCUS_UM), 2)))
    assert find_walk(some, 1.0, depth, FOCUS_UM, np.arange(7.0), np.arange(7.0)) is None


@given(seed=st.integers(0, 1000), terms=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_the_banded_solution_is_the_least_squares_solution(seed, terms):
    rng = np.random.default_rng(seed)
    count, planes, size, nodes = 12, 15, 3, 12
    depth = rng.uniform(-1, 1, (count, 1)) + np.linspace(0, 6, planes)
    none = np.zeros((count, planes))
    traces = Traces(
        np.zeros((count, planes, 3, 3), np.float32),
        depth,
        np.ones((count, planes), bool),
        none,
        none,
        rng.uniform(0.8, 1.2, count),
        np.zeros(count),
        np.zeros(count),
        1.0,
    )
    values = rng.normal(size=(count, planes, size))
    samples = Samples(
        traces, Nodes(-2.0, 1.0, nodes), np.eye(size)[:, :, None], np.eye(size), np.eye(size), values
    )
    phi = np.column_stack([np.ones(count), rng.normal(size=(count, terms - 1))])
    ours = Problem.of(Sums.of(samples), phi, np.arange(count)).solve(0.1)
    first, weight, _ = node_weights(((depth + 2.0) / 1.0).ravel(), nodes)
    rows = np.zeros((count * planes, terms * nodes))
    for t in range(terms):
        for p in range(4):
            rows[np.arange(len(rows)), t * nodes + first + p] += weight[:, p] * np.repeat(
                phi[:, t] * traces.brightness, planes
            )
    normal = rows.T @ rows
    on_node = np.diag(normal)[:nodes]
    information = np.median(on_node[on_node > 0])
    bend = np.diff(np.eye(nodes), 2, axis=0)
    for t in range(terms):
        part = slice(t * nodes, (t + 1) * nodes)
        normal[part, part] += 0.1 * information * bend.T @ bend
        normal[part, part] += information * (0.1 if t else 1e-6) * np.eye(nodes)
    dense = np.linalg.solve(normal, rows.T @ values.reshape(-1, size)).reshape(terms, nodes, size)
    np.testing.assert_allclose(ours, dense, atol=1e-6 * np.abs(dense).max())


@given(degree=st.integers(0, 3), of_brightness=st.integers(0, 2), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_weights_on_scaled_terms_are_the_same_function_as_weights_on_polynomials(degree, of_brightness, seed):
    rng = np.random.default_rng(seed)
    u, v, b = rng.uniform(-1, 1, (3, 40))
    terms = Terms.of(Design(degree, of_brightness), u, v, b)
    mixed = rng.normal(size=(2, terms.design.count))
    a, c, d = rng.uniform(-1, 1, (3, 7))
    np.testing.assert_allclose(
        terms.design.raw(a, c, d) @ terms.weights(mixed).T, terms.at(a, c, d) @ mixed.T, atol=1e-9
    )


def test_all_modes_together_are_the_splines_again():
    splines = np.random.default_rng(0).normal(size=(4, 9, 5))
    np.testing.assert_allclose(Truncation.of(splines, 3).splines(splines[0]), splines, atol=1e-12)
    assert np.abs(Truncation.of(splines, 1).splines(splines[0]) - splines).max() > 0.1


def test_folds_hold_neighbours_apart_and_every_particle_once():
    rng = np.random.default_rng(0)
    u, v = rng.uniform(-1, 1, (2, 50))
    fold = folds_of(u, v)
    assert set(fold) == set(range(8))
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 1


def test_a_tilted_and_curved_focal_surface_is_found_and_a_flat_one_left_alone():
    rng = np.random.default_rng(2)
    u, v = rng.uniform(-1, 1, (2, 60))
    true = np.array([0.0, 5.0, -2.0, 3.0, 0.0, 4.0])
    found = choose_surface(u, v, 17.0 + monomials(u, v, 2) @ true + rng.normal(0, 0.3, 60))
    np.testing.assert_allclose(found.surface_um, true, atol=0.4)
    assert found.scatter_um == pytest.approx(0.3, rel=0.3)
    away = (found.surface_um - true) / np.sqrt(np.maximum(np.diag(found.covariance), 1e-12))
    assert np.abs(away[1:]).max() < 4
    flat = choose_surface(u, v, rng.normal(0, 0.3, 60))
    assert not flat.surface_um.any()
    untilted = found.without_tilt()
    assert not untilted.surface_um[:3].any()
    assert untilted.surface_um[3:].any()


def test_particles_that_fell_off_the_slide_do_not_bend_the_surface():
    rng = np.random.default_rng(4)
    u, v = rng.uniform(-1, 1, (2, 60))
    z = 3.0 * u + rng.normal(0, 0.2, 60)
    z[:5] += 25.0
    np.testing.assert_allclose(choose_surface(u, v, z).surface_um[1:3], [3.0, 0.0], atol=0.3)


@pytest.mark.parametrize(("count", "bent"), [(8, True), (12, True), (60, True), (12, False), (60, False)])
def test_stated_errors_of_depth_hold_the_part_of_the_focal_surface_that_few_particles_do_not_show(
    count, bent
):
    """rms over many slides, of the true surface less the one found, and of what is stated."""
    true = np.array([0.0, 7.0, -2.0, 15.0, 0.0, 15.0]) if bent else np.zeros(6)
    a, b = (part.ravel() for part in np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-0.75, 0.75, 21)))
    errors, stated = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        u, v = rng.uniform(-1, 1, count), rng.uniform(-0.75, 0.75, count)
        z = monomials(u, v, 2) @ true + rng.uniform(-1, 1, count)
        found = choose_surface(u, v, z)
        away = monomials(a, b, 2) @ (true - found.surface_um)
        errors.append(np.mean((away - np.median(away)) ** 2))
        stated.append(np.mean(found.variance_at(a, b)))
    ratio = np.sqrt(np.mean(errors) / np.mean(stated))
    # two slides in forty bend further than the particles reach
    assert 0.6 < ratio < 1.6 if bent else ratio < 1
    if count >= 12:
        assert np.median(errors) < 1.0


def test_on_a_tilted_slide_the_tilt_is_neither_the_surfaces_nor_an_error_of_it():
    rng = np.random.default_rng(5)
    u, v = rng.uniform(-1, 1, (2, 40))
    found = choose_surface(u, v, 20 * u + rng.normal(0, 0.3, 40), tilted=True)
    assert not found.surface_um.any()
    assert found.variance_at(u, v).max() < 0.3**2


def validation(count, seed=0):
    """Errors that grow with depth and are twice as large in the right half of the field."""
    rng = np.random.default_rng(seed)
    particle = np.repeat(np.arange(count), 20)
    x, y = np.repeat(rng.uniform(0, 500, count), 20), np.repeat(rng.uniform(0, 400, count), 20)
    z = rng.uniform(-40, 40, particle.size)
    sigma = np.full((3, particle.size), 0.1)
    extra = (0.2 + np.abs(z) / 100) * np.where(x > 250, 2.0, 1.0)
    error = rng.normal(size=(3, particle.size)) * np.sqrt(sigma**2 + extra**2)
    return Validation(particle, x, y, z, *error, *sigma, np.ones(particle.size))


def test_stated_errors_are_right_at_every_depth_and_in_every_region():
    misfit = misfit_of(validation(300), mean_model(), None, SHAPE)
    assert misfit is not None
    fresh = validation(300, seed=5)
    stated = np.sqrt(fresh.sigmas() ** 2 + misfit.at(fresh.x_um, fresh.y_um, fresh.z_um))
    ratio = fresh.errors() / stated
    for some in (np.abs(fresh.z_um) < 10, fresh.z_um > 25, fresh.x_um < 150, fresh.x_um > 350):
        assert np.abs(np.sqrt(np.mean(ratio[some] ** 2, axis=0)) - 1).max() < 0.15


def test_the_error_of_the_focal_surface_is_in_the_stated_one_even_where_the_field_is_one_region():
    u, v = np.random.default_rng(6).uniform(-1, 0, (2, 14))  # in one corner
    slide = choose_surface(u, v, 10 * u + np.random.default_rng(7).normal(0, 0.3, 14))
    assert slide.degree == 1
    one, other = (misfit_of(validation(14), mean_model(), s, SHAPE) for s in (None, slide))
    assert one.variance.shape[:2] == (1, 1)
    a, b = (part.ravel() for part in np.meshgrid(np.linspace(-1, 1, 50), np.linspace(-0.8, 0.8, 40)))
    added = (other.variance - one.variance)[..., 2]
    np.testing.assert_allclose(added, slide.variance_at(a, b).mean(), rtol=0.15)
    assert added.min() > slide.variance_at(np.zeros(1), np.zeros(1))[0] + 0.01


def test_particles_in_one_corner_of_the_field_are_said_those_all_over_it_are_not():
    u, v = np.random.default_rng(0).uniform(0, 1, (2, 12))
    assert corner_warning(800 * u, 600 * v, (800, 600)) == []
    (line,) = corner_warning(400 * u, 300 * v, (800, 600))
    assert "of a field of 800 x 600 um" in line
    assert corner_warning(800 * u, 300 * v, (800, 600))


def test_what_images_have_beyond_their_noise_is_known_by_depth_and_region():
    rows = validation(300)
    right = rows.x_um > 2 / 3 * 500  # one of three regions across
    beyond = 0.5 + 0.02 * np.abs(rows.z_um) + 0.8 * right
    scatter = np.random.default_rng(3).normal(1, 0.05, len(rows))
    rows = replace(rows, chi_square=(1 + beyond) * scatter)
    misfit = misfit_of(rows, mean_model(), None, SHAPE, (0.003, 0.001))
    image = misfit.image_at(rows.x_um, rows.y_um, rows.z_um)  # pixels of 1 um
    for some in (right, rows.x_um < 1 / 3 * 500, np.abs(rows.z_um) < 10, np.abs(rows.z_um) > 25):
        assert np.mean(image[some]) == pytest.approx(0.004 * np.mean(beyond[some]), rel=0.1)
    assert misfit_of(rows, mean_model(), None, SHAPE).image is None


def test_images_that_are_as_good_as_their_noise_have_no_misfit():
    rows = replace(validation(60), chi_square=np.full(len(validation(60)), 0.97))
    assert not misfit_of(rows, mean_model(), None, SHAPE, (0.003, 0.001)).image.any()


def test_too_few_images_state_nothing():
    assert misfit_of(validation(1), mean_model(), None, SHAPE) is None


def of_polynomials(count, degree, seed):
    """What left-out and new particles are off, where the optics are of one degree more than the model has.

    A weight changes over the field and scatters between particles; polynomials of `degree` are fitted to it.
    """
    rng = np.random.default_rng(seed)
    more = rng.normal(0, 0.5, len(monomials(0.0, 0.0, degree + 1)[0]))
    where = rng.uniform([-1, -0.8], [1, 0.8], (count + 2000, 2)).T
    weight = monomials(*where, degree + 1) @ more + rng.normal(0, 0.5, count + 2000)
    inner = monomials(*where, degree)
    error = np.empty(count + 2000)
    for i in range(count):
        others = np.delete(np.arange(count), i)
        error[i] = weight[i] - inner[i] @ np.linalg.lstsq(inner[others], weight[others], rcond=None)[0]
    error[count:] = (
        weight[count:] - inner[count:] @ np.linalg.lstsq(inner[:count], weight[:count], rcond=None)[0]
    )
    return where, -error, rng


def rows_of(where, off, planes, rng):
    """Images of particles at places (2, N) that are `off` (N,): least in focus, and with noise."""
    particle = np.repeat(np.arange(len(off)), planes)
    z = np.tile(np.linspace(-40, 40, planes), len(off))
    x, y = (249.5 + 250 * where[0])[particle], (199.5 + 250 * where[1])[particle]
    error = off[particle] * (0.5 + np.abs(z) / 40) + rng.normal(0, 0.1, (3, particle.size))
    sigma = np.full((3, particle.size), 0.1)
    return Validation(particle, x, y, z, *error, *sigma, np.ones(particle.size))


@pytest.mark.parametrize(
    ("count", "degree", "within"), [(10, 0, 0.2), (25, 1, 0.15), (60, 1, 0.15), (200, 2, 0.15)]
)
def test_stated_errors_hold_for_new_particles_in_the_middle_and_in_the_corners_with_few_beads_and_with_many(
    count, degree, within
):
    """rms over many calibrations, as the polynomials of one are what they are."""
    none = np.zeros((0, *mean_model().coefficients.shape), np.float32)
    field = FieldModel(
        SHAPE, np.zeros(6), np.zeros((2, 2)), none, np.zeros((0, len(monomials(0.0, 0.0, degree)[0]))), degree
    )
    model = replace(mean_model(), field=field)
    middle, corner = [], []
    for seed in range(60):
        where, off, rng = of_polynomials(count, degree, seed)
        misfit = misfit_of(rows_of(where[:, :count], off[:count], 20, rng), model, None, SHAPE)
        new = rows_of(where[:, count:], off[count:], 3, rng)
        stated = new.sigmas() ** 2 + misfit.at(new.x_um, new.y_um, new.z_um)
        pull = (new.errors()[:, 0] ** 2) / stated[:, 0]
        u, v = (new.x_um - 249.5) / 250, (new.y_um - 199.5) / 250
        middle.append(pull[np.hypot(u, v) < 0.4].mean())
        corner.append(pull[(np.abs(u) > 0.75) & (np.abs(v) > 0.6)].mean())
    for some in (middle, corner):
        assert np.sqrt(np.mean(some)) == pytest.approx(1.0, abs=within)
