"""Particles fitted in batches, as a GPU does it, are the particles that are fitted one block after another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from engines.cuda.check import add_particle  # noqa: E402
from engines.cuda.fit import Blocks, fit_blocks  # noqa: E402
from engines.cuda.fit_frame import MARGIN_PX, BatchedFit, rounds  # noqa: E402
from engines.cuda.psf_images import PsfImages  # noqa: E402
from engines.network.model import OnnxModel  # noqa: E402
from engines.refine.arguments import Noise, Pixels, Prior  # noqa: E402
from engines.refine.fitting import fit_particles  # noqa: E402
from engines.refine.joint_fit import ITERATIONS, fit_block, weigh_block  # noqa: E402
from engines.refine.rendering import BOX, SPARE_UM, draw, set_box  # noqa: E402
from liveptv.models import SHIPPED_MODEL  # noqa: E402

torch.set_num_threads(1)
MODEL = OnnxModel(SHIPPED_MODEL).psf()
PSF = MODEL.for_kernels()
SHAPE = (150, 190)
NOISE = (0.0, 0.008**2)
quick = settings(max_examples=20, deadline=None)
depths = st.floats(-150, 150)


def pictured(particles: np.ndarray, seed: int = 0) -> np.ndarray:
    """Contrast (H, W) with noise of particles (N, 3: x px, y px, z um)."""
    contrast = (0.008 * np.random.default_rng(seed).standard_normal(SHAPE)).astype(np.float32)
    for x, y, z in particles:
        part = (z - MODEL.z_min_um) / (MODEL.z_max_um - MODEL.z_min_um)
        add_particle(contrast, x, y, part, MODEL)
    return contrast


def box_of(theta: np.ndarray) -> np.ndarray:
    box = np.zeros(BOX, np.int64)
    set_box(theta, SHAPE, PSF, SPARE_UM, box)
    return box


def tensors(*arrays: np.ndarray) -> list:
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]


@quick
@given(st.floats(0, 189), st.floats(0, 149), st.floats(-250, 250))
def test_the_image_of_a_particle_is_the_same(x, y, z):
    theta = np.array([x, y, z, 1.0])
    box = box_of(theta)
    size = MODEL.coefficients.shape[1]
    expected = np.zeros((4, size, size), np.float32)
    draw(theta, box, PSF, True, expected)
    tall, wide = box[1] - box[0], box[3] - box[2]
    corner = box[[0, 2]] - 3
    shape = (int(tall) + 5, int(wide) + 4)
    images = PsfImages(MODEL)
    found = images.draw(*tensors(theta[None], box[None], corner[None]), shape)[0].numpy()
    window = found[:, 3 : 3 + tall, 3 : 3 + wide]
    np.testing.assert_allclose(window, expected[:, :tall, :wide], atol=2e-6)
    assert np.count_nonzero(found) == np.count_nonzero(window)


@settings(max_examples=8, deadline=None)
@given(depths, depths, st.floats(3, 30), st.floats(-3, 3), st.booleans(), st.integers(0, 99))
def test_a_block_is_fitted_alike_however_it_is_done(z, other_z, apart, off, expects, seed):
    truth = np.array([[90.3, 70.2, z], [90.3 + apart, 72.0, other_z]])
    frame = pictured(truth, seed)
    nothing = np.zeros(SHAPE, np.float32)
    start = np.column_stack([truth + np.array([0.3, -0.2, off]), [0.9, 1.1]])
    boxes = np.array([box_of(theta) for theta in start])
    prior = Prior(1.0, 100.0) if expects else Prior(0.0, 0.0)
    corner, weight = weigh_block(nothing, start, boxes, boxes, PSF, Noise(*NOISE, -1.0))
    expected, covariance, fit = start.copy(), np.zeros((2, 4, 4)), np.zeros((2, 2))
    pixels = Pixels(frame, nothing, weight, corner)
    ended, _ = fit_block(pixels, expected, boxes, prior, PSF, ITERATIONS, covariance, fit)
    tall, wide = weight.shape
    data, weights = np.zeros((2, 1, tall + 7, wide + 9), np.float32)
    data[0, :tall, :wide] = frame[corner[0] : corner[0] + tall, corner[1] : corner[1] + wide]
    weights[0, :tall, :wide] = weight
    # a third place in the block stays empty
    theta, rectangles = np.zeros((1, 3, 4)), np.zeros((1, 3, BOX), np.int64)
    theta[0, :2], rectangles[0, :2] = start, boxes
    present = np.array([[True, True, False]])
    extent = np.array([[tall, wide]])
    blocks = Blocks(
        *tensors(data, weights, corner[None], extent, theta, rectangles, present, np.array([prior]))
    )
    found = fit_blocks(PsfImages(MODEL), blocks, ITERATIONS)
    assert int(found.state[0]) == ended
    np.testing.assert_allclose(found.theta[0, :2, :2].numpy(), expected[:, :2], atol=0.01)
    np.testing.assert_allclose(found.theta[0, :2, 2].numpy(), expected[:, 2], atol=0.1)
    np.testing.assert_allclose(found.covariance[0, :2].numpy(), covariance, rtol=0.02, atol=1e-3)
    np.testing.assert_allclose(found.fit[0, :2].numpy(), fit, rtol=1e-3)


def test_a_frame_is_measured_alike_whoever_fits_its_blocks():
    rng = np.random.default_rng(4)
    lone = np.column_stack([[30, 95, 160, 30, 160], [30, 25, 35, 115, 110], rng.uniform(-140, 140, 5)])
    close = np.array([[90.0, 90.0, -60.0], [98.0, 93.0, 40.0], [108.0, 112.0, 5.0]])
    truth = np.vstack([lone, close])
    frame = pictured(truth)
    start = truth + rng.normal(0, [0.4, 0.4, 4.0], truth.shape)
    sigma = np.full(len(truth), 4.0)
    expected = fit_particles(frame, MODEL, start, sigma, NOISE, search_um=8.0)
    found = fit_particles(frame, MODEL, start, sigma, NOISE, search_um=8.0, fit_all=BatchedFit(MODEL))
    assert expected.accepted.sum() >= 6
    np.testing.assert_array_equal(found.accepted, expected.accepted)
    good = found.accepted
    np.testing.assert_allclose(found.theta[good, :2], expected.theta[good, :2], atol=0.01)
    np.testing.assert_allclose(found.theta[good, 2], expected.theta[good, 2], atol=0.1)
    np.testing.assert_allclose(found.sigma[good], expected.sigma[good], rtol=0.02)


@quick
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(5, 80)), max_size=25))
def test_blocks_of_a_round_are_apart_and_earlier_ones_come_first(squares):
    boxes = np.array([[y, y + size, x, x + size] for x, y, size in squares]).reshape(-1, 4)
    blocks = [np.array([k]) for k in range(len(squares))]
    order = rounds(blocks, boxes)
    assert sorted(int(b[0]) for r in order for b in r) == list(range(len(squares)))
    when = {int(b[0]): number for number, r in enumerate(order) for b in r}
    for i in range(len(squares)):
        for j in range(i):
            a, b = boxes[j], boxes[i]
            down = a[0] < b[1] + MARGIN_PX and b[0] < a[1] + MARGIN_PX
            if down and a[2] < b[3] + MARGIN_PX and b[2] < a[3] + MARGIN_PX:
                assert when[j] < when[i]
