"""Finds the pipeline in a user's Python file, and what the file says about it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from calibration.deeptrack.errors import PipelineError
from calibration.deeptrack.notebook import SUFFIX as NOTEBOOK
from calibration.deeptrack.notebook import load_notebook
from stream.own_code import load_module, where_it_failed

WHAT = "images"
PREFERRED = "pipeline"
PIXEL_SIZE, PERIODS, NORMALISE = "pixel_size_um", "periods", "normalise"
"""Names that the file may define for liveptv."""
NORMALISATIONS = ("background", "noise")


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A pipeline and what its file says: `names` of its features, by the variables that hold them (by `id`).

    `pixel_size_um` and `normalise` are None where the file does not say. `periods` are those of angles, in rad.
    """

    path: Path
    name: str
    feature: Any
    names: Mapping[int, str]
    pixel_size_um: float | None
    periods: Mapping[str, float]
    normalise: str | None


def split_name(text: str) -> tuple[Path, str]:
    """The file and the name in it of `pipeline.py:NAME`, or of a notebook; "" without a name."""
    head, colon, name = text.rpartition(":")
    if colon and name.isidentifier() and len(head) > 1:  # not the colon of a drive
        return Path(head), name
    return Path(text), ""


def check_deeptrack() -> None:
    """Raise `PipelineError` where DeepTrack is not installed."""
    if find_spec("deeptrack") is None:
        raise PipelineError(
            'images of a pipeline need deeptrack: pip install "liveptv[deeptrack]" (with -c constraints.txt in a '
            "checkout)"
        )


def load_pipeline(path: Path, name: str = "") -> Loaded:
    """Run the user's file and find its pipeline: the variable `name`, or the only one that makes images.

    Of a notebook only what that variable needs is run.

    Raises `PipelineError` that names the file, and the line where there is one.
    """
    check_deeptrack()
    if not path.is_file() or path.suffix not in (".py", NOTEBOOK):
        raise PipelineError(
            f"there is no file {path}; --images names a .py or .ipynb file with a DeepTrack pipeline"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeepTrack's own, on libraries that it could use
        import deeptrack  # noqa: F401  # before the file, which may do without the import's warnings
    if path.suffix == NOTEBOOK:
        module = load_notebook(path, name, (PIXEL_SIZE, PERIODS, NORMALISE))
    else:
        module = load_module(path, WHAT)
    name, feature = _feature(path, module, name)
    return Loaded(
        path,
        name,
        feature,
        {id(value): key for key, value in vars(module).items() if _is_feature(value)},
        _number(path, module, PIXEL_SIZE),
        _periods(path, module),
        _normalise(path, module),
    )


def microscopes_of(feature: Any) -> list[Any]:
    """The microscopes (optics applied to a sample) of a pipeline."""
    from deeptrack.optical.optics import Microscope

    return [node for node in feature.recurse_dependencies() if isinstance(node, Microscope)]


def _is_feature(value: Any) -> bool:
    from deeptrack.features import Feature

    return isinstance(value, Feature)


def _feature(path: Path, module: ModuleType, name: str) -> tuple[str, Any]:
    if name:
        value = vars(module).get(name)
        if callable(value) and not _is_feature(value):
            value = _called(path, value, name)
        if not _is_feature(value):
            raise PipelineError(f"{path} has no DeepTrack pipeline {name!r}; name one of its variables")
        if not microscopes_of(value):
            raise PipelineError(
                f"{name} in {path} makes no images: it has no optics applied to a sample, as in optics(particles)"
            )
        return name, value
    found = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and _is_feature(value) and microscopes_of(value)
    }
    if PREFERRED in found:
        return PREFERRED, found[PREFERRED]
    parts = {
        id(part) for value in found.values() for part in value.recurse_dependencies() if part is not value
    }
    roots = {key: value for key, value in found.items() if id(value) not in parts}
    if len({id(value) for value in roots.values()}) != 1:
        listed = ", ".join(roots) or "none"
        raise PipelineError(
            f"{path} must have one DeepTrack pipeline that makes images (found: {listed}); name it: "
            f"--images {path.name}:NAME"
        )
    return next(iter(roots.items()))


def _called(path: Path, function: Any, name: str) -> Any:
    """The pipeline that a function of the user's returns."""
    try:
        return function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's function may raise anything, or call sys.exit
        raise PipelineError(f"{name} in {path} failed: {where_it_failed(error, path)}") from error


def _number(path: Path, module: ModuleType, name: str) -> float | None:
    value = vars(module).get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise PipelineError(f"{name} in {path} is {value!r}; it must be a positive number")
    return float(value)


def _periods(path: Path, module: ModuleType) -> dict[str, float]:
    value = vars(module).get(PERIODS, {})
    if not isinstance(value, Mapping) or not all(
        isinstance(period, int | float) and 0 < period < math.inf for period in value.values()
    ):
        raise PipelineError(f"{PERIODS} in {path} must be a dict from properties to their period in rad")
    return {str(key): float(period) for key, period in value.items()}


def _normalise(path: Path, module: ModuleType) -> str | None:
    value = vars(module).get(NORMALISE)
    if value is not None and value not in NORMALISATIONS:
        raise PipelineError(
            f"{NORMALISE} in {path} must be one of {', '.join(NORMALISATIONS)}, not {value!r}"
        )
    return value
