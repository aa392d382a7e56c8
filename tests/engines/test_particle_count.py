"""How many particles there are is decided by their image, whatever the detector counted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from astigmatic import BACKGROUND, PIXEL_SIZE_UM
from test_refine import NOISE_SD, SHAPE, SHOT, clean, fit, model, noisy  # noqa: F401

from engines.refine.fitting import Refined, fit_particles
from engines.refine.psf import FitModel
from engines.refine.psf_text import pack, unpack
from engines.refine.refiner import Refiner
from stream.errors import ConfigurationError
from stream.messages import Detections


def places(found: Refined) -> np.ndarray:
    return found.theta[found.present, :3]


@pytest.mark.parametrize(
    "other", [(80.3, 60.2, 10.0), (81.5, 60.9, 24.0), (80.3, 60.2, 70.0), (84.0, 58.0, -60.0)]
)
def test_two_particles_that_were_taken_for_one_are_two(model: FitModel, other: object) -> None:  # noqa: F811
    truth = np.array([(80.3, 60.2, 10.0), other])
    rng = np.random.default_rng(1)
    for _ in range(5):
        found = fit(model, noisy(rng, clean(SHAPE, *truth.T)), truth[0] + rng.normal(size=3) * [0.3, 0.3, 5])
        at = places(found)
        assert len(at) == 2
        at = at[np.argsort(np.abs(at - truth[0]).sum(axis=1))]
        np.testing.assert_allclose(at[:, :2], truth[:, :2], atol=2.5)
        np.testing.assert_allclose(at[:, 2], truth[:, 2], atol=25.0)


def test_one_particle_that_was_detected_twice_is_one(model: FitModel) -> None:  # noqa: F811
    rng = np.random.default_rng(2)
    for z in (-90.0, 5.0, 60.0):
        image = noisy(rng, clean(SHAPE, 80.3, 60.2, z))
        found = fit(model, image, [[80.0, 60.0, z], [81.2, 60.8, z + 12.0]])
        (at,) = places(found)
        np.testing.assert_allclose(at[:2], [80.3, 60.2], atol=1.0)


def test_lone_particles_stay_one_each(model: FitModel) -> None:  # noqa: F811
    rng = np.random.default_rng(3)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(60, 700, 100.0), np.arange(60, 400, 90.0)))
    truth = np.column_stack([x, y, rng.uniform(-125, 125, x.size)])
    found = fit(model, noisy(rng, clean((420, 720), *truth.T)), truth)
    assert found.present.sum() == len(truth)


def test_a_place_that_the_detector_thought_of_is_taken_where_there_is_a_particle(model: FitModel) -> None:  # noqa: F811
    rng = np.random.default_rng(4)
    truth = np.array([(80.3, 60.2, 10.0), (88.0, 62.0, 90.0)])
    image = noisy(rng, clean(SHAPE, *truth.T))
    thought = np.array([[87.8, 61.9, 91.0], [72.0, 55.0, 100.0]])
    found = fit_particles(image, model, truth[:1], np.array([10.0]), SHOT, proposals=thought)
    assert len(places(found)) == 2
    np.testing.assert_allclose(places(found)[1], truth[1], atol=6.0)


def test_particles_unlike_the_calibrated_one_are_not_cut_into_several(model: FitModel) -> None:  # noqa: F811
    rng = np.random.default_rng(5)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(60, 700, 100.0), np.arange(60, 400, 90.0)))
    z = rng.uniform(-125, 125, x.size)
    shape = (420, 720)
    kind = 0.7 * clean(shape, x, y, z) + 0.3 * clean(shape, x + 1.5, y - 1.0, z * 0.9)
    found = fit(model, noisy(rng, 3.0 * kind), np.column_stack([x, y, z]))
    assert found.present.sum() <= 1.1 * len(x)


def test_added_particles_have_all_columns_and_are_counted(model: FitModel) -> None:  # noqa: F811
    rng = np.random.default_rng(6)
    contrast = noisy(
        rng, clean(SHAPE, np.array([80.0, 80.0]), np.array([60.0, 60.0]), np.array([10.0, 80.0]))
    )
    grey = np.rint(BACKGROUND * (1 - contrast)).astype(np.uint16)
    table = np.full((len(Detections.COLUMNS), 1), 5.0)
    table[:3, 0] = 80.0 * PIXEL_SIZE_UM, 60.0 * PIXEL_SIZE_UM, 12.0
    refiner = Refiner(model, PIXEL_SIZE_UM)
    out = refiner.refine(grey, table)
    assert out.shape[1] == 2
    known = [name not in Detections.MORE for name in Detections.COLUMNS]
    assert np.isfinite(out[known]).all()
    assert refiner.counts()["added"] == 1
    assert 0.5 < out[Detections.COLUMNS.index("confidence"), 1] <= 1


def test_a_packed_particle_image_comes_back(model: FitModel) -> None:  # noqa: F811
    back = unpack(pack(replace(model, sigma_scale=(1.0, 1.5, 2.0))), "model.onnx")
    assert back.sigma_scale == (1.0, 1.5, 2.0)
    np.testing.assert_allclose(
        back.coefficients, model.coefficients, atol=np.abs(model.coefficients).max() / 30000
    )
    assert (back.z_first_um, back.z_step_um, back.z_min_um) == (
        model.z_first_um,
        model.z_step_um,
        model.z_min_um,
    )
    assert (back.shot, back.polarity) == (pytest.approx(NOISE_SD**2), "dark")


@pytest.mark.parametrize("text", ["", "AAAA", "nonsense!", json.dumps({"shape": [1]})])
def test_a_damaged_particle_image_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"PSF model in model\.onnx"):
        unpack(text, "model.onnx")


def test_stated_errors_are_as_much_larger_as_was_measured(model: FitModel) -> None:  # noqa: F811
    rng = np.random.default_rng(7)
    grey = np.rint(BACKGROUND * (1 - noisy(rng, clean(SHAPE, 80.0, 60.0, 10.0)))).astype(np.uint16)
    table = np.full((len(Detections.COLUMNS), 1), 5.0)
    table[:3, 0] = 80.0 * PIXEL_SIZE_UM, 60.0 * PIXEL_SIZE_UM, 12.0
    plain = Refiner(model, PIXEL_SIZE_UM).refine(grey, table)
    wider = Refiner(replace(model, sigma_scale=(1.0, 1.5, 2.0)), PIXEL_SIZE_UM).refine(grey, table)
    np.testing.assert_allclose(wider[3:6, 0], plain[3:6, 0] * [1.0, 1.5, 2.0])
    np.testing.assert_array_equal(wider[:3], plain[:3])


@pytest.mark.parametrize(
    "wrong",
    [
        {"z_step_um": 0.0},
        {"z_min_um": 1e9, "z_max_um": 2e9},
        {"shot": float("nan")},
        {"pixel_size_um": -1.0},
        {"sigma_scale": (1.0, -1.0, 1.0)},
        {"coefficients": np.zeros((60, 1, 1), np.float32)},
    ],
)
def test_a_particle_image_that_cannot_be_is_refused(model: FitModel, wrong: dict[str, object]) -> None:  # noqa: F811
    with pytest.raises(ConfigurationError, match=r"PSF model in model\.onnx is damaged"):
        unpack(pack(replace(model, **wrong)), "model.onnx")
