"""From the GPU's result to slots for the decoder, in the order in which the full maps would give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.cuda.layout import BACKGROUND, COUNTS, INDEX, FrameFormat
from engines.engine import WrongNumbersError
from engines.network.decode import LEAST_LOGIT, fill_slot
from engines.network.layout import LOGIT, SLOTS

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The kept slots (strips, kept, values) and the summary of one frame, in the processor's memory."""

    kept: Float32Array
    summary: Float32Array

    @property
    def background(self) -> float:
        """In grey values, or relative to the bright reference where there is a flat field."""
        return float(self.summary[BACKGROUND])

    @property
    def complete(self) -> bool:
        """Whether there was room for every slot that may be a particle."""
        return bool((self.summary[COUNTS:] <= self.kept.shape[1]).all())

    def check(self) -> None:
        """Raise `WrongNumbersError` for values that are not finite, or all the same."""
        if not np.isfinite(self.summary).all():
            raise WrongNumbersError("the network gave values that are not finite numbers")
        logits = self.kept[:, :, 1 + LOGIT]
        if logits.min() == logits.max():
            raise WrongNumbersError("the network gave the same value everywhere")


def kept_slots(answer: Answer, frame: FrameFormat) -> npt.NDArray[np.float64]:
    """Slots (N, 8 and classes) of a complete answer, as `decode.slots_of` gives them.

    Positions in the frame are added here, in double precision: half precision is 2 px coarse at x = 2500.
    """
    slots: npt.NDArray[np.float64] = _place(
        answer.kept, answer.summary[COUNTS:], frame.cells[0] // frame.strips, frame.cells[1], LEAST_LOGIT
    )
    return slots


@njit(cache=True, nogil=True)
def _place(kept: Any, counts: Any, rows: int, columns: int, least_logit: float) -> Any:
    total = 0
    for strip in range(kept.shape[0]):
        total += int(counts[strip])
    found = np.empty((total, kept.shape[2] - 2))
    n = 0
    for strip in range(kept.shape[0]):
        for k in np.argsort(kept[strip, : int(counts[strip]), INDEX]):
            values = kept[strip, k, 1:]
            if values[LOGIT] > least_logit:
                cell = int(kept[strip, k, INDEX]) // SLOTS
                fill_slot(values, strip * rows + cell // columns, cell % columns, found[n], 0)
                n += 1
    return found[:n]
