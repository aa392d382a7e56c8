"""The fit in part: which particles get it, what the others keep and state, and that none waits for ever."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astigmatic import BACKGROUND, PIXEL_SIZE_UM
from test_refine import clean, model, noisy  # noqa: F401

from acquisition.physics.optics import OpticsModel
from calibration.synthesis.from_optics import model_from_optics, noise_for_snr
from calibration.synthesis.layout import Layout
from calibration.synthesis.rendered_source import Rendered
from engines.fit_budget import Reducible
from engines.network.engine import NetworkEngine
from engines.refine.choice import choose, cost_of_groups, need_of
from engines.refine.psf import FitModel
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner
from engines.refine.stated_errors import DEPTHS, StatedErrors
from engines.refine.turns import ALL, Allowance, Candidates, FitTurns
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import DetectionFlag, Detections, Frame, FrameInfo

SHAPE = (260, 340)
NONE = Allowance(0.0)
FLAGS = Detections.COLUMNS.index("flags")


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image in grey values, 24 particles x, y, z (um), of which four overlap another, and a detector's table.

    The detector is off by 0.3 px and 4 um.
    """
    rng = np.random.default_rng(seed)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(40, 320, 55.0), np.arange(40, 240, 55.0)))
    z = rng.uniform(-110, 110, x.size)
    x, y, z = np.append(x, x[:4] + 5.0), np.append(y, y[:4] - 4.0), np.append(z, -z[:4])
    grey = np.rint(BACKGROUND * 20 * (1 - noisy(rng, clean(SHAPE, x, y, z)))).astype(np.uint16)
    off = rng.normal(size=(3, x.size)) * [[0.3], [0.3], [4.0]]
    table = np.zeros((len(Detections.COLUMNS), x.size))
    scale = np.array([[PIXEL_SIZE_UM], [PIXEL_SIZE_UM], [1.0]])
    table[:3] = (np.array([x, y, z]) + off) * scale
    table[3:6] = np.array([[0.3], [0.3], [4.0]]) * scale
    table[6], table[7] = 100.0, 0.9
    return grey, np.array([x, y, z]) * scale, table


def refiner_of(model: FitModel) -> Refiner:  # noqa: F811
    return Refiner(model, PIXEL_SIZE_UM, NETWORK_SEARCH_UM)


def reduced(table: np.ndarray) -> np.ndarray:
    return table[FLAGS] == DetectionFlag.REDUCED


def test_with_all_of_the_budget_the_answer_is_that_without_one(model: FitModel) -> None:  # noqa: F811
    grey, _, table = scene()
    whole = refiner_of(model).refine(grey, table)
    governed = refiner_of(model).refine(grey, table, allowed=Allowance(1.0, 1e9))
    np.testing.assert_array_equal(whole, governed)
    assert not reduced(whole).any()


def test_without_a_budget_the_networks_answer_stays_and_says_so(model: FitModel) -> None:  # noqa: F811
    grey, _, table = scene()
    refiner = refiner_of(model)
    out = refiner.refine(grey, table, allowed=NONE)
    np.testing.assert_array_equal(out[:FLAGS], table[:FLAGS])
    assert reduced(out).all()
    assert refiner.counts()["reduced"] == table.shape[1]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_with_a_part_of_the_budget_the_rest_keeps_the_networks_answer(
    model: FitModel,  # noqa: F811
    share: float,
) -> None:
    grey, truth, table = scene()
    refiner = refiner_of(model)
    parts = []
    for frame in range(12):
        out = refiner.refine(grey, table, allowed=Allowance(share), frame=frame)
        kept = reduced(out)
        parts.append(1 - kept.mean())
        np.testing.assert_array_equal(out[:3, kept], table[:3, kept])
        off = out[:3, ~kept] - truth[:, ~kept]
        assert np.median(np.abs(off) / out[3:6, ~kept]) < 1.1
    assert abs(np.mean(parts) - share) < 0.12
    counts = refiner.counts()
    assert counts["reduced"] + counts["refined"] + counts["not_refined"] == 12 * table.shape[1]


def test_what_is_fitted_is_not_biased_by_neighbours_that_are_not(model: FitModel) -> None:  # noqa: F811
    grey, truth, table = scene(3)
    whole = refiner_of(model).refine(grey, table)
    refiner = refiner_of(model)
    for frame in range(8):
        some = refiner.refine(grey, table, allowed=Allowance(0.4), frame=frame)
        fitted = ~reduced(some)
        off = np.abs(some[:3, fitted] - whole[:3, fitted]) / whole[3:6, fitted]
        assert off.max() < 1.0
    assert truth.shape[1] == whole.shape[1]


def test_particles_that_overlap_are_fitted_together_or_not_at_all(model: FitModel) -> None:  # noqa: F811
    grey, _, table = scene()
    refiner = refiner_of(model)
    for frame in range(20):
        kept = reduced(refiner.refine(grey, table, allowed=Allowance(0.3), frame=frame))
        np.testing.assert_array_equal(kept[:4], kept[-4:])


def candidates(rng: np.random.Generator, frame: int, xy: np.ndarray, group: np.ndarray) -> Candidates:
    n = len(group)
    return Candidates(frame, xy, group, rng.uniform(0.5, 1, n), rng.uniform(1, 4, n), np.array([3, -1, 7]))


@pytest.mark.parametrize("moves_um", [0.0, 4.0])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_no_particle_waits_for_ever_also_beside_those_that_need_more(share: float, moves_um: float) -> None:
    rng = np.random.default_rng(0)
    turns, n = FitTurns(), 60
    xy = rng.uniform(0, 600, (n, 2))
    group = np.arange(n)
    group[1::10] = group[::10]
    group[2::10] = group[::10]
    last = np.zeros(n)
    longest = np.zeros(n)
    for frame in range(400):
        xy = xy + rng.normal(0, moves_um, (n, 2))
        chosen, _ = turns.choose(candidates(rng, frame, xy, group), Allowance(share))
        last[chosen] = frame
        longest = np.maximum(longest, frame - last)
        assert (chosen[1::10] == chosen[::10]).all()
    assert longest.max() < 6 / share


def test_no_particle_is_forgotten_where_they_move_farther_than_they_are_apart() -> None:
    rng = np.random.default_rng(0)
    turns, n = FitTurns(), 60
    group = np.arange(n)
    group[1::10] = group[::10]
    fits = np.zeros(n)
    for frame in range(2000):
        chosen, _ = turns.choose(candidates(rng, frame, rng.uniform(0, 600, (n, 2)), group), Allowance(0.1))
        fits += chosen
    assert fits.min() > 0.05 * fits.mean()


def test_new_and_overlapping_particles_come_first() -> None:
    rng = np.random.default_rng(1)
    turns, n = FitTurns(), 40
    xy = np.column_stack([np.arange(n) * 20.0, np.zeros(n)]) + rng.normal(0, 1, (n, 2))
    alike = Candidates(0, xy, np.arange(n), np.ones(n), np.ones(n), np.array([], np.int64))
    for frame in range(10):
        turns.choose(alike._replace(frame=frame), ALL)
    beside = np.array([[400.0, 30.0], [403.0, 30.0]])
    more = Candidates(
        10,
        np.vstack([xy, beside]),
        np.append(np.arange(n), [n, n]),
        np.ones(n + 2),
        np.ones(n + 2),
        alike.doubts,
    )
    chosen, _ = turns.choose(more, Allowance(0.05))
    assert chosen[-2:].all()
    assert chosen.sum() <= 4


def test_what_a_group_costs_too_much_is_taken_off_the_next_frames() -> None:
    rng = np.random.default_rng(2)
    turns, n = FitTurns(), 30
    group = np.repeat(np.arange(0, n, 6), 6)
    xy = rng.uniform(0, 300, (n, 2))
    total = cost_of_groups(group, np.array([], np.int64))[1].sum()
    spent = 0.0
    for frame in range(200):
        of = Candidates(frame, xy, group, np.ones(n), np.ones(n), np.array([], np.int64))
        _, units = turns.choose(of, Allowance(0.3))
        spent += units
    assert spent / 200 == pytest.approx(0.3 * total, rel=0.05)


def test_the_time_of_a_unit_is_that_of_the_last_frames() -> None:
    turns = FitTurns()
    for ms in [2.0] * 20 + [6.0] * 12:
        turns.spent(10.0, ms * 10.0)
    assert turns.unit_ms == pytest.approx(6.0)


def test_an_allowance_of_time_is_one_of_particles() -> None:
    turns, n = FitTurns(), 100
    turns.spent(10.0, 5.0)
    xy = np.random.default_rng(0).uniform(0, 900, (n, 2))
    of = Candidates(0, xy, np.arange(n), np.ones(n), np.ones(n), np.array([], np.int64))
    chosen, units = turns.choose(of, Allowance(1.0, 10.0))
    assert chosen.sum() == units == 20
    chosen, _ = turns.choose(of._replace(frame=1), Allowance(1.0, -1.0))
    assert not chosen.any()


def test_a_frame_without_particles_takes_no_turn() -> None:
    nothing = np.array([], np.int64)
    of = Candidates(0, np.empty((0, 2)), nothing, np.array([]), np.array([]), nothing)
    chosen, units = FitTurns().choose(of, Allowance(0.5))
    assert (chosen.size, units) == (0, 0.0)


def test_groups_of_least_value_for_their_cost_come_last() -> None:
    group = np.array([0, 0, 2, 3])
    cost = np.array([2.0, 0.0, 1.0, 9.0])
    need = need_of(np.array([True, True, False, False]), np.zeros(4, bool), np.ones(4), np.ones(4))
    chosen, spent = choose(group, cost, need, np.ones(4), 2.5)
    assert chosen.tolist() == [True, True, True, False]
    assert spent == 3.0


@pytest.mark.parametrize("true_over_stated", [0.6, 1.0, 1.5])
def test_stated_errors_become_true_whatever_the_network_states(true_over_stated: float) -> None:
    rng = np.random.default_rng(4)
    stated = StatedErrors(-100.0, 100.0)
    n = 6000
    z = rng.uniform(-100, 100, n)
    states = rng.uniform(1.0, 2.0, (n, 3))
    fit = 0.4 * states * true_over_stated
    extra = np.sqrt((states * true_over_stated) ** 2 - fit**2) * rng.normal(size=(n, 3))
    extra[rng.random(n) < 0.01] *= 30
    overlapped = rng.random(n) < 0.3
    stated.add(extra, states, fit, z, overlapped)
    factors = stated.factors(z, overlapped)
    np.testing.assert_allclose(factors, true_over_stated, rtol=0.15)
    np.testing.assert_allclose(factors.mean(axis=0), true_over_stated, rtol=0.06)


def test_stated_errors_may_be_wrong_at_one_depth_only_and_alone_only() -> None:
    rng = np.random.default_rng(5)
    stated = StatedErrors(0.0, float(DEPTHS))
    n = 6000
    z = rng.uniform(0, DEPTHS, n)
    overlapped = rng.random(n) < 0.5
    wide = np.where((z < 1) & ~overlapped, 1.6, 1.0)[:, None]
    stated.add(wide * rng.normal(size=(n, 3)), np.ones((n, 3)), np.full((n, 3), 0.01), z, overlapped)
    np.testing.assert_allclose(stated.factors(np.array([0.5]), np.array([False])), 1.6, rtol=0.15)
    np.testing.assert_allclose(stated.factors(np.array([0.5]), np.array([True])), 1.0, rtol=0.15)
    np.testing.assert_allclose(stated.factors(np.array([4.5]), np.array([False])), 1.0, rtol=0.15)


def test_before_anything_is_fitted_the_network_is_believed_and_no_number_is_lost() -> None:
    stated = StatedErrors(-10.0, 10.0)
    np.testing.assert_array_equal(stated.factors(np.array([0.0, math.nan]), np.array([True, False])), 1.0)
    bad = np.full((4, 3), np.nan)
    stated.add(bad, np.ones((4, 3)), np.ones((4, 3)), np.zeros(4), np.zeros(4, bool))
    assert stated.facts() == {
        "lone": {"factors": [1.0] * 3, "particles": 0},
        "overlapped": {"factors": [1.0] * 3, "particles": 0},
    }


def test_the_network_engine_fits_as_much_as_it_may_and_knows_what_it_cost() -> None:
    optics = OpticsModel()
    psf = model_from_optics(optics)
    density = 20 / (192 * 256)
    source = Rendered(psf, noise_for_snr(psf, 8.0), layout=Layout((density, density)))
    image = source.draw(np.random.default_rng(0), (192, 256), dtype=np.uint8).images[0]
    pixel = optics.pixel_size_um
    engine = NetworkEngine(DetectorSettings(workers=1), pixel, SHIPPED_MODEL)
    assert isinstance(engine, Reducible)
    found = []
    for number, share in enumerate((1.0, 0.4, 0.0)):
        engine.allow_fit(share, math.inf)
        engine.submit(Frame(FrameInfo("run", number, number, 0.0, 0, 0.0, pixel_size_um=pixel), image))
        found += engine.results(60.0)
    engine.close()
    whole, some, none = found
    assert len(none) > 10
    assert (none.flags == DetectionFlag.REDUCED).all()
    assert (whole.flags == DetectionFlag.NONE).all()
    assert 0 < (some.flags == DetectionFlag.REDUCED).sum() < len(some)
    costs = engine.costs()
    assert [cost.reduced for cost in costs] == [0, int(some.flags.sum()), len(none)]
    assert [cost.particles for cost in costs] == [len(whole), len(some), len(none)]
    assert all(cost.network_ms > 0 for cost in costs)
    assert engine.costs() == []
