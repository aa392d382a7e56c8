"""The plan of a focus scan as a useq sequence: absolute focus positions and the number of images at each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from useq import MDASequence

from acquisition.settings import LimitsSettings, ScanSettings
from stream.errors import ConfigurationError

MAX_PLANES = 20_000  # 60 mm in 3 um steps; more are a mistyped step
SLACK = 1e-6  # of a step: 300 um / 3 um are 100 steps also after rounding


def plan_scan(settings: ScanSettings, limits: LimitsSettings, focus_um: float) -> MDASequence:
    """The scan as a plan: all images at a position, then the next position (`axis_order` zt).

    Positions are `step_um` apart from the first one on, downwards if `stop_um` is below `start_um`. None lies
    outside the range, and the rest of the range behind the last one is less than a step. With `range_um` the planes
    are centred on `focus_um`.

    Raises `ConfigurationError` if the scan, its approach or its end position leaves the limits.
    """
    positions_um = scan_positions(settings, focus_um)
    check_focus_range(limits, positions_um, "the scan", "scan.start_um, scan.stop_um or scan.range_um")
    if settings.backlash_um:
        check_focus_range(
            limits, [approach_um(settings, positions_um, 0)], "the approach", "scan.backlash_um"
        )
    check_focus_range(limits, [end_um(settings, limits, focus_um)], "the safe end", "scan.end_um")
    return MDASequence(
        z_plan={"absolute": positions_um},
        time_plan={"interval": 0, "loops": settings.images},
        axis_order="zt",
    )


def scan_positions(settings: ScanSettings, focus_um: float) -> list[float]:
    """The absolute focus positions of a scan in order, um. Raises `ConfigurationError`."""
    if settings.range_um is not None:
        if not math.isfinite(focus_um):
            raise ConfigurationError(
                f"scan.range_um is centred on the present focus, which reads {focus_um}; give scan.start_um "
                "and scan.stop_um"
            )
        half_um = settings.step_um * _steps(settings, settings.range_um) / 2
        start_um, stop_um = focus_um - half_um, focus_um + half_um
    else:
        assert settings.start_um is not None
        assert settings.stop_um is not None
        start_um, stop_um = settings.start_um, settings.stop_um
    steps = _steps(settings, abs(stop_um - start_um))
    step_um = math.copysign(settings.step_um, stop_um - start_um)
    return [start_um + index * step_um for index in range(steps + 1)]


def _steps(settings: ScanSettings, range_um: float) -> int:
    steps = math.floor(range_um / settings.step_um + SLACK)
    if steps >= MAX_PLANES:
        raise ConfigurationError(f"the scan would have {steps + 1} planes; increase scan.step_um")
    return steps


def planned_positions(plan: MDASequence) -> list[float]:
    """The focus positions of a plan, one for each plane, um."""
    return [float(z_um) for z_um in plan.z_plan or ()]


def planned_images(plan: MDASequence) -> int:
    """Number of images of a plan at each position."""
    return plan.sizes.get("t", 1) or 1


def approach_um(settings: ScanSettings, positions_um: Sequence[float], index: int) -> float:
    """Position from which a plane is approached in the direction of the scan, um."""
    downwards = len(positions_um) > 1 and positions_um[1] < positions_um[0]
    return positions_um[index] + (settings.backlash_um if downwards else -settings.backlash_um)


def end_um(settings: ScanSettings, limits: LimitsSettings, focus_um: float) -> float:
    """The safe end position, um: of the scan, else of the limits, else the focus position before the scan."""
    chosen = (settings.end_um, limits.safe_focus_um)
    return next((position_um for position_um in chosen if position_um is not None), focus_um)


def check_focus_range(limits: LimitsSettings, positions_um: Sequence[float], what: str, setting: str) -> None:
    """Raise `ConfigurationError` for positions outside the limits, if limits are set."""
    low_um = -math.inf if limits.min_focus_um is None else limits.min_focus_um
    high_um = math.inf if limits.max_focus_um is None else limits.max_focus_um
    for position_um in positions_um:
        if not low_um <= position_um <= high_um:
            raise ConfigurationError(
                f"{what} goes to {position_um:g} um, outside the limits {low_um:g} to {high_um:g} um; "
                f"change {setting} or limits.min_focus_um and max_focus_um"
            )
