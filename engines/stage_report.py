"""What the detection stage reports of its engine and of its last frame: totals and gauges by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from engines.prediction_choice import PredictionChoice
from engines.selfcheck.gauges import ALARMS, DETAIL, gauges_of
from engines.watched_engine import FAILED, REPEATED
from stream.messages import Detections

LEFT_OUT = "left_out_"
"""Prefix, in the counts of the stage, of the reasons for which an engine left particles out."""
PREDICTION = "prediction"
"""What an engine's `info.details` say of predictions: counts, or False where it cannot use any."""
PREDICTED_FRAMES, PREDICTED = "predicted_frames", ("predicted", "searched", "ghosts")
PREDICTION_AGE, SEARCHED_PART = "prediction_age", "searched_part"
FITTED = ("refined", "not_refined", "reduced", "not_compiled")


def engine_counts(
    counts: Mapping[str, int], past: Counter[str], details: Mapping[str, Any]
) -> dict[str, int]:
    """What an engine left out, by its `counts` and those of the engines before it (`past`), and its fits.

    What is left out has the prefix `LEFT_OUT`, but repeated images are no particles. Failed frames are not in it:
    the stage counts those itself, once they are acknowledged.
    """
    counted = {reason: past[reason] + count for reason, count in counts.items()}
    own = {REPEATED: counted.pop(REPEATED)} if REPEATED in counted else {}
    counted.pop(FAILED, None)
    told = details.get("refine")
    fitted = told if isinstance(told, dict) else {}  # a fit that counts nothing is only named
    return (
        {f"{LEFT_OUT}{reason}": count for reason, count in counted.items()}
        | own
        | {name: int(fitted[name]) for name in FITTED if name in fitted}
    )


def prediction_counts(frames: int, details: Mapping[str, Any]) -> dict[str, int]:
    """How many `frames` had a prediction, and what became of the particles in them."""
    found = details.get(PREDICTION) or {}
    return {PREDICTED_FRAMES: frames} | {name: int(found[name]) for name in PREDICTED if name in found}


def stated_errors(last: Detections | None) -> dict[str, float]:
    """`sigma_*_um`: medians of the standard errors stated in a frame."""
    found = {}
    for axis in "xyz" if last is not None else "":
        sigma_um = getattr(last, f"sigma_{axis}_um")
        sigma_um = sigma_um[np.isfinite(sigma_um)]
        if sigma_um.size:
            found[f"sigma_{axis}_um"] = float(np.median(sigma_um))
    return found


def engine_gauges(details: Mapping[str, Any], predictions: PredictionChoice | None) -> dict[str, float]:
    """What an engine's `details` say of now: predictions, self-check, the depths that its model covers."""
    found: dict[str, float] = {}
    if predictions is not None:
        found[PREDICTION_AGE] = predictions.age
        found[SEARCHED_PART] = float((details.get(PREDICTION) or {}).get("tiles_px", math.nan))
    found |= gauges_of(details.get(DETAIL) or {})
    if alarms := details.get(ALARMS):
        found[ALARMS] = float(alarms)
    depths_um = details.get("z_um")
    if depths_um is not None:
        found |= {"depth_min_um": float(depths_um[0]), "depth_max_um": float(depths_um[-1])}
    return found
