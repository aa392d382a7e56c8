"""Makes the 8-bit form of a network from recorded images; keeps it only if it is as accurate."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import BACKGROUND_OF_FULL_SCALE
from acquisition.recording import open_stack
from engines.backends.openvino_network import OpenVinoNetwork, open_graph, processor_of
from engines.backends.quantise import RECIPES, Recipe, check_libraries, quantise_graph
from engines.backends.quantised import quantised_path, write_quantised
from engines.blocks import BLOCK_PX
from engines.flatfield import load_flat_field
from engines.network.model import OnnxModel
from engines.network.model_card import ModelCard
from engines.network.preparation import Preparation
from stream.errors import ConfigurationError, LivePTVError, SourceError

if TYPE_CHECKING:
    from calibration.training.material import Material
    from calibration.training.scoring import Scores
    from engines.refine.psf import FitModel

Float32Array = npt.NDArray[np.float32]

FRAMES = 48  # frames of the recording to measure ranges on; more take longer, fewer may miss rare values
TILE_PX = (
    512,
    768,
)  # px; the part of each frame that is used: larger parts show more particles and take longer
FEWEST_PX = 64  # px; the image of a particle far out of focus takes most of this
SCORED_IMAGES = (
    400  # images to compare on, the same for both precisions; more give steadier figures, take longer
)
SCORED_SEED = 4_000_000  # far from the seeds of training and scoring, so that no image was seen before
TOLERANCE = (
    0.1  # how much worse the 8-bit figures may be, relative; larger keeps faster but less accurate networks
)
COUNTED_ANYHOW = 0.002  # rates may be this much worse: a tenth of a very small rate would be a few particles
FIGURES = ("missed", "false", "x_um", "y_um", "z_um")
OPTICS = "optics "


class AccuracyError(LivePTVError):
    """A network in 8 bits is less accurate than in single precision; the text has the numbers."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was written, and how good the network is in single precision and in 8 bits."""

    path: Path
    full: Scores
    reduced: Scores
    recipe: Recipe


def quantise_model(
    model: Path, images: Path, bright: Path | None, dark: Path | None, say: Callable[[str], None]
) -> Kept:
    """Make the 8-bit form of `model` from recorded images, and keep it beside the model if it is as good.

    As good is: particles missed and false ones, and the errors of x, y and z, at most a tenth above those in
    single precision, on the same images drawn for the purpose. The `RECIPES` are tried in turn, the fastest first.
    Raises `AccuracyError` where none is as good (then nothing is kept),
    `ConfigurationError` for a model that images cannot be drawn for, or where libraries are missing, `SourceError`
    for bad recordings.
    """
    from calibration.training.scoring import HeldOut

    check_libraries()
    opened = OnnxModel(model)
    inputs = typical_inputs(opened.card, images, bright, dark)
    say(f"measuring value ranges on {len(inputs)} images of {images.name}")
    held_out = HeldOut(material_of(opened, model.name), SCORED_IMAGES, SCORED_SEED)
    full = held_out.score(opened, 1, opened.card.sigma_scale)
    say(f"in single precision: {described(full)}")
    quantised_path(model).unlink(missing_ok=True)
    for recipe in RECIPES:
        graph, weights = quantise_graph(model, inputs, recipe)
        core, read = open_graph(graph.decode(), np.frombuffer(weights, np.uint8))
        network = OpenVinoNetwork(core, read, 1, "int8")
        reduced = held_out.score(network, 1, opened.card.sigma_scale)
        say(f"{recipe}: {described(reduced)}")
        worse = shortcomings(full, reduced)
        if not worse:
            facts = _facts(images, len(inputs), full, reduced, recipe) | {"processor": processor_of(core)}
            return Kept(write_quantised(model, graph, weights, facts), full, reduced, recipe)
    raise AccuracyError(
        f"{model.name} is not accurate enough in 8 bits ({'; '.join(worse)}, more than a tenth worse than in "
        "single precision); give other images, with as many particles as in the experiment"
    )


def shortcomings(full: Scores, reduced: Scores) -> list[str]:
    """Figures of `reduced` that are more than a tenth (and, of rates, 0.2 points) above those of `full`."""
    worse = []
    for name in FIGURES:
        before, after = getattr(full, name), getattr(reduced, name)
        allowed = (1 + TOLERANCE) * before
        if name in ("missed", "false"):
            allowed = max(allowed, before + COUNTED_ANYHOW)
        if not after <= allowed:
            worse.append(f"{name} {after:.4g} and not {before:.4g}")
    return worse


def described(scores: Scores) -> str:
    """The figures that count, in a line."""
    return (
        f"missed {100 * scores.missed:.2f} %, false {100 * scores.false:.2f} % of {scores.particles} particles, "
        f"rms error of lone particles {scores.x_um:.3f}, {scores.y_um:.3f}, {scores.z_um:.3f} um (x, y, z)"
    )


def typical_inputs(
    card: ModelCard, images: Path, bright: Path | None, dark: Path | None
) -> list[Float32Array]:
    """Parts (1, 1, H, W) of recorded images as the network sees them; one of each of 48 frames at most.

    Raises `SourceError` for a recording without light or too small.
    """
    flat_field = None if bright is None else load_flat_field(bright, dark)
    rng = np.random.default_rng(0)
    inputs: list[Float32Array] = []
    with closing(open_stack(images)) as stack:
        shape = stack.info.height, stack.info.width
        if min(shape) < FEWEST_PX:
            raise SourceError(f"{images} has images of {shape[1]} x {shape[0]} pixels; give larger ones")
        if flat_field is not None:
            flat_field.check(shape)
        preparation = Preparation.of(card, shape, flat_field)
        chosen = np.unique(np.linspace(0, stack.info.planes - 1, FRAMES).round().astype(int))
        for index in chosen.tolist():
            if preparation.fill(stack.read(index).image) <= 0:
                continue
            height, width = (
                min(most, size // BLOCK_PX * BLOCK_PX) for most, size in zip(TILE_PX, shape, strict=True)
            )
            top, left = (
                int(rng.integers(0, size - part + 1))
                for size, part in zip(shape, (height, width), strict=True)
            )
            part = preparation.input[:, :, top : top + height, left : left + width]
            inputs.append(np.ascontiguousarray(part))
    if not inputs:
        raise SourceError(f"all images in {images} are dark; give images that are typical of the experiment")
    return inputs


def material_of(model: OnnxModel, name: str) -> Material:
    """What to draw images from that a model file can be judged by: its particle image, or its optics.

    Raises `ConfigurationError` for a file with neither.
    """
    particle = model.psf()
    if particle is not None:
        return _of_particle(particle, model.card)
    made_from = model.card.made_from
    if not made_from.startswith(OPTICS):
        raise ConfigurationError(f"{name} has no particle image to judge its 8-bit form by; train it again")
    from calibration.training.material import from_optics

    return from_optics(OpticsModel.model_validate_json(made_from.removeprefix(OPTICS)))()


def _of_particle(particle: FitModel, card: ModelCard) -> Material:
    from calibration.psf_model import PsfModel
    from calibration.synthesis import NoiseModel, Rendered
    from calibration.synthesis.from_optics import background_for
    from calibration.training.material import SCORED, Material

    model = PsfModel.of_fit(particle)
    grey = np.iinfo(np.uint8).max * BACKGROUND_OF_FULL_SCALE[card.polarity]
    whole = particle.read + particle.shot
    noise = NoiseModel.steady(max(particle.read, 0.0), min(particle.shot, whole), grey)
    return Material(
        training=(),
        scoring=Rendered(model, noise, background_for(model), SCORED),
        pixel_size_um=card.pixel_size_um,
        polarity=card.polarity,
        middle_um=card.middle_um,
        half_range_um=card.half_range_um,
        noise_contrast=card.noise_contrast,
        peak_contrast=card.peak_contrast,
        made_from=card.made_from,
        particle=particle,
        field_shape=card.field_shape,
        kinds=card.kinds,
    )


def _facts(images: Path, parts: int, full: Scores, reduced: Scores, recipe: Recipe) -> dict[str, Any]:
    rows = {
        name: {k: v if v is None or math.isfinite(v) else None for k, v in scores.summary().items()}
        for name, scores in (("float32", full), ("int8", reduced))
    }
    return {
        "images": images.name,
        "parts": parts,
        "recipe": asdict(recipe),
        "scores": rows,
        "versions": {name: version(name) for name in ("liveptv", "openvino", "nncf")},
    }
