"""What the GPU's benchmark looks at: drawn frames, a large network, TensorRT engines."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.cuda.check import add_particle
from engines.cuda.device import Device
from engines.cuda.engine import GpuBackEnd
from engines.cuda.layout import MOST_PARTICLES, FrameFormat
from engines.network.model import OnnxModel

SHIPPED = Path(__file__).parents[1] / "liveptv" / "models" / "simulated.onnx"
LIGHT = 0.6
Image = npt.NDArray[Any]


def picture(model: OnnxModel, shape: tuple[int, int], dtype: type, particles: int, seed: int) -> Image:
    """A frame with particles anywhere."""
    rng = np.random.default_rng(seed)
    contrast = model.card.noise_contrast * rng.standard_normal(shape, np.float32)
    particle = model.psf()
    assert particle is not None, "take a model that carries its particle image"
    for _ in range(particles):
        x, y = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        add_particle(contrast, x, y, rng.uniform(0.05, 0.95), particle)
    full = np.iinfo(dtype).max
    return np.clip(np.rint(full * LIGHT * (1 + model.card.sign * contrast)), 0, full).astype(dtype)


def make_large(folder: Path) -> Path:
    """A large network with random weights, for times; what it finds means nothing."""
    import onnx
    import torch

    from engines.network.architecture import ParticleNet, Planes
    from engines.network.model import INPUT, OUTPUT
    from engines.network.model_card import KEY
    from engines.network.weights import KEY as WEIGHTS
    from engines.network.weights import pack
    from engines.refine import psf_text as packed

    torch.manual_seed(0)
    shipped = OnnxModel(SHIPPED)
    network = ParticleNet("large", shipped.card.knee).eval()
    path = folder / "large.onnx"
    rows, columns = (16 * torch.export.Dim(name, min=2, max=1024) for name in ("rows", "columns"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            Planes(network).eval(),
            (torch.zeros(1, 1, 64, 128),),
            str(path),
            dynamo=True,
            external_data=False,
            opset_version=18,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({2: rows, 3: columns},),
            verbose=False,
        )
    model = onnx.load(str(path))
    card = shipped.card.model_copy(update={"size": "large", "made_from": "random weights"})
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    onnx.helper.set_model_props(
        model,
        {KEY: card.model_dump_json(), WEIGHTS: pack(arrays), packed.KEY: shipped.metadata[packed.KEY]},
    )
    onnx.save(model, str(path))
    return path


def tensorrt_back_end(device: Device, paths: list[Path], shape: tuple[int, int], folder: Path) -> GpuBackEnd:
    """TensorRT with engines built now, for each of the models."""
    from engines.tensorrt.build_and_check import make_engine
    from engines.tensorrt.cache import EngineCache
    from engines.tensorrt.runner import TensorRTBackEnd

    back_end = TensorRTBackEnd(device, cache=EngineCache(folder / "engines"))
    for path in paths:
        frame = FrameFormat.of(shape, np.dtype(np.uint8), False, MOST_PARTICLES)
        make_engine(path, frame, back_end, lambda *_: None)
    return back_end
