"""A calibration from stacks of beads: read, calibrate, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from liveptv.files import refuse_to_replace, writable
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.volumes.result import VolumeCalibration

log = logging.getLogger(__name__)


def calibrate_stacks(
    stacks: Sequence[Path],
    output: Path,
    *,
    dark: Path | None = None,
    z_step_um: float | None = None,
    pixel_size_um: float | None = None,
    axes: str | None = None,
    bead_diameter_um: float | None = None,
    overwrite: bool = False,
    on_progress: Callable[[str, float], None] = lambda _what, _part: None,
    say: Callable[[str], None] = log.warning,
) -> VolumeCalibration:
    """Calibrate from stacks of beads and write the file; the options are those of `liveptv calibrate --volume`.

    `on_progress` is called with the step and the part of it that is done; `say` gets each remark about the stacks.
    Raises `LivePTVError` if they cannot be used or the output cannot be written.
    """
    from dataclasses import replace

    from calibration.volumes.file import write_volume_calibration
    from calibration.volumes.pipeline import calibrate_volumes
    from calibration.volumes.reading import read_dark, read_stacks
    from liveptv.session.provenance import sha256

    if output.suffix.lower() not in {".h5", ".hdf5"}:
        raise ConfigurationError(f"a calibration is written as an .h5 file; {output} must end in .h5")
    refuse_to_replace(output, *stacks, dark)
    writable(output, overwrite)
    on_progress("reading", 0.0)
    read = read_stacks(stacks, pixel_size_um=pixel_size_um, z_step_um=z_step_um, axes=axes)
    for text in read.remarks:
        say(text)
    height, width = read.volumes.shape[2:]
    darkness = None if dark is None else read_dark(dark, (height, width))
    on_progress("reading", 1.0)
    found = calibrate_volumes(
        read.volumes,
        read.voxel_um,
        dark=darkness,
        bead_diameter_um=bead_diameter_um,
        remarks=read.remarks,
        on_progress=on_progress,
    )
    provenance = {
        "stacks": [path.name for path in stacks],
        "stacks_sha256": [sha256(path) if path.is_file() else "" for path in stacks],
        "dark": "" if dark is None else dark.name,
        "z_step_um": z_step_um,
        "pixel_size_um": pixel_size_um,
        "axes": axes,
        "bead_diameter_um": bead_diameter_um,
    }
    found = replace(found, provenance=provenance)
    write_volume_calibration(output, found)
    return found
