"""Which device a network runs on: chosen by name, never an Intel GPU unasked, and said where it is not there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from engines.backends.openvino_devices import found_devices, gpu_named, why_no_gpu
from engines.backends.openvino_network import check_drawn
from engines.backends.registry import BACK_ENDS, BackEnd, candidates, open_back_end
from engines.engine import BackEndError, WrongNumbersError
from engines.factory import open_engine
from engines.network.layout import CHANNELS, LOGIT, SLOTS, X
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.errors import ConfigurationError

PC = {
    "CPU": "Some processor",
    "GPU.0": "Intel(R) UHD Graphics (iGPU)",
    "GPU.1": "Intel(R) Arc(TM) A770 (dGPU)",
}
MODEL = Path("model.onnx")
MADE = tuple(
    BackEnd(name, device, lambda *_: "", lambda *_: None, automatic, named)
    for name, device, automatic, named in (
        ("tensorrt", "gpu", True, False),
        ("openvino", "cpu", True, False),
        ("openvino", "gpu", False, True),
        ("torch", "cpu", False, False),
        ("onnxruntime", "cpu", True, False),
    )
)


def allowed(**settings):
    return {
        str(back_end): reason for back_end, reason in candidates(DetectorSettings(**settings), MODEL, MADE)
    }


def test_without_a_device_named_openvino_stays_on_the_processor():
    assert list(allowed()) == ["tensorrt (gpu)", "openvino (cpu)", "onnxruntime (cpu)"]
    assert list(allowed(backend="openvino")) == ["openvino (cpu)"]


def test_openvinos_gpu_runs_where_back_end_and_device_are_named():
    assert allowed(backend="openvino", device="gpu") == {"openvino (gpu)": ""}
    assert allowed(backend="openvino", device="cpu") == {"openvino (cpu)": ""}


def test_a_device_alone_chooses_among_the_back_ends_on_it_and_says_how_to_get_the_others():
    assert list(allowed(device="cpu")) == ["openvino (cpu)", "onnxruntime (cpu)"]
    assert allowed(device="gpu") == {
        "tensorrt (gpu)": "",
        "openvino (gpu)": 'runs only where detector.backend is "openvino"',
    }


def test_only_openvino_has_a_second_gpu():
    assert "CUDA_VISIBLE_DEVICES to 1" in allowed(device="gpu.1")["tensorrt (gpu)"]
    assert allowed(device="gpu.0")["tensorrt (gpu)"] == ""
    assert allowed(backend="openvino", device="gpu.1") == {"openvino (gpu)": ""}


def test_a_device_that_nothing_runs_on_is_one_line_with_the_reasons():
    absent = (BackEnd("tensorrt", "gpu", lambda *_: "no NVIDIA GPU driver", lambda *_: None), *MADE[1:])
    with pytest.raises(
        ConfigurationError,
        match=r'with detector.device "gpu" \(tensorrt \(gpu\): no NVIDIA.*set both to "auto"',
    ):
        open_back_end(DetectorSettings(device="gpu"), 0.8, MODEL, absent)


@pytest.mark.parametrize("device", ["cuda", "gpu.x", "gpu.-1", "cpu.1", "", "GPU.10", 3])
def test_devices_that_do_not_exist_are_refused_with_the_settings(device):
    with pytest.raises(ValidationError, match="device"):
        DetectorSettings(device=device)


def test_devices_may_be_written_as_openvino_writes_them():
    assert DetectorSettings(device="GPU.1").device == "gpu.1"


def test_the_classical_detector_runs_on_the_processor():
    assert open_engine(DetectorSettings(device="cpu"), model=None, pixel_size_um=0.8)
    with pytest.raises(ConfigurationError, match=r'"gpu" runs networks; give a model'):
        open_engine(DetectorSettings(device="gpu"), model=None, pixel_size_um=0.8)


@pytest.mark.parametrize(
    ("wanted", "devices", "name"),
    [
        ("gpu", PC, "GPU.0"),
        ("gpu.1", PC, "GPU.1"),
        ("gpu", {"CPU": "", "GPU": "one"}, "GPU"),
        ("gpu.0", {"CPU": "", "GPU": "one"}, "GPU"),
    ],
)
def test_the_gpu_meant_is_found(wanted, devices, name):
    assert gpu_named(wanted, devices) == name


def test_a_gpu_that_is_not_there_is_said_with_those_that_are():
    with pytest.raises(
        BackEndError, match=r"no GPU here, but CPU \(Some processor\), NPU \(AI\); it needs an Intel"
    ):
        gpu_named("gpu", {"CPU": "Some processor", "NPU": "AI"})
    with pytest.raises(BackEndError, match=r"no GPU\.2 here, but CPU .*GPU\.1 \(Intel\(R\) Arc"):
        gpu_named("gpu.2", PC)
    with pytest.raises(BackEndError, match="no GPU here, but no device"):
        gpu_named("gpu", {})


def test_a_device_whose_driver_is_broken_does_not_hide_the_others():
    class Core:
        available_devices = ("CPU", "GPU")

        def get_property(self, name, key):
            assert key == "FULL_DEVICE_NAME"
            if name == "GPU":
                raise RuntimeError("[GPU] clGetDeviceIDs\nfailed")
            return "Some processor"

    assert found_devices(Core()) == {"CPU": "Some processor", "GPU": "[GPU] clGetDeviceIDs failed"}


class OnAGpu:
    """ONNX Runtime, spoilt as the arithmetic of a GPU might."""

    backend = "openvino"
    device = "Some GPU"

    def __init__(self, spoilt, precision="float16"):
        self.model, self.spoilt, self.precision = OnnxModel(SHIPPED_MODEL), spoilt, precision

    def __call__(self, images):
        planes = self.model(images).copy()
        return self.spoilt(planes)


def rounded(planes):
    return planes.astype(np.float16).astype(np.float32)


def moved(planes):
    planes[:, X : SLOTS * CHANNELS : CHANNELS] += 0.1
    return planes


def dimmed(planes):
    planes[:, LOGIT : SLOTS * CHANNELS : CHANNELS] -= 0.5
    return planes


def broken(planes):
    raise RuntimeError("[GPU] clEnqueueNDRangeKernel\nerror code: -5")


def test_a_gpu_is_used_if_it_finds_what_onnx_runtime_finds():
    model = OnnxModel(SHIPPED_MODEL)
    check_drawn(OnAGpu(rounded), model)
    check_drawn(OnAGpu(lambda planes: planes, "float32"), model)
    for spoilt in (moved, dimmed, np.zeros_like):
        with pytest.raises(WrongNumbersError, match="openvino on Some GPU disagrees with onnxruntime"):
            check_drawn(OnAGpu(spoilt), model)


def test_a_gpu_that_cannot_run_the_network_is_one_line():
    with pytest.raises(
        BackEndError, match=r"this model on Some GPU: \[GPU\] clEnqueueNDRangeKernel error code: -5"
    ):
        check_drawn(OnAGpu(broken), OnnxModel(SHIPPED_MODEL))


def test_openvino_itself_says_that_there_is_no_gpu_and_what_there_is():
    openvino = pytest.importorskip("openvino")
    there = openvino.Core().available_devices
    if any(name.startswith("GPU") for name in there):
        assert why_no_gpu("gpu") == ""
        return
    assert re.search(r"OpenVINO finds no GPU here, but CPU \(.+\); it needs an Intel GPU", why_no_gpu("gpu"))
    with pytest.raises(
        ConfigurationError, match=r'with detector.device "gpu" \(openvino \(gpu\): OpenVINO finds no'
    ):
        open_back_end(DetectorSettings(backend="openvino", device="gpu"), 0.8, SHIPPED_MODEL)
    (one,) = [b for b in BACK_ENDS if b.device_is_named]
    assert one.why_not(DetectorSettings(), SHIPPED_MODEL).startswith("OpenVINO finds no GPU")


def test_openvino_says_that_a_device_of_another_name_cannot_run_the_network():
    pytest.importorskip("openvino")
    from engines.backends.openvino_network import OpenVinoNetwork, open_graph

    core, graph = open_graph(SHIPPED_MODEL)
    network = OpenVinoNetwork(core, graph, 2, "float32", "GPU.7")
    with pytest.raises(BackEndError, match=r"openvino cannot run this model on gpu\.7"):
        check_drawn(network, OnnxModel(SHIPPED_MODEL))
    # the same options but the target are those of a device that is there
    check_drawn(OpenVinoNetwork(core, graph, 2, "float32"), OnnxModel(SHIPPED_MODEL))
