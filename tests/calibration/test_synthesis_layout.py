import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from calibration.synthesis.background import add_background, gaussian_field
from calibration.synthesis.inputs import BackgroundModel
from calibration.synthesis.layout import PAPER_DENSITY, Layout, Spread, offsets, overlapped_hosts, positions

SPREAD = Spread(70.0, 50.0)


def boxes_apart(centres, half):
    overlap = np.ones((len(centres),) * 2, bool)
    for axis in (0, 1):
        apart = np.abs(np.subtract.outer(centres[:, axis], centres[:, axis]))
        overlap &= apart < np.add.outer(half[:, axis], half[:, axis])
    np.fill_diagonal(overlap, False)
    return not overlap.any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_at_the_papers_density_the_first_batch_is_apart_and_the_second_near_it(seed):
    rng = np.random.default_rng(seed)
    layout = Layout()
    half = rng.uniform(5, 40, (200, 2))
    centres = positions(rng, layout, SPREAD, (1440, 2560), 45.0, 133, half)
    assert boxes_apart(centres[:133], half[:133])
    apart = np.abs(centres[133:, None] - centres[:133])
    apart = np.minimum(apart, np.array([1440, 2560]) + 2 * 45.0 - apart)
    near = apart.max(axis=2) <= SPREAD.limit_px
    assert near.any(axis=1).all()


def test_where_there_is_no_room_the_first_batch_is_as_far_apart_as_it_gets():
    rng = np.random.default_rng(0)
    half = np.full((60, 2), 20.0)

    def nearest(centres):
        apart = np.abs(centres[:, None] - centres).max(axis=2)
        np.fill_diagonal(apart, np.inf)
        return apart.min(axis=1).mean()

    spread = [nearest(positions(rng, Layout(), SPREAD, (200, 200), 0.0, 60, half)) for _ in range(20)]
    chance = [nearest(rng.uniform(0, 200, (60, 2))) for _ in range(20)]
    assert np.mean(spread) > 1.5 * np.mean(chance)


def test_crowded_particles_are_as_dense_in_the_picture_as_around_it():
    rng = np.random.default_rng(0)
    half = np.full((90, 2), 20.0)
    centres = np.concatenate(
        [positions(rng, Layout(), SPREAD, (100, 100), 50.0, 60, half) for _ in range(200)]
    )
    inside = (np.abs(centres - 49.5) < 50).all(axis=1)
    assert inside.mean() == pytest.approx(0.25, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 3), st.floats(0, 1), st.floats(1, 3))
def test_both_batches_have_a_place_for_any_number(seed, expected, overlapped, partners):
    rng = np.random.default_rng(seed)
    layout = Layout((0, expected / 1e4), overlapped, partners)
    first, second = layout.numbers(rng, 1e4)
    centres = positions(rng, layout, SPREAD, (100, 100), 0.0, first, np.full((first + second, 2), 10.0))
    assert centres.shape == (first + second, 2)
    assert np.isfinite(centres).all()


def test_numbers_follow_the_density_and_the_overlapped_fraction():
    rng = np.random.default_rng(0)
    layout = Layout(density_per_px=(PAPER_DENSITY, 3 * PAPER_DENSITY))
    numbers = np.array([layout.numbers(rng, 1440 * 2560) for _ in range(2000)])
    total = numbers.sum(axis=1)
    assert total.mean() == pytest.approx(400, rel=0.02)
    assert np.quantile(total, 0.05) < 240
    assert np.quantile(total, 0.95) > 560
    assert numbers[:, 1].sum() / numbers[:, 0].sum() == pytest.approx(0.5, rel=0.01)


def test_half_of_the_first_batch_is_overlapped_each_by_one():
    hosts = overlapped_hosts(np.random.default_rng(0), Layout(), 100, 50)
    assert np.unique(hosts).size == 50
    crowded = overlapped_hosts(np.random.default_rng(0), Layout(partners=2.0), 100, 100)
    assert np.unique(crowded).size == 50


def test_offsets_are_the_papers_mixture():
    layout = Layout()
    found = offsets(np.random.default_rng(0), layout, SPREAD, 100_000)
    assert np.abs(found).max() <= SPREAD.limit_px
    assert found.mean(axis=0) == pytest.approx(0, abs=0.2)
    variance = 0.4 * SPREAD.limit_px**2 / 3 + 0.6 * SPREAD.near_variance_px2
    assert found.var(axis=0) == pytest.approx(variance, rel=0.02)
    sd = np.sqrt(SPREAD.near_variance_px2)
    beyond = (np.abs(found) > 4 * sd).any(axis=1).mean()
    assert beyond == pytest.approx(0.4 * (1 - (4 * sd / SPREAD.limit_px) ** 2), rel=0.03)


@pytest.mark.parametrize(("length_y", "length_x"), [(8.0, 8.0), (5.0, 40.0), (60.0, 12.0)])
def test_fields_have_unit_variance_everywhere_and_their_correlation_lengths(length_y, length_x):
    rng = np.random.default_rng(0)
    fields = np.array([gaussian_field(rng, (90, 110), length_y, length_x) for _ in range(600)])
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert fields.var(axis=0) == pytest.approx(np.ones((90, 110)), abs=0.3)
    assert fields.var() == pytest.approx(1, abs=0.05)
    for lag in (4, 12):
        down = (fields[:, lag:] * fields[:, :-lag]).mean()
        along = (fields[:, :, lag:] * fields[:, :, :-lag]).mean()
        assert down == pytest.approx(np.exp(-(lag**2) / (2 * length_y**2)), abs=0.05)
        assert along == pytest.approx(np.exp(-(lag**2) / (2 * length_x**2)), abs=0.05)


def test_backgrounds_are_never_negative_partly_empty_and_as_strong_as_said():
    model = BackgroundModel((20, 60), (6, 15), 0.05)
    rng = np.random.default_rng(0)
    peaks, empty = [], []
    for _ in range(100):
        canvas = np.zeros((128, 128), np.float32)
        add_background(canvas, model, rng)
        assert canvas.min() >= 0
        peaks.append(canvas.max())
        empty.append((canvas == 0).mean())
    assert 0.02 < np.quantile(peaks, 0.9) < 0.08
    assert min(peaks) < 0.01
    assert min(empty) < 0.4
    assert max(empty) > 0.8


def test_backgrounds_run_along_both_axes():
    model = BackgroundModel((60, 60), (6, 6), 1.0, (1.0, 1.0))
    rng = np.random.default_rng(0)
    canvas = np.zeros((200, 200), np.float32)
    for _ in range(20):
        add_background(canvas, model, rng)
    steps = [np.abs(np.diff(canvas, axis=axis)).mean() for axis in (0, 1)]
    assert steps[0] == pytest.approx(steps[1], rel=0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"density_per_px": (2e-4, 1e-4)},
        {"overlapped": 1.5},
        {"partners": 0.5},
        {"near_variance_px2": 0.0},
        {"limit_px": -1.0},
    ],
)
def test_layouts_without_a_meaning_are_refused(wrong):
    with pytest.raises(CalibrationError):
        Layout(**wrong)
