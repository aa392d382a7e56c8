"""Opening of the engine that settings and model file ask for; a back end is imported only if it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from engines.engine import Engine
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError

log = logging.getLogger(__name__)

CURVE_SUFFIXES = (".h5", ".hdf5")
NETWORK_SUFFIX = ".onnx"
VOLUME_MARK = b'"kind":"volume"'
"""What only a file with the card of a network for volumes holds."""
OTHER_OBJECTIVE = 0.05
"""Relative difference of pixel sizes that means another objective. Two measurements of one objective agree
better, magnifications of two objectives differ by far more."""


def open_engine(
    settings: DetectorSettings,
    *,
    model: Path | None,
    pixel_size_um: float,
    say: Callable[[str], None] = log.warning,
    fit_may_join: bool = False,
    volumes: bool = False,
    while_waiting: Callable[[], None] = lambda: None,
) -> Engine:
    """Open an engine for images of `pixel_size_um`, with warnings for what it leaves out (`WatchedEngine`).

    With `settings.file` it is that detector of a user's own. Otherwise `model` None: the classical detector in 2D;
    a width curve (.h5): the classical detector with depth; a network (.onnx): that, on the settings' back end.
    With `volumes` the frames are volumes: `model` None, or a calibration of volumes (.h5): matched filter and fit.
    `say` gets a line when a back end fails, and when particles are left out. With `fit_may_join` the engine's
    `warmup` does not wait for a fit that has to be compiled first (`NetworkEngine.let_fit_join`), nor do volumes
    for the size of a spot (`VolumeEngine`), for which otherwise is waited, and `while_waiting` called now and then.
    Raises `ConfigurationError` for every other file, for one that cannot be read, and if the settings ask for
    another kind of detector than the model is for.
    """
    from engines.watched_engine import WatchedEngine

    engine = _open(settings, model, pixel_size_um, say, fit_may_join, volumes, while_waiting)
    if (
        settings.self_check
        and not volumes
        and model is not None
        and engine.info.details.get("refine", False) is not False
    ):
        engine = _checked(engine, settings, model, pixel_size_um, say)
    return WatchedEngine(engine, settings.max_particles, say)


def prepare_to_open(model: Path | None) -> None:
    """Import and compile what an engine for `model` needs whatever the images, while the camera is opened."""
    if model is not None and model.suffix.lower() == NETWORK_SUFFIX:
        from engines.network.onnx_runtime import onnx_runtime

        onnx_runtime()  # its import takes longest
        from engines.backends import failover  # noqa: F401
        from engines.network.decode import compile_decoding

        compile_decoding()
    else:
        from engines.classical import engine  # noqa: F401


def _open(
    settings: DetectorSettings,
    model: Path | None,
    pixel_size_um: float,
    say: Callable[[str], None],
    fit_may_join: bool,
    volumes: bool,
    while_waiting: Callable[[], None],
) -> Engine:
    if not pixel_size_um > 0:
        raise ConfigurationError(f"the pixel size must be positive, not {pixel_size_um:g} um")
    if settings.file is not None:
        from engines.own.engine import OwnEngine

        return OwnEngine(settings, pixel_size_um, say)
    if volumes:
        return _open_for_volumes(settings, model, pixel_size_um, say, fit_may_join, while_waiting)
    _check_for_images(settings, model)
    network = model is not None and model.suffix.lower() == NETWORK_SUFFIX
    if settings.engine == "network" and not network:
        raise ConfigurationError('detector.engine is "network", which needs a network; give a model (.onnx)')
    if settings.engine == "classical" and network:
        raise ConfigurationError(f'{model} is a network; set detector.engine to "auto" to use it')
    if model is not None and network:
        from engines.backends.failover import open_guarded

        return open_guarded(settings, pixel_size_um, model, say, fit_may_join)
    if settings.backend != "auto":
        raise ConfigurationError(
            f'detector.backend "{settings.backend}" runs networks; give a model (.onnx), or leave it out'
        )
    if settings.device.startswith("gpu"):
        raise ConfigurationError(
            f'detector.device "{settings.device}" runs networks; give a model (.onnx), or leave it out'
        )
    if model is not None:
        check_model(model)
        if _is_object_model(model):
            if settings.engine == "classical":
                raise ConfigurationError(
                    f'{model} is an image model of objects; set detector.engine to "auto" to use it'
                )
            from engines.matched.engine import MatchedEngine

            return MatchedEngine(settings, pixel_size_um, model)
    from engines.classical.engine import ClassicalEngine

    return ClassicalEngine(settings, pixel_size_um, model)


def is_for_volumes(settings: DetectorSettings) -> bool:
    """Whether these settings are for volumes whatever the source: by the engine, a spot's size or the model."""
    return settings.engine == "sef3d" or settings.spot_um is not None or _is_volume_model(settings.model)


def _is_volume_model(model: Path | None) -> bool:
    """Whether it is a calibration or a network for volumes."""
    if model is None or not model.is_file():
        return False
    suffix = model.suffix.lower()
    if suffix == NETWORK_SUFFIX:
        return _is_published(model) or _is_volume_network(model)
    if suffix not in CURVE_SUFFIXES:
        return False
    from engines.volumes.model import is_volume_model

    return is_volume_model(model)


def _is_object_model(model: Path) -> bool:
    """Whether it is an image model of objects, for matched filters."""
    from engines.matched.object_model import is_object_model

    return model.suffix.lower() in CURVE_SUFFIXES and is_object_model(model)


def _is_volume_network(model: Path) -> bool:
    """Whether a model file says that it holds one, without opening it."""
    from engines.bounded_reading import MOST_MODEL_BYTES, read_file

    try:
        return VOLUME_MARK in read_file(model, MOST_MODEL_BYTES)
    except (OSError, ValueError):
        return False  # whoever opens it says why


def _check_for_images(settings: DetectorSettings, model: Path | None) -> None:
    """Raise `ConfigurationError` if settings or model are for volumes, and the frames are images."""
    if settings.engine == "sef3d" or settings.spot_um is not None:
        name = 'detector.engine "sef3d"' if settings.engine == "sef3d" else "detector.spot_um"
        raise ConfigurationError(f"{name} is for volumes, but the source has single images; leave it out")
    if _is_volume_model(model):
        raise ConfigurationError(
            f"{model} is for volumes, but the source has single images; give stacks, or another model"
        )


def _open_for_volumes(
    settings: DetectorSettings,
    model: Path | None,
    pixel_size_um: float,
    say: Callable[[str], None],
    size_may_join: bool,
    while_waiting: Callable[[], None],
) -> Engine:
    if model is not None:
        if not _is_published(model):
            check_model(model)
        if not _is_volume_model(model):
            raise ConfigurationError(
                f"{model} is for images, but the source has volumes; make a calibration with `liveptv calibrate "
                "--volume`, or give no model"
            )
    if settings.engine == "classical":
        raise ConfigurationError(
            'detector.engine is "classical", which reads images, but the source has volumes; set it to "auto"'
        )
    if model is not None and model.suffix.lower() == NETWORK_SUFFIX:
        if settings.engine == "sef3d":
            raise ConfigurationError(f'{model} is a network; set detector.engine to "auto" to use it')
        if _is_published(model):
            from engines.comparison.volumes.engine import HourglassEngine

            return HourglassEngine(settings, pixel_size_um, model)
    elif settings.engine == "network":
        raise ConfigurationError('detector.engine is "network", which needs a network; give a model (.onnx)')
    from engines.volumes.engine import VolumeEngine

    return VolumeEngine(
        settings, pixel_size_um, model, say=say, size_may_join=size_may_join, while_waiting=while_waiting
    )


def pixel_size_of(model: Path | None) -> float | None:
    """Size of a pixel, um, of the images that a model was made for; None without a model.

    Raises `ConfigurationError` if the model is not there or is no model that `open_engine` can use.
    """
    if model is None or _is_published(model):
        return None
    return check_model(model)


def _is_published(model: Path) -> bool:
    """Whether it is DetNet3D or DM-DetNet3D, which know voxels only."""
    if model.suffix.lower() != NETWORK_SUFFIX:
        return False
    from engines.comparison.volumes.model import is_hourglass

    return is_hourglass(model)


def _checked(
    engine: Engine, settings: DetectorSettings, model: Path, pixel_size_um: float, say: Callable[[str], None]
) -> Engine:
    """The engine with the self-check around it."""
    from engines.flatfield import load_flat_field
    from engines.refine.compiling import is_compiled
    from engines.selfcheck.checked_engine import CheckedEngine
    from engines.selfcheck.inspector import Inspector

    def make() -> Inspector | None:
        from engines.network.model import OnnxModel
        from engines.refine.psf import load_fit_model

        psf = OnnxModel(model).psf() if model.suffix.lower() == NETWORK_SUFFIX else load_fit_model(model)
        if psf is None or psf.quantity is not None:  # its checks go by depth
            return None
        light = None if settings.bright is None else load_flat_field(settings.bright, settings.dark)
        return Inspector(psf, pixel_size_um, light)

    return CheckedEngine(engine, make, say, is_ready=is_compiled)


def check_pixel_size(model: Path | None, pixel_size_um: float) -> None:
    """Raise `ConfigurationError` if a run continues with another pixel size than its model was made for.

    Another objective has another PSF, so the model's depths do not hold for it.
    """
    made_for_um = pixel_size_of(model)
    if made_for_um is not None and abs(pixel_size_um / made_for_um - 1) > OTHER_OBJECTIVE:
        raise ConfigurationError(
            f"the pixel size is now {pixel_size_um:g} um, but {model} was made for {made_for_um:g} um: go back to "
            "that objective, or calibrate with this one"
        )


def check_model(model: Path) -> float:
    """Size of a pixel, um, of the images that `model` was made for.

    Raises `ConfigurationError` if it is not there or is no model that `open_engine` can use.
    """
    if not model.is_file():
        raise ConfigurationError(f"no model file {model}")
    suffix = model.suffix.lower()
    if suffix == NETWORK_SUFFIX:
        if _is_volume_network(model):
            from engines.volumes.network.model import VolumeOnnxModel

            return VolumeOnnxModel(model).volume_model.pixel_size_um
        from engines.network.model import OnnxModel

        return OnnxModel(model).card.pixel_size_um
    if suffix not in CURVE_SUFFIXES:
        raise ConfigurationError(
            f"{model} is not a model that this program knows; give a network (.onnx) or a width curve (.h5), "
            "or none to detect in 2D"
        )
    if _is_volume_model(model):
        from engines.volumes.model import load_volume_model

        return load_volume_model(model).pixel_size_um
    if _is_object_model(model):
        from engines.matched.object_model import load_object_model

        return load_object_model(model).pixel_size_um
    from engines.classical.widths import WidthCurve

    return WidthCurve.load(model).pixel_size_um
