"""Examples of an object, given as crops or as places in images, as what a network is trained on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.examples.crops import At, Crop
    from calibration.examples.objects import Example
    from calibration.training.material import Recipe

FAR_PX, FAR_PART = 2.5, 0.3
"""Distance of a centre from where it was pointed at, px and over the object's size, beyond which this is said:
users point to within 1.5 px."""
ONE_SIDED = 0.2
"""Part of an object's light without partner after half a turn, from which this is said."""
MORE_BY_NETWORK = "train a network for them: an output that ends in .onnx"


class Examples(NamedTuple):
    """Files of crops, or a recording and the objects' places `at` in it; a recording of the background, if any."""

    paths: tuple[Path, ...]
    at: tuple[At, ...] = ()
    background: Path | None = None
    pixel_size_um: float | None = None


def parse_at(texts: Sequence[str]) -> tuple[At, ...]:
    """Places as the option `--at` gives them, `x,y` or `x,y,image` in px. Raises `ConfigurationError`."""
    from calibration.examples.crops import At

    found = []
    for text in texts:
        parts = text.split(",")
        try:
            x, y = float(parts[0]), float(parts[1])
            image = int(parts[2]) if len(parts) > 2 else 0
            good = len(parts) <= 3 and math.isfinite(x) and math.isfinite(y) and image >= 0
        except (ValueError, IndexError):
            good = False
        if not good:
            raise ConfigurationError(
                f"--at {text} is no place; give x and y in pixels, as in --at 120,85, and the image's number from "
                "0 as a third, if there are several"
            )
        found.append(At(x, y, image))
    return tuple(found)


def examples_of(given: Examples, say: Callable[[str], None]) -> list[Example]:
    """The objects that were cut free; `say` gets a line for each. Raises what `recipe_of` raises."""
    from calibration.examples.crops import read_crops
    from calibration.examples.objects import crops_at, free

    if given.at:
        if len(given.paths) != 1:
            raise ConfigurationError(
                "--at needs one recording, in which the places are: give --examples once"
            )
        crops = crops_at(given.paths[0], given.at)
    else:
        crops = read_crops(given.paths)
    examples = free(crops)
    for crop, example in zip(crops, examples, strict=True):
        y, x = example.centre_px
        say(
            f"{crop.name}: centre at {crop.left + x:.2f}, {crop.top + y:.2f} px, {2 * example.radius_px:.1f} px "
            f"across, {abs(example.peak) / math.sqrt(example.noise_variance):.0f} times its noise, "
            f"{example.symmetry_in_words}"
        )
        if doubt := _doubt(crop, example):
            say(
                f"warning: {crop.name}: {doubt}; choose an object that stands alone, in the middle of its crop"
            )
    return examples


def _doubt(crop: Crop, example: Example) -> str:
    """Why an example may not be one object, or not with its centre; empty where nothing says so."""
    y, x = example.centre_px
    height, width = crop.grey.shape
    off_px = math.hypot(y - 0.5 * (height - 1), x - 0.5 * (width - 1))
    if off_px > max(FAR_PX, FAR_PART * 2 * example.radius_px):
        return f"its centre is {off_px:.1f} px from the middle, so it may touch another one, or be cut off"
    if example.one_sided_part > ONE_SIDED:
        return f"{100 * example.one_sided_part:.0f} % of it are on one side only and were taken away"
    return ""


def recipe_of(given: Examples, say: Callable[[str], None]) -> tuple[Recipe, str]:
    """What to train on, and the SHA-256 of the files with the examples.

    `say` gets a line for each example, and one for the image model that the network's detections are fitted with.

    Raises `SourceError` for files that cannot be read, `CalibrationError` for crops that no object can be cut from.
    """
    from calibration.examples.background import behind_of, light_of
    from calibration.examples.image_model import model_of
    from calibration.examples.material import from_examples
    from liveptv.session.provenance import sha256

    examples = examples_of(given, say)
    largest_px = max(example.reach_px for example in examples)
    behind = None
    if given.background is not None:
        behind = behind_of(given.background, largest_px)
    elif given.at:
        behind = light_of(given.paths[0], sorted({at.image for at in given.at}), largest_px)
    digest = hashlib.sha256("".join(sha256(path) for path in given.paths).encode()).hexdigest()
    pixel_size_um = _pixel_size_um(given, say)
    found = model_of(examples, pixel_size_um)
    fitted = None if found.is_rough else found.model
    say(found.words if fitted is not None else f"no fit after the network: {found.words}")
    made_from = _made_from(given, examples)
    return from_examples(examples, pixel_size_um, made_from, behind, fitted), digest


def make_model_of_examples(
    output: Path, given: Examples, say: Callable[[str], None], overwrite: bool = False
) -> str:
    """Write the image model of the examples; returns what was found, in words. `say` gets a line for each example.

    Raises `ConfigurationError` where they have none, and what `recipe_of` raises.
    """
    from calibration.examples.image_model import model_of
    from engines.matched.object_model import write_object_model

    examples = examples_of(given, say)
    found = model_of(examples, _pixel_size_um(given, say))
    if found.model is None:
        raise ConfigurationError(f"no image model: {found.words}; {MORE_BY_NETWORK}")
    made_from = _made_from(given, examples)
    write_object_model(output, found.model, made_from, overwrite, is_rough=found.is_rough)
    return found.words


def _made_from(given: Examples, examples: Sequence[Example]) -> str:
    return f"{len(examples)} examples in {', '.join(path.name for path in given.paths)}"


def _pixel_size_um(given: Examples, say: Callable[[str], None]) -> float:
    """As given, else as the file says, else 1 um."""
    from calibration.examples.crops import opened

    if given.pixel_size_um is not None:
        return given.pixel_size_um
    with closing(opened(given.paths[0])) as stack:
        found = stack.info.pixel_size_um
    if math.isfinite(found) and found > 0:
        return found
    say("the pixel size is not known, so that positions are in pixels; --pixel-size gives it")
    return 1.0
