"""Opens the engine that the settings and the model file ask for; a back end is imported only when it is."""

from __future__ import annotations

from pathlib import Path

from engines.engine import Engine
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError

CURVE_SUFFIXES = (".h5", ".hdf5")


def open_engine(settings: DetectorSettings, *, model: Path | None, pixel_size_um: float) -> Engine:
    """Open an engine for images of `pixel_size_um`.

    `model` None: the classical detector in 2D; a width curve (.h5): the classical detector with depth.
    Raises `ConfigurationError` for every other file, and for a curve that cannot be read.
    """
    if not pixel_size_um > 0:
        raise ConfigurationError(f"the pixel size must be positive, not {pixel_size_um:g} um")
    if model is not None:
        check_model(model)
    from engines.classical.engine import ClassicalEngine

    return ClassicalEngine(settings, pixel_size_um, model)


def check_model(model: Path) -> None:
    """Raise `ConfigurationError` if `model` is not there or is no model that `open_engine` can use."""
    if not model.is_file():
        raise ConfigurationError(f"no model file {model}")
    suffix = model.suffix.lower()
    if suffix == ".onnx":
        raise ConfigurationError(
            f"{model} is a network, and network engines are not part of this version; "
            "give a width curve (.h5), or no model to detect in 2D"
        )
    if suffix not in CURVE_SUFFIXES:
        raise ConfigurationError(
            f"{model} is no model that this program knows; give a width curve (.h5), or none to detect in 2D"
        )
    from engines.classical.widths import WidthCurve

    WidthCurve.load(model)
