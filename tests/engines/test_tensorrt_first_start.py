"""The first and the later starts with TensorRT for RTX: it builds and compiles by itself, and keeps both.

In the library's and the GPU's place are stand-ins, which run the same program with ONNX Runtime.
"""

from __future__ import annotations

import functools
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from astigmatic import frame as frame_message
from host_device import HostDevice
from stand_in_tensorrt import stand_in_for_rtx

from engines.cuda.check import drawn_frame
from engines.cuda.engine import GpuEngine
from engines.cuda.layout import FrameFormat
from engines.engine import BackEndError
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from engines.tensorrt.cache import EngineCache
from engines.tensorrt.library import RTX, Loaded
from engines.tensorrt.onnx_file import write_onnx
from engines.tensorrt.plans import Plans
from engines.tensorrt.runner import TensorRTBackEnd
from liveptv.models import SHIPPED_MODEL

SHAPE = (192, 288)
MODEL = OnnxModel(SHIPPED_MODEL)
FRAME = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
BUILT = ("building the engine of simulated.onnx", "built in")
COMPILED = ("compiling for the NVIDIA GeForce RTX 3060", "compiled in")


@functools.cache
def written(frame: FrameFormat, half: bool) -> bytes:
    return write_onnx(SHIPPED_MODEL, MODEL, frame, half=half)


@pytest.fixture(autouse=True)
def each_file_is_written_once(monkeypatch):
    monkeypatch.setattr(
        "engines.tensorrt.plans.write_onnx", lambda _path, _model, frame, *, half: written(frame, half)
    )


class Computer:
    """A camera PC on which runs are started; `said` are the notes of the last start, `compiled` counts."""

    def __init__(self, folder) -> None:
        self.cache = EngineCache(folder)
        self.name, self.driver, self.kind = "NVIDIA GeForce RTX 3060", "12.9", "sm86"
        self.said: list[str] = []
        self.compiled: list[str] = []

    def start(self, version="1.7.1.116", **of_library) -> int:
        """Detect in one frame; how many particles are found."""
        self.said.clear()
        trt = stand_in_for_rtx(version, here=self.kind, compiled=self.compiled, **of_library)
        with closing(HostDevice()) as device:
            device.facts = replace(device.facts, name=self.name, driver=self.driver)
            plans = Plans(Loaded(RTX, trt), device.facts, True, self.cache)
            back_end = TensorRTBackEnd(device, plans, self.said.append)
            settings = DetectorSettings(workers=2, refine=False)
            with closing(GpuEngine(settings, MODEL.card.pixel_size_um, SHIPPED_MODEL, back_end)) as engine:
                engine.submit(frame_message(0, drawn_frame(MODEL.card, MODEL.psf(), FRAME, None)))
                (found,) = engine.results(400.0)
                assert engine.info.backend == "tensorrt"
        return len(found)

    def files(self, suffix):
        return [path for path in self.cache.folder.iterdir() if path.suffix == suffix]

    def notes(self, *beginnings):
        """Whether the last start said this, line by line, and nothing else."""
        assert len(self.said) == len(beginnings), self.said
        return all(said.startswith(one) for said, one in zip(self.said, beginnings, strict=True))


@pytest.fixture
def computer(tmp_path):
    return Computer(tmp_path / "engines")


def test_the_first_start_builds_and_compiles_once_and_says_so_and_the_second_is_silent(computer):
    found = computer.start()
    assert found > 3
    assert computer.notes(*BUILT, *COMPILED)
    assert computer.compiled == ["sm86"]  # three contexts, one compilation
    assert computer.start() == found
    assert computer.notes()
    assert computer.compiled == ["sm86"]
    assert len(computer.files(".engine")) == len(computer.files(".kernels")) == 1
    assert len(list(computer.cache.folder.iterdir())) == 2


def test_another_gpu_or_driver_compiles_again_but_takes_the_same_engine(computer):
    computer.start()
    computer.driver = "13.0"
    computer.start()
    assert computer.notes(*COMPILED)
    computer.name, computer.kind = "NVIDIA GeForce RTX 5090", "sm120"
    computer.start()
    assert computer.notes("compiling for the NVIDIA GeForce RTX 5090", "compiled in")
    assert len(computer.files(".engine")) == 1
    assert len(computer.files(".kernels")) == 3


def test_another_version_of_the_library_builds_again(computer):
    computer.start()
    computer.start("1.8.0.12")
    assert computer.notes(*BUILT, *COMPILED)


@pytest.mark.parametrize("damage", ["cut off", "changed", "empty", "nonsense", "another's"])
def test_damaged_or_foreign_kernels_are_not_used_and_it_is_said(computer, damage):
    found = computer.start()
    (path,) = computer.files(".kernels")
    content = path.read_bytes()
    if damage == "another's":
        path.rename(path.with_suffix(".away"))
        computer.driver = "13.0"
        computer.start()
        (other,) = computer.files(".kernels")
        computer.driver = "12.9"
        other.rename(path)
    else:
        changed = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes(
            {"cut off": content[:-3], "changed": changed, "empty": b"", "nonsense": b"\xff" * 99}[damage]
        )
    assert computer.start() == found
    assert computer.notes("kept kernels are not used: ", *COMPILED)
    computer.start()
    assert computer.notes()  # they have been replaced


def test_kernels_that_the_library_rejects_are_compiled_anew(computer):
    computer.start()
    computer.kind = "sm86, after an update"
    computer.start()
    assert computer.notes("kept kernels are not used: TensorRT rejects them", *COMPILED)
    computer.start()
    assert computer.notes()


def test_kernels_with_which_the_library_crashes_are_tried_once(computer):
    found = computer.start()
    with pytest.raises(KeyboardInterrupt):
        computer.start(deadly=b"sm86: kernels")
    assert computer.start() == found
    assert computer.notes("kept kernels are not used: a start with them did not end", *COMPILED)
    computer.start()
    assert computer.notes()
    assert len(list(computer.cache.folder.iterdir())) == 2


def test_a_cache_folder_that_cannot_be_used_stops_no_run(computer):
    found = computer.start()
    here = computer.cache.folder
    computer.cache = EngineCache(here.parent / "a file" / "engines")
    (here.parent / "a file").write_bytes(b"")
    assert computer.start() == found
    assert "cannot keep" in computer.said[2]
    assert computer.said[2].endswith("the next run builds it again")
    assert "cannot keep" in computer.said[-1]
    assert computer.said[-1].endswith("the next start compiles again")


def test_an_engine_beside_the_model_is_taken_without_any_cache(computer, tmp_path, monkeypatch):
    found = computer.start()
    (path,) = computer.files(".engine")
    model = tmp_path / "copied" / "simulated.onnx"
    model.parent.mkdir()
    model.write_bytes(SHIPPED_MODEL.read_bytes())
    path.rename(model.parent / path.name)
    monkeypatch.setitem(globals(), "SHIPPED_MODEL", model)
    computer.cache = EngineCache(tmp_path / "other")
    assert computer.start() == found
    assert computer.notes(*COMPILED)


def test_a_gpu_on_which_the_work_cannot_be_recorded_is_refused(computer):
    with pytest.raises(BackEndError, match="cannot be recorded on this GPU"):
        computer.start(capturable=False)
