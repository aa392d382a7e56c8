"""Export of a trained network to one ONNX file, with its metadata and with its weights for further training."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.export import Dim

from calibration.evaluation import AxisErrors
from calibration.training.checkpoint import Course
from calibration.training.class_temperature import class_temperature
from calibration.training.material import Material
from calibration.training.scoring import SCORING_SEED, HeldOut
from calibration.training.settings import TrainingError, TrainingSettings
from engines.network.architecture import ParticleNet, Planes, Size
from engines.network.card_text import KEY
from engines.network.decode import particles_of, slots_of
from engines.network.model import INPUT, ORIGIN, OUTPUT, OnnxModel, kind_key
from engines.network.model_card import FIELD_SCHEMA, PLAIN_SCHEMA, SCHEMA, ModelCard
from engines.network.preparation import padded
from engines.network.weights import KEY as WEIGHTS
from engines.network.weights import pack, unpack
from engines.refine import psf_text as packed
from engines.refine.psf import FitModel
from stream.unfinished_files import written_beside

LIBRARIES = ("liveptv", "torch", "onnx")
OPSET = 18
EXAMPLE_PX = 64
AGREEMENT = 2e-3
SIGMA_IMAGES = 96
SIGMA_RANGE = (0.2, 5.0)


class Scales(NamedTuple):
    """Factors for the standard errors of x, y and z, and for those of properties, by their name.

    `class_temperature` is what the logits of the classes are to be divided by.
    """

    place: tuple[float, float, float]
    properties: dict[str, float]
    class_temperature: float = 1.0


NO_SCALES = Scales((1.0, 1.0, 1.0), {})


def measure_scales(
    material: Material, settings: TrainingSettings, weights: dict[str, Any], images: int | None = None
) -> Scales:
    """Error over standard error on held-out images: root mean square, or the typical one where few are far off.

    For several kinds of particles also the temperature that makes their probabilities right. 1 where too few
    particles were found, or where neither is within `SIGMA_RANGE`.
    """
    count = settings.scored(SIGMA_IMAGES) if images is None else images
    network = _network(settings.size, material)
    network.load_state_dict(weights)

    @torch.no_grad()
    def detect(given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        maps: npt.NDArray[np.float32] = network(torch.from_numpy(given)).numpy()
        return maps

    slots: list[npt.NDArray[np.float64]] = []

    def read(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        slots.append(slots_of(maps, material.learnt))
        return particles_of(slots[-1], material.learnt)

    held_out = HeldOut(material, count, SCORING_SEED + 2)
    found = held_out.detect(detect, read=read)
    score = held_out.judge(found)
    errors = score.evaluation.errors
    axes = "xyz" if material.depth else "xy"
    place = [_scale(errors[axis]) if axis in errors else 1.0 for axis in axes]
    x, y, z = (*place, 1.0)[:3]
    low, high = SIGMA_RANGE
    learnt = {each.name: each.calibration for each in score.properties if low < each.calibration < high}
    temperature = 1.0
    if material.kinds > 1:
        mine, theirs = held_out.pairs_with(found, score.evaluation.depth)
        kind = held_out.scene.particles.kind[mine]
        temperature = class_temperature(slots, material.learnt, theirs, kind, material.kinds)
    return Scales((x, y, z), learnt, temperature)


def _scale(errors: AxisErrors) -> float:
    low, high = SIGMA_RANGE
    ratios = (errors.calibration, errors.calibration_robust)
    return next((ratio for ratio in ratios if low < ratio < high), 1.0)


def make_card(
    material: Material,
    settings: TrainingSettings,
    course: Course,
    calibration_sha256: str = "",
    scales: Scales = NO_SCALES,
) -> ModelCard:
    """The model's metadata; its scores are those of the weights that were kept."""
    schema = PLAIN_SCHEMA if material.field_shape is None and material.kinds == 1 else FIELD_SCHEMA
    if material.properties or not material.depth or material.normalisation != "background":
        schema = SCHEMA
    properties = tuple(
        each.model_copy(update={"sigma_scale": scales.properties.get(each.name, 1.0)})
        for each in material.properties
    )
    start = None if settings.start_from is None else settings.start_from.name
    temperature = {"class_temperature": round(scales.class_temperature, 3)} if material.kinds > 1 else {}
    kept = [s for s in course.scores if s["trained_s"] <= course.best_at_s + 0.1]
    return ModelCard(
        schema_version=schema,
        pixel_size_um=material.pixel_size_um,
        polarity=material.polarity,
        middle_um=material.middle_um,
        half_range_um=material.half_range_um,
        noise_contrast=material.noise_contrast,
        peak_contrast=material.peak_contrast,
        knee=material.knee,
        sigma_scale=scales.place,
        field_shape=material.field_shape,
        kinds=material.kinds,
        kind_names=material.kind_names,
        properties=properties,
        depth=material.depth,
        normalisation=material.normalisation,
        size=settings.size,
        made_from=material.made_from,
        calibration_sha256=calibration_sha256,
        training=settings.model_dump(mode="json", exclude={"checkpoint", "start_from"})
        | {"start_from": start},
        scores=(kept[-1] if kept else {}) | temperature,
        versions={name: version(name) for name in LIBRARIES},
    )


def export(
    path: Path,
    weights: dict[str, Any],
    card: ModelCard,
    particle: FitModel | None = None,
    others: Sequence[FitModel] = (),
) -> None:
    """Write the model; the file gets its name only once ONNX Runtime and torch have given the same answer.

    `particle` is the PSF model for the fit after the network; without it there is no fit. `others` are those of the
    second and third kind of particles.

    Raises `TrainingError` where it does not, `OutputError` if the file cannot be written.
    """
    network = _network(card.size, card)
    network.load_state_dict(weights)
    with written_beside(path, overwrite=True) as part:
        _write(part, network)
        model = onnx.load(str(part))
        forget_where_it_was_made(model)
        if network.field_shape is not None:
            _let_origin_be_left_out(model)
        properties = {
            KEY: card.model_dump_json(),
            WEIGHTS: pack({name: value.numpy() for name, value in weights.items()}),
        }
        if particle is not None:
            properties[packed.KEY] = packed.pack(particle)
            properties |= {kind_key(kind): packed.pack(other) for kind, other in enumerate(others, start=1)}
        onnx.helper.set_model_props(model, properties)
        onnx.save(model, str(part))
        _check(part, network)


def export_anew(path: Path, target: Path) -> None:
    """Write the network of the model file `path`, with its card and PSF models, as this version writes files.

    So a file for a field of view of before can read parts of frames, with the same answer to whole ones. Raises
    `ConfigurationError` for a file that is no model or has no weights, and what `export` raises.
    """
    model = OnnxModel(path)
    card = model.card.model_copy(update={"schema_version": max(model.card.schema_version, PLAIN_SCHEMA)})
    kinds = [psf for kind in range(card.kinds) if (psf := model.psf(kind)) is not None]
    export(target, read_weights(path, card.size), card, kinds[0] if kinds else None, kinds[1:])


def _network(size: str, made_for: Material | ModelCard) -> ParticleNet:
    network = ParticleNet(
        cast(Size, size), made_for.knee, made_for.field_shape, made_for.kinds, made_for.learnt
    )
    return network.eval()


def _write(path: Path, network: ParticleNet) -> None:
    examples: dict[str, torch.Tensor] = {INPUT: torch.zeros(1, 1, EXAMPLE_PX, 2 * EXAMPLE_PX)}
    rows, columns = (16 * Dim(name, min=2, max=1024) for name in ("rows", "columns"))
    sizes: dict[str, dict[int, Any] | None] = {INPUT: {2: rows, 3: columns}}
    if network.field_shape is not None:
        examples[ORIGIN], sizes[ORIGIN] = torch.full((1, 2), math.nan), None
    write_graph(path, Planes(network), examples, sizes)


def write_graph(
    path: Path,
    network: torch.nn.Module,
    examples: dict[str, torch.Tensor],
    sizes: Mapping[str, dict[int, Any] | None],
) -> None:
    """Write a network with these inputs as ONNX; `sizes` are the axes of each that may have any length."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, of its libraries
            torch.onnx.export(
                network,
                tuple(examples.values()),
                str(path),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=list(examples),
                output_names=[OUTPUT],
                dynamic_shapes=tuple(sizes.values()),
                verbose=False,
            )
    finally:
        exporter.setLevel(level)


def forget_where_it_was_made(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which contain paths of this machine."""
    graph = model.graph
    for some in (graph.node, graph.value_info, graph.input, graph.output, graph.initializer, [graph]):
        for part in some:
            del part.metadata_props[:]
            part.doc_string = ""


def _let_origin_be_left_out(model: onnx.ModelProto) -> None:
    """Give the input `origin` a value of its own, as ONNX allows.

    Who knows nothing of parts (OpenVINO, earlier versions of this program) then sees one input, the image, and gets
    the place from its size.
    """
    unknown = np.full((1, 2), np.nan, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(unknown, ORIGIN))


def _check(path: Path, network: ParticleNet) -> None:
    model = OnnxModel(path)
    asked: list[tuple[tuple[int, int], tuple[float, float] | None]] = [((96, 160), None)]
    if network.field_shape is not None:
        height, width = network.field_shape
        asked += [((padded(height), padded(width)), None), ((96, 160), (0.75 * width, 0.25 * height))]
    for shape, origin in asked:
        images = np.random.default_rng(0).standard_normal((1, 1, *shape)).astype(np.float32)
        with torch.no_grad():
            ours = network.planes(
                torch.from_numpy(images), None if origin is None else torch.tensor([origin])
            ).numpy()
        difference = float(np.abs(model(images, origin) - ours).max())
        if not difference < AGREEMENT:
            raise TrainingError(f"the ONNX file differs from the network by {difference:.2g}; report this")


def read_weights(path: Path, size: str) -> dict[str, Any]:
    """The weights of a model to train further.

    Raises `ConfigurationError` for a file that is no model or has no weights, `TrainingError` for another size.
    """
    model = OnnxModel(path)
    if model.card.size != size:
        raise TrainingError(
            f"{path} is a {model.card.size} network; pass --size {model.card.size} to start from it"
        )
    return {name: torch.from_numpy(array) for name, array in unpack(model.metadata, str(path)).items()}
