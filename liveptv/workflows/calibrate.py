"""A calibration from a focus scan: check, calibrate, write."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from liveptv.files import refuse_to_replace, writable

if TYPE_CHECKING:
    from calibration.result import Calibration

log = logging.getLogger(__name__)


def calibrate_scan(
    scan: Path,
    output: Path,
    *,
    bright: Path | None,
    dark: Path | None,
    z_step_um: float | None,
    repeats: int | None,
    pixel_size_um: float | None,
    axes: str | None,
    polarity: Literal["dark", "bright"] | None,
    neighbour_px: float | None,
    slide: Literal["level", "tilted"] = "level",
    kinds: int | None = None,
    overwrite: bool,
    on_progress: Callable[[str, float], None],
    say: Callable[[str], None] = log.warning,
) -> Calibration:
    """Calibrate a focus scan and write the calibration file; the options are those of `liveptv calibrate`.

    `on_progress` is called with the step and the part of it that is done, 0 to 1; `say` gets each remark about the
    scan. Raises `LivePTVError` if the scan cannot be used or the output cannot be written.
    """
    from calibration.calibration_file import write_calibration
    from calibration.pipeline import calibrate
    from calibration.preparation import Options
    from calibration.scan.planes import FocusScan
    from liveptv.session.provenance import sha256

    refuse_to_replace(output, scan, bright, dark)
    writable(output, overwrite)
    options = Options(
        bright=bright, dark=dark, polarity=polarity, neighbour_px=neighbour_px, slide=slide, kinds=kinds
    )
    opened = FocusScan(
        scan,
        z_step_um=z_step_um,
        repeats=repeats,
        pixel_size_um=pixel_size_um,
        axes=axes,
        on_progress=lambda part: on_progress("reading", part),
    )
    for text in opened.remarks:
        say(f"{scan.name}: {text}")
    with opened:
        calibrated = calibrate(opened, options, on_progress)
        provenance = {
            "scan": scan.name,
            "scan_sha256": sha256(scan) if scan.is_file() else "",
            "bright": "" if bright is None else bright.name,
            "dark": "" if dark is None else dark.name,
            "z_step_um": z_step_um,
            "repeats": repeats,
            "axes": axes,
            "remarks": list(opened.remarks),
            "polarity": polarity,
            "slide": slide,
            "kinds": kinds,
        }
        write_calibration(output, calibrated, opened, provenance=provenance, on_progress=on_progress)
    return calibrated.calibration
