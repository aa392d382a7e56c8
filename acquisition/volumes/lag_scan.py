"""Takes the volumes of resting beads from which the lag of the drive is measured, and measures it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from acquisition.microscope.microscope import Microscope
from acquisition.settings import LimitsSettings, MicroscopeSettings
from acquisition.volumes.lag import LagEstimate, estimate_lag
from acquisition.volumes.settings import VolumeSettings
from acquisition.volumes.stream import VolumeStream
from stream.errors import ConfigurationError, SourceError

VOLUME_S = 60.0  # s that a volume may take; a stepped one of 100 slices takes some ten
READ_S = 0.1  # s between looks whether a stop was asked for

FloatArray = npt.NDArray[np.float64]


def measure_lag(
    microscope: Microscope,
    settings: MicroscopeSettings,
    volume: VolumeSettings,
    limits: LimitsSettings,
    *,
    pairs: int = 10,
    stopping: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = lambda _text: None,
) -> LagEstimate:
    """Take `pairs` upward and downward volumes and one for which the drive rests at each slice; returns the lag.

    Lags in the settings are left out of account, so that the result replaces them. The focus ends where it was.

    Raises `ConfigurationError` for a drive that cannot be sequenced, `SourceError` if a device fails or a volume
    does not come, `LagError` if there are too few beads.
    """
    before_um = microscope.read_focus()
    scanned = volume.model_copy(
        update={"direction": "both", "mode": "sequenced", "lag_up_um": 0.0, "lag_down_um": 0.0}
    )
    rested = scanned.model_copy(update={"mode": "stepped", "direction": "up", "settle_images": 0})
    try:
        sums = _means(microscope, settings, scanned, limits, pairs, stopping, report)
        still = _means(microscope, settings, rested, limits, 1, stopping, report)
    finally:
        microscope.move_focus(before_um)
    heights = [k * volume.z_step_um for k in range(volume.slices)]
    return estimate_lag(sums[True], sums[False], heights, still[True])


def _means(
    microscope: Microscope,
    settings: MicroscopeSettings,
    volume: VolumeSettings,
    limits: LimitsSettings,
    count: int,
    stopping: Callable[[], bool],
    report: Callable[[str], None],
) -> dict[bool, FloatArray]:
    """Means of `count` whole volumes of each direction, by whether the focus rose."""
    source = VolumeStream(microscope, settings, volume, limits, run_id="lag", report=report)
    wanted = {True: count, False: count if volume.direction == "both" else 0}
    sums = {upwards: np.zeros((volume.slices, source.info.height, source.info.width)) for upwards in wanted}
    try:
        source.start()
        until_s = time.monotonic() + VOLUME_S
        while any(wanted.values()):
            frame = source.read(READ_S)
            if stopping():
                raise ConfigurationError("the scan for the lag was stopped")
            if frame is not None and frame.info.volume is not None and frame.info.volume.is_whole:
                upwards = frame.info.volume.upwards
                if wanted[upwards]:
                    sums[upwards] += frame.image
                    wanted[upwards] -= 1
                    until_s = time.monotonic() + VOLUME_S
            if time.monotonic() > until_s:
                raise SourceError(
                    f"no whole volume came for {VOLUME_S:g} s; check the trigger between camera and drive"
                )
    finally:
        source.close()
    return {upwards: total / count for upwards, total in sums.items()}
