from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from training_particles import gaussian_model

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from calibration.synthesis import Layout, NoiseModel, Rendered  # noqa: E402
from calibration.training import checkpoint  # noqa: E402
from calibration.training.checkpoint import Course  # noqa: E402
from calibration.training.export import export, make_card, measure_scales, read_weights  # noqa: E402
from calibration.training.fit_scale import with_measured_errors  # noqa: E402
from calibration.training.loss import Targets, particle_loss, share_out  # noqa: E402
from calibration.training.material import Material  # noqa: E402
from calibration.training.scoring import HeldOut  # noqa: E402
from calibration.training.settings import TrainingError, TrainingSettings  # noqa: E402
from calibration.training.train import train  # noqa: E402
from calibration.training.trainer import Trainer, rate_at, targets_of  # noqa: E402
from engines.network.architecture import ParticleNet, parameters_of  # noqa: E402
from engines.network.card_text import KEY  # noqa: E402
from engines.network.layout import CHANNELS, LOGIT, SIGMA_X, SLOTS, STRIDE, X  # noqa: E402
from engines.network.model import OnnxModel  # noqa: E402
from stream.errors import ConfigurationError  # noqa: E402

QUICK = TrainingSettings(minutes=1.0, crop_px=64, batch=4, learning_rate=5e-3, score_every_s=1e6)


def gaussian_material(made_from="gaussians") -> Material:
    model = gaussian_model()
    noise = NoiseModel.steady(0.0, 1e-4, 200.0)
    source = Rendered(model, noise, None, Layout((2e-3, 4e-3), overlapped=0.2))
    return Material((source,), source, 0.8, "dark", 0.0, 60.0, 0.01, 0.1, made_from, model.for_fit())


def broken_recipe() -> Material:
    raise OSError("the disk is gone")


def detect(trainer, images):
    with torch.no_grad():
        return trainer.averaged(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="module")
def learnt():
    """A training of a few seconds on bright Gaussian particles, and how it began."""
    torch.set_num_threads(1)
    trainer = Trainer(QUICK, gaussian_material())
    held_out = HeldOut(trainer.material, 4)
    before = held_out.score(partial(detect, trainer))
    losses = [float(trainer.step(step / 220)[0].total.detach()) for step in range(220)]
    return trainer, held_out, before, losses


@pytest.fixture
def torch_on_one_thread():
    torch.set_num_threads(1)


def test_a_short_training_is_scored_on_fewer_images_than_a_long_one():
    counts = [TrainingSettings(minutes=minutes).scored(160) for minutes in (0.1, 2.0, 10.0, 600.0)]
    assert counts == [16, 32, 160, 160]
    assert TrainingSettings(minutes=0.1).scored(4) == 4
    few, many = (TrainingSettings(minutes=60.0, steps=steps, batch=4).scored(160) for steps in (200, 10**6))
    assert (few, many) == (16, 160)  # few steps take no longer than a short time


@pytest.mark.parametrize(("size", "least", "most"), [("small", 1e5, 1.5e5), ("large", 5e5, 1.0e6)])
def test_the_maps_have_a_quarter_of_the_resolution_and_a_network_its_size(size, least, most):
    network = ParticleNet(size).eval()
    assert least < parameters_of(network) <= most
    with torch.no_grad():
        maps = network(torch.zeros(2, 1, 48, 80))
    assert maps.shape == (2, 48 // STRIDE, 80 // STRIDE, SLOTS, CHANNELS)
    assert (maps[..., SIGMA_X:] > 0).all()


def test_a_particle_moves_with_the_image():
    """Fully convolutional: shifted by 16 pixels, the same answer 4 cells further."""
    network = ParticleNet().eval()
    image = torch.zeros(1, 1, 160, 160)
    image[..., 60:66, 70:75] = 3.0
    with torch.no_grad():
        here, there = network(image), network(image.roll(16, dims=3))
    np.testing.assert_allclose(here[:, 8:28, 8:28], there[:, 8:28, 12:32], atol=1e-5)


def _targets(*rows):
    values = torch.tensor([row[3] for row in rows], dtype=torch.float32).reshape(-1, 4)
    whole = (torch.tensor([row[k] for row in rows], dtype=torch.int64) for k in range(3))
    return Targets(*whole, values)


def test_the_loss_is_least_where_the_maps_say_the_truth():
    truth = (0.1, -0.2, 0.3, 1.0)
    targets = _targets((0, 3, 4, truth))

    def loss(z, p, sigma):
        maps = torch.zeros(1, 8, 8, SLOTS, CHANNELS)
        maps[..., LOGIT] = -8.0
        maps[..., SIGMA_X:] = 0.05
        maps[0, 3, 4, 0, LOGIT] = p
        maps[0, 3, 4, 0, X : X + 4] = torch.tensor([truth[0], truth[1], z, truth[3]])
        maps[0, 3, 4, 0, SIGMA_X:] = sigma
        return float(particle_loss(maps, targets).total)

    best = loss(0.3, 8.0, 0.05)
    assert best < loss(0.4, 8.0, 0.05)
    assert best < loss(0.3, 0.0, 0.05)
    assert best < loss(0.3, 8.0, 0.5)
    assert loss(0.3, 8.0, 0.01) < best


def test_a_step_against_the_gradient_lessens_the_loss():
    rng = np.random.default_rng(0)
    start = rng.normal(0, 0.3, (1, 4, 4, SLOTS, CHANNELS))
    start[..., SIGMA_X:] = 0.7
    maps = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    targets = _targets((0, 1, 1, (0.2, 0.1, 0.3, 1.0)), (0, 3, 0, (-0.2, 0.4, -0.5, 1.1)))
    targets = targets._replace(values=targets.values.double())

    particle_loss(maps, targets).total.backward()
    assert torch.isfinite(maps.grad).all()
    moved = maps.detach() - 1e-3 * maps.grad
    assert particle_loss(moved, targets).total < particle_loss(maps, targets).total


def test_two_particles_share_two_slots_even_if_both_like_the_same():
    score = torch.tensor([[0.0, -6.0], [0.0, -2.0]])
    shares = share_out(score, torch.tensor([[0, 1], [0, 1]]), 2)
    assert (shares.sum(0) <= 1 + 1e-5).all()
    assert shares[0, 0] > 0.8
    assert shares[1, 1] > 0.8
    alone = share_out(score[:1], torch.tensor([[0, 1]]), 2)
    torch.testing.assert_close(alone, torch.softmax(score[:1], 1))


def test_an_image_without_particles_teaches_only_that_there_is_none():
    maps = torch.zeros(1, 4, 4, SLOTS, CHANNELS, requires_grad=True)
    losses = particle_loss(maps + 0.0, _targets())
    losses.total.backward()
    assert float(losses.likelihood.detach()) == 0
    assert (maps.grad[..., LOGIT] > 0).all()
    assert not maps.grad[..., X:].any()


def test_targets_are_the_particles_in_units_of_the_network():
    material = gaussian_material()
    scene = material.scoring.draw(np.random.default_rng(3), (64, 96), 3)
    targets, particles = targets_of(scene, material), scene.particles
    x = (targets.column + 0.5 + targets.values[:, 0]) * STRIDE - 0.5
    y = (targets.row + 0.5 + targets.values[:, 1]) * STRIDE - 0.5
    np.testing.assert_allclose(x, particles.x_px, atol=1e-4)
    np.testing.assert_allclose(y, particles.y_px, atol=1e-4)
    np.testing.assert_allclose(targets.values[:, 2] * 60, particles.z_um, atol=1e-4)
    assert (targets.values[:, :2].abs() <= 0.5 + 1e-6).all()


def test_a_training_of_seconds_learns_to_find_particles(learnt):
    trainer, held_out, before, losses = learnt
    after = held_out.score(partial(detect, trainer))
    assert before.missed > 0.9
    assert after.missed < 0.4
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])


def test_the_file_agrees_with_torch_and_carries_all_that_its_use_needs(learnt, tmp_path):
    trainer, held_out = learnt[:2]
    weights = trainer.averaged.state_dict()
    course = Course(scores=[{"trained_s": 0.0, "missed": 0.3}], weights=weights)
    path = tmp_path / "model.onnx"
    export(path, weights, make_card(trainer.material, QUICK, course, "ab" * 32))
    model = OnnxModel(path)
    images = np.random.default_rng(1).standard_normal((1, 1, 112, 208)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(
            model(images), trainer.averaged.planes(torch.from_numpy(images)).numpy(), atol=1e-3
        )
    card = model.card
    assert (card.pixel_size_um, card.polarity, card.z_range_um) == (0.8, "dark", (-60.0, 60.0))
    assert (card.made_from, card.calibration_sha256) == ("gaussians", "ab" * 32)
    assert card.training["seed"] == 0
    assert card.scores["missed"] == 0.3
    stated = held_out.score(model, 1).evaluation.errors["z"].calibration
    scale = measure_scales(trainer.material, QUICK, weights, 24).place
    assert scale[2] == pytest.approx(stated, rel=0.3)
    right = held_out.score(model, 1, scale).evaluation.errors["z"].calibration
    assert right == pytest.approx(1.0, rel=0.3)
    again = read_weights(path, "small")
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    with pytest.raises(TrainingError, match="--size small"):
        read_weights(path, "large")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]

    damaged = onnx.load(str(path))
    for entry in damaged.metadata_props:
        if entry.key == KEY:
            data = json.loads(entry.value)
            entry.value = json.dumps(data | {"half_range_um": -1.0})
    onnx.save(damaged, str(tmp_path / "damaged.onnx"))
    with pytest.raises(ConfigurationError, match=r"damaged.*half_range_um") as caught:
        OnnxModel(tmp_path / "damaged.onnx")
    assert "pydantic" not in str(caught.value)


@pytest.mark.usefixtures("torch_on_one_thread")
def test_a_training_that_was_cut_off_goes_on_where_it_was(tmp_path):
    trainer = Trainer(QUICK, gaussian_material())
    for step in range(3):
        trainer.step(step / 8)
    checkpoint.save(tmp_path, trainer, Course(trained_s=12.0))
    trainer.reseed()
    expected = [float(trainer.step(step / 8)[0].total.detach()) for step in range(3, 6)]
    resumed = Trainer(QUICK, gaussian_material())
    course = checkpoint.resume(tmp_path, resumed)
    assert course is not None
    assert (course.trained_s, resumed.steps) == (12.0, 3)
    assert [float(resumed.step(step / 8)[0].total.detach()) for step in range(3, 6)] == expected
    with pytest.raises(TrainingError, match="another calibration"):
        checkpoint.resume(tmp_path, Trainer(QUICK, gaussian_material("other particles")))
    (tmp_path / checkpoint.NAME).write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(TrainingError, match="remove it to start again"):
        checkpoint.resume(tmp_path, resumed)
    assert checkpoint.resume(tmp_path / "nothing", resumed) is None


@pytest.mark.usefixtures("torch_on_one_thread")
def test_from_the_same_seed_come_the_same_weights(tmp_path):
    settings = QUICK.model_copy(update={"steps": 3})
    courses = [train(partial(gaussian_material), settings) for _ in range(2)]
    first, second = (course.weights for course in courses)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(courses[0].scores) == 1


@pytest.mark.slow
def test_two_processes_train_one_network():
    settings = QUICK.model_copy(update={"steps": 4, "processes": 2})
    seen = []
    course = train(gaussian_material, settings, on_progress=seen.append)
    assert course.scores[-1]["steps"] == 4
    assert seen[-1].part == 1.0
    assert all(torch.isfinite(value.float()).all() for value in course.weights.values())


def test_what_goes_wrong_in_a_training_is_said():
    with pytest.raises(TrainingError, match="the disk is gone"):
        train(broken_recipe, QUICK)


def test_the_rate_rises_and_then_falls_to_nearly_nothing():
    rates = [rate_at(part) for part in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[0] < 0.01
    assert rates[-1] < 0.01
    assert np.argmax(rates) < 12


def test_a_network_with_a_knee_is_exported_with_it(tmp_path):
    torch.manual_seed(3)
    material = dataclasses.replace(gaussian_material(), knee=10.0)
    trainer = Trainer(QUICK, material)
    weights = {name: value.clone() for name, value in trainer.averaged.state_dict().items()}
    path = tmp_path / "model.onnx"
    export(path, weights, make_card(material, QUICK, Course()))
    model = OnnxModel(path)
    assert model.card.knee == 10.0
    image = 300.0 * np.random.default_rng(0).random((1, 1, 32, 48)).astype(np.float32)
    with torch.no_grad():
        ours = trainer.averaged.planes(torch.from_numpy(image)).numpy()
        without = ParticleNet().eval()
        without.load_state_dict(weights)
        plain = without.planes(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(model(image), ours, atol=2e-3)
    assert np.abs(plain - ours).max() > 0.01


def test_no_process_outlives_a_training_that_was_killed(tmp_path):
    command = [sys.executable, "-m", "liveptv", "train", "--optics", "simulated", "--from", "nothing"]
    command += ["--processes", "2", "--minutes", "5", "-o", str(tmp_path / "model.onnx")]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    main = psutil.Process(training.pid)

    def workers():
        return [child for child in main.children() if "spawn_main" in " ".join(child.cmdline())]

    deadline_s = time.monotonic() + 240
    while len(workers()) < 2 and training.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.2)
    children = workers()
    assert len(children) == 2
    time.sleep(1.0)
    training.kill()
    training.wait()

    def alive():
        running = [child for child in children if child.is_running()]
        return [child for child in running if child.status() != psutil.STATUS_ZOMBIE]

    deadline_s = time.monotonic() + 150
    while alive() and time.monotonic() < deadline_s:
        time.sleep(0.5)
    left = alive()
    for child in left:
        child.kill()
    assert not left


def test_the_errors_of_the_fit_are_measured_on_held_out_images(learnt, tmp_path):
    trainer, *_ = learnt
    weights = {name: value.clone() for name, value in trainer.averaged.state_dict().items()}
    path = tmp_path / "model.onnx"
    export(path, weights, make_card(trainer.material, QUICK, Course()))
    particle = with_measured_errors(trainer.material, OnnxModel(path))
    assert all(1.0 <= scale < 2.0 for scale in particle.sigma_scale)
    assert with_measured_errors(dataclasses.replace(trainer.material, particle=None), OnnxModel(path)) is None


def test_a_model_file_says_nothing_of_the_machine_it_was_made_on(learnt, tmp_path):
    trainer, *_ = learnt
    settings = QUICK.model_copy(update={"start_from": tmp_path / "first.onnx", "checkpoint": tmp_path})
    weights = {name: value.clone() for name, value in trainer.averaged.state_dict().items()}
    path = tmp_path / "model.onnx"
    export(path, weights, make_card(trainer.material, settings, Course()), trainer.material.particle)
    content = path.read_bytes()
    assert str(tmp_path).encode() not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert OnnxModel(path).card.training["start_from"] == "first.onnx"
