"""How many particles a run's detector found from the tracker's predictions, and how many by searching."""

from __future__ import annotations

import math
from collections.abc import Mapping


def prediction_in_words(counts: Mapping[str, int], searched_part: float = math.nan) -> str:
    """A line from the counts of the detector; "" where no frame had a prediction.

    `searched_part` is the part of all pixels that the network has read, NaN where it is not known.
    """
    frames = counts.get("predicted_frames", 0)
    predicted, searched = counts.get("predicted", 0), counts.get("searched", 0)
    if not frames or not predicted + searched:
        return ""
    share = 100.0 * predicted / (predicted + searched)
    words = [f"{share:.1f} % of particles fitted from their prediction, {100.0 - share:.1f} % searched for"]
    if ghosts := counts.get("ghosts", 0):
        words.append(f"{ghosts} predicted one{'s were' if ghosts > 1 else ' was'} not there")
    if math.isfinite(searched_part):
        words.append(f"the network read {100.0 * searched_part:.1f} % of the pixels")
    return "; ".join(words)
