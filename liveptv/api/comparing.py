"""What differs between two trajectory files, from Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def compare(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, within_um: float | None = None
) -> dict[str, Any]:
    """What differs between two trajectory files, such as a run and its replay; as `liveptv compare --json`.

    Parameters
    ----------
    a, b : path
        Trajectory files of `run`, `replay` or `track`.
    within_um : float, optional
        Two detections of a frame are one particle if they are each other's nearest and at most so far apart in x
        and y, um. By default two pixels.

    Returns
    -------
    dict
        `identical_rows`; what differs in `settings`, `model`, `engine`, `versions` and `source`, as [in a, in b];
        counts of `frames`, `detections` (distances in um), `tracks` and `commands`; see docs/replay.md.

    Raises
    ------
    LivePTVError
        For a file that cannot be read.
    """
    from liveptv.comparing.comparison import compare as compared

    return compared(Path(a), Path(b), within_um)
