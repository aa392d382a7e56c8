"""Opens the source of an experiment: a microscope with its command executor, or a recording."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from acquisition.execution import CommandExecutor
from acquisition.source import Source
from liveptv.config import Experiment
from stream.errors import ConfigurationError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source, the executor of commands on it (None for a recording), and a function that closes both.

    `keeps_time`: whether frames come at the pace of a clock, so that they can be late. `remarks` are lines for
    the user: assumptions and decisions about a recording. `announce` takes a function to call after each frame;
    `quiet_s` tells for how long there is nothing to read. `watch` takes a "Device.Property", and a function that
    gets frame and value when that becomes another number than 0.
    """

    source: Source
    executor: CommandExecutor | None
    close: Callable[[], None]
    keeps_time: bool
    remarks: tuple[str, ...] = ()
    announce: Callable[[Callable[[], None]], None] = lambda _call: None
    quiet_s: Callable[[], float] = lambda: 0.0
    watch: Callable[[str, Callable[[int, float], None]], None] = lambda _name, _tell: None


def open_source(
    experiment: Experiment,
    run_id: str,
    report: Callable[[str], None] = log.warning,
    opening: Callable[[], None] = lambda: None,
) -> OpenedSource:
    """Open the microscope or the recording; `report` gets a line when the hardware is made safe.

    `opening` is called before the first device is opened.

    Raises `SourceError` if it cannot deliver frames.
    """
    if experiment.recording is not None:
        return _open_recording(experiment, run_id)
    if experiment.microscope is not None:
        return _open_microscope(experiment, run_id, report, opening)
    raise ConfigurationError("there is no source: add a [microscope] or a [recording] section")


def _open_recording(experiment: Experiment, run_id: str) -> OpenedSource:
    from acquisition.recording import open_recording
    from engines.factory import pixel_size_of

    settings = experiment.recording
    assert settings is not None
    recording = open_recording(
        settings.path,
        run_id=run_id,
        axes=settings.axes,
        frame_rate_hz=settings.frame_rate_hz,
        pixel_size_um=settings.pixel_size_um,
        model_pixel_size_um=partial(pixel_size_of, experiment.detector.model),
        pace=settings.pace,
    )
    remarks = tuple(f"{settings.path.name}: {text}" for text in recording.remarks)
    return OpenedSource(recording, None, recording.close, settings.pace, remarks)


def _open_microscope(
    experiment: Experiment, run_id: str, report: Callable[[str], None], opening: Callable[[], None]
) -> OpenedSource:
    from acquisition.core import find_config
    from acquisition.live import MicroscopeStream
    from acquisition.microscope import Microscope
    from acquisition.property_watch import PropertyWatch

    settings = experiment.microscope
    assert settings is not None
    find_config(settings.config)
    opening()
    microscope = Microscope(settings)
    try:
        source = MicroscopeStream(microscope, settings, run_id=run_id, report=report)
        executor = CommandExecutor(microscope, source, experiment.limits, report=report)
    except BaseException:
        microscope.close()
        raise

    def close() -> None:
        try:
            source.close()
        finally:
            microscope.close()

    def watch(name: str, tell: Callable[[int, float], None]) -> None:
        device, _, property_name = name.partition(".")
        microscope.check_property(device, property_name)
        read = partial(microscope.read_property, device, property_name)
        source.watch_with(PropertyWatch(name, read, tell, report).look)

    keeps_time = not microscope.simulated_time()
    return OpenedSource(
        source, executor, close, keeps_time, announce=source.announce, quiet_s=source.quiet_s, watch=watch
    )
