"""Frames that are searched from where their particles are expected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
from expected_particles import (
    FIELD,
    GREY,
    PIXEL_UM,
    REGIONS,
    Flow,
    camera_image,
    contrast_of,
    detect,
    info,
    shipped_psf,
    uneven_psf,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_other_side import model_of, seen

from engines.blocks import BLOCK_PX
from engines.network.engine import NetworkEngine
from engines.network.model import OnnxModel
from engines.network.tiles import margin_blocks, origin_px, reach_blocks, slots_in
from engines.prediction.correction import begin, correct
from engines.prediction.expected import Expected, expected_in
from engines.prediction.residual import left_over
from engines.prediction.tiles import EVERY, Rectangle, inside, piece, pixels_read, rectangles
from engines.refine.arguments import Noise
from engines.refine.field import FieldModel
from engines.refine.fitting import fit_particles
from engines.refine.frame import fit_frame
from engines.refine.presence import put_all
from engines.refine.psf import FitModel
from engines.refine.sample import seen_at, to_sample
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import Detections, Predictions, TrackFlag

SHAPE = (320, 480)


@pytest.fixture(scope="module")
def psf() -> FitModel:
    return shipped_psf()


@pytest.fixture(scope="module")
def engine() -> Iterator[NetworkEngine]:
    with closing(NetworkEngine(DetectorSettings(workers=1), PIXEL_UM, SHIPPED_MODEL)) as opened:
        opened.warmup(*SHAPE, np.dtype(np.uint8))
        yield opened


def nearest(found: Detections, place: np.ndarray) -> tuple[int, np.ndarray]:
    """The detection that is nearest to a particle (x px, y px, z um), and how far off it is, px, px, um."""
    off = np.column_stack([found.x_um / PIXEL_UM, found.y_um / PIXEL_UM, found.z_um]) - place[:3]
    which = int(np.argmin(np.abs(off / [1.0, 1.0, 10.0]).max(axis=1)))
    return which, off[which]


def is_found(found: Detections, place: np.ndarray) -> bool:
    return bool((np.abs(nearest(found, place)[1]) < [1.5, 1.5, 15.0]).all())


def counted(engine: NetworkEngine, name: str) -> float:
    prediction = engine.info.details["prediction"]
    assert isinstance(prediction, dict)
    return float(prediction[name])


def test_expected_particles_are_found_where_they_are_and_stated_errors_hold(
    engine: NetworkEngine, psf: FitModel
) -> None:
    pulls, missed, total, false = [], 0, 0, 0
    before, whole = counted(engine, "predicted"), counted(engine, "whole")
    for seed in range(8):
        flow = Flow(psf, SHAPE, seed=seed)
        predicted = flow.predictions()
        flow.step()
        found = detect(engine, flow.frame(), predicted)
        sigma = np.column_stack([found.sigma_x_um / PIXEL_UM, found.sigma_y_um / PIXEL_UM, found.sigma_z_um])
        for particle in flow.particles:
            which, off = nearest(found, particle)
            missed += not is_found(found, particle)
            pulls.append(off / sigma[which])
        total += flow.count
        false += max(len(found) - flow.count, 0)
    assert counted(engine, "whole") == whole
    assert counted(engine, "predicted") - before > 0.93 * total
    assert missed <= 2
    assert false <= 2
    pull = np.array(pulls)
    assert 0.85 < np.sqrt(np.median(pull**2) / 0.4549) < 1.15


def test_without_the_particles_that_were_predicted_a_frame_is_what_the_search_finds(
    engine: NetworkEngine, psf: FitModel
) -> None:
    here, elsewhere = Flow(psf, SHAPE, seed=1), Flow(psf, SHAPE, seed=2)
    frame = elsewhere.frame()
    expected, searched = detect(engine, frame, here.predictions()), detect(engine, frame)
    np.testing.assert_array_equal(expected.table, searched.table)


@pytest.mark.parametrize("depth_um", [-190.0, -120.0, -75.0, 0.0, 40.0, 75.0, 130.0, 190.0])
def test_a_clear_new_particle_is_found_at_once(engine: NetworkEngine, psf: FitModel, depth_um: float) -> None:
    flow = Flow(psf, SHAPE, count=12, seed=3)
    lone = np.array([[240.0, 160.0, depth_um, 1.0]])
    apart = np.hypot(*(flow.particles[:, :2] - lone[0, :2]).T)
    flow.particles, flow.velocity_px = flow.particles[apart > 60], flow.velocity_px[apart > 60]
    predicted = flow.predictions()
    flow.step()
    assert is_found(detect(engine, flow.frame(more=lone), predicted), lone[0])


@pytest.mark.parametrize(("depth_um", "brightness"), [(185.0, 0.6), (75.0, 0.45), (0.0, 0.6)])
def test_faint_new_particles_are_found_as_often_as_by_the_search(
    engine: NetworkEngine, psf: FitModel, depth_um: float, brightness: float
) -> None:
    flow = Flow(psf, SHAPE, count=12, seed=4)
    faint = np.array([[200.0, 150.0, depth_um, brightness]])
    apart = np.hypot(*(flow.particles[:, :2] - faint[0, :2]).T)
    flow.particles, flow.velocity_px = flow.particles[apart > 60], np.zeros((int((apart > 60).sum()), 3))
    by_search, with_prediction = [], []
    for _ in range(EVERY):
        predicted = flow.predictions()
        flow.step()
        frame = flow.frame(more=faint)
        by_search.append(is_found(detect(engine, frame), faint[0]))
        with_prediction.append(is_found(detect(engine, frame, predicted), faint[0]))
    assert 0.2 < np.mean(by_search) < 0.95
    assert np.sum(with_prediction) >= 0.9 * np.sum(by_search)


def test_a_ghost_is_dropped_at_once(engine: NetworkEngine, psf: FitModel) -> None:
    before, ghosts, left = counted(engine, "ghosts"), 0, 0
    for seed in range(5):
        flow = Flow(psf, SHAPE, seed=10 + seed)
        gone = np.column_stack([flow.rng.uniform([40, 40, -150], [440, 280, 150], (3, 3)), np.ones(3)])
        predicted = flow.predictions(more=gone)
        flow.step()
        found = detect(engine, flow.frame(), predicted)
        for place in gone:
            near = np.abs(flow.particles[:, :2] - place[:2]).max(axis=1).min()
            if near > 12:
                ghosts += 1
                left += is_found(found, place)
    assert ghosts > 5
    assert left == 0
    assert counted(engine, "ghosts") - before >= 0.9 * ghosts


@contextmanager
def without_time_to_fit(engine: NetworkEngine) -> Iterator[None]:
    engine.allow_fit(1.0, 0.0)
    try:
        yield
    finally:
        engine.allow_fit(1.0, math.inf)


def test_the_network_states_the_brightness_that_the_fit_does(engine: NetworkEngine, psf: FitModel) -> None:
    ratios, depths_um = [], []
    for seed in range(6):
        flow = Flow(psf, SHAPE, seed=seed)
        with without_time_to_fit(engine):
            found = detect(engine, flow.frame())
        for particle in flow.particles:
            if is_found(found, particle):
                which, _ = nearest(found, particle)
                ratios.append(found.brightness[which] / (particle[3] * psf.peak_at(particle[2]) * GREY))
                depths_um.append(particle[2])
    ratio, depth_um = np.array(ratios), np.abs(depths_um)
    for low, high in ((0, 50), (50, 100), (100, 190)):
        assert 0.9 < np.median(ratio[(depth_um >= low) & (depth_um < high)]) < 1.1


def test_particles_that_were_not_fitted_are_no_ghosts_in_the_next_frame(
    engine: NetworkEngine, psf: FitModel
) -> None:
    ghosts, predicted_before, total = counted(engine, "ghosts"), counted(engine, "predicted"), 0
    whole = counted(engine, "whole")
    for seed in range(5):
        flow = Flow(psf, SHAPE, count=20, seed=20 + seed)
        with without_time_to_fit(engine):
            found = detect(engine, flow.frame())
        table = flow.predictions().table.copy()
        for column, particle in enumerate(flow.particles):
            which, _ = nearest(found, particle)
            table[Predictions.COLUMNS.index("brightness"), column] = found.brightness[which]
        predicted = Predictions(info(flow.number), table)
        flow.step()
        detect(engine, flow.frame(), predicted)
        total += flow.count
    assert counted(engine, "whole") == whole
    assert counted(engine, "ghosts") - ghosts <= 0.02 * total
    assert counted(engine, "predicted") - predicted_before > 0.9 * total


def test_the_order_of_predictions_does_not_matter(engine: NetworkEngine, psf: FitModel) -> None:
    flow = Flow(psf, SHAPE, seed=5)
    predicted = flow.predictions()
    flow.step()
    frame = flow.frame()
    shuffled = Predictions(predicted.info, predicted.table[:, flow.rng.permutation(flow.count)])
    one, other = detect(engine, frame, predicted), detect(engine, frame, shuffled)
    np.testing.assert_array_equal(one.table, other.table)


def test_a_frame_does_not_depend_on_those_before(psf: FitModel) -> None:
    flow = Flow(psf, SHAPE, seed=6)
    asked = []
    for _ in range(4):
        predicted = flow.predictions()
        flow.step()
        asked.append((flow.frame(), predicted))
    tables = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        with closing(NetworkEngine(DetectorSettings(workers=1), PIXEL_UM, SHIPPED_MODEL)) as fresh:
            found = {k: detect(fresh, *asked[k]).table for k in order}
        tables.append([found[k] for k in range(4)])
    for one, other in zip(*tables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_second_depth_is_told_of_expected_particles_too() -> None:
    model = model_of(lopsided=0.03)
    rng = np.random.default_rng(3)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(60, 420, 85.0), np.arange(60, 300, 70.0)))
    z = rng.uniform(12.0, 40.0, x.size) * rng.choice([-1.0, 1.0], x.size)
    image = (seen((320, 480), x, y, z, 0.03) + 0.004 * rng.normal(size=(320, 480))).astype(np.float32)
    place = np.column_stack([x, y, z])
    expected = Expected(place, np.full(place.shape, 0.5), np.ones(x.size), np.zeros(x.size))
    particles, psf = begin(expected, np.ones(x.size)), model.for_kernels(image.shape)
    total = np.zeros_like(image)
    put_all(total, particles.theta, particles.usable, 1.0, psf)
    noise = Noise(0.0, 0.004**2, -1.0)
    found = correct(image, total, particles, expected, model, psf, noise, fit_frame)
    assert found.believed.mean() > 0.9
    told = found.believed & np.isfinite(found.other[:, 0])
    assert told.mean() > 0.5
    depths = np.column_stack([particles.theta[told, 2], found.other[told, 0]])
    assert (np.abs(depths - z[told, None]).min(axis=1) < 5.0).mean() > 0.95
    assert (found.other[told, 1] <= 0.5).all()


def test_a_correction_from_a_good_start_ends_where_the_search_does(psf: FitModel) -> None:
    off = []
    for seed in range(5):
        flow = Flow(psf, (480, 640), count=40, seed=seed)
        contrast = (1 - flow.frame().image / GREY).astype(np.float32)
        place = flow.particles[:, :3] + flow.rng.uniform(-1, 1, (40, 3)) * [0.3, 0.3, 2.0]
        searched = fit_particles(contrast, psf, place, np.full(40, 2.5), (0.0, psf.shot), search_um=8.0)
        expected = Expected(place, np.full(place.shape, 1.0), np.ones(40), np.zeros(40))
        particles, kernels = begin(expected, flow.particles[:, 3]), psf.for_kernels(contrast.shape)
        total = np.zeros_like(contrast)
        put_all(total, particles.theta, particles.usable, 1.0, kernels)
        noise = Noise(0.0, psf.shot, -1.0)
        found = correct(contrast, total, particles, expected, psf, kernels, noise, fit_frame)
        both = found.believed & searched.accepted[:40]
        assert both.mean() > 0.9
        off.append(np.abs(searched.theta[:40] - particles.theta)[both] / searched.sigma[:40][both])
    each = np.concatenate(off)
    # both fits stop where a step would move a parameter by less than 0.22 standard errors
    np.testing.assert_array_less(np.median(each, axis=0), 0.08)
    np.testing.assert_array_less(np.quantile(each, 0.95, axis=0), 0.45)


def test_half_an_image_at_the_edge_is_not_taken_for_one_of_another_depth(psf: FitModel) -> None:
    wrong = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        true = np.array([[240.3, 8.5, 88.0, 1.0]])
        contrast = contrast_of(psf, true, SHAPE)
        contrast += np.sqrt(psf.shot * np.maximum(1 - contrast, 0.05)) * rng.standard_normal(SHAPE)
        start = true[:, :3] + [0.0, 0.3, -20.0]
        expected = Expected(start, np.array([[0.3, 0.3, 7.0]]), np.ones(1), np.zeros(1))
        particles, kernels = begin(expected, np.ones(1)), psf.for_kernels(SHAPE)
        total = np.zeros_like(contrast)
        put_all(total, particles.theta, particles.usable, 1.0, kernels)
        correct(contrast, total, particles, expected, psf, kernels, Noise(0.0, psf.shot, -1.0), fit_frame)
        wrong += abs(particles.theta[0, 2] - 88.0) > 12.0
    assert wrong <= 3  # 13 without a search of the depth; in some, noise decides


def test_a_particle_at_the_edge_is_known_when_the_network_overlooks_it(
    engine: NetworkEngine, psf: FitModel
) -> None:
    flow = Flow(psf, SHAPE, count=12, seed=6)
    rim = np.array([[200.0, -0.2, 60.0, 1.0]])
    by_search, with_prediction = [], []
    for _ in range(16):
        predicted = flow.predictions(more=rim)
        flow.step()
        frame = flow.frame(more=rim)
        by_search.append(is_found(detect(engine, frame), rim[0]))
        with_prediction.append(is_found(detect(engine, frame, predicted), rim[0]))
    assert np.mean(by_search) < 0.9
    assert np.mean(with_prediction) > 0.9


def test_an_uneven_background_is_not_left_over(psf: FitModel) -> None:
    rng, noise = np.random.default_rng(0), Noise(0.0, psf.shot, -1.0)
    rows, columns = np.mgrid[:640, :960]
    bow = 0.006 * np.cos(columns / 300) * np.sin(rows / 200)
    alarms = []
    for number, light in enumerate((0.0 * bow, bow, 0.02 * columns / 960)):
        flow = Flow(psf, (640, 960), count=60, seed=number)
        known = contrast_of(psf, flow.particles, flow.shape)
        for _ in range(5):
            image = 1 - camera_image(psf, (known + light).astype(np.float32), rng) / GREY
            alarms.append(int(left_over(image.astype(np.float32), known, noise).sum()))
    assert np.mean(alarms) < 1.5


def test_light_far_out_of_focus_is_not_left_over_but_a_particle_before_it_is(psf: FitModel) -> None:
    rng, noise, shape = np.random.default_rng(4), Noise(0.0, psf.shot, -1.0), (640, 960)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    behind = np.zeros(shape)
    for x, y in rng.uniform((0, 0), (960, 640), (60, 2)):
        behind += 0.006 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 30.0**2))
    flow, more = Flow(psf, shape, count=60, seed=8), np.array([[480.0, 320.0, -150.0, 1.0]])
    known = contrast_of(psf, flow.particles, shape)
    shown = contrast_of(psf, np.vstack([flow.particles, more]), shape)
    image = (1 - camera_image(psf, (shown + behind).astype(np.float32), rng) / GREY).astype(np.float32)
    image -= np.median(image)
    rows, columns = np.nonzero(left_over(image, known, noise))
    assert np.hypot(4 * columns + 1.5 - more[0, 0], 4 * rows + 1.5 - more[0, 1]).min() < 16
    assert len(rows) < 20


def test_when_the_picture_has_moved_in_depth_particles_are_measured_as_by_the_search(
    engine: NetworkEngine, psf: FitModel
) -> None:
    apart, wrong = [], []
    before = engine.info.details["prediction"]
    for seed in range(21, 29):
        flow = Flow(psf, SHAPE, seed=seed)
        flow.particles[:, 2] *= 0.8
        predicted = flow.predictions()
        flow.step()
        flow.particles[:, 2] += 20.0
        frame = flow.frame()
        found, searched = detect(engine, frame, predicted), detect(engine, frame)
        assert abs(len(found) - len(searched)) <= 1
        for place in flow.particles:
            (which, off), (as_well, off_search) = nearest(found, place), nearest(searched, place)
            wrong.append(off[2] / found.sigma_z_um[which])
            apart.append((off[2] - off_search[2]) / searched.sigma_z_um[as_well])
    after = engine.info.details["prediction"]
    assert after["predicted"] - before["predicted"] > 100
    assert after["whole"] == before["whole"]
    assert np.median(np.abs(apart)) < 0.2
    assert np.abs(wrong).max() < 4.5
    assert np.mean(np.square(wrong)) < 1.2


def test_what_is_left_over_is_told_from_images_that_are_a_little_unlike_the_model(psf: FitModel) -> None:
    rng, noise = np.random.default_rng(1), Noise(0.0, psf.shot, -1.0)
    flow = Flow(psf, (640, 960), count=60, seed=8)
    known = contrast_of(psf, flow.particles, flow.shape)
    unlike = flow.particles + rng.normal(0, 1, flow.particles.shape) * [0.15, 0.15, 2.0, 0.03]
    new = np.array([[480.0, 320.0, 30.0, 0.7]])
    shown = contrast_of(psf, np.vstack([unlike, new]), flow.shape)
    image = (1 - camera_image(psf, shown, rng) / GREY).astype(np.float32)
    rows, columns = np.nonzero(left_over(image, known, noise))
    apart = np.hypot(4 * columns + 1.5 - new[0, 0], 4 * rows + 1.5 - new[0, 1])
    assert apart.min() < 10
    assert len(rows) < 10


def test_tiles_of_the_network_are_its_answer_to_the_whole_frame(psf: FitModel) -> None:
    model = OnnxModel(SHIPPED_MODEL)
    rng = np.random.default_rng(2)
    given = rng.standard_normal((1, 1, 320, 400)).astype(np.float32)
    whole = model(given)[0]
    planes: list[np.ndarray] = []

    def run(tile: np.ndarray, _: tuple[int, int]) -> np.ndarray:
        planes.append(model(tile)[0])
        return planes[-1]

    reach = reach_blocks("small")
    part = Rectangle(7, 12, 10, 14)
    slots_in(run, given, [part], reach)
    mine = planes[0][:, 4 * reach : 4 * (reach + 5), 4 * reach : 4 * (reach + 4)]
    np.testing.assert_allclose(mine, whole[:, 28:48, 40:56], atol=2e-4, rtol=1e-4)
    slots_in(run, given, [part], reach - 1)
    less = planes[1][:, 4 * (reach - 1) : 4 * (reach + 4), 4 * (reach - 1) : 4 * (reach + 3)]
    assert np.abs(less - whole[:, 28:48, 40:56]).max() > 1e-2


def test_what_tiles_overlap_in_is_read_once(engine: NetworkEngine, psf: FitModel) -> None:
    model, flow = OnnxModel(SHIPPED_MODEL), Flow(psf, SHAPE, seed=9)
    given = ((1 - flow.frame().image / GREY) / model.card.noise_contrast).astype(np.float32)[None, None]

    def run(tile: np.ndarray, _: tuple[int, int]) -> np.ndarray:
        return model(tile)[0]

    margin = margin_blocks("small")
    assert margin is not None
    once, read, _ = slots_in(run, given, [Rectangle(3, 12, 4, 20)], margin)
    parts = [Rectangle(3, 9, 4, 14), Rectangle(5, 12, 4, 14), Rectangle(3, 12, 10, 20)]
    twice, covered, _ = slots_in(run, given, parts, margin)
    np.testing.assert_array_equal(read, covered)
    assert len(once) == len(twice)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(4, 40), st.integers(4, 50), st.integers(0, 4))
def test_rectangles_hold_all_that_is_wanted_and_join_what_is_near(
    seed: int, tall: int, wide: int, margin: int
) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.random((tall, wide)) < 0.02
    parts = rectangles(wanted, margin)
    read = np.zeros_like(wanted)
    for part in parts:
        read[part.top : part.bottom, part.left : part.right] = True
    for corner in ((0, 0), (0, BLOCK_PX - 1), (BLOCK_PX - 1, 0), (BLOCK_PX - 1, BLOCK_PX - 1)):
        assert inside((np.argwhere(wanted) * BLOCK_PX + corner)[:, ::-1].astype(np.float64), read).all()
    singly = [Rectangle(r, r + 1, c, c + 1) for r, c in np.argwhere(wanted)]
    assert pixels_read(parts, margin, (tall, wide)) <= pixels_read(singly, margin + 1, (tall, wide)) + 1


@pytest.mark.parametrize("blocks", [(90, 160), (20, 30), (45, 45), (128, 7)])
def test_every_block_is_read_once_in_so_many_frames(blocks: tuple[int, int]) -> None:
    times = sum(piece(frame, blocks).astype(int) for frame in range(17, 17 + EVERY))
    np.testing.assert_array_equal(times, 1)
    most = max(int(piece(frame, blocks).sum()) for frame in range(EVERY))
    assert most <= 2.5 * blocks[0] * blocks[1] / EVERY + 8


def test_places_are_carried_on_to_the_time_and_focus_of_the_frame(psf: FitModel) -> None:
    flow = Flow(psf, SHAPE, count=6, seed=11)
    flow.particles[:, 2] = np.clip(flow.particles[:, 2], -150, 150)
    predicted = flow.predictions(sigma=(1e-6, 1e-6, 1e-6))
    row = Predictions.COLUMNS.index
    predicted.table[row("qz_um2_s")] = 25.0
    predicted.table[row("vv_x")] = 4.0
    for _ in range(4):
        flow.step()
    later = expected_in(predicted, info(flow.number, focus_um=7.0), SHAPE, psf, PIXEL_UM)
    assert later is not None
    np.testing.assert_allclose(later.place, flow.particles[:, :3] - [0, 0, 7.0], atol=1e-4)
    time_s = 4 * 0.04
    np.testing.assert_allclose(later.sigma[:, 2], np.sqrt(25.0 * time_s), rtol=1e-6)
    np.testing.assert_allclose(later.sigma[:, 0], 2.0 * time_s / PIXEL_UM, rtol=1e-6)
    assert expected_in(predicted, info(-1), SHAPE, psf, PIXEL_UM) is None


def test_only_tracks_that_can_be_seen_are_expected(psf: FitModel) -> None:
    flow = Flow(psf, SHAPE, count=6, seed=12)
    flow.velocity_px[:] = 0.0
    flow.particles[0, 0], flow.particles[1, 2] = -5.0, 230.0
    predicted = flow.predictions(sigma=(1e-6, 1e-6, 1e-6))
    predicted.table[Predictions.COLUMNS.index("flags"), 2] = float(TrackFlag.SECOND_DETECTION)
    found = expected_in(predicted, info(1), SHAPE, psf, PIXEL_UM)
    assert found is not None
    np.testing.assert_allclose(found.place, flow.particles[3:, :3], atol=1e-4)


def test_tracks_are_expected_where_a_varying_field_shows_them(psf: FitModel) -> None:
    from dataclasses import replace

    walk = np.array([[2e-4, 0.0], [0.0, 2e-4]])
    field = FieldModel.flat(SHAPE, psf.coefficients.shape)
    field = replace(field, walk_per_um=walk, surface_um=np.array([0.0, 3.0, 0.0, 5.0, 0.0, 0.0]))
    curved = replace(psf, field=field)
    flow = Flow(psf, SHAPE, count=8, seed=13)
    flow.particles[:, 2] *= 0.8
    flow.velocity_px[:] = 0.0
    found = expected_in(flow.predictions(sigma=(1e-6, 1e-6, 1e-6)), info(1), SHAPE, curved, PIXEL_UM)
    assert found is not None
    np.testing.assert_allclose(found.place, field.to_local(flow.particles[:, :3]), atol=1e-4)


@pytest.mark.parametrize("shape", REGIONS)
def test_what_is_seen_of_the_sample_is_there_in_the_sample(shape: tuple[int, int]) -> None:
    psf, rng = uneven_psf(), np.random.default_rng(3)
    place = rng.uniform([0, 0, -150], [shape[1], shape[0], 150], (40, 3))
    sigma = rng.uniform(0.1, 2.0, (40, 3))
    seen, seen_sigma = seen_at(place, sigma, psf, shape)
    assert np.abs(seen - place).max() > 2.0
    table = np.full((len(Detections.COLUMNS), 40), np.nan)
    table[:3], table[3:6] = (seen * [PIXEL_UM, PIXEL_UM, 1]).T, 0.1
    np.testing.assert_allclose(
        to_sample(table, psf, PIXEL_UM, shape)[:3].T, place * [PIXEL_UM, PIXEL_UM, 1], atol=1e-9
    )
    cloud = place[:, None] + sigma[:, None] * rng.standard_normal((40, 4000, 3))
    flat, _ = seen_at(cloud.reshape(-1, 3), np.ones((40 * 4000, 3)), psf, shape)
    np.testing.assert_allclose(flat.reshape(cloud.shape).std(axis=1), seen_sigma, rtol=0.06)


def test_tracks_without_a_place_are_not_expected() -> None:
    flow = Flow(uneven_psf(), FIELD, count=5, seed=2)
    predicted = flow.predictions()
    row = Predictions.COLUMNS.index
    predicted.table[row("x_um"), 1] = np.nan
    predicted.table[row("pp_z"), 2] = -1.0
    found = expected_in(predicted, info(1), FIELD, flow.psf, PIXEL_UM)
    assert found is not None
    assert len(found.place) == 3


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((400, 608), (0.0, 0.0)),
        ((320, 480), (62.0, 38.0)),
        ((448, 656), (-26.0, -26.0)),
        ((400, 480), (62.0, 0.0)),
    ],
)
def test_images_lie_in_the_field_as_its_whole_or_about_its_middle(
    image: tuple[int, int], expected: tuple[float, float]
) -> None:
    assert origin_px(FIELD, image) == expected
    assert origin_px(None, image) == (0.0, 0.0)
