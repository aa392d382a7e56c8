"""A live run on a new installation starts without the fit, which joins once another process has compiled it."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import simulate_images
from engines.network.engine import NetworkEngine
from engines.network.model import OnnxModel
from engines.refine import compiling, fit_beside
from engines.refine.fit_beside import FIT_FAILED, FIT_JOINED, FIT_WAITS, FitBeside, ProcessCompiler
from engines.selfcheck.directions import Directions
from engines.selfcheck.inspector import Inspector
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import DetectionFlag, Detections, Frame, FrameInfo

PIXEL_SIZE_UM = 0.8
LONG_S = 240.0


class Compiler:
    """A process that ends when the test says so, with `why` the fit could not be compiled."""

    def __init__(self, why: str = "") -> None:
        self.why = why
        self.ended = threading.Event()
        self.stopped = False

    def wait(self) -> str:
        self.ended.wait(LONG_S)
        return self.why

    def stop(self) -> None:
        self.stopped = True
        self.ended.set()


def beside(said: list[str], compiler: Compiler, **changed: Any) -> FitBeside:
    times = iter((10.0, 51.2))
    options: dict[str, Any] = {
        "is_there": lambda: False,
        "start_compiler": lambda: compiler,
        "load": lambda: None,
        "clock": lambda: next(times),
    }
    return FitBeside(said.append, **(options | changed))


def test_a_compiled_fit_is_loaded_and_nothing_is_said() -> None:
    said: list[str] = []
    loaded: list[bool] = []

    def refuse() -> Compiler:
        raise AssertionError("a process was started for nothing")

    fit = beside(
        said, Compiler(), is_there=lambda: True, start_compiler=refuse, load=lambda: loaded.append(True)
    )
    fit.start()
    assert fit.ready.is_set()
    assert loaded == [True]
    fit.poll()
    assert not said


def test_a_fit_that_is_missing_joins_when_it_has_been_compiled_and_both_are_said_once() -> None:
    said: list[str] = []
    compiler = Compiler()
    with closing(beside(said, compiler)) as fit:
        fit.start()
        fit.start()
        fit.poll()
        assert said == [FIT_WAITS]
        assert not fit.ready.is_set()
        compiler.ended.set()
        assert fit.ready.wait(LONG_S)
        fit.poll()
        fit.poll()
    assert said == [FIT_WAITS, FIT_JOINED.format(seconds=41.2)]


def test_a_fit_that_cannot_be_compiled_never_joins_and_the_reason_is_said() -> None:
    said: list[str] = []
    compiler = Compiler("RuntimeError: the cache is full")
    fit = beside(said, compiler)
    fit.start()
    fit.close()
    fit.poll()
    assert not fit.ready.is_set()

    compiler = Compiler("RuntimeError: the cache is full")
    compiler.ended.set()
    fit = beside(said := [], compiler)
    fit.start()
    assert fit._thread is not None
    fit._thread.join(LONG_S)
    fit.poll()
    assert said == [FIT_WAITS, FIT_FAILED.format(why="RuntimeError: the cache is full")]
    assert not fit.ready.is_set()


def test_a_process_that_cannot_be_started_is_said() -> None:
    said: list[str] = []

    def fail() -> Compiler:
        raise OSError("out of memory")

    fit = beside(said, Compiler(), start_compiler=fail)
    fit.start()
    assert said == [FIT_FAILED.format(why="out of memory")]
    fit.close()


def test_the_process_is_ended_with_the_run() -> None:
    compiler = Compiler()
    fit = beside([], compiler)
    fit.start()
    fit.close()
    assert compiler.stopped
    assert not fit.ready.is_set()


def test_a_real_process_says_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_beside, "START", "raise SystemExit('no room')  # {path!r}")
    process = ProcessCompiler()
    assert process.wait() == "no room"
    process.stop()
    monkeypatch.setattr(fit_beside, "START", "pass  # {path!r}")
    process = ProcessCompiler()
    assert process.wait() == ""
    process.stop()


def test_a_real_process_that_has_compiled_ends_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_to_do = "compiling.compile_fit = lambda: None; compiling.main()"
    start = f"import sys; sys.path[:] = {{path!r}}; from engines.refine import compiling; {nothing_to_do}"
    monkeypatch.setattr(fit_beside, "START", start)
    compiler = ProcessCompiler()
    assert compiler.wait() == ""
    compiler.stop()


def test_a_real_process_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_beside, "START", "import time; time.sleep(600)  # {path!r}")
    process = ProcessCompiler()
    process.stop()
    assert process.wait() != ""


def test_the_compiling_process_ends_when_its_parent_is_gone() -> None:
    code = "import engines.refine.compiling as c, time; c.compile_fit = lambda: time.sleep(600); c.main()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.close()  # what the system does when the parent ends, however it ends
    assert child.wait(LONG_S) == 1


def test_the_kernels_that_are_compiled_are_those_that_a_frame_needs() -> None:
    """A kernel or a type that is missing in the list would be compiled in the middle of a run."""
    compiling.compile_fit()
    assert compiling.is_compiled()
    before = {kernel.py_func: len(kernel.overloads) for kernel, _ in compiling.kernels()}
    with closing(NetworkEngine(DetectorSettings(workers=1), PIXEL_SIZE_UM, SHIPPED_MODEL)) as engine:
        engine.warmup(128, 160, np.dtype(np.uint8))
        found = _detect(engine)
        assert engine.info.details["refine"]["refined"] + engine.info.details["refine"]["not_refined"] > 0
    assert len(found)
    model = OnnxModel(SHIPPED_MODEL).psf()
    assert model is not None
    inspector = Inspector(model, PIXEL_SIZE_UM)
    inspector.look(_image(), found, 0.0)
    assert Directions(model).separation_um > 0
    assert {kernel.py_func: len(kernel.overloads) for kernel, _ in compiling.kernels()} == before


def test_particles_keep_the_networks_answer_until_the_fit_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    compiler = Compiler()
    waiting = beside(said, compiler)
    monkeypatch.setattr("engines.network.engine.FitBeside", lambda _say: waiting)
    plain = DetectorSettings(workers=1, refine=False)
    with closing(NetworkEngine(plain, PIXEL_SIZE_UM, SHIPPED_MODEL)) as engine:
        engine.warmup(128, 160, np.dtype(np.uint8))
        without = _detect(engine)
    with closing(NetworkEngine(DetectorSettings(workers=1), PIXEL_SIZE_UM, SHIPPED_MODEL)) as engine:
        engine.warmup(128, 160, np.dtype(np.uint8))
        fitted = _detect(engine)
    with closing(NetworkEngine(DetectorSettings(workers=1), PIXEL_SIZE_UM, SHIPPED_MODEL)) as engine:
        engine.let_fit_join(said.append)
        engine.warmup(128, 160, np.dtype(np.uint8))
        assert not engine.fit_ready.is_set()
        waits = _detect(engine)
        np.testing.assert_array_equal(waits.table[:-1], without.table[:-1])
        assert (waits.flags == DetectionFlag.REDUCED).all()
        assert engine.info.details["refine"]["not_compiled"] == len(waits)
        compiler.ended.set()
        assert engine.fit_ready.wait(LONG_S)
        np.testing.assert_array_equal(_detect(engine).table, fitted.table)
        assert engine.info.details["refine"]["not_compiled"] == len(waits)
    assert not np.array_equal(fitted.table, without.table)
    assert said == [FIT_WAITS, FIT_JOINED.format(seconds=41.2)]


def _image() -> npt.NDArray[Any]:
    """An image of four particles, two of which overlap."""
    x_um, y_um = np.array([24.0, 64.0, 70.0, 96.0]), np.array([32.0, 51.0, 56.0, 80.0])
    image, _ = simulate_images(
        OpticsModel(), x_um, y_um, np.array([-20.0, 0.0, 15.0, 30.0]), (128, 160), seed=1
    )
    return image


def _detect(engine: NetworkEngine) -> Detections:
    """The detections in that image."""
    engine.submit(Frame(FrameInfo("test", 1, 1, 0.0, 0, 0.0), _image()))
    found: list[Detections] = []
    while not found:
        found = engine.results(1.0)
    return found[0]
