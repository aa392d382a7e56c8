"""The detector's decisions about each frame, as the file's table of frames stores them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stream.messages import Decisions, FitDecision
from tracking.trajectories.schema import NO_DECISIONS

MOST_OPENED = 2**32 - 1  # of the column
_KNOWN = {int(decision) for decision in FitDecision}


def as_columns(made: Decisions | None) -> tuple[Any, ...]:
    """The columns from `opened` to `learnt_from` of a frame."""
    if made is None:
        return 0, 0, -1, NO_DECISIONS, float("nan"), -1, -1
    return (
        min(made.opened, MOST_OPENED),
        int(made.replaced),
        made.predicted_from,
        int(made.fit),
        made.credit,
        made.turns_from,
        made.learnt_from,
    )


def decisions_of(frame: np.void) -> Decisions | None:
    """The decisions in an entry of `/frames` (FRAME); None where they are not known."""
    if int(frame["fit"]) not in _KNOWN:
        return None
    return Decisions(
        opened=int(frame["opened"]),
        replaced=bool(frame["replaced"]),
        predicted_from=int(frame["predicted_from"]),
        fit=FitDecision(int(frame["fit"])),
        credit=float(frame["fit_credit"]),
        turns_from=int(frame["turns_from"]),
        learnt_from=int(frame["learnt_from"]),
    )
