"""The kernel that fits all blocks of a frame on a GPU finds what the processor finds, one block after another.

It is built here by a C compiler from the same source, with the same threads and the same order of sums.
"""

from __future__ import annotations

import numpy as np
import pytest
from host_device import HostDevice
from kernel_on_cpu import Kernels, build, tallies_of

pytest.importorskip("nvidia.cuda_nvrtc", reason="no nvidia-cuda-nvrtc for this system")

from test_field_fit import FIELD, MEAN, MODE, SHAPE, grid, model_of
from test_field_fit import seen as seen_over_the_field

from engines.cuda.check import add_particle
from engines.cuda.fit.buffers import NAMES
from engines.cuda.fit.frame import FRAMES_AT_A_TIME, KernelFit
from engines.cuda.fit.layout import (
    COUNT,
    FIRST,
    FLAGS_AT,
    IS_LOST,
    IS_SPLIT,
    LISTS_AT,
    PARENT,
    RESULT,
    TASK,
    TASKS,
    TASKS_AT,
    WAITING,
    WAITS,
)
from engines.cuda.fit.plan import MARGIN_PX
from engines.network.model import OnnxModel
from engines.refine.arguments import Noise, Particles, Prior
from engines.refine.field import FieldModel
from engines.refine.fitting import FitFrame, fit_particles, within
from engines.refine.frame import UNTRIED, begin_frame, fit_frame
from engines.refine.joint_fit import CONVERGED
from engines.refine.psf import FitModel
from engines.refine.rendering import put
from liveptv.models import SHIPPED_MODEL

MODEL = OnnxModel(SHIPPED_MODEL).psf()
TALL, WIDE = 300, 400
SD = 0.008
NOISE = (0.0, SD**2)
VARIANCE = Noise(0.0, SD**2, -1.0)
UNKNOWN = Prior(0.0, 0.0)
SIGMAS = 1e-4
"""Standard errors by which the two may differ."""
DENSITIES = (8, 25, 50, 100, 200)
"""Particles on 300 x 400 pixels: from lone ones to blocks of six everywhere."""
EACH = 400


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("kernel"), "-DCOUNT_WORK")


@pytest.fixture
def device(library):
    return HostDevice(kernels=Kernels(library))


def scene(count: int, seed: int, model: FitModel = MODEL) -> tuple[np.ndarray, np.ndarray]:
    """Contrast with noise of particles anywhere, also over the edges and at the ends of the depth range; starts."""
    rng = np.random.default_rng(seed)
    contrast = (SD * rng.standard_normal((TALL, WIDE))).astype(np.float32)
    truth = np.column_stack(
        [rng.uniform(-3, WIDE + 3, count), rng.uniform(-3, TALL + 3, count), rng.uniform(0, 1, count)]
    )
    for x, y, part in truth:
        add_particle(contrast, x, y, part, model)
    truth[:, 2] = model.z_min_um + truth[:, 2] * (model.z_max_um - model.z_min_um)
    return contrast, truth + rng.normal(0, [0.4, 0.4, 4.0], truth.shape)


class Both:
    """Fits twice, from the same start, and keeps both results; what is fitted next goes on from the processor's.

    A result counts as determined where the processor's own hardly changes with the last bits of the image. It does
    where two particles look like one.
    """

    def __init__(self, fit: KernelFit) -> None:
        self.fit, self.undetermined, self.compared, self.most = fit, 0, 0, 0.0

    def __call__(self, frame, total, particles, psf, noise, prior, wanted) -> None:
        begun, image_begun = copied(particles), total.copy()
        ours, image = copied(particles), total.copy()
        self.fit(frame, image, ours, psf, noise, prior, wanted)
        fit_frame(frame, total, particles, psf, noise, prior, wanted)
        sigma = np.sqrt(np.diagonal(particles.covariance, axis1=1, axis2=2))
        determined = np.ones(len(wanted), np.bool_)
        for seed in range(2):
            rounded = frame * (
                1 + 1e-7 * np.random.default_rng(seed).choice(np.float32([-1, 1]), frame.shape)
            )
            again = copied(begun)
            fit_frame(rounded, image_begun.copy(), again, psf, noise, prior, wanted)
            off = np.abs(again.theta - particles.theta) / np.where(np.isfinite(sigma), sigma, 1.0)
            determined &= (off.max(axis=1) < 0.1 * SIGMAS) & (again.state == particles.state)
        self._compare(ours, particles, determined)
        if determined.all():
            np.testing.assert_allclose(image, total, atol=1e-3 * SD)

    def _compare(self, ours: Particles, theirs: Particles, which: np.ndarray) -> None:
        np.testing.assert_array_equal(ours.state[which], theirs.state[which])
        np.testing.assert_allclose(ours.covariance[which], theirs.covariance[which], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(ours.fit[which], theirs.fit[which], rtol=1e-5)
        sigma = np.sqrt(np.diagonal(theirs.covariance, axis1=1, axis2=2))
        fitted = np.isfinite(sigma).all(axis=1)
        bare = which & ~fitted
        np.testing.assert_allclose(ours.theta[bare], theirs.theta[bare], rtol=1e-4, atol=1e-4)
        some = which & fitted
        off = np.abs(ours.theta - theirs.theta)[some] / sigma[some]
        self.most = max(self.most, float(np.max(off, initial=0.0)))
        self.undetermined += int((theirs.usable & ~which).sum())
        self.compared += int((theirs.usable & which).sum())


def copied(particles: Particles) -> Particles:
    return Particles(*(part.copy() for part in particles))


def fitted(fit: FitFrame, contrast: np.ndarray, start: np.ndarray, model: FitModel = MODEL) -> np.ndarray:
    """Particles (N, 4) of a whole frame's fit, which fits all of them, then those that have changed."""
    sigma = np.full(len(start), 4.0)
    return fit_particles(contrast, model, start, sigma, NOISE, search_um=8.0, fit_all=fit).theta


def begun(contrast: np.ndarray, start: np.ndarray, model: FitModel = MODEL):
    """Frame, image of all, particles, PSF: as `fit_particles` has them before the first fit, without a search."""
    theta = np.column_stack([start, np.ones(len(start))])
    total, n, psf = np.zeros_like(contrast), len(theta), model.for_kernels(contrast.shape)
    usable = within(theta, *contrast.shape)
    particles = Particles(
        theta, np.full((n, 4, 4), np.nan), np.full((n, 2), np.nan), np.full(n, UNTRIED), usable
    )
    begin_frame(contrast, total, theta, np.zeros(n), 7.5, psf, VARIANCE, usable)
    return total, particles, psf


@pytest.mark.parametrize("density", DENSITIES)
def test_particles_are_measured_alike_at_any_density(device, density):
    both, states = Both(KernelFit(MODEL, device)), []
    for seed in range(-(-EACH // density)):
        contrast, start = scene(density, 100 * density + seed)
        total, particles, psf = begun(contrast, start)
        both(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
        states.append(particles.state[particles.usable])
        fitted(both, contrast, start)
    assert (np.concatenate(states) == CONVERGED).mean() > 0.8
    assert both.compared >= 0.9 * 2 * EACH
    assert both.undetermined <= 0.01 * both.compared
    assert both.most < SIGMAS


def with_brightness() -> FieldModel:
    """The image also changes with the brightness."""
    weights = np.hstack([FIELD.weights, [[0.5]]])
    return FieldModel(SHAPE, FIELD.surface_um, FIELD.walk_per_um, MODE, weights, 2, 1, (-0.5, 0.5))


@pytest.mark.parametrize("brightness", [False, True])
def test_what_changes_over_the_field_and_with_the_brightness_is_in_the_kernel(device, brightness):
    model = model_of(with_brightness()) if brightness else model_of()
    cells = model.cells.get()
    assert len(cells.modes) == 1
    assert cells.rows * cells.columns > 4
    assert (len(cells.weights) > cells.rows * cells.columns) == brightness
    rng = np.random.default_rng(5)
    truth = grid(rng)
    # nearer ones look like one particle: their fit changes by 0.1 standard errors with the last bit of the image
    apart = rng.uniform(6, 14, truth[::3].shape) * rng.choice([-1, 1], truth[::3].shape)
    truth = np.vstack([truth, truth[::3] + apart])
    contrast = (seen_over_the_field(truth) + SD * rng.standard_normal(SHAPE)).astype(np.float32)
    start = FIELD.to_local(truth) + rng.normal(0, [0.3, 0.3, 4.0], truth.shape)
    both = Both(KernelFit(model, device))
    local = fitted(both, contrast, start, model)
    assert both.undetermined == 0
    assert both.most < SIGMAS
    # and it matters: with the mean image alone the same particles are elsewhere
    numbers = {"polarity": "dark", "pixel_size_um": model.pixel_size_um}
    depths = (model.z_min_um, model.z_max_um)
    plain = FitModel.of(MEAN, model.z_first_um, model.z_step_um, depths, **numbers)
    off = np.abs(fitted(KernelFit(plain, device), contrast, start, plain) - local)[: len(start), 2]
    assert np.median(off) > 0.1


def lone(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Contrast of nine particles that do not overlap, and where they are."""
    rng = np.random.default_rng(seed)
    contrast = (SD * rng.standard_normal((TALL, WIDE))).astype(np.float32)
    x, y = (part.ravel() for part in np.meshgrid([65.0, 200.0, 335.0], [50.0, 150.0, 250.0]))
    part = rng.uniform(0.35, 0.65, 9)
    for place in zip(x, y, part, strict=True):
        add_particle(contrast, *place, MODEL)
    return contrast, np.column_stack([x, y, MODEL.z_min_um + part * (MODEL.z_max_um - MODEL.z_min_um)])


class Losing(Kernels):
    """Says of all that could not be fitted together that they have gone too far."""

    def launch(self, grid, block, shared_bytes, arguments, stream) -> None:
        super().launch(grid, block, shared_bytes, arguments, stream)
        rows = arguments[6 + NAMES.index("results")].array
        rows = rows[: len(rows) // RESULT * RESULT].reshape(-1, RESULT)
        rows[:, IS_LOST] = rows[:, IS_SPLIT]


@pytest.mark.parametrize("lost", [False, True])
def test_two_particles_at_one_place_are_fitted_one_by_one(library, lost):
    """On the device as long as they stay near; else they and what depends on them are left to the processor."""
    device = HostDevice(kernels=(Losing if lost else Kernels)(library))
    contrast, start = lone(3)
    beside = start[[0]] + np.array([40.0, 6.0, 10.0])  # touches, and is in a block of its own
    add_particle(contrast, beside[0, 0], beside[0, 1], 0.5, MODEL)
    start = np.vstack([start, start[:1], beside]) + np.array([0.2, -0.1, 2.0])
    total, particles, psf = begun(contrast, start)
    total[:] = 0.0
    psf.plain[0] = 1
    particles.theta[0, 3] = 0.5
    # the very same numbers: no fit of both can tell them apart
    particles.theta[9] = particles.theta[0]
    for theta in particles.theta:
        put(total, theta, 1.0, psf)
    psf.plain[0] = 0
    fit = KernelFit(MODEL, device)
    both = Both(fit)
    both(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
    assert fit.left == (3 if lost else 0)
    assert both.undetermined <= 2  # how much light each of the two has
    assert both.most < SIGMAS
    assert (particles.state == CONVERGED).all()


def test_a_particle_that_goes_far_is_drawn_where_it_is(device):
    contrast, start = lone(8)
    start[:, 0] += 6.0
    start[:4, 0] += 4.0
    total, particles, psf = begun(contrast, start)
    before = particles.theta.copy()
    both = Both(KernelFit(MODEL, device))
    both(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
    moved = np.abs(particles.theta - before)[:, :2].max(axis=1)
    assert (moved > MARGIN_PX + 1).sum() >= 4
    assert both.undetermined <= 3
    assert both.most < SIGMAS


def test_a_fit_that_leaves_its_rectangle_does_not_count(device):
    """It starts beyond the reach of its image, at a brighter one's edge, and is where it was."""
    contrast, start = scene(60, 12)
    rng = np.random.default_rng(2)
    start[:, :2] += rng.uniform(10, 25, (60, 2)) * rng.choice([-1, 1], (60, 2))
    total, particles, psf = begun(contrast, start)
    before = particles.theta.copy()
    both = Both(KernelFit(MODEL, device))
    both(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
    same = (particles.theta == before).all(axis=1)
    assert (same & (particles.state != UNTRIED)).sum() >= 2
    assert both.compared >= 20
    assert both.most < SIGMAS


def test_only_the_blocks_that_are_asked_for_are_fitted(device):
    contrast, start = scene(40, 4)
    total, particles, psf = begun(contrast, start)
    wanted = np.zeros(40, np.bool_)
    wanted[[3, 17]] = True
    before = particles.theta.copy()
    both = Both(KernelFit(MODEL, device))
    both(contrast, total, particles, psf, VARIANCE, Prior(1.0, 30.0), wanted)
    assert both.most < SIGMAS
    same = (particles.theta == before).all(axis=1)
    assert not same[3]
    assert same.sum() > 20
    nobody = np.zeros(40, np.bool_)
    both(contrast, total, particles, psf, VARIANCE, UNKNOWN, nobody)
    assert both.most < SIGMAS


class Shuffled(Kernels):
    """Takes the tasks in another order, in which each still comes after those that it waits for."""

    seed = 0

    def launch(self, grid, block, shared_bytes, arguments, stream) -> None:
        ints = arguments[6 + NAMES.index("ints")].array
        count, at, lists = int(ints[TASKS]), int(ints[TASKS_AT]), int(ints[LISTS_AT])
        tasks = ints[at : at + TASK * count].reshape(count, TASK)
        waits = [ints[lists + t[WAITS] : lists + t[WAITS] + t[WAITING]].copy() for t in tasks]
        rng, left, order = np.random.default_rng(self.seed), set(range(count)), []
        while left:
            ready = [t for t in sorted(left) if not left.intersection(waits[t].tolist())]
            order.append(int(rng.choice(ready)))
            left.remove(order[-1])
        place = np.argsort(order) if count else np.zeros(0, np.int64)
        for t, some in zip(tasks, waits, strict=True):
            ints[lists + t[WAITS] : lists + t[WAITS] + t[WAITING]] = place[some]
        split = tasks[:, PARENT] >= 0
        tasks[split, PARENT] = place[tasks[split, PARENT]]
        tasks[:] = tasks[order].copy()
        super().launch(grid, block, shared_bytes, arguments, stream)


def test_a_result_does_not_depend_on_which_blocks_or_threads_come_first(library, tmp_path):
    """To the last bit: what a block waits for is all that it depends on, as the end of a phase is for a thread."""
    other_way = build(tmp_path, "-DLAST_THREAD_FIRST")
    contrast, start = scene(120, 6)
    found = []
    for kernels in (
        Kernels(library),
        Shuffled(library),
        Shuffled(library),
        Kernels(library, threads=4),
        Kernels(other_way),
    ):
        kernels.seed = len(found)
        total, particles, psf = begun(contrast, start)
        fit = KernelFit(MODEL, HostDevice(kernels=kernels))
        fit(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
        assert fit.left < 60
        found.append((total, particles))
    for total, particles in found[1:]:
        np.testing.assert_array_equal(total, found[0][0])
        for ours, theirs in zip(particles, found[0][1], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_buffers_are_made_once_and_only_a_larger_frame_needs_new_ones(device):
    fit = KernelFit(MODEL, device)
    counts = []
    for count in (50, 50, 50, 20, 200, 50):
        contrast, start = scene(count, 1)
        for _ in range(FRAMES_AT_A_TIME):  # frames take turns
            total, particles, psf = begun(contrast, start)
            fit(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
        counts.append(sum(buffers.made for buffers in fit._all))
    assert counts[0] == counts[1] == counts[2] == counts[3] < counts[4] == counts[5]
    fit.close()
    fit.close()


def test_a_device_that_fails_ends_the_fit_and_not_the_next_one(library):
    device = HostDevice(kernels=Kernels(library))
    fit = KernelFit(MODEL, device)
    contrast, start = scene(20, 2)
    device.fail_at = 0
    for _ in range(FRAMES_AT_A_TIME + 1):
        total, particles, psf = begun(contrast, start)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            fit(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
    device.fail_at = None
    total, particles, psf = begun(contrast, start)
    both = Both(fit)
    both(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
    assert both.most < SIGMAS


def test_work_grows_with_the_pixels_and_the_steps(library):
    """What the documentation says that a particle takes is counted while it is done."""
    device = HostDevice(kernels=Kernels(library))
    fit = KernelFit(MODEL, device)
    contrast, start = scene(4, 9)
    tallies_of(library)
    total, particles, psf = begun(contrast, start)
    fit(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
    done = tallies_of(library)
    assert tallies_of(library)["steps"] == 0
    pixels = particles.fit[:, 1].sum()
    assert done["steps"] >= len(start)
    # a step draws an image with its derivatives, 40 to 160 operations a pixel, and sums products, 64 a pixel
    per = done["single"] / (pixels * (done["steps"] / len(start) + 1))
    assert 80 < per < 400
    assert done["double"] < 0.02 * done["single"]


def test_every_wait_is_for_an_earlier_task(library):
    """So that no thread block waits for one that has not begun."""
    seen = []

    class Watched(Kernels):
        def launch(self, grid, block, shared_bytes, arguments, stream) -> None:
            seen.append(arguments[6 + NAMES.index("ints")].array.copy())
            super().launch(grid, block, shared_bytes, arguments, stream)

    fit = KernelFit(MODEL, HostDevice(kernels=Watched(library)))
    contrast, start = scene(150, 2)
    total, particles, psf = begun(contrast, start)
    fit(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
    launched = [ints for ints in seen if ints[TASKS]]
    assert len(launched) == 2
    for ints in launched:
        count, at, lists = int(ints[TASKS]), int(ints[TASKS_AT]), int(ints[LISTS_AT])
        tasks = ints[at : at + TASK * count].reshape(count, TASK)
        assert (ints[ints[FLAGS_AT] : ints[FLAGS_AT] + 1 + count] == 0).all()
        assert tasks[:, WAITING].max() > 1
        for number, task in enumerate(tasks):
            assert (ints[lists + task[WAITS] : lists + task[WAITS] + task[WAITING]] < number).all()
            members = ints[lists + task[FIRST] : lists + task[FIRST] + task[COUNT]]
            assert (np.diff(members) == 1).all()


class Waiting(Kernels):
    """Has the first block wait for itself."""

    def launch(self, grid, block, shared_bytes, arguments, stream) -> None:
        ints = arguments[6 + NAMES.index("ints")].array
        if ints[TASKS]:
            ints[ints[LISTS_AT]] = 0
            ints[ints[TASKS_AT] + WAITS] = 0
            ints[ints[TASKS_AT] + WAITING] = 1
        super().launch(grid, block, shared_bytes, arguments, stream)


def test_a_wait_without_end_is_an_error(tmp_path):
    fit = KernelFit(MODEL, HostDevice(kernels=Waiting(build(tmp_path, "-DMOST_POLLS=1000"))))
    contrast, start = scene(20, 2)
    total, particles, psf = begun(contrast, start)
    with pytest.raises(RuntimeError, match="have waited for each other"):
        fit(contrast, total, particles, psf, VARIANCE, UNKNOWN, particles.usable)
