import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.alignment.aligned import Positions
from calibration.alignment.basis import moved_to_middle, principal_images
from calibration.alignment.depth_spline import SplineSums, best_stiffness, node_weights
from calibration.alignment.joint import align
from calibration.alignment.start import binned, start_shifts
from calibration.consecutive import runs
from calibration.focus_check import largest_jump, wrong_planes

HALF = 14
STEP_UM = 3.0


def particle(depth_um, dx=0.0, dy=0.0):
    """An astigmatic Gaussian (..., P, P) at depths, its centre off the middle pixel."""
    depth = np.asarray(depth_um)[..., None, None]
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    a = 1.4 * np.sqrt(1 + ((depth - 20) / 16) ** 2)
    b = 1.4 * np.sqrt(1 + ((depth + 20) / 16) ** 2)
    return 4 / (a * b) * np.exp(-((x - dx) ** 2) / (2 * a**2) - (y - dy) ** 2 / (2 * b**2))


def traces(seed, count=16, planes=44, noise=0.02):
    rng = np.random.default_rng(seed)
    focus = (np.arange(planes) - (planes - 1) / 2) * STEP_UM
    z = rng.uniform(-25, 25, count)
    dx, dy = rng.uniform(-0.5, 0.5, (2, count))
    b = rng.uniform(0.8, 1.2, count)
    clean = np.array([b[i] * particle(z[i] - focus, dx[i], dy[i]) for i in range(count)])
    noisy = clean + noise * rng.standard_normal(clean.shape)
    return noisy.astype(np.float32), focus, Positions(b, z, dx, dy)


@pytest.mark.parametrize("seed", range(4))
def test_traces_settle_at_their_true_depths_whatever_the_start(seed):
    images, focus, true = traces(seed)
    rng = np.random.default_rng(seed + 100)
    count = len(true.z_um)
    start = Positions(np.ones(count), true.z_um + rng.normal(0, 2.0, count), np.zeros(count), np.zeros(count))
    found = align(images, focus, start, z_step_um=STEP_UM).positions
    z = found.z_um - true.z_um
    assert np.std(z) < 0.08
    for axis in ("dx_px", "dy_px"):
        off = getattr(found, axis) - getattr(true, axis)
        assert np.std(off) < 0.02
    ratio = found.brightness / true.brightness
    assert np.std(ratio) < 0.02 * np.mean(ratio)


def test_depths_do_not_lock_to_the_steps_of_the_scan():
    """The errors do not depend on where between two planes a particle lies."""
    images, focus, true = traces(7, count=40, noise=0.05)
    count = len(true.z_um)
    start = Positions(np.ones(count), np.round(true.z_um / STEP_UM) * STEP_UM, true.dx_px, true.dy_px)
    z = align(images, focus, start, z_step_um=STEP_UM).positions.z_um - true.z_um
    phase = np.exp(2j * np.pi * true.z_um / STEP_UM)
    assert abs(np.mean((z - z.mean()) * phase)) < 0.02 * STEP_UM


def test_the_first_guess_is_good_to_a_step():
    images, _, true = traces(3)
    shifts, quality = start_shifts(binned(images), 0.02**2 / 4)
    z = shifts * STEP_UM - true.z_um
    assert np.abs(z - np.median(z)).max() < STEP_UM
    assert quality.min() > 0.7


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_shifting_a_trace_brings_its_particle_to_the_middle(dx, dy):
    image = particle([0.0], dx, dy)[None].astype(np.float32)
    moved = moved_to_middle(image, np.array([dx]), np.array([dy]))[0, 0]
    assert np.abs(moved - particle(0.0)).max() < 2e-3


def test_the_basis_is_orthonormal_and_small():
    rng = np.random.default_rng(0)
    clean = particle(np.linspace(-60, 60, 50))
    noisy = (clean + 0.01 * rng.standard_normal(clean.shape)).astype(np.float32)
    basis = principal_images(noisy, np.ones(50))
    gram = basis.gram(basis.images, basis.images)
    assert np.abs(gram - np.eye(basis.count)).max() < 1e-5
    assert 3 <= basis.count < 20
    value, _, _ = basis.project(clean.astype(np.float32))
    again = np.tensordot(value, basis.images, 1)
    assert np.abs(again - clean).max() < 0.05 * clean.max()


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 17))
def test_spline_weights_add_up_to_one_and_their_slopes_to_nothing(node):
    first, weight, slope = node_weights(np.array([node]), 20)
    assert weight.sum() == pytest.approx(1)
    assert slope.sum() == pytest.approx(0, abs=1e-12)
    assert first[0] <= node - 0.999 or first[0] == 0


def test_a_spline_through_smooth_samples_is_smooth_and_right():
    rng = np.random.default_rng(1)
    node = rng.uniform(1, 38, 600)
    clean = np.stack([np.sin(node / 5), np.cos(node / 7)], axis=1)
    samples = clean + 0.1 * rng.standard_normal(clean.shape)
    brightness = np.ones(600)
    parts = [SplineSums.of(samples[i::6], node[i::6], brightness[i::6], 40) for i in range(6)]
    total = parts[0] + parts[1] + parts[2] + parts[3] + parts[4] + parts[5]
    stiffness = best_stiffness(parts)
    first, weight, _ = node_weights(node, 40)
    spline = total.solve(stiffness)
    fitted = np.einsum("mp,mpq->mq", weight, spline[first[:, None] + np.arange(4)])
    assert np.sqrt(np.mean((fitted - clean) ** 2)) < 0.03
    assert np.allclose((total - parts[5]).right, sum(p.right for p in parts[:5]))


def test_one_plane_that_fits_badly_is_wrong_and_noise_is_not():
    rng = np.random.default_rng(0)
    off = 0.2 * rng.standard_normal(60)
    worse = np.ones(60)
    off[30], worse[30] = 12.0, 6.0
    assert np.flatnonzero(wrong_planes(off, worse, STEP_UM)).tolist() == [30]


def test_a_jump_for_good_is_found_and_one_plane_is_no_jump():
    rng = np.random.default_rng(0)
    off = 0.2 * rng.standard_normal(60)
    single = off.copy()
    single[30] += 12.0
    assert largest_jump(single, STEP_UM) is None
    off[35:] += 5.0
    plane, size = largest_jump(off, STEP_UM)
    assert abs(plane - 35) <= 1
    assert size == pytest.approx(5.0, abs=0.5)


@given(st.lists(st.booleans(), max_size=40))
def test_runs_cover_what_is_true(flags):
    covered = [index for first, stop in runs(np.array(flags, bool)) for index in range(first, stop)]
    assert covered == [index for index, flag in enumerate(flags) if flag]
