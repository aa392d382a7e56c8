from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from engines.comparison.volumes.export import export  # noqa: E402
from engines.comparison.volumes.hourglass import Hourglass  # noqa: E402
from engines.comparison.volumes.losses import (  # noqa: E402
    ALPHA,
    EPSILON,
    OMEGA,
    THETA,
    adaptive_wing,
    soft_dice,
    weighted_wing,
)
from engines.comparison.volumes.proposer import HourglassProposer  # noqa: E402
from engines.comparison.volumes.training import Settings, train  # noqa: E402
from engines.engine import DetectionError  # noqa: E402
from engines.factory import open_engine, pixel_size_of  # noqa: E402
from engines.settings import DetectorSettings  # noqa: E402
from engines.volumes.surroundings.background import Background  # noqa: E402
from engines.volumes.surroundings.noise import Noise  # noqa: E402
from stream.errors import ConfigurationError  # noqa: E402
from stream.messages import Frame, FrameInfo  # noqa: E402
from stream.volume_info import VolumeInfo  # noqa: E402

part = st.floats(0, 1)
QUICK = Settings(batch=2, held_out=4, score_every=4, stop_after=1000)
PEAK = 200.0
SURROUNDINGS = (Background.flat(10, 4), Noise(1.0, 0.0, 0.0))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def wing(found, target):
    return adaptive_wing(torch.tensor(found, dtype=torch.float64), torch.tensor(target, dtype=torch.float64))


def one_bright_spot(rng):
    """A stack of noise with one spot of 1.2 voxels anywhere."""
    shape = np.array([4, 12, 12])
    point = rng.uniform(1, shape - 2)
    square = sum((grid - middle) ** 2 for grid, middle in zip(np.indices(shape), point, strict=True))
    light = 10 + PEAK * np.exp(-0.5 * square / 1.2**2)
    return rng.poisson(light).astype(np.uint16), point[None]


@given(target=part)
def test_the_adaptive_wing_loss_is_continuous_and_smooth_where_it_turns_straight(target):
    step = 1e-6
    sign = 1 if target < 0.5 else -1
    below, above = (float(wing(target + sign * (THETA + side), target)) for side in (-step, step))
    slopes = [
        float(wing(target + sign * (at + step), target) - wing(target + sign * (at - step), target))
        / (2 * step)
        for at in (THETA - 3 * step, THETA + 3 * step)
    ]
    assert above - below == pytest.approx(2 * step * slopes[1], rel=1e-3)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)


@given(found=part, target=part)
def test_the_adaptive_wing_loss_is_the_published_formula(found, target):
    off, power = abs(found - target), ALPHA - target
    ratio = (THETA / EPSILON) ** power
    slope = OMEGA / (1 + ratio) * power * (THETA / EPSILON) ** (power - 1) / EPSILON
    straight = slope * off - (THETA * slope - OMEGA * np.log1p(ratio))
    curved = OMEGA * np.log1p((off / EPSILON) ** power)
    assert float(wing(found, target)) == pytest.approx(curved if off < THETA else straight, abs=1e-4)


@given(found=part, further=part, target=part)
def test_a_larger_difference_never_costs_less(found, further, target):
    near, far = sorted([found, further], key=lambda value: abs(value - target))
    assert float(wing(near, target)) <= float(wing(far, target)) + 1e-9


def test_no_difference_has_no_gradient_and_no_nan():
    found = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    adaptive_wing(found, torch.tensor([0.0, 0.5, 1.0])).sum().backward()
    assert found.grad.tolist() == [0, 0, 0]


def test_the_weights_multiply_the_loss_of_their_voxels():
    logits, target = torch.tensor([[-2.0, 3.0]]), torch.tensor([[0.3, 0.2]])
    apart = adaptive_wing(logits.sigmoid(), target)[0]
    weighted = weighted_wing(logits, target, torch.tensor([[1.0, 11.0]]))
    torch.testing.assert_close(weighted, (apart[0] + 11 * apart[1]) / 2)


def test_the_dice_loss_is_none_for_the_mask_itself_and_all_for_its_opposite():
    mask = torch.zeros(1, 4, 8, 8)
    mask[0, 1:3, 2:5, 2:5] = 1
    sure = 40 * (2 * mask - 1)
    assert float(soft_dice(sure, mask)) == pytest.approx(0, abs=1e-6)
    assert float(soft_dice(-sure, mask)) > 0.99


def test_the_network_is_the_published_one():
    """Number of weights as counted for the facts, and a map as large as the stack."""
    network = Hourglass()
    convolutions = sum(p.numel() for p in network.parameters() if p.ndim == 5)
    assert convolutions == 498_112
    assert network(torch.zeros(2, 1, 6, 8, 12)).shape == (2, 1, 6, 8, 12)


class EnoughError(Exception):
    pass


def until(steps):
    def report(course):
        if course.steps >= steps:
            raise EnoughError

    return report


def trained(kind, folder, *interruptions, settings=QUICK):
    for steps in interruptions:
        with pytest.raises(EnoughError):
            train(kind, one_bright_spot, folder, settings, seconds=1e6, report=until(steps))
    return train(kind, one_bright_spot, folder, settings, seconds=0)


@pytest.mark.parametrize("kind", ["detnet3d", "dm-detnet3d"])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(kind, tmp_path):
    at_once = trained(kind, tmp_path / "a", 8)
    in_two = trained(kind, tmp_path / "b", 4, 8)
    assert at_once.steps == in_two.steps == 8
    assert at_once.losses == in_two.losses
    for name, weights in at_once.weights.items():
        torch.testing.assert_close(in_two.weights[name], weights, rtol=0, atol=0)


def test_training_stops_once_the_loss_of_held_out_crops_has_not_fallen_for_a_while(tmp_path):
    settings = Settings(batch=2, held_out=4, score_every=1, stop_after=3, halve_after=2, learning_rate=0.5)
    course = train("dm-detnet3d", one_bright_spot, tmp_path, settings, seconds=1e6)
    assert course.finished
    assert course.steps == course.best_step + 3
    assert course.best == min(held for _, _, held in course.losses)


def test_another_training_is_not_continued(tmp_path):
    trained("dm-detnet3d", tmp_path, 4)
    with pytest.raises(ConfigurationError, match="another network"):
        train("detnet3d", one_bright_spot, tmp_path, QUICK, seconds=0)
    (tmp_path / "training.pt").write_bytes(b"PK\x03\x04 no training")
    with pytest.raises(ConfigurationError, match="remove it"):
        train("dm-detnet3d", one_bright_spot, tmp_path, QUICK, seconds=0)


@pytest.mark.parametrize("kind", ["detnet3d", "dm-detnet3d"])
def test_a_trained_network_finds_particles_that_it_has_not_seen_but_none_in_missing_slices(kind, tmp_path):
    course = trained(kind, tmp_path, 120)
    path = tmp_path / "net.onnx"
    export(path, kind, course.weights, threshold=0.3, made_from="spots", training={"steps": course.steps})
    proposer = HourglassProposer(path)
    assert proposer.card.training == {"steps": 120}
    missing = np.array([True, False, False, True])
    near = 0
    for seed in range(10):
        image, truth = one_bright_spot(np.random.default_rng((9, seed)))
        found = proposer.propose(image, np.zeros(4, bool), *SURROUNDINGS)
        assert (np.diff(found.probability) <= 0).all()
        best = np.array([found.z[:1], found.y[:1], found.x[:1]]).T
        assert (best == np.rint(best)).all()
        near += bool(len(best) and np.abs(best - truth).max() <= 1.0)
        partial = image.copy()
        partial[missing] = 0
        assert set(proposer.propose(partial, missing, *SURROUNDINGS).z) <= {1.0, 2.0}
    assert near >= 9
    the_program_opens_it(path, proposer)


def the_program_opens_it(path, proposer):
    """As any model: the same particles in um, at the heights of their slices; images are refused."""
    image, _ = one_bright_spot(np.random.default_rng(0))
    heights = VolumeInfo((0.0, 0.5, 1.5, 2.5), (0.0, 0.1, 0.2, 0.3))
    info = FrameInfo("r", 7, 7, 0.0, 0, 0.0, pixel_size_um=0.2, volume=heights)
    assert pixel_size_of(path) is None
    engine = open_engine(DetectorSettings(model=path, workers=1), model=path, pixel_size_um=0.2, volumes=True)
    assert (engine.info.name, engine.info.depth) == (proposer.card.kind, True)
    engine.warmup(12, 12, image.dtype, 4)
    engine.submit(Frame(info, image))
    (found,) = engine.results(400.0)
    expected = proposer.propose(image, np.zeros(4, bool), *SURROUNDINGS)
    slices = expected.z.astype(int)
    np.testing.assert_allclose(found.x_um, 0.2 * expected.x)
    np.testing.assert_allclose(found.z_um, np.array(heights.z_um)[slices])
    np.testing.assert_allclose(found.time_offset_s, np.array(heights.time_s)[slices])
    np.testing.assert_allclose(found.confidence, expected.probability)
    assert np.isnan(found.sigma_x_um).all()
    with pytest.raises(DetectionError, match="--z-step"):
        engine.submit(Frame(replace(info, volume=None), image))
    with pytest.raises(DetectionError, match="reads volumes"):
        engine.submit(Frame(info, image[0]))
    with pytest.raises(DetectionError, match="single images"):
        engine.warmup(12, 12, image.dtype)
    engine.close()
    with pytest.raises(ConfigurationError, match="is for volumes"):
        open_engine(DetectorSettings(model=path), model=path, pixel_size_um=0.2)


def test_a_file_that_holds_no_such_network_is_refused(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(ConfigurationError, match="no model file"):
        HourglassProposer(path)
    path.write_bytes(b"not ONNX")
    with pytest.raises(ConfigurationError, match="not an ONNX model"):
        HourglassProposer(path)
