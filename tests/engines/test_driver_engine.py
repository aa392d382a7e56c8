"""A camera PC's whole path without torch: TensorRT for RTX on the driver's device, both played by stand-ins."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import weakref
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from astigmatic import run
from stand_in_driver import StandIn, needs_gcc
from stand_in_tensorrt import ICudaEngine, IExecutionContext, stand_in_for_rtx

from engines.backends.failover import open_guarded
from engines.backends.registry import open_back_end
from engines.cuda.check import drawn_frame
from engines.cuda.driver.device import DriverCuda
from engines.cuda.driver.first_gpu import Gpu
from engines.cuda.layout import FrameFormat
from engines.cuda.slot import SLOTS_IN_FLIGHT
from engines.engine import Engine, WrongNumbersError
from engines.network.engine import NetworkEngine
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from engines.tensorrt.library import RTX, Loaded
from liveptv.models import SHIPPED_MODEL
from stream.errors import ConfigurationError

pytestmark = needs_gcc

SHAPE = (192, 288)
SETTINGS = DetectorSettings(workers=2, precision="full", backend="tensorrt", refine=False)
MODEL = OnnxModel(SHIPPED_MODEL)
PIXEL_SIZE_UM = MODEL.card.pixel_size_um


@contextmanager
def camera_pc(folder: Path, patch: pytest.MonkeyPatch):
    """A GPU's driver, TensorRT for RTX on it, and a folder for engines."""
    driver, trt = StandIn(folder), stand_in_for_rtx()
    gpu = Gpu("stand-in 7", (8, 6))
    patch.setattr("engines.tensorrt.cache.platformdirs.user_cache_path", lambda _: folder / "cache")
    patch.setattr("engines.tensorrt.library.first_gpu", lambda *_: gpu)
    patch.setattr("engines.tensorrt.opening.first_gpu", lambda: gpu)
    patch.setattr("engines.tensorrt.library.Library.is_installed", property(lambda one: one is RTX))
    patch.setattr("engines.tensorrt.opening.load_library", lambda one: Loaded(one, trt))
    patch.setattr("engines.tensorrt.opening.open_cuda", lambda: DriverCuda(driver.library))
    patch.setattr(IExecutionContext, "_put", staticmethod(driver.put))
    yield driver


@pytest.fixture
def driver(tmp_path, monkeypatch):
    with camera_pc(tmp_path, monkeypatch) as found:
        yield found


def images(count: int) -> list[np.ndarray]:
    drawn = drawn_frame(MODEL.card, MODEL.psf(), FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000), None)
    return [np.roll(drawn, (5 * k, 11 * k), (0, 1)) for k in range(count)]


def on_tensorrt() -> Engine:
    return open_back_end(SETTINGS, PIXEL_SIZE_UM, SHIPPED_MODEL).engine


def assert_nothing_is_left(driver: StandIn) -> None:
    gc.collect()
    assert (driver.alive, driver.retained, driver.reclaimed, driver.illegal) == ({}, 0, 0, 0)


def assert_found_as_expected(found: list, given: list[np.ndarray]) -> None:
    settings = SETTINGS.model_copy(update={"backend": "onnxruntime"})
    with closing(NetworkEngine(settings, PIXEL_SIZE_UM, SHIPPED_MODEL)) as reference:
        expected = run(reference, given)
    assert [d.info.frame for d in found] == list(range(len(given)))
    assert sum(len(d) for d in expected) > 20
    for here, there in zip(found, expected, strict=True):
        ours, theirs = (d.table[:, np.argsort(d.x_um + 1e3 * d.y_um)] for d in (here, there))
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=0.02)


def test_frames_come_back_in_order_with_what_the_processor_finds_and_nothing_is_left(driver):
    given = images(8)
    with closing(on_tensorrt()) as engine:
        found = run(engine, given)
        assert (engine.info.backend, engine.info.device) == ("tensorrt", "stand-in 7")
    assert_found_as_expected(found, given)
    assert driver.calls.count("cuGraphLaunch") == 3 + 8
    assert_nothing_is_left(driver)


def test_three_frames_are_under_way_at_once_and_none_gets_anothers_answer(driver):
    given = images(4) * 5
    with closing(on_tensorrt()) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        driver.delay(3000)
        assert driver.most_busy <= SLOTS_IN_FLIGHT
        found = run(engine, given)
        assert driver.most_busy == SLOTS_IN_FLIGHT
    for number, detections in enumerate(found):
        assert detections.info.frame == number
        np.testing.assert_array_equal(detections.table, found[number % 4].table)
    assert_nothing_is_left(driver)


@pytest.mark.parametrize("status", [700, 719, 999])
def test_when_the_gpu_is_lost_in_a_run_the_processor_goes_on_and_no_frame_is_lost(driver, status):
    given, said = images(10), []
    engine = open_guarded(SETTINGS, PIXEL_SIZE_UM, SHIPPED_MODEL, said.append)
    with closing(engine):
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        assert engine.info.backend == "tensorrt"
        said.clear()
        driver.lose_at(driver.call_count + 40, status)
        found = run(engine, given)
        assert engine.info.backend == "onnxruntime"
        assert engine.counts()["back_end_failures"] == 1
    assert_found_as_expected(found, given)
    assert len(said) == 1
    assert f"CUDA error {status} in" in said[0]
    gc.collect()
    assert (driver.alive, driver.retained, driver.illegal) == ({}, 0, 0)


def test_a_gpu_with_wrong_numbers_is_let_go_even_while_somebody_has_the_error(driver, monkeypatch):
    """But for the answers that the error's frames still see, and what these need."""
    run_rightly, make = IExecutionContext._run, ICudaEngine.__init__
    engines: weakref.WeakSet[ICudaEngine] = weakref.WeakSet()

    def made(engine, file) -> None:
        engines.add(engine)
        make(engine, file)

    def run_wrongly(context) -> None:
        run_rightly(context)
        for end in context._session.get_outputs():
            context._tensor(end)[:] *= 0.9

    monkeypatch.setattr(IExecutionContext, "_run", run_wrongly)
    monkeypatch.setattr(ICudaEngine, "__init__", made)
    with closing(on_tensorrt()) as engine:
        with pytest.raises(WrongNumbersError, match="disagrees") as caught:
            engine.warmup(*SHAPE, np.dtype(np.uint8))
        assert engines
    assert not engines
    assert caught.value.__traceback__ is not None
    assert (driver.alive, driver.retained) == ({"host": 2}, 1)
    del caught
    assert_nothing_is_left(driver)


def test_an_engine_that_cannot_be_made_leaves_nothing(driver):
    with pytest.raises(ConfigurationError, match="um a pixel"):
        open_back_end(SETTINGS, 2 * PIXEL_SIZE_UM, SHIPPED_MODEL)
    assert_nothing_is_left(driver)


def test_all_of_it_works_where_there_is_no_torch():
    done = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["frames", "4", "torch", "None"]


if __name__ == "__main__":
    sys.modules["torch"] = None  # its import fails
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(camera_pc(here, stack.enter_context(pytest.MonkeyPatch.context())))
        with closing(on_tensorrt()) as opened:
            sys.stdout.write(f"frames {len(run(opened, images(4)))} torch {sys.modules['torch']}\n")
