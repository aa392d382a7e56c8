"""Everything around TensorRT, for real; in its own place ONNX Runtime runs the file that TensorRT would get."""

from __future__ import annotations

import functools
from contextlib import closing
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tifffile
from astigmatic import frame as frame_message
from host_device import HostDevice
from onnx import numpy_helper
from stand_in_tensorrt import stand_in

from engines.backends.registry import open_back_end
from engines.cuda.check import drawn_frame, reference_answer
from engines.cuda.driver.first_gpu import Gpu
from engines.cuda.engine import GpuEngine
from engines.cuda.layout import FrameFormat
from engines.engine import BackEndError, WrongNumbersError
from engines.flatfield import load_flat_field
from engines.kept_file import facts_of
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from engines.tensorrt.build import build_plan
from engines.tensorrt.build_and_check import make_engine
from engines.tensorrt.cache import EngineCache
from engines.tensorrt.library import FULL, Loaded
from engines.tensorrt.onnx_file import write_onnx
from engines.tensorrt.plans import Plans
from engines.tensorrt.runner import TensorRTBackEnd
from liveptv.cli.main import run_command_line
from liveptv.models import SHIPPED_MODEL
from stream.errors import ConfigurationError

SHAPE = (192, 288)
MODEL = OnnxModel(SHIPPED_MODEL)
FRAME = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
SETTINGS = DetectorSettings(workers=2, refine=False)


def silent(*_: object) -> None:
    pass


@pytest.fixture
def device():
    opened = HostDevice()
    yield opened
    opened.close()


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


@functools.cache
def written(frame: FrameFormat, half: bool) -> bytes:
    return write_onnx(SHIPPED_MODEL, MODEL, frame, half=half)


@pytest.fixture(autouse=True)
def each_file_is_written_once(monkeypatch):
    """Writing one takes a second, and always gives the same file."""
    monkeypatch.setattr(
        "engines.tensorrt.plans.write_onnx",
        lambda _path, _model, frame, *, half: written(frame, half),
    )


def on_tensorrt(device, cache, trt=None, *, half=True, library=FULL, say=silent) -> TensorRTBackEnd:
    loaded = Loaded(library, trt or stand_in())
    return TensorRTBackEnd(device, Plans(loaded, device.facts, half, cache), say)


def make(frame, back_end, progress=silent):
    return make_engine(SHIPPED_MODEL, frame, back_end.plans, back_end, progress)


def engine(back_end, **settings) -> GpuEngine:
    settings = SETTINGS.model_copy(update=settings)
    return GpuEngine(settings, MODEL.card.pixel_size_um, SHIPPED_MODEL, back_end)


def assert_refused(back_end, shape, what: str) -> None:
    with closing(engine(back_end)) as opened, pytest.raises(BackEndError, match=what):
        opened.warmup(*shape, np.dtype(np.uint8))


@pytest.mark.parametrize(("dtype", "flat"), [(np.uint8, False), (np.uint16, True)])
@pytest.mark.parametrize("half", [True, False])
def test_the_file_for_tensorrt_has_every_type_written_in_it(dtype, flat, half):
    frame = FrameFormat.of(SHAPE, np.dtype(dtype), flat, 2000)
    model = onnx.load_from_string(written(frame, half))
    onnx.checker.check_model(model, full_check=True)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in typed.graph.value_info}
    types |= {t.name: t.data_type for t in typed.graph.initializer}
    precision = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    convolutions = [n for n in typed.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    assert len(convolutions) == 10
    assert {types[name] for n in convolutions for name in [*n.input, *n.output]} == {precision}
    assert {o.type.tensor_type.elem_type for o in typed.graph.output} == {onnx.TensorProto.FLOAT}
    (raw,) = (i for i in typed.graph.input if i.name == "raw")
    assert raw.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert {n.op_type for n in typed.graph.node if "raw" in n.input} == {"Cast"}
    constants = {t.name: numpy_helper.to_array(t) for t in typed.graph.initializer}
    (top,) = (n for n in typed.graph.node if n.op_type == "TopK")
    assert int(constants[top.input[1]].item()) <= 3840


def test_an_engine_is_built_once_and_then_runs_as_the_processor_does(device, cache):
    steps = []
    back_end = on_tensorrt(device, cache)
    path, agreement = make(FRAME, back_end, lambda *step: steps.append(step))
    assert agreement.missed == agreement.invented == 0
    assert ("Building Engine", 1, 2) in steps
    assert [p.name for p in cache.folder.iterdir() if p.suffix == ".engine"] == [path.name]
    drawn = drawn_frame(MODEL.card, MODEL.psf(), FRAME, None)
    with closing(engine(on_tensorrt(device, cache))) as opened:
        opened.warmup(*SHAPE, np.dtype(np.uint8))
        found = []
        for number in range(5):
            opened.submit(frame_message(number, np.roll(drawn, 16 * number, 1)))
        while opened.pending:
            found += opened.results(10.0)
        assert opened.info.backend == "tensorrt"
        assert opened.info.details["precision"] == "float16"
    assert [d.info.frame for d in found] == list(range(5))
    for number, detections in enumerate(found):
        expected = reference_answer(MODEL, np.roll(drawn, 16 * number, 1)).particles
        sure = expected[expected[:, -1] > 0.6]
        near = np.abs(sure[:, :1] * MODEL.card.pixel_size_um - detections.x_um).min(axis=1)
        assert (near < 0.1).all()


def test_references_of_a_flat_field_are_inputs_so_new_ones_need_no_new_engine(device, cache, tmp_path):
    frame = replace(FRAME, flat_field=True)
    back_end = on_tensorrt(device, cache, half=False)
    make(frame, back_end)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for number, bright in enumerate((150 + 0.3 * columns, 220 - 0.4 * rows)):
        path = tmp_path / f"bright_{number}.tif"
        tifffile.imwrite(path, bright.astype(np.float32))
        field = load_flat_field(path, None)
        image = drawn_frame(MODEL.card, MODEL.psf(), frame, field)
        with closing(engine(back_end, bright=path)) as opened:
            opened.submit(frame_message(0, image))
            (found,) = opened.results(400.0)
        expected = reference_answer(MODEL, image, field).particles
        assert len(found) == (expected[:, -1] >= 0.5).sum()


def test_without_an_engine_the_command_that_builds_one_is_named(device, cache):
    with closing(engine(on_tensorrt(device, cache))) as opened, pytest.raises(BackEndError) as caught:
        opened.warmup(*SHAPE, np.dtype(np.uint16))
    assert str(caught.value) == (
        "no engine was built for this model: run `liveptv engine build simulated.onnx --height 192 --width 288 "
        "--bits 16`, which takes minutes"
    )


@pytest.mark.parametrize(
    ("version", "gpu", "shape", "what"),
    [
        (
            "11.4.0.106",
            "the processor",
            SHAPE,
            "built for TensorRT 10.16.1.11, but this run has TensorRT 11.4.0",
        ),
        (
            "10.16.1.11",
            "NVIDIA H100",
            SHAPE,
            "built for the GPU the processor, but this run has the GPU NVIDIA",
        ),
        ("10.16.1.11", "the processor", (208, 288), "192 rows high, but this run has images 208 rows high"),
    ],
)
def test_an_engine_of_another_version_gpu_or_size_is_not_used_and_both_are_named(
    device, cache, version, gpu, shape, what
):
    make(FRAME, on_tensorrt(device, cache))
    device.facts = replace(device.facts, name=gpu)
    assert_refused(on_tensorrt(device, cache, stand_in(version)), shape, what)


def test_a_damaged_engine_and_one_that_tensorrt_refuses_are_to_be_built_again(device, cache):
    path, _ = make(FRAME, on_tensorrt(device, cache))
    assert facts_of(path)["key"]["gpu"] == "the processor"
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(on_tensorrt(device, cache), SHAPE, "damaged: run `liveptv engine build")
    back_end = on_tensorrt(device, cache)
    back_end.plans.keep(SHIPPED_MODEL, FRAME, b"plan of an older patch:")
    assert_refused(back_end, SHAPE, r"build it again.*not compatible")


def _weak(file: bytes) -> bytes:
    """The same network with one convolution's weights halved, as a wrong kernel would have it."""
    model = onnx.load_from_string(file)
    weights = next(t for t in model.graph.initializer if len(t.dims) == 4 and t.dims[2] == 3)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float16(0.5), weights.name))
    return model.SerializeToString()


def test_an_engine_with_wrong_numbers_is_not_kept(device, cache):
    with pytest.raises(WrongNumbersError, match="disagrees with ONNX Runtime"):
        make(FRAME, on_tensorrt(device, cache, stand_in(spoil=_weak)))
    assert not cache.folder.exists()


def test_a_build_that_fails_says_why_and_one_that_is_stopped_stops(device, cache):
    back_end = on_tensorrt(device, cache, stand_in(spoil=lambda _: None))
    with pytest.raises(BackEndError, match=r"cannot build the network: \[optimizer.cpp\] no implementation"):
        make(FRAME, back_end)

    def impatient(*_step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(FRAME, on_tensorrt(device, cache), impatient)
    assert not cache.folder.exists()


def test_a_network_that_tensorrt_cannot_read_is_refused_with_its_reason():
    node = onnx.helper.make_node("Fold", ["a"], ["b"], domain="nowhere")
    file = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])).SerializeToString()
    with pytest.raises(BackEndError, match=r"node 3 \(Fold\): Unsupported operator"):
        build_plan(Loaded(FULL, stand_in()), file, silent)


@pytest.fixture
def on_this_computer(device, tmp_path, monkeypatch):
    """A GPU, full TensorRT and a cache folder."""
    gpu = Gpu("the processor", (9, 0))
    monkeypatch.setattr("engines.tensorrt.cache.platformdirs.user_cache_path", lambda _: tmp_path)
    monkeypatch.setattr("engines.tensorrt.library.first_gpu", lambda *_: gpu)
    monkeypatch.setattr("engines.tensorrt.opening.first_gpu", lambda: gpu)
    monkeypatch.setattr("engines.tensorrt.library.Library.is_installed", property(lambda one: one is FULL))
    monkeypatch.setattr("engines.tensorrt.opening.load_library", lambda one: Loaded(one, stand_in()))
    monkeypatch.setattr("engines.tensorrt.opening.open_cuda", lambda: device)


@pytest.mark.usefixtures("on_this_computer")
def test_the_command_builds_what_the_back_end_then_runs(tmp_path, capsys):
    settings = SETTINGS.model_copy(update={"backend": "tensorrt"})
    with pytest.raises(ConfigurationError, match=r"no engine was built for simulated\.onnx"):
        open_back_end(settings, MODEL.card.pixel_size_um, SHIPPED_MODEL)
    size = ["--height", str(SHAPE[0]), "--width", str(SHAPE[1])]
    assert run_command_line(["engine", "build", str(SHIPPED_MODEL), *size]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0 are missing and 0 are new" in said
    assert str(tmp_path) in said.replace(" ", "")
    opened = open_back_end(settings, MODEL.card.pixel_size_um, SHIPPED_MODEL)
    with closing(opened.engine) as built:
        built.warmup(*SHAPE, np.dtype(np.uint8))
        assert built.info.backend == "tensorrt"
