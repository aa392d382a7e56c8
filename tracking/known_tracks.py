"""Where what is remembered of tracks is found again in the next frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def found_again(known: IntArray, now: IntArray) -> tuple[npt.NDArray[np.bool_], IntArray]:
    """Which of the tracks `now` (N,) are among the `known` (M,), and where those are there.

    Both are in order of their numbers; the second array is as long as there are such tracks.
    """
    at = np.searchsorted(known, now)
    is_known = at < known.size
    is_known[is_known] = known[at[is_known]] == now[is_known]
    return is_known, at[is_known]
