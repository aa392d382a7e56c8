"""Training for a field of view over which particles look different."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from training_particles import FIELD_SHAPE, gaussian_model, uneven_model

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from calibration.synthesis import Layout, NoiseModel, Rendered  # noqa: E402
from calibration.training.checkpoint import Course  # noqa: E402
from calibration.training.export import export, make_card, measure_scales, read_weights  # noqa: E402
from calibration.training.material import Material  # noqa: E402
from calibration.training.scoring import HeldOut  # noqa: E402
from calibration.training.settings import TrainingSettings  # noqa: E402
from calibration.training.train import train  # noqa: E402
from calibration.training.trainer import Trainer  # noqa: E402
from engines.network.model import OnnxModel  # noqa: E402
from engines.network.torch_model import TorchModel  # noqa: E402

QUICK = TrainingSettings(minutes=1.0, crop_px=64, batch=4, score_every_s=1e6)
PADDED = (304, 400)


def material_of(model) -> Material:
    noise = NoiseModel.steady(0.0, 1e-4, 200.0)
    source = Rendered(model, noise, None, Layout((1e-3, 2e-3), overlapped=0.2))
    units = (0.8, "dark", 0.0, 60.0, 0.01, 0.1, "gaussians", model.for_fit())
    return Material((source,), source, *units, field_shape=model.field_shape)


def trained_a_little(model):
    torch.set_num_threads(1)
    trainer = Trainer(QUICK, material_of(model))
    for step in range(6):
        trainer.step(step / 6)
    return trainer, {name: value.clone() for name, value in trainer.averaged.state_dict().items()}


def test_a_network_for_an_uneven_field_learns_from_the_place_and_is_exported_with_it(tmp_path):
    trainer, weights = trained_a_little(uneven_model())
    assert all(trainer.network.get_parameter(f"ramps_{n}.coefficients").any() for n in (1, 2))
    path = tmp_path / "model.onnx"
    export(path, weights, make_card(trainer.material, QUICK, Course()))
    model = OnnxModel(path)
    assert model.card.schema_version == 3
    assert model.card.field_shape == FIELD_SHAPE
    assert read_weights(path, "small").keys() == weights.keys()
    in_torch = TorchModel(path, model)
    for shape in (PADDED, (96, 112)):
        image = np.random.default_rng(0).standard_normal((1, 1, *shape)).astype(np.float32)
        with torch.no_grad():
            ours = trainer.averaged.planes(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(model(image), ours, atol=1e-3)
        np.testing.assert_allclose(in_torch(image), ours, atol=1e-5)


def test_a_network_for_an_even_field_is_written_as_before(tmp_path):
    trainer, weights = trained_a_little(gaussian_model())
    path = tmp_path / "model.onnx"
    export(path, weights, make_card(trainer.material, QUICK, Course()))
    card = OnnxModel(path).card
    assert (card.schema_version, card.field_shape) == (2, None)
    assert not any("ramps" in name for name in weights)


def test_a_training_for_an_uneven_field_starts_from_a_network_that_knew_none_and_back():
    even, plain = trained_a_little(gaussian_model())
    uneven, placed = trained_a_little(uneven_model())
    uneven.start_from(plain)
    assert torch.equal(uneven.network.head.weight, plain["head.weight"])
    even.start_from(placed)
    assert torch.equal(even.network.head.weight, placed["head.weight"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        even.start_from(placed | {"down_1.0.weight": torch.zeros(1)})


def test_held_out_images_show_the_whole_field_as_a_model_file_gets_it():
    held_out = HeldOut(material_of(uneven_model()), 8)
    assert held_out.scene.images.shape == (round(8 * 256**2 / (304 * 400)), *PADDED)
    assert not held_out.scene.origin_px.any()
    assert HeldOut(material_of(gaussian_model()), 2).scene.images.shape == (2, 256, 256)


def test_a_training_for_an_uneven_field_runs_to_its_scores():
    settings = QUICK.model_copy(update={"steps": 3})
    material = material_of(uneven_model())
    course = train(partial(replace, material), settings)
    assert len(course.scores) == 1
    assert "ramps_2.coefficients" in course.weights
    assert len(measure_scales(material, settings, course.weights, 4).place) == 3
