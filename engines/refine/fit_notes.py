"""What the fit of one frame goes by, decides and learns, so that it can be done once more with the same result.

A fit that is limited in time goes by what earlier fits have shown and by what the clock allows. Both are inputs
here: `Remembered` is fixed when a frame is given to the detector, and the rest is `Given` in a replay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from engines.refine.arguments import BoolArray, FloatArray
from engines.refine.typical import Sample


class Remembered(NamedTuple):
    """What fitted particles have shown: the last of them, and the `factors` of the network's standard errors."""

    known: Sample
    factors: FloatArray


class Learnt(NamedTuple):
    """Fitted particles (N): columns of the table (9, N) `before` and `after` the fit, and the fit itself."""

    before: FloatArray
    after: FloatArray
    fitted: Sample
    overlapped: BoolArray


class Given(NamedTuple):
    """What the clock had decided in an earlier run: see `stream.messages.Decisions`."""

    credit: float
    turns_from: int


@dataclass(slots=True)
class FitNotes:
    """Of one frame: what it goes by (`remembered`, `given`), and what has come of it.

    `remembered` is None where a fit goes by nothing but its own frame. `learnt` is taken over by who keeps these
    notes, in the order of frames.
    """

    remembered: Remembered | None = None
    given: Given | None = None
    credit: float = math.inf
    turns_from: int = -1
    learnt: Learnt | None = None
