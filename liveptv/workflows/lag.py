"""Measures the lag of a scanning focus drive with the microscope of an experiment file."""

from __future__ import annotations

from collections.abc import Callable

from acquisition.microscope.microscope import Microscope
from acquisition.volumes.lag import LagEstimate
from acquisition.volumes.lag_scan import measure_lag
from liveptv.config import Experiment
from liveptv.foreign_code import device_code
from liveptv.workflows.run import stopping_on_interrupt
from liveptv.workflows.scan import Stop
from stream.errors import ConfigurationError


def run_lag(experiment: Experiment, *, pairs: int, on_note: Callable[[str], None]) -> LagEstimate:
    """Take `pairs` upward and downward volumes and one at rest with the experiment's `[volume]`; returns the lag.

    Raises `ConfigurationError` before anything moves, `SourceError` and `LagError` later.
    """
    if experiment.volume is None or experiment.microscope is None:
        raise ConfigurationError(
            "the experiment has no [volume] section; add one (docs/volumes-acquisition.md)"
        )
    for line in device_code(experiment):
        on_note(line)
    stop = Stop()
    microscope = Microscope(experiment.microscope)
    try:
        with stopping_on_interrupt(stop):
            return measure_lag(
                microscope,
                experiment.microscope,
                experiment.volume,
                experiment.limits,
                pairs=pairs,
                stopping=stop,
                report=on_note,
            )
    finally:
        microscope.close()


def described(found: LagEstimate) -> list[str]:
    """What was found, for the user: lines of text, then the settings."""
    lines = [
        f"{found.beads} beads appear {found.shift_um:.3f} um higher in upward than in downward volumes "
        f"(scatter of single beads {found.sd_um:.3f} um)"
    ]
    if found.changes:
        lines.append(
            f"the shift changes by {found.per_um:.3f} +- {found.per_um_error:.3f} um per um of height: the drive "
            "has not settled after turning round; set volume.settle_images, or scan more slowly"
        )
    return lines


def settings_of(found: LagEstimate) -> list[str]:
    """The lines for the section [volume] of the experiment file."""
    return [
        "[volume]",
        f"lag_up_um = {found.lag_up_um:.4f}    # +- {found.error_um:.4f}",
        f"lag_down_um = {found.lag_down_um:.4f}  # +- {found.error_um:.4f}",
    ]
