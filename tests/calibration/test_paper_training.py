from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_particles import gaussian_model

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from calibration.synthesis import Layout, NoiseModel, Particles, Rendered, Scene  # noqa: E402
from calibration.training.hungarian_loss import FOCUS, Truth, assign, hungarian_loss, truth_of  # noqa: E402
from calibration.training.material import Material  # noqa: E402
from calibration.training.paper import PAPER, paper_rate_at  # noqa: E402
from calibration.training.settings import TrainingSettings  # noqa: E402
from calibration.training.train import train  # noqa: E402
from calibration.training.trainer import Trainer  # noqa: E402
from engines.comparison.layout import (  # noqa: E402
    CENTRE_PX,
    FIRST,
    HALF_REGION_PX,
    LOGIT,
    OUTPUTS,
    X,
)
from engines.comparison.tensorbox import PaperNet  # noqa: E402
from engines.network.decode import ROW  # noqa: E402

HALF_RANGE_UM = 60.0
QUICK = TrainingSettings(minutes=1.0, crop_px=64, batch=2, learning_rate=1e-3, score_every_s=1e6)


def gaussian_material() -> Material:
    noise = NoiseModel.steady(0.0, 1e-4, 200.0)
    model = gaussian_model()
    source = Rendered(model, noise, None, Layout((1e-3, 1e-3), overlapped=0.2))
    return Material(
        (source,), source, 0.8, "dark", 0.0, HALF_RANGE_UM, 0.01, 0.1, "gaussians", model.for_fit()
    )


def scene_of(x_px, y_px, z_um, shape=(2, 64, 96), frame=None):
    x_px, y_px, z_um = (np.asarray(v, float) for v in (x_px, y_px, z_um))
    frame = np.zeros(x_px.size, np.int64) if frame is None else np.asarray(frame)
    one = np.ones(x_px.size)
    particles = Particles(frame, x_px, y_px, z_um, one, one)
    return Scene(np.zeros(shape, np.float32), particles, particles.where(one < 0), 0.8)


def random_case(seed, regions=5):
    """Answers and truth of some regions: positions often near one another, confidences any."""
    rng = np.random.default_rng(seed)
    there = rng.random((1, 1, regions, OUTPUTS)) < 0.5
    values = rng.uniform(-1, 1, (1, 1, regions, OUTPUTS, 3)).astype(np.float32) * there[..., None]
    answers = rng.normal(0, 1, (1, 1, regions, OUTPUTS, 2, 4)).astype(np.float32)
    answers[..., FIRST, X:] = values + rng.normal(0, 0.3, values.shape)
    return torch.from_numpy(answers), Truth(values, there)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None, derandomize=True)  # a tie between assignments is rare
def test_the_loss_does_not_depend_on_the_order_of_the_true_particles(seed):
    answers, truth = random_case(seed)
    order = np.random.default_rng(seed).permutation(OUTPUTS)
    shuffled = Truth(truth.values[..., order, :], truth.there[..., order])
    torch.testing.assert_close(hungarian_loss(answers, shuffled), hungarian_loss(answers, truth))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_where_every_output_has_a_particle_their_order_plays_no_part_either(seed):
    """But for the squares of the corrected positions: several assignments can be of the same distance."""
    answers, truth = random_case(seed)
    values = np.random.default_rng(seed).uniform(-1, 1, truth.values.shape).astype(np.float32)
    truth = Truth(values, np.ones_like(truth.there))
    order = np.random.default_rng(seed).permutation(OUTPUTS)
    other, one = (hungarian_loss(a, truth) for a in (answers[..., order, :, :], answers))
    torch.testing.assert_close(other.confidence, one.confidence)
    torch.testing.assert_close(other.position, one.position)


def test_an_output_within_reach_is_preferred_then_the_first_then_the_nearest():
    values = np.zeros((1, 1, 1, OUTPUTS, 3), np.float32)
    there = np.zeros((1, 1, 1, OUTPUTS), np.bool_)
    there[..., 0] = True
    truth = Truth(values, there)
    near, far = 4 / HALF_REGION_PX, 12 / HALF_REGION_PX

    def chosen(*x):
        answers = np.zeros((1, 1, 1, OUTPUTS, 3), np.float32)
        answers[0, 0, 0, :, 0] = x
        return np.flatnonzero(assign(answers, truth)[1]).tolist()

    assert chosen(far, near, 0.0, far) == [1]
    assert chosen(near, 0.0, 0.0, 0.0) == [0]
    assert chosen(far, far, far, far) == [0]

    values[0, 0, 0, :2, 2] = [-0.5, 0.5]
    there[..., 1] = True
    answers = np.zeros((1, 1, 1, OUTPUTS, 3), np.float32)
    answers[0, 0, 0, :2, 2] = [0.4, -0.4]
    wanted, assigned = assign(answers, truth)
    assert np.flatnonzero(assigned).tolist() == [0, 1]
    assert wanted[0, 0, 0, :2, 2].tolist() == [0.5, -0.5]


def test_the_loss_is_least_where_the_answers_say_the_truth():
    truth = truth_of(scene_of([20.0, 21.0], [15.0, 15.0], [30.0, -30.0]), gaussian_material())

    def loss(off=0.0, logit=9.0):
        answers = torch.zeros(*truth.values.shape[:-1], 2, 4)
        wanted = torch.from_numpy(truth.values)[..., None, :]
        answers[..., X:] = wanted + off
        there = torch.from_numpy(truth.there)[..., None]
        answers[..., LOGIT] = torch.where(there, logit, -9.0)
        return float(hungarian_loss(answers, truth).total)

    assert loss() < 0.01
    assert loss() < loss(off=0.05) < loss(off=0.2)
    assert loss() < loss(logit=0.0) < loss(logit=-3.0)


def test_only_what_is_assigned_is_taught_a_position():
    answers, truth = random_case(3)
    answers = answers.requires_grad_()
    hungarian_loss(answers, truth).total.backward()
    _, assigned = assign(answers.detach()[..., FIRST, X:].numpy(), truth)
    moved = (answers.grad[..., X:] != 0).any(-1).any(-1).numpy()
    assert not (moved & ~assigned).any()
    assert (answers.grad[..., LOGIT] != 0).all()


def test_every_region_answers_for_the_particles_in_it_and_at_its_rim():
    scene = scene_of([10.0, 34.0, 70.0], [12.0, 33.0, 50.0], [0.0, 30.0, -60.0], frame=[0, 0, 1])
    truth = truth_of(scene, gaussian_material())
    assert truth.there.shape == (2, 2, 3, OUTPUTS)
    count = truth.there.sum(axis=-1)
    # the second is within the rims of four regions
    assert count.tolist() == [[[2, 1, 0], [1, 1, 0]], [[0, 0, 0], [0, 0, 1]]]
    assert truth.values[1, 1, 2, 0].tolist() == pytest.approx([(70 - 79.5) / 16, (50 - 47.5) / 16, -1.0])
    assert np.abs(truth.values).max() <= FOCUS


def test_of_too_many_particles_those_nearest_to_the_centre_are_taught():
    x = CENTRE_PX + np.array([1.0, -3.0, 5.0, -7.0, 9.0])
    truth = truth_of(scene_of(x, np.full(5, CENTRE_PX), np.zeros(5)), gaussian_material())
    assert truth.there[0, 0, 0].all()
    np.testing.assert_allclose(truth.values[0, 0, 0, :, 0] * HALF_REGION_PX, [1, -3, 5, -7], atol=1e-5)


def test_an_image_without_particles_teaches_only_that_there_is_none():
    truth = truth_of(scene_of([], [], []), gaussian_material())
    answers = torch.zeros(2, 2, 3, OUTPUTS, 2, 4, requires_grad=True)
    losses = hungarian_loss(answers, truth)
    losses.total.backward()
    assert float(losses.position.detach()) == 0
    assert (answers.grad[..., LOGIT] > 0).all()


def test_the_network_learns_a_handful_of_particles_by_heart():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    material = gaussian_material()
    scene = material.scoring.draw(np.random.default_rng(1), (64, 64), 2)
    images = torch.from_numpy(scene.images)[:, None] / material.noise_contrast
    truth = truth_of(scene, material)
    network = PaperNet(dropout=0.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(40):
        losses = hungarian_loss(network(images), truth)
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        optimiser.step()
    with torch.no_grad():
        found = [PAPER.decode(one) for one in network(images).numpy()]
    particles = scene.particles
    assert len(particles) > 8
    assert [len(rows) for rows in found] == [int((particles.frame == k).sum()) for k in range(2)]
    for frame, x, y, z in zip(
        particles.frame, particles.x_px, particles.y_px, particles.z_um / HALF_RANGE_UM, strict=True
    ):
        rows = found[frame]
        off = [np.abs(rows[:, ROW.index(n)] - v) for n, v in (("x_px", x), ("y_px", y), ("z", z))]
        assert ((off[0] < 4) & (off[1] < 4) & (off[2] < 0.4)).any()


@pytest.mark.slow
def test_it_is_trained_by_the_same_loop_as_our_network(tmp_path):
    torch.set_num_threads(1)
    settings = QUICK.model_copy(update={"steps": 2, "checkpoint": tmp_path})
    course = train(gaussian_material, settings, method=PAPER)
    assert course.scores[-1]["steps"] == 2
    PaperNet().load_state_dict(course.weights)
    assert (tmp_path / "training.pt").is_file()


def test_from_the_same_seed_come_the_same_losses():
    torch.set_num_threads(1)
    runs = []
    for _ in range(2):
        trainer = Trainer(QUICK, gaussian_material(), method=PAPER)
        runs.append([float(trainer.step(0.1)[0].total.detach()) for _ in range(2)])
    assert runs[0] == runs[1]


def test_the_rate_swings_and_then_decays():
    assert paper_rate_at(0.0) < 0.2
    assert paper_rate_at(0.1) == pytest.approx(1.0)
    assert paper_rate_at(0.2) < 0.2
    assert paper_rate_at(0.3 - 1e-9) == pytest.approx(paper_rate_at(0.3), rel=1e-3)
    later = [paper_rate_at(part) for part in np.linspace(0.3, 1.0, 20)]
    assert all(np.diff(np.log(later)) < 0)
    assert later[-1] == pytest.approx(0.01)
