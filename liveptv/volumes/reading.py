"""Whether a recording is read as volumes where that is not said."""

from __future__ import annotations

import math
from pathlib import Path

from engines.settings import DetectorSettings


def wants_volumes(settings: DetectorSettings) -> bool | None:
    """Whether a detector is one for volumes, by its settings; None if these do not say."""
    from engines.factory import is_for_volumes

    if is_for_volumes(settings):
        return True
    of_images = settings.engine != "auto" or settings.diameter_px is not None
    if settings.model is not None or settings.file is not None or settings.bright is not None or of_images:
        return False
    return None


def has_volumes(path: Path, axes: str | None, settings: DetectorSettings) -> bool:
    """Whether a recording is to be read as volumes, by the detector's settings and, if those do not
    say, its file."""
    from acquisition.recording import open_stack

    wanted = wants_volumes(settings)
    if wanted is not None:
        return wanted
    stack = open_stack(path, axes)
    try:
        info = stack.info
        planes = dict(zip(info.axes, info.lead, strict=False)).get("Z", 1)
        return planes > 1 and math.isfinite(info.z_step_um)
    finally:
        stack.close()
