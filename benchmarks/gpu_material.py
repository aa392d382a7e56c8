"""What the GPU's benchmark looks at: drawn frames and a large network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.cuda.check import add_particle
from engines.cuda.engine import GpuEngine
from engines.cuda.slot import Slot
from engines.cuda.unpacking import Answer
from engines.engine import Engine
from engines.network.model import OnnxModel
from stream.messages import Frame, FrameInfo

SHIPPED = Path(__file__).parents[1] / "liveptv" / "models" / "simulated.onnx"
LIGHT = 0.6
PICTURES = 8
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


def frames_of(images: list[Image]) -> Iterator[Frame]:
    """The images over and over."""
    for number in count():
        yield Frame(FrameInfo("bench", number, number, 0.0, 0, 0.0), images[number % len(images)])


def lend_finds(engine: GpuEngine, finder: Engine, images: list[Image]) -> None:
    """Give an engine, in place of its own answers for the images, those of a network that finds the particles.

    It still does all of its work; but a network with random weights finds nothing, and there would be nothing to
    decode and to fit. Both engines are ready for the images' size after that; the finder is closed.
    """
    assert isinstance(finder, GpuEngine)
    for one in (engine, finder):
        one.warmup(*images[0].shape, images[0].dtype)
    answers: dict[int, Answer] = {}
    slot = finder._slots[0]
    for image in images:
        slot.fill(image)
        found = slot.answer()
        answers[id(image)] = Answer(found.kept.copy(), found.summary.copy())
    finder.close()
    for slot in engine._slots:
        _lend(slot, answers)


def _lend(slot: Slot, answers: dict[int, Answer]) -> None:
    fill, answer, shown = slot.fill, slot.answer, [0]

    def filled(image: Image) -> None:
        shown[0] = id(image)
        fill(image)

    def answered() -> Answer:
        answer()
        return answers[shown[0]]

    slot.fill, slot.answer = filled, answered  # type: ignore[method-assign]


def large_model(folder: Path, trained: Path | None) -> Path:
    """The large network: a trained one, or else one with random weights, written once into the folder."""
    if trained is not None:
        return trained
    path = folder / "large.onnx"
    return path if path.is_file() else make_large(folder)


def make_large(folder: Path) -> Path:
    """A large network with random weights, for times; what it finds means nothing. Needs torch."""
    import onnx
    import torch

    from engines.network.architecture import ParticleNet, Planes
    from engines.network.card_text import KEY
    from engines.network.model import INPUT, OUTPUT
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
