"""The engine for a GPU, with a processor in the GPU's place: streams are threads, everything else is as it is."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from astigmatic import frame, run

torch = pytest.importorskip("torch")

from host_device import HostDevice  # noqa: E402
from kernel_on_cpu import Kernels, build  # noqa: E402

from engines.backends.failover import GuardedEngine  # noqa: E402
from engines.cuda.check import drawn_frame  # noqa: E402
from engines.cuda.engine import GpuEngine  # noqa: E402
from engines.cuda.fit.buffers import NAMES  # noqa: E402
from engines.cuda.fit.frame import KernelFit  # noqa: E402
from engines.cuda.fit.layout import RESULT, THETA  # noqa: E402
from engines.cuda.layout import FrameFormat  # noqa: E402
from engines.cuda.slot import SLOTS_IN_FLIGHT  # noqa: E402
from engines.cuda.with_torch.runner import TorchBackEnd  # noqa: E402
from engines.engine import BackEndError, DetectionError, WrongNumbersError  # noqa: E402
from engines.network.engine import NetworkEngine  # noqa: E402
from engines.network.model import OnnxModel  # noqa: E402
from engines.refine.frame import fit_frame  # noqa: E402
from engines.settings import DetectorSettings  # noqa: E402
from liveptv.models import SHIPPED_MODEL  # noqa: E402
from stream.errors import ConfigurationError  # noqa: E402

SHAPE = (192, 288)
MODEL = OnnxModel(SHIPPED_MODEL)
PIXEL_SIZE_UM = MODEL.card.pixel_size_um
SETTINGS = DetectorSettings(workers=2)


@pytest.fixture
def device():
    opened = HostDevice()
    yield opened
    opened.close()


def images(count: int, dtype: type = np.uint8) -> list[np.ndarray]:
    drawn = drawn_frame(MODEL.card, MODEL.psf(), FrameFormat.of(SHAPE, np.dtype(dtype), False, 2000), None)
    return [np.roll(drawn, (5 * k, 11 * k), (0, 1)) for k in range(count)]


def on_gpu(device: HostDevice, settings: DetectorSettings = SETTINGS, *, half: bool = False) -> GpuEngine:
    return GpuEngine(settings, PIXEL_SIZE_UM, SHIPPED_MODEL, TorchBackEnd(device, half=half))


def test_frames_come_back_in_order_with_what_the_processor_finds(device):
    given = images(8)
    with closing(on_gpu(device)) as engine:
        found = run(engine, given)
    with closing(NetworkEngine(SETTINGS, PIXEL_SIZE_UM, SHIPPED_MODEL)) as reference:
        expected = run(reference, given)
    assert [d.info.frame for d in found] == list(range(8))
    assert sum(len(d) for d in expected) > 20
    for here, there in zip(found, expected, strict=True):
        ours, theirs = (d.table[:, np.argsort(d.x_um + 1e3 * d.y_um)] for d in (here, there))
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=0.02)


def test_three_frames_are_under_way_at_once_and_no_answer_gets_mixed_up():
    device = HostDevice(takes_s=0.02)
    given = images(4) * 5
    with closing(device), closing(on_gpu(device)) as engine:
        found = run(engine, given)
    assert device.most_under_way == SLOTS_IN_FLIGHT
    for number, detections in enumerate(found):
        assert detections.info.frame == number
        np.testing.assert_array_equal(detections.table, found[number % 4].table)


def test_frames_with_more_particles_than_room_are_read_in_full(device):
    few = DetectorSettings(workers=2, max_particles=1)
    with closing(on_gpu(device, few)) as engine:
        run(engine, images(3))
        counts = engine.counts()
    assert counts["crowded"] == 3
    assert counts["too_many"] > 3


def test_a_frame_without_light_has_no_detections(device):
    with closing(on_gpu(device)) as engine:
        found = run(engine, [np.zeros(SHAPE, np.uint8), *images(1)])
        assert engine.counts()["no_light"] == 1
    assert len(found[0]) == 0
    assert len(found[1]) > 0


def test_frames_of_two_bytes_are_read(device):
    with closing(on_gpu(device, DetectorSettings(workers=2, refine=False))) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint16))
        (found,) = run(engine, images(1, np.uint16))
        assert "0 are missing" in engine.info.details["agreement"]
        assert engine.info.device == "the processor"
    assert len(found) > 3


def test_a_gpu_that_fails_says_at_which_frame_and_why():
    device = HostDevice(fail_at=SLOTS_IN_FLIGHT + 4)
    what = "torch on the processor failed at frame 4: CUDA error"
    with closing(device), closing(on_gpu(device)) as engine, pytest.raises(BackEndError, match=what):
        run(engine, images(8))


def test_when_a_gpu_fails_in_a_run_the_processor_goes_on_and_no_frame_is_lost():
    device, said = HostDevice(fail_at=SLOTS_IN_FLIGHT + 4), []
    given = images(10)
    engine = GuardedEngine(
        on_gpu(device), lambda: NetworkEngine(SETTINGS, PIXEL_SIZE_UM, SHIPPED_MODEL), say=said.append
    )
    with closing(device), closing(engine):
        found = run(engine, given)
        assert engine.info.backend == "onnxruntime"
    assert [d.info.frame for d in found] == list(range(10))
    assert all(len(d) for d in found)
    assert len(said) == 1
    assert "illegal memory access" in said[0]


class _Altered(TorchBackEnd):
    """A back end whose network has been tampered with."""

    def __init__(self, device, factor: float) -> None:
        super().__init__(device, half=False)
        self.factor = factor

    def runner(self, *given):
        runner = super().runner(*given)
        with torch.no_grad():
            runner._program.network.head.weight *= self.factor
            runner._program.network.head.bias *= self.factor
        return runner


@pytest.mark.parametrize(
    ("factor", "what"), [(0.9, "disagrees"), (0.0, "same value"), (float("nan"), "not finite numbers")]
)
def test_a_back_end_with_wrong_numbers_is_refused_before_the_first_frame(device, factor, what):
    engine = GpuEngine(SETTINGS, PIXEL_SIZE_UM, SHIPPED_MODEL, _Altered(device, factor))
    with closing(engine), pytest.raises(WrongNumbersError, match=what):
        engine.warmup(*SHAPE, np.dtype(np.uint8))


def test_images_and_models_that_do_not_fit_are_refused(device):
    with closing(on_gpu(device)) as engine:
        run(engine, images(1))
        with pytest.raises(DetectionError, match="frame 7 is"):
            engine.submit(frame(7, np.zeros((64, 64), np.uint8)))
    with pytest.raises(ConfigurationError, match="um a pixel"):
        GpuEngine(SETTINGS, 2 * PIXEL_SIZE_UM, SHIPPED_MODEL, TorchBackEnd(device))


def test_the_fit_is_done_where_it_takes_less_time(monkeypatch, tmp_path):
    """On the GPU where the threads get more frames done with it, as long as it does not wait for its kernel."""
    device = HostDevice(kernels=Kernels(build(tmp_path)))
    kinds = {
        "slower": (0.4, 1.0, 0.1, "processor"),
        "waits": (1.0, 0.4, 2.5, "processor"),
        "faster": (1.0, 0.4, 0.1, "gpu"),
    }
    with closing(device), closing(on_gpu(device)) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        engine._fit_on, engine._refiner.fit_all = "processor", fit_frame
        expected = run(engine, images(1))
        for processor_s, gpu_s, kernel_s, where in kinds.values():
            clock = iter(np.cumsum([0.0, processor_s, 0.0, processor_s, 0.0, gpu_s, 0.0, gpu_s]).tolist())
            busy = iter(np.cumsum([0.0, 0.0, 0.0, 0.0, 0.0, kernel_s, 0.0, kernel_s]).tolist())
            with monkeypatch.context() as patch:
                patch.setattr(
                    "engines.cuda.engine.time", SimpleNamespace(perf_counter=lambda c=clock: next(c))
                )
                patch.setattr(KernelFit, "busy_s", property(lambda _, b=busy: next(b)))
                engine._choose_fit(engine._refiner, SHAPE, np.dtype(np.uint8))
            assert engine.info.details["fit_on"] == where
        launches = device.kernels.launches
        found = run(engine, images(1))
        assert device.kernels.launches > launches
    np.testing.assert_allclose(found[0].table[:3], expected[0].table[:3], atol=1e-4)


def test_a_gpu_that_cannot_run_the_fit_leaves_it_to_the_processor(device, caplog):
    with closing(on_gpu(device)) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        assert engine.info.details["fit_on"] == "processor"
        assert "the fit stays on the processor: this device runs no kernels" in caplog.text
        assert sum(len(d) for d in run(engine, images(1))) > 5


def test_a_fit_with_wrong_numbers_is_left_to_the_processor(caplog, tmp_path):
    class Wrong(Kernels):
        def launch(self, grid, block, shared_bytes, arguments, stream) -> None:
            super().launch(grid, block, shared_bytes, arguments, stream)
            results = arguments[6 + NAMES.index("results")].array
            results[THETA + 2 :: RESULT] += 0.5

    device = HostDevice(kernels=Wrong(build(tmp_path)))
    with closing(device), closing(on_gpu(device)) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        assert engine.info.details["fit_on"] == "processor"
    assert "standard errors off the processor's" in caplog.text
