"""The size of a voxel of volumes that another program takes."""

from __future__ import annotations

import math

from acquisition.recorded_volumes.z_scale import z_step_of
from stream.errors import SourceError


def step_of_source(
    name: str, stated_um: float, given_um: float | None, pixel_um: float, measured_um: float = math.nan
) -> tuple[float, tuple[str, ...]]:
    """The distance between slices, um, and remarks about it, as `z_step_of`, in the words of `[source]`."""
    try:
        step_um, remarks = z_step_of(name, stated_um, measured_um, "", given_um, pixel_um)
    except SourceError as error:
        raise SourceError(in_settings(str(error))) from error
    return step_um, tuple(map(in_settings, remarks))


def in_settings(text: str) -> str:
    """What is asked for on the command line of a recording, as settings of a source."""
    for option, setting in (
        ("--z-step UM", "source.z_step_um"),
        ("--z-step", "source.z_step_um"),
        ("--pixel-size UM", "source.pixel_size_um"),
        ("--pixel-size", "source.pixel_size_um"),
        ("--axes ", "source.axes = "),
    ):
        text = text.replace(option, setting)
    return text
