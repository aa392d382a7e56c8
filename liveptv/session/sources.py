"""Opens the source of an experiment: a microscope with its command executor, a recording, or another program."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from acquisition.commands.execution import CommandExecutor
from acquisition.source import Source
from liveptv.config import Experiment
from liveptv.config.experiment import NO_SOURCE
from liveptv.session.plan import ImageFormat
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from acquisition.recorded_run.places import RecordedFiles

NO_STEERING = "the frames come from another program, which this run cannot steer"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source, the executor of commands on it (None without a microscope), and a function that closes both.

    `keeps_time`: whether frames come at the pace of a clock, so that they can be late. `remarks` are lines for
    the user: assumptions and decisions about the frames, recorded as `kind`. `announce` takes a function to
    call after each frame; `quiet_s` tells for how long there is nothing to read. `follows`: the frames say what the
    run's detector did. `no_microscope` says why commands are refused without an executor. `watch` takes a
    "Device.Property", and a function that gets frame and value when that becomes another number than 0.
    """

    source: Source
    executor: CommandExecutor | None
    close: Callable[[], None]
    keeps_time: bool
    remarks: tuple[str, ...] = ()
    announce: Callable[[Callable[[], None]], None] = lambda _call: None
    quiet_s: Callable[[], float] = lambda: 0.0
    watch: Callable[[str, Callable[[int, float], None]], None] = lambda _name, _tell: None
    follows: bool = False
    kind: str = "recording"
    no_microscope: str = "a recording has no microscope"

    @property
    def image_format(self) -> ImageFormat:
        """What its images are like."""
        info = self.source.info
        return ImageFormat(
            info.height,
            info.width,
            info.depth,
            str(info.dtype),
            info.pixel_size_um,
            info.frame_rate_hz,
            info.frames,
            info.description,
            self.keeps_time,
            self.follows,
            info.z_step_um,
        )


def open_source(
    experiment: Experiment,
    run_id: str,
    report: Callable[[str], None] = log.warning,
    opening: Callable[[], None] = lambda: None,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> OpenedSource:
    """Open what the experiment names; `report` gets a line when the hardware is made safe, or about a sender.

    `opening` is called before the first device is opened. `is_abandoned` ends the wait for the first frame of
    another program.

    Raises `SourceError` if it cannot deliver frames.
    """
    if experiment.recording is not None:
        return _open_recording(experiment, run_id)
    if experiment.microscope is not None:
        return _open_microscope(experiment, run_id, report, opening)
    if experiment.source is not None:
        return _open_foreign(experiment, run_id, report, is_abandoned)
    raise ConfigurationError(NO_SOURCE)


def _open_recording(experiment: Experiment, run_id: str) -> OpenedSource:
    from acquisition.recorded_run.places import recorded_files
    from acquisition.recording import open_recording
    from engines.factory import pixel_size_of
    from liveptv.volumes.reading import has_volumes

    settings = experiment.recording
    assert settings is not None
    recorded = recorded_files(settings.path)
    if recorded is not None:
        return _open_recorded_run(experiment, recorded, run_id)
    recording = open_recording(
        settings.path,
        run_id=run_id,
        axes=settings.axes,
        frame_rate_hz=settings.frame_rate_hz,
        pixel_size_um=settings.pixel_size_um,
        model_pixel_size_um=partial(pixel_size_of, experiment.detector.model),
        pace=settings.pace,
        z_step_um=settings.z_step_um,
        volumes=settings.z_step_um is not None
        or has_volumes(settings.path, settings.axes, experiment.detector),
    )
    remarks = tuple(f"{settings.path.name}: {text}" for text in recording.remarks)
    return OpenedSource(recording, None, recording.close, settings.pace, remarks)


def _open_recorded_run(experiment: Experiment, files: RecordedFiles, run_id: str) -> OpenedSource:
    from liveptv.session.recorded_source import RUN, open_recorded_run

    settings = experiment.recording
    assert settings is not None
    run = open_recorded_run(settings, files, run_id)
    remarks = tuple(f"{settings.path.name}: {text}" for text in run.remarks)
    return OpenedSource(run, None, run.close, settings.pace, remarks, follows=settings.decisions == RUN)


def _open_foreign(
    experiment: Experiment, run_id: str, say: Callable[[str], None], is_abandoned: Callable[[], bool]
) -> OpenedSource:
    from acquisition.listened.listened import open_listened
    from acquisition.watched_folder.watched import open_watched
    from engines.factory import pixel_size_of
    from liveptv.volumes.reading import wants_volumes
    from stream.link import Policy
    from stream.security import load_keys

    settings, keys = experiment.source, experiment.session.keys
    assert settings is not None
    options: dict[str, Any] = {
        "run_id": run_id,
        "model_pixel_size_um": partial(pixel_size_of, experiment.detector.model),
        "seconds": experiment.run.seconds,
        "say": say,
        "is_abandoned": is_abandoned,
    }
    about: dict[str, Any] = {"kind": "source", "no_microscope": NO_STEERING}
    if not settings.is_live:
        files = open_watched(settings, volumes=wants_volumes(experiment.detector), **options)
        remarks = (files.info.description,)
        return OpenedSource(files, None, files.close, False, remarks, quiet_s=files.quiet_s, **about)
    frames = open_listened(
        settings,
        security=None if keys is None else load_keys(keys),
        keeps_early=experiment.link.policy not in {None, Policy.LIVE},
        **options,
    )
    return OpenedSource(
        frames,
        None,
        frames.close,
        True,
        (frames.info.description,),
        announce=frames.announce,
        quiet_s=frames.quiet_s,
        **about,
    )


def _open_microscope(
    experiment: Experiment, run_id: str, report: Callable[[str], None], opening: Callable[[], None]
) -> OpenedSource:
    from acquisition.microscope.core import find_config
    from acquisition.microscope.live import MicroscopeStream
    from acquisition.microscope.microscope import Microscope
    from acquisition.microscope.property_watch import PropertyWatch
    from acquisition.volumes.stream import VolumeStream

    settings = experiment.microscope
    assert settings is not None
    find_config(settings.config)
    opening()
    microscope = Microscope(settings)
    try:
        source: MicroscopeStream | VolumeStream
        if experiment.volume is None:
            focus = None
            source = MicroscopeStream(microscope, settings, run_id=run_id, report=report)
        else:
            source = VolumeStream(
                microscope, settings, experiment.volume, experiment.limits, run_id=run_id, report=report
            )
            focus = source.steering
        executor = CommandExecutor(microscope, source, experiment.limits, report=report, focus=focus)
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
