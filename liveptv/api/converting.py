"""Trajectories from and for other programs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from liveptv.workflows.interchange import Converted
from liveptv.workflows.interchange import convert as convert_file

log = logging.getLogger(__name__)


def convert(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    to: str | None = None,
    predicted: bool = False,
    flagged: bool = False,
    frame_rate_hz: float | None = None,
    pixel_size_um: float | None = None,
    length_unit: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Convert a trajectory file for another program, or another program's file into one.

    Parameters
    ----------
    path : str or path
        A trajectory file, or one of GEFF, TrackMate, flowtracks, VTK PolyData, or a table with tracks.
    output : str or path
        `.h5` for a trajectory file; `.geff`, `.xml`, `.vtp`, `.csv`, `.parquet`, `.rrd` for other programs.
    to : str
        The format, if the suffix does not say it: `"geff"`, `"flowtracks"`, `"trackmate"` ...
    predicted, flagged : bool
        Also export predicted rows; also tracks that were never confirmed, and second detections.
    frame_rate_hz, pixel_size_um, length_unit : float, float, str
        For files of other programs that do not state them; the unit is um, nm, mm or m.
    overwrite : bool
        Replace an existing output.

    Returns
    -------
    Converted
        `output`, `rows`, `tracks`, and `lost`: what the output does not hold, in words.

    Raises
    ------
    SourceError
        If the file cannot be read; the text says what to do.
    OutputError
        If the output exists or cannot be written.
    ConfigurationError
        If the format is not known.

    Examples
    --------
    >>> liveptv.convert("tracks.h5", "tracks.geff").lost
    >>> liveptv.convert("experiment.xml", "experiment.h5")
    """
    return convert_file(
        Path(path),
        Path(output),
        to=to,
        overwrite=overwrite,
        include_predicted=predicted,
        include_flagged=flagged,
        frame_rate_hz=frame_rate_hz,
        pixel_size_um=pixel_size_um,
        length_unit=length_unit,
        say=log.warning,
    )
