"""Training images of several kinds of particles, and one network that tells them apart."""

from dataclasses import replace

import numpy as np
import pytest
from training_particles import (
    SILENCE,
    gaussian_cutouts,
    gaussian_model,
    larger_model,
)

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from calibration.errors import CalibrationError  # noqa: E402
from calibration.synthesis import CutAndPaste, Distribution, Layout, NoiseModel, Rendered  # noqa: E402
from calibration.synthesis.from_optics import simulated_cutouts  # noqa: E402
from calibration.synthesis.rendered_source import Kind  # noqa: E402
from calibration.training.checkpoint import Course  # noqa: E402
from calibration.training.class_temperature import at_temperature, class_temperature  # noqa: E402
from calibration.training.export import export, make_card, measure_scales  # noqa: E402
from calibration.training.loss import Targets, particle_loss  # noqa: E402
from calibration.training.material import Material  # noqa: E402
from calibration.training.scoring import HeldOut, class_right, pairs  # noqa: E402
from calibration.training.settings import TrainingSettings  # noqa: E402
from calibration.training.trainer import Trainer, targets_of  # noqa: E402
from engines.network.architecture import ParticleNet  # noqa: E402
from engines.network.layout import CHANNELS, LOGIT, SIGMA_X, SLOTS, X  # noqa: E402
from engines.network.model import OnnxModel  # noqa: E402

QUICK = TrainingSettings(minutes=1.0, crop_px=64, batch=4, score_every_s=1e6)
SPARSE = Layout(density_per_px=(4e-5, 4e-5), overlapped=0.0)
UNIT = 2 / 2.25
"""Peak of the larger particles over that of the others."""


def rendered(noise=SILENCE, layout=SPARSE):
    return Rendered(
        gaussian_model(), noise, None, layout, others=[Kind(larger_model(), Distribution.constant(1.0), UNIT)]
    )


def mixed_cutouts():
    """Cut-outs of both kinds, three times as many of the first."""
    first = gaussian_cutouts(count=90)
    second = simulated_cutouts(larger_model(), SILENCE, np.random.default_rng(4), 30)
    scale = max(first.scale, second.scale)
    contrast = np.concatenate(
        [np.rint(some.contrast * (some.scale / scale)).astype(np.int16) for some in (first, second)]
    )
    columns = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("z_um", "dx_px", "dy_px", "trace", "brightness")
    }
    kind = np.repeat([0, 1], (90, 30))
    return replace(first, contrast=contrast, scale=scale, kind=kind, **columns)


def material() -> Material:
    noise = NoiseModel.steady(0.0, 1e-4, 200.0)
    source = rendered(noise, Layout((1e-3, 2e-3), overlapped=0.2))
    units = (0.8, "dark", 0.0, 60.0, 0.01, 0.1, "gaussians", gaussian_model().for_fit())
    return Material((source,), source, *units, kinds=2, others=(larger_model().for_fit(),))


@pytest.mark.parametrize("which", ["rendered", "pasted"])
def test_both_kinds_are_drawn_as_often_and_look_as_they_are(which):
    source = rendered() if which == "rendered" else CutAndPaste(mixed_cutouts(), SILENCE, None, SPARSE)
    scene = source.draw(np.random.default_rng(1), (128, 160), 400)
    truth = scene.particles
    assert truth.kind.mean() == pytest.approx(0.5, abs=0.1)
    central = (np.abs(truth.x_px - 80) < 50) & (np.abs(truth.y_px - 64) < 34) & (truth.nearest_px > 60)
    truth = truth.where(central)
    assert min(np.bincount(truth.kind)) > 10
    for n in range(len(truth)):
        x, y = round(truth.x_px[n]), round(truth.y_px[n])
        model = (gaussian_model, larger_model)[truth.kind[n]]()
        expected = model.images(truth.z_um[n], truth.x_px[n] - x, truth.y_px[n] - y, half_px=8)[0]
        patch = scene.images[truth.frame[n], y - 8 : y + 9, x - 8 : x + 9]
        np.testing.assert_allclose(patch, expected, atol=2e-3)


def test_brightness_is_relative_to_the_first_kind():
    truth = rendered().draw(np.random.default_rng(1), (128, 160), 40).particles
    np.testing.assert_allclose(truth.brightness, np.where(truth.kind == 1, UNIT, 1.0))


def test_the_truth_and_the_targets_have_the_kind():
    scene = rendered().draw(np.random.default_rng(1), (128, 160), 20)
    targets = targets_of(scene, material())
    np.testing.assert_array_equal(targets.kind.numpy(), scene.particles.kind)
    np.testing.assert_array_equal(scene.table()["kind"], scene.particles.kind)


def test_kinds_without_cutouts_are_refused():
    with pytest.raises(CalibrationError, match="one kind"):
        CutAndPaste(replace(mixed_cutouts(), kind=np.repeat([0, 2], (90, 30))), SILENCE)
    with pytest.raises(CalibrationError, match="from 0 to 2"):
        replace(mixed_cutouts(), kind=np.repeat([0, 3], (90, 30)))


def test_the_loss_is_less_where_the_class_is_right():
    targets = Targets(
        *(torch.tensor([v]) for v in (0, 3, 4)), torch.tensor([[0.1, -0.2, 0.3, 1.0]]), torch.tensor([1])
    )

    def loss(logit):
        maps = torch.zeros(1, 8, 8, SLOTS, CHANNELS + 2)
        maps[..., LOGIT] = -8.0
        maps[..., SIGMA_X:CHANNELS] = 0.05
        maps[0, 3, 4, 0, LOGIT] = 8.0
        maps[0, 3, 4, 0, X : X + 4] = targets.values[0]
        maps[0, 3, 4, 0, CHANNELS + 1] = logit
        return float(particle_loss(maps, targets).total)

    assert loss(4.0) < loss(0.0) < loss(-4.0)
    assert loss(0.0) - loss(30.0) == pytest.approx(np.log(2), rel=0.01)


def test_one_network_learns_the_class_and_its_file_tells_it(tmp_path):
    torch.set_num_threads(1)
    trainer = Trainer(QUICK, material())
    for step in range(260):
        trainer.step(step / 260)
    weights = {name: value.clone() for name, value in trainer.averaged.state_dict().items()}
    path = tmp_path / "model.onnx"
    scales = measure_scales(trainer.material, QUICK, weights, 12)
    export(
        path,
        at_temperature(weights, 2, scales.class_temperature),
        make_card(trainer.material, QUICK, Course(), scales=scales),
        trainer.material.particle,
        trainer.material.others,
    )
    model = OnnxModel(path)
    assert (model.card.kinds, model.card.schema_version) == (2, 3)
    assert model.psf(1).coefficients.max() > 1.5 * model.psf().coefficients.max() * UNIT / 2
    score = HeldOut(trainer.material, 6).score(model, 1)
    assert score.missed < 0.5
    assert score.class_right > 0.8
    assert score.summary()["class_right"] == pytest.approx(score.class_right, abs=1e-4)
    assert score.class_stated == pytest.approx(score.class_right, abs=0.06)
    assert model.card.scores["class_temperature"] == pytest.approx(scales.class_temperature, abs=1e-3)


def lone_slots(logits):
    """Slots of an image, far from one another, that give two classes with these logits (N, 2)."""
    stated = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slots = np.full((len(logits), 10), 0.1)
    slots[:, 0], slots[:, 1] = 30.0 * np.arange(len(logits)), 5.0
    slots[:, 7], slots[:, 8:] = 0.9, stated
    return slots


@pytest.mark.parametrize("said_over_true", [0.4, 2.5])
def test_the_temperature_makes_probabilities_of_classes_right(said_over_true):
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1.5, (40, 30, 2))
    first = 1 / (1 + np.exp(logits[..., 1] - logits[..., 0]))
    kind = (rng.random(first.shape) > first).astype(np.int64).ravel()
    images = [lone_slots(said_over_true * each) for each in logits]
    found = np.arange(kind.size)
    assert class_temperature(images, 0, found, kind, 2) == pytest.approx(said_over_true, rel=0.15)
    few = slice(0, 20)
    assert class_temperature(images, 0, found[few], kind[few], 2) == 1.0


def test_of_few_particles_that_are_all_right_none_is_certain():
    images = [lone_slots(np.tile([1.0, -1.0], (30, 1))) for _ in range(4)]
    found = np.arange(120)
    temperature = class_temperature(images, 0, found, np.zeros(120, np.int64), 2)
    stated = 1 / (1 + np.exp(-2 / temperature))
    assert 0.97 < stated < 0.999


def test_a_temperature_changes_how_sure_a_network_is_of_classes_and_nothing_else():
    torch.manual_seed(0)
    network = ParticleNet(kinds=2, learnt=1).eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = network.planes(image)
        network.load_state_dict(at_temperature(weights, 2, 0.5))
        after = network.planes(image)
    classes = slice(SLOTS * CHANNELS, SLOTS * (CHANNELS + 2))
    torch.testing.assert_close(after[:, classes], 2 * before[:, classes])
    before[:, classes] = after[:, classes] = 0
    assert torch.equal(before, after)
    assert at_temperature(weights, 2, 1.0) is weights


def test_a_network_for_kinds_starts_from_one_for_a_single_kind_and_back():
    torch.manual_seed(0)
    plain = {name: value.clone() for name, value in ParticleNet().state_dict().items()}
    trainer = Trainer(QUICK, material())
    own = trainer.network.head.weight[SLOTS * CHANNELS :].clone()
    trainer.start_from(plain)
    assert torch.equal(trainer.network.head.weight[: SLOTS * CHANNELS], plain["head.weight"])
    assert torch.equal(trainer.network.head.weight[SLOTS * CHANNELS :], own)
    single = Trainer(QUICK, replace(material(), kinds=1))
    single.start_from({name: value.clone() for name, value in trainer.network.state_dict().items()})
    assert torch.equal(single.network.head.weight, plain["head.weight"])


def test_the_part_with_the_right_class_is_of_the_particles_found():
    place = {name: np.array([10.0, 50.0, 90.0]) for name in ("x_um", "y_um", "z_um")}
    truth = place | {"frame": np.zeros(3), "kind": np.array([0.0, 1.0, 1.0])}
    found = {name: values[:2] for name, values in truth.items()} | {"kind": np.array([0.0, 0.0])}
    assert class_right(truth, found, *pairs(truth, found, 4.0, 30.0)) == 0.5
    nothing = {name: values[:0] for name, values in found.items()}
    assert np.isnan(class_right(truth, nothing, *pairs(truth, nothing, 4.0, 30.0)))
