"""Engines built with the real TensorRT for RTX, which needs no GPU for that; nothing here runs one."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from engines.cuda.layout import FrameFormat
from engines.engine import BackEndError
from engines.network.model import OnnxModel
from engines.tensorrt.build import build_plan, parsed
from engines.tensorrt.cache import EngineCache
from engines.tensorrt.library import RTX, Loaded, load_library
from engines.tensorrt.messages import messages_of
from engines.tensorrt.onnx_file import inputs_of, shapes_of, write_onnx
from engines.tensorrt.plans import Plans
from liveptv.cli.main import run_command_line
from liveptv.models import SHIPPED_MODEL

SHAPE = (192, 288)
MODEL = OnnxModel(SHIPPED_MODEL)
FRAME = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 4000)
if sys.platform != "linux" or not RTX.is_installed:
    pytest.skip("needs TensorRT for RTX on Linux", allow_module_level=True)


def silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_library(RTX)


@functools.cache
def written(frame: FrameFormat, half: bool) -> bytes:
    return write_onnx(SHIPPED_MODEL, MODEL, frame, half=half)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_kind_of_engine_is_built_without_a_warning(loaded, dtype, flat, half, caplog):
    steps = []
    file = written(FrameFormat.of(SHAPE, np.dtype(dtype), flat, 4000), half)
    with caplog.at_level(logging.WARNING):
        plan = build_plan(loaded, file, lambda *step: steps.append(step))
    assert len(plan) > 500_000  # the weights alone have as much
    assert not caplog.records
    assert len(steps) > 10
    assert all(done <= of for _, done, of in steps if of)


def test_an_engine_for_a_large_camera_is_built(loaded, caplog):
    frame = FrameFormat.of((1440, 2560), np.dtype(np.uint16), True, 4000)
    with caplog.at_level(logging.WARNING):
        assert len(build_plan(loaded, written(frame, True), silent)) > 500_000
    assert not caplog.records


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize(("dtype", "flat"), [(np.uint8, False), (np.uint16, True)])
def test_tensorrt_reads_the_types_and_shapes_that_the_file_has(loaded, dtype, flat, half):
    trt = loaded.trt
    frame = FrameFormat.of(SHAPE, np.dtype(dtype), flat, 4000)
    builder = trt.Builder(messages_of(trt).logger)
    network, _parser = parsed(loaded, builder, written(frame, half))
    ends = [network.get_input(n) for n in range(network.num_inputs)]
    assert [end.name for end in ends] == list(inputs_of(frame))
    ends += [network.get_output(n) for n in range(network.num_outputs)]
    types = {trt.DataType.UINT8: np.uint8, trt.DataType.FLOAT: np.float32}
    assert {end.name: (tuple(end.shape), types[end.dtype]) for end in ends} == shapes_of(frame)
    layers = [network.get_layer(n) for n in range(network.num_layers)]
    precision = trt.DataType.HALF if half else trt.DataType.FLOAT
    convolutions = [
        one for one in layers if one.type in (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION)
    ]
    assert len(convolutions) == 10
    for layer in convolutions:
        assert {layer.get_input(n).dtype for n in range(layer.num_inputs)} == {precision}
        assert layer.get_output(0).dtype == precision


def small(*nodes, inputs, outputs, constants=()) -> bytes:
    ends = [
        [helper.make_tensor_value_info(name, *kind) for name, kind in some.items()]
        for some in (inputs, outputs)
    ]
    graph = helper.make_graph(list(nodes), "g", *ends, list(constants))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("nowhere", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def strongest(count: int) -> bytes:
    return small(
        helper.make_node("TopK", ["x", "k"], ["y", "i"]),
        inputs={"x": (TensorProto.FLOAT, [1, 8000])},
        outputs={"y": (TensorProto.FLOAT, [1, count]), "i": (TensorProto.INT64, [1, count])},
        constants=[helper.make_tensor("k", TensorProto.INT64, [1], [count])],
    )


def own_operator() -> bytes:
    return small(
        helper.make_node("Fold", ["x"], ["y"], domain="nowhere"),
        inputs={"x": (TensorProto.FLOAT, [4])},
        outputs={"y": (TensorProto.FLOAT, [4])},
    )


def mixed_types() -> bytes:
    return small(
        helper.make_node("Add", ["x", "h"], ["y"]),
        inputs={"x": (TensorProto.FLOAT, [4]), "h": (TensorProto.FLOAT16, [4])},
        outputs={"y": (TensorProto.FLOAT, [4])},
    )


def any_size() -> bytes:
    return small(
        helper.make_node("Relu", ["x"], ["y"]),
        inputs={"x": (TensorProto.FLOAT, [1, "n"])},
        outputs={"y": (TensorProto.FLOAT, [1, "n"])},
    )


def cut_off() -> bytes:
    return written(FRAME, True)[:-1000]


@pytest.mark.parametrize(
    ("file", "what"),
    [
        (functools.partial(strongest, 3841), "3840"),
        (own_operator, r"node 0 \(Fold\)"),
        (mixed_types, "cannot (read|build) the network"),
        (any_size, "profile"),
        (lambda: b"nonsense" * 100, "cannot read the network"),
        (lambda: b"", "cannot (read|build) the network"),
        (cut_off, "cannot read the network"),
    ],
)
def test_what_tensorrt_cannot_build_is_refused_with_its_reason(loaded, file, what):
    with pytest.raises(BackEndError, match=what) as caught:
        build_plan(loaded, file(), silent)
    assert str(caught.value).startswith("TensorRT for RTX 1.")
    assert "\n" not in str(caught.value)


def test_as_many_slots_as_a_program_keeps_can_be_selected(loaded):
    assert build_plan(loaded, strongest(3840), silent)


@pytest.mark.parametrize("after", [0, 3, 40])
def test_ctrl_c_stops_a_build_and_the_next_one_works(loaded, after):
    all_steps, steps = [], []
    assert build_plan(loaded, written(FRAME, True), lambda *step: all_steps.append(step))

    def interrupted(*step):
        steps.append(step)
        if len(steps) == after + 1:
            signal.raise_signal(signal.SIGINT)
        elif len(steps) > after + 1:
            time.sleep(0.05)  # all that are left would take 10 s

    with pytest.raises(KeyboardInterrupt):
        build_plan(loaded, written(FRAME, True), interrupted)
    assert after < len(steps) < len(all_steps) - 50
    assert build_plan(loaded, written(FRAME, True), silent)


@pytest.fixture(scope="module")
def engine_file(tmp_path_factory) -> SimpleNamespace:
    """An engine that `liveptv engine build` has made on a computer without a GPU, and what it said."""
    folder = tmp_path_factory.mktemp("built")
    size = ["--height", str(SHAPE[0]), "--width", str(SHAPE[1])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engines.tensorrt.cache.platformdirs.user_cache_path", lambda _: folder / "cache")
        patch.setattr("engines.cuda.driver.first_gpu.why_no_gpu", lambda *_: "no NVIDIA GPU driver")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert run_command_line(["engine", "build", str(SHIPPED_MODEL), *size]) == 0
    (path,) = (folder / "cache" / "engines").iterdir()
    return SimpleNamespace(path=path, said=said.getvalue())


def test_the_command_builds_without_a_gpu_and_says_where_the_engine_is_and_how_it_is_moved(engine_file):
    version = load_library(RTX).version
    path = engine_file.path
    assert engine_file.said.strip().splitlines() == [
        "not run here (no NVIDIA GPU driver); it is compared with ONNX Runtime before its first frame",
        f"written to {path}",
        f"to use it on another computer with TensorRT for RTX {version}: copy {path.name} and simulated.onnx "
        "there, into one folder",
    ]


def test_an_engine_that_was_copied_beside_its_model_is_found_whatever_the_gpu(engine_file, loaded, tmp_path):
    model = tmp_path / "renamed.onnx"
    shutil.copy(SHIPPED_MODEL, model)
    plans = Plans(loaded, None, True, EngineCache(tmp_path / "empty"))
    assert plans.read(model, FRAME) is None
    shutil.copy(engine_file.path, tmp_path)
    plan = plans.read(model, FRAME)
    assert plan
    assert engine_file.path.read_bytes().endswith(plan)
    assert Plans(loaded, None, False, plans.cache).read(model, FRAME) is None  # of another precision


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, -1])
def test_a_copy_that_is_cut_off_is_no_engine(engine_file, loaded, keep, tmp_path):
    plans = Plans(loaded, None, True, EngineCache(tmp_path))
    (tmp_path / engine_file.path.name).write_bytes(engine_file.path.read_bytes()[:keep])
    assert plans.read(SHIPPED_MODEL, FRAME) is None
    assert "engine" in plans.why_none(SHIPPED_MODEL, FRAME)


def test_an_engine_under_another_ones_name_is_not_taken_for_that(engine_file, loaded, tmp_path):
    plans = Plans(loaded, None, True, EngineCache(tmp_path))
    other = replace(FRAME, height=SHAPE[0] + 16)
    shutil.copy(engine_file.path, plans.cache.path(plans.key(SHIPPED_MODEL, other)))
    assert plans.read(SHIPPED_MODEL, other) is None
    shutil.copy(engine_file.path, tmp_path)
    assert plans.read(SHIPPED_MODEL, FRAME)


ALIVE = """
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from engines.cuda.layout import FrameFormat
from engines.engine import BackEndError
from engines.kept_file import read_kept
from engines.tensorrt.library import RTX, load_library
from engines.tensorrt.runner import TensorRTRunner
device = SimpleNamespace(current=nullcontext)
frame = FrameFormat({0}, {1}, 1, False, 4000)
loaded = load_library(RTX)
plan = read_kept(Path(sys.argv[1]), 1 << 30)[1]
flipped = bytearray(plan)
for at in range(64, len(plan), 997):
    flipped[at] ^= 0xFF
cut = plan[:1000], plan[: len(plan) // 2]
for given in (plan, b"", b"nonsense" * 100, *cut, bytes(flipped), bytes(64) + plan[64:]):
    try:
        TensorRTRunner(loaded, device, given, frame, None)
        print("taken")
    except BackEndError as error:
        print(error)
print("alive")
"""


def test_without_a_driver_good_and_damaged_engines_are_refused_and_the_program_goes_on(engine_file):
    code = ALIVE.format(*SHAPE)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(engine_file.path)],
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    *refusals, last = ended.stdout.splitlines()
    assert last == "alive"
    assert len(refusals) == 7
    assert all("cannot read the engine" in said and len(said) < 330 for said in refusals)
    for said in (refusals[1], refusals[2], refusals[6]):  # it sees that these are no engines
        assert "it is damaged: build it again with `liveptv engine build`" in said


FALLS_BACK = """
import sys
from contextlib import closing
from pathlib import Path
import numpy as np
from astigmatic import frame
from host_device import HostDevice
from engines.backends.failover import GuardedEngine
from engines.backends.registry import ONNXRUNTIME
from engines.cuda.check import drawn_frame
from engines.cuda.engine import GpuEngine
from engines.cuda.layout import FrameFormat
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from engines.tensorrt.cache import EngineCache
from engines.tensorrt.library import RTX, load_library
from engines.tensorrt.plans import Plans
from engines.tensorrt.runner import TensorRTBackEnd
from liveptv.models import SHIPPED_MODEL
model = OnnxModel(SHIPPED_MODEL)
pixel_size_um = model.card.pixel_size_um
settings = DetectorSettings(workers=1, refine=False)
device = HostDevice()
plans = Plans(load_library(RTX), device.facts, True, EngineCache(Path(sys.argv[1])))
on_gpu = GpuEngine(settings, pixel_size_um, SHIPPED_MODEL, TensorRTBackEnd(device, plans, print))
guarded = GuardedEngine(on_gpu, lambda: ONNXRUNTIME.open(settings, pixel_size_um, SHIPPED_MODEL), say=print)
drawn = drawn_frame(model.card, model.psf(), FrameFormat({0}, {1}, 1, False, 4000), None)
with closing(guarded) as engine:
    engine.warmup({0}, {1}, np.dtype(np.uint8))
    engine.submit(frame(0, drawn))
    (found,) = engine.results(400.0)
print(engine.info.backend, len(found))
device.close()
"""


def test_a_run_builds_its_engine_and_where_that_does_not_run_the_processor_takes_over(tmp_path):
    paths = [*sys.path, str(Path(__file__).parent)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(
        [sys.executable, "-c", FALLS_BACK.format(*SHAPE), str(tmp_path)],
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = [line for line in ended.stdout.splitlines() if " steps" not in line]  # of how far a slow build is
    assert len(said) == 4, said
    building, built, refused, last = said
    assert building.startswith("building the engine of simulated.onnx for images of 288 x 192 with TensorRT")
    assert built.startswith("built in ")
    assert "cannot read the engine" in refused
    assert refused.endswith("onnxruntime (cpu) continues in its place")
    backend, particles = last.split()
    assert backend == "onnxruntime"
    assert int(particles) > 3
    assert [path.suffix for path in tmp_path.iterdir()] == [".engine"]


def test_what_is_missing_to_run_is_said_in_a_line():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "COLUMNS": "200"}
    ended = subprocess.run(
        [sys.executable, "-m", "liveptv", "engine", "list"],
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
        check=True,
    )
    (line,) = (one for one in ended.stdout.splitlines() if one.startswith("tensorrt"))
    assert "no NVIDIA GPU" in line
    assert line.rstrip().endswith("engines for other computers can be built here (`liveptv engine build`)")
