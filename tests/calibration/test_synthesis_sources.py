import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_particles import HALF_PX, PEAK, SILENCE, gaussian_cutouts, gaussian_model, widths_px

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer
from calibration.errors import CalibrationError
from calibration.evaluation import evaluate
from calibration.synthesis import (
    BackgroundModel,
    CutAndPaste,
    Cutouts,
    Distribution,
    Layout,
    NoiseModel,
    Particles,
    Rendered,
)
from calibration.synthesis.canvas import Canvas, Light, Pasted, Stock, paste
from calibration.synthesis.from_optics import background_for, model_from_optics, noise_for_snr
from calibration.synthesis.render import Drawn, Spline, render

SHAPE = (128, 160)
SPARSE = Layout(density_per_px=(2e-5, 2e-5), overlapped=0.0)
NOISE = NoiseModel.steady(1e-5, 1e-5, 1000.0)
PATTERN = BackgroundModel((20, 60), (8, 20), 0.02)


def sources(noise=SILENCE, layout=SPARSE, background=None, polarity="dark"):
    return [
        CutAndPaste(gaussian_cutouts(noise, polarity=polarity), noise, background, layout),
        Rendered(gaussian_model(polarity), noise, background, layout),
    ]


def lone(scene, margin_px=30):
    """Particles of an image with nothing near, wholly inside."""
    found = scene.particles
    height, width = scene.images.shape[1:]
    centred = (found.x_px > margin_px) & (found.x_px < width - margin_px)
    centred &= (found.y_px > margin_px) & (found.y_px < height - margin_px) & (found.nearest_px > 60)
    return found.where(centred)


@pytest.mark.parametrize("polarity", ["dark", "bright"])
@pytest.mark.parametrize("which", [0, 1])
def test_the_centroid_of_a_particle_is_its_true_position(which, polarity):
    scene = sources(polarity=polarity)[which].draw(np.random.default_rng(1), SHAPE, 400)
    truth = lone(scene)
    assert len(truth) > 20
    for n in range(len(truth)):
        left, top = round(truth.x_px[n]) - 29, round(truth.y_px[n]) - 29
        patch = scene.images[truth.frame[n], top : top + 59, left : left + 59].astype(float)
        rows, columns = np.indices(patch.shape)
        assert (patch * columns).sum() / patch.sum() + left == pytest.approx(truth.x_px[n], abs=5e-3)
        assert (patch * rows).sum() / patch.sum() + top == pytest.approx(truth.y_px[n], abs=5e-3)
        assert patch.sum() == pytest.approx(2 * np.pi * 4 * PEAK, rel=0.02)


@pytest.mark.parametrize("which", [0, 1])
def test_depth_and_brightness_of_the_truth_are_those_drawn(which):
    scene = sources()[which].draw(np.random.default_rng(2), SHAPE, 200)
    truth = lone(scene)
    for n in range(len(truth)):
        sx, sy = widths_px(truth.z_um[n])
        x, y = round(truth.x_px[n]), round(truth.y_px[n])
        off = (x - truth.x_px[n]) ** 2 / (2 * sx**2) + (y - truth.y_px[n]) ** 2 / (2 * sy**2)
        expected = truth.brightness[n] * PEAK * 4 / (sx * sy) * np.exp(-off)
        assert scene.images[truth.frame[n], y, x] == pytest.approx(expected, rel=0.01)


@settings(max_examples=40, deadline=None)
@given(st.floats(-60, 60), st.floats(-40, 80), st.floats(-40, 80))
def test_particles_at_the_edge_are_cut_not_moved(z_um, x, y):
    model = gaussian_model()
    reach = np.full((len(model.coefficients), 2), HALF_PX - 7.0)
    pictures = []
    for shift, shape in ((0, (40, 40)), (60, (160, 160))):
        total = np.zeros(shape, np.float32)
        at = [np.array([v], float) for v in (x + shift, y + shift, z_um, 1.0)]
        render(total, Spline(model.coefficients, model.z_first_um, model.z_step_um, reach), Drawn(*at))
        pictures.append(total)
    np.testing.assert_allclose(pictures[0], pictures[1][60:100, 60:100], atol=1e-6)


def test_cutouts_at_the_edge_are_cut_not_moved():
    cutouts = gaussian_cutouts(NOISE, 20)
    reach = np.full((20, 2), HALF_PX - 7.0)
    rng = np.random.default_rng(3)
    chosen, repeat = rng.permutation(20), rng.integers(0, 4, 20)
    row, column = rng.integers(-40, 80, (2, 20))
    pictures = []
    for shift, shape in ((0, (40, 40)), (60, (160, 160))):
        canvas = Canvas.empty(shape)
        stock = Stock(cutouts.contrast, cutouts.scale, np.zeros(20), reach, cutouts.dx_px, cutouts.dy_px)
        placed = Pasted(chosen, repeat, row + shift, column + shift)
        paste(canvas, stock, Light(-1.0, 1.0, 1e-5, 1e-5), placed)
        pictures.append(canvas)
    for small, large in zip(*pictures, strict=True):
        np.testing.assert_allclose(small, large[60:100, 60:100], atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.floats(-60, 60), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.2, 3))
def test_within_its_mask_a_rendered_particle_is_the_models_image(z_um, dx, dy, brightness):
    model = gaussian_model()
    reach = np.full((len(model.coefficients), 2), 12.0)
    total = np.zeros((57, 57), np.float32)
    at = [np.array([v]) for v in (HALF_PX + dx, HALF_PX + dy, z_um, brightness)]
    render(total, Spline(model.coefficients, model.z_first_um, model.z_step_um, reach), Drawn(*at))
    expected = brightness * model.images(z_um, dx, dy)[0]
    inner = slice(HALF_PX - 11, HALF_PX + 12)
    np.testing.assert_allclose(total[inner, inner], expected[inner, inner], atol=1e-6)
    assert not total[: HALF_PX - 18].any()


def test_a_cutout_on_a_background_of_its_own_leaves_no_seam():
    cutouts = gaussian_cutouts(SILENCE, 100)
    offset = np.random.default_rng(0).uniform(-0.01, 0.01, 100) / cutouts.scale
    shifted = replace(cutouts, contrast=(cutouts.contrast + offset[:, None, None, None]).astype(np.int16))
    flat, uneven = (
        CutAndPaste(c, SILENCE, None, SPARSE).draw(np.random.default_rng(1), SHAPE, 20).images
        for c in (cutouts, shifted)
    )
    assert np.abs(flat - uneven).max() < 3e-5


def test_what_masks_leave_out_of_a_particle_is_fainter_than_a_fiftieth_of_its_peak():
    model = gaussian_model()
    for source in sources():
        scene = source.draw(np.random.default_rng(1), SHAPE, 300)
        truth = lone(scene)
        for n in range(len(truth)):
            x, y = round(truth.x_px[n]), round(truth.y_px[n])
            whole = model.images(truth.z_um[n], truth.x_px[n] - x, truth.y_px[n] - y)[0]
            patch = scene.images[truth.frame[n], y - HALF_PX : y + HALF_PX + 1, x - HALF_PX : x + HALF_PX + 1]
            assert np.abs(patch - whole).max() < 0.02 * whole.max()


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.sampled_from([np.float32, np.uint8, np.uint16]),
    st.booleans(),
)
def test_the_same_seed_gives_the_same_images_in_however_many_calls(seed, split, dtype, pasted):
    layout = Layout(density_per_px=(1e-4, 6e-4))
    source = PREPARED[pasted](layout)
    whole = source.draw(np.random.default_rng(seed), (64, 80), 4, dtype)
    rng = np.random.default_rng(seed)
    parts = [source.draw(rng, (64, 80), count, dtype) for count in (split, 4 - split)]
    np.testing.assert_array_equal(whole.images, np.concatenate([part.images for part in parts]))
    for name in ("x_px", "y_px", "z_um", "brightness", "nearest_px"):
        joined = np.concatenate([getattr(part.particles, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole.particles, name), joined)


def _pasting(layout):
    return CutAndPaste(gaussian_cutouts(NOISE), NOISE, PATTERN, layout)


def _rendering(layout):
    return Rendered(gaussian_model(), NOISE, PATTERN, layout)


PREPARED = {True: _pasting, False: _rendering}


def test_threads_that_share_a_source_draw_what_one_would():
    source = _pasting(Layout(density_per_px=(5e-4, 5e-4)))
    alone = [source.draw(np.random.default_rng(seed), (96, 96), 5).images for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda seed: source.draw(np.random.default_rng(seed), (96, 96), 5).images, range(8))
        )
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("prepare", [_pasting, _rendering])
def test_sources_travel_to_other_processes(prepare):
    source = prepare(Layout(density_per_px=(5e-4, 5e-4)))
    again = pickle.loads(pickle.dumps(source))
    one, other = (s.draw(np.random.default_rng(1), (64, 64), 2).images for s in (source, again))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("prepare", [_pasting, _rendering])
def test_particles_within_and_beyond_the_edge_are_told_apart(prepare):
    density = 1e-3
    scene = prepare(Layout(density_per_px=(density, density))).draw(np.random.default_rng(1), (100, 140), 60)
    inside, outside = scene.particles, scene.outside
    assert len(inside) == pytest.approx(density * 100 * 140 * 60, rel=0.15)
    assert (np.abs(inside.x_px - 69.5) <= 70).all()
    assert (np.abs(inside.y_px - 49.5) <= 50).all()
    assert len(outside) > 100
    assert ((np.abs(outside.x_px - 69.5) >= 70) | (np.abs(outside.y_px - 49.5) >= 50)).all()
    for frame in (0, 59):
        every = Particles.joined([part.where(part.frame == frame) for part in (inside, outside)])
        apart = np.hypot(*(np.subtract.outer(v, v) for v in (every.x_px, every.y_px)))
        np.fill_diagonal(apart, np.inf)
        np.testing.assert_allclose(every.nearest_px, apart.min(axis=1))


def test_the_truth_is_a_table_that_the_evaluation_reads():
    scene = _rendering(Layout(density_per_px=(5e-4, 5e-4))).draw(np.random.default_rng(1), SHAPE, 5)
    score = evaluate(scene.table(), scene.table())
    assert score.true_particles == len(scene.particles)
    assert score.missed == score.false == 0
    assert scene.table()["x_um"] == pytest.approx(scene.particles.x_px * 0.8)


@pytest.mark.parametrize("prepare", [_pasting, _rendering])
def test_images_without_any_particle_are_images(prepare):
    scene = prepare(Layout(density_per_px=(0, 0))).draw(np.random.default_rng(0), (32, 40), 3, np.uint8)
    assert scene.images.shape == (3, 32, 40)
    assert len(scene.particles) == len(scene.outside) == 0
    assert prepare(Layout()).draw(np.random.default_rng(0), (32, 40), 0).images.shape == (0, 32, 40)


def test_depths_are_uniform_even_if_most_cutouts_lie_at_one_depth():
    cutouts = gaussian_cutouts(SILENCE, 3000)
    kept = (cutouts.z_um > 0) | (np.arange(3000) % 10 == 0)
    few = Cutouts(
        **{
            field.name: value[kept]
            if isinstance(value := getattr(cutouts, field.name), np.ndarray)
            else value
            for field in fields(cutouts)
        }
    )
    assert (few.z_um > 0).mean() > 0.85
    source = CutAndPaste(few, SILENCE, None, Layout(density_per_px=(2e-3, 2e-3)))
    z_um = source.draw(np.random.default_rng(0), (128, 128), 250).particles.z_um
    share, _ = np.histogram(z_um, 6, (-60, 60), density=True)
    assert share * 120 == pytest.approx(np.ones(6), abs=0.1)


@pytest.mark.parametrize("which", [0, 1])
def test_depths_follow_the_distribution_that_is_asked_for(which):
    depth = Distribution.uniform(-20, 10)
    source = sources()[which]
    wanted = (
        CutAndPaste(source.cutouts, SILENCE, depth=depth, layout=Layout(density_per_px=(1e-3, 1e-3)))
        if which == 0
        else Rendered(source.model, SILENCE, depth=depth, layout=Layout(density_per_px=(1e-3, 1e-3)))
    )
    z_um = wanted.draw(np.random.default_rng(0), SHAPE, 10).particles.z_um
    assert z_um.min() > -25
    assert z_um.max() < 15


def test_the_optics_alone_give_the_simulated_microscopes_images():
    optics = OpticsModel(range_um=60, visible_um=48)
    model = model_from_optics(optics)
    noise = noise_for_snr(model, 5.6)
    renderer = Renderer(load_bank(optics), (120, 140), np.uint16, snr=5.6)
    assert noise.shot == pytest.approx((renderer.noise_sd / renderer.background) ** 2, rel=0.03)
    rng = np.random.default_rng(0)
    source = Rendered(model, SILENCE, None, Layout(density_per_px=(3e-4, 3e-4)))
    quiet = Renderer(load_bank(optics), (120, 140), np.uint16, snr=np.inf)
    for _ in range(10):
        scene = source.draw(rng, (120, 140))
        every = Particles.joined([scene.particles, scene.outside])
        expected = np.empty((120, 140), np.uint16)
        quiet.render(every.x_px * 0.8, every.y_px * 0.8, every.z_um, expected)
        difference = scene.images[0] - (1 - expected / quiet.background)
        assert np.abs(difference).max() < 0.03 * scene.images.max()
    assert background_for(model).amplitude == pytest.approx(model.images([-48.0, 48.0]).max())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda source: source.draw(np.random.default_rng(0), SHAPE, 1, np.float64), "float64"),
        (lambda source: source.draw(np.random.default_rng(0), (0, 10)), "cannot be drawn"),
    ],
)
def test_images_that_cannot_be_drawn_are_refused(wrong, says):
    for source in sources():
        with pytest.raises(CalibrationError, match=says):
            wrong(source)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"contrast": np.zeros((60, 4, 57, 56), np.int16)}, "P odd"),
        ({"contrast": np.zeros((60, 4, 57, 57), np.float32)}, "float32"),
        ({"contrast": np.zeros((0, 4, 57, 57), np.int16)}, "nothing to paste"),
        ({"z_um": np.full(60, np.nan)}, "z_um"),
        ({"dx_px": np.full(60, 0.7)}, "half a pixel"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_cutouts_that_cannot_be_pasted_are_refused(change, says):
    with pytest.raises(CalibrationError, match=says):
        replace(gaussian_cutouts(), **change)


def test_small_cutouts_and_depths_beyond_the_model_are_refused():
    cutouts = gaussian_cutouts()
    small = replace(cutouts, contrast=np.ascontiguousarray(cutouts.contrast[:, :, :15, :15]))
    with pytest.raises(CalibrationError, match="17 or more"):
        CutAndPaste(small, SILENCE)
    with pytest.raises(CalibrationError, match="narrow"):
        Rendered(gaussian_model(), SILENCE, depth=Distribution.uniform(-100, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Distribution(np.array([2.0, 1.0])),
        lambda: Distribution.of([]),
        lambda: NoiseModel.steady(-1.0, 0.0, 10.0),
        lambda: NoiseModel(0.0, 0.0, 10.0, Distribution.constant(0.0), Distribution.constant(1.0)),
        lambda: BackgroundModel((5, 2), (1, 2), 0.1),
        lambda: BackgroundModel((5, 20), (2, 4), 0.1, (0, 3.5)),
    ],
)
def test_inputs_without_a_meaning_are_refused(wrong):
    with pytest.raises(CalibrationError):
        wrong()


def test_a_measured_distribution_is_drawn_as_measured():
    samples = np.random.default_rng(0).normal(5, 2, 4000)
    drawn = Distribution.of(samples).draw(np.random.default_rng(1), 20_000)
    assert drawn.mean() == pytest.approx(samples.mean(), abs=0.1)
    assert drawn.std() == pytest.approx(samples.std(), rel=0.05)
