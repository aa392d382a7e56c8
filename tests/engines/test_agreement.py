"""All back ends are one detector: the same particles, at the same places, as the torch reference finds."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from astigmatic import frame
from scipy.spatial import cKDTree

pytest.importorskip("torch")

from host_device import HostDevice

from engines.backends.registry import BACK_ENDS
from engines.cuda.check import add_particle
from engines.cuda.engine import GpuEngine
from engines.cuda.with_torch.runner import TorchBackEnd
from engines.engine import Engine
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import Detections

SHAPE = (240, 320)
MODEL = OnnxModel(SHIPPED_MODEL)
SETTINGS = DetectorSettings(workers=1, refine=False, precision="full", min_confidence=0.6)


def rendered(seed: int) -> np.ndarray:
    """Particles anywhere, some of them overlapping, with noise, in uint8."""
    rng = np.random.default_rng(seed)
    contrast = MODEL.card.noise_contrast * rng.standard_normal(SHAPE).astype(np.float32)
    for _ in range(10):
        x, y, part = rng.uniform(0, SHAPE[1]), rng.uniform(0, SHAPE[0]), rng.uniform(0.1, 0.9)
        add_particle(contrast, x, y, part, MODEL.psf())
    return np.clip(np.rint(160 * (1 + MODEL.card.sign * contrast)), 0, 255).astype(np.uint8)


def opened(backend: str, device: str, host: HostDevice) -> Engine:
    if device == "gpu":  # its program, on the processor
        half = backend == "torch, half"
        return GpuEngine(SETTINGS, MODEL.card.pixel_size_um, SHIPPED_MODEL, TorchBackEnd(host, half=half))
    back_end = next(b for b in BACK_ENDS if (b.name, b.device) == (backend, device))
    return back_end.open(SETTINGS, MODEL.card.pixel_size_um, SHIPPED_MODEL)


def detections(engine: Engine) -> list[Detections]:
    found = []
    with closing(engine):
        for seed in range(3):
            engine.submit(frame(seed, rendered(seed)))
        while engine.pending:
            found += engine.results(30.0)
    return found


@pytest.fixture(scope="module")
def reference() -> list[Detections]:
    return detections(opened("torch", "cpu", None))


@pytest.mark.parametrize(
    ("backend", "device", "within_px", "within_um"),
    [
        ("onnxruntime", "cpu", 0.01, 0.1),
        ("openvino", "cpu", 0.01, 0.1),
        ("torch", "gpu", 0.01, 0.1),
        ("torch, half", "gpu", 0.05, 0.5),
    ],
)
def test_a_back_end_finds_what_the_torch_reference_finds(reference, backend, device, within_px, within_um):
    if backend == "openvino":
        pytest.importorskip("openvino")
    host = HostDevice()
    with closing(host):
        found = detections(opened(backend, device, host))
    assert sum(len(d) for d in reference) > 24
    pixel = MODEL.card.pixel_size_um
    for here, there in zip(found, reference, strict=True):
        assert len(here) == len(there)
        scale = np.array([[1 / pixel / within_px], [1 / pixel / within_px], [1 / within_um]])
        ours, theirs = here.table[:3] * scale, there.table[:3] * scale
        _, index = cKDTree(theirs.T).query(ours.T)
        assert len(set(index)) == len(there)
        assert np.abs(ours - theirs[:, index]).max() <= 1.0
