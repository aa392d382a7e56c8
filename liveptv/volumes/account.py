"""How whole the volumes of a run are: from the table of frames of its trajectory file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracking.trajectories.schema import RecordArray

FRAME, VOLUME = "frame", "volume"


@dataclass(frozen=True, slots=True)
class VolumeAccount:
    """The volumes of a file: `whole` ones, `partial` ones, and the slices that these lack, `slices_lost`."""

    whole: int
    partial: int
    slices_lost: int

    @classmethod
    def of(cls, frames: RecordArray, attributes: Mapping[str, Any]) -> VolumeAccount | None:
        """From the committed entries of `/frames` (FRAME) and the file's attributes; None for a run with images."""
        told = attributes.get("volume")
        depth = told.get("slices") if isinstance(told, Mapping) else None
        if not isinstance(depth, int):
            return None
        slices = np.minimum(frames["slices"].astype(np.int64), depth)
        whole = int(np.count_nonzero(slices == depth))
        return cls(whole, len(frames) - whole, int((depth - slices).sum()))

    def in_words(self) -> str:
        """For a user."""
        if not self.partial:
            return f"{self.whole} whole"
        slices = "1 slice" if self.slices_lost == 1 else f"{self.slices_lost} slices"
        return f"{self.whole} whole, {self.partial} partial ({slices} without an image)"

    def to_dict(self) -> dict[str, int]:
        """As it is stored, in the file's attribute `volume`."""
        return {"whole": self.whole, "partial": self.partial, "slices_lost": self.slices_lost}


def unit_of(attributes: Mapping[str, Any]) -> str:
    """What a frame of a run is called: `frame`, or `volume`."""
    return VOLUME if isinstance(attributes.get("volume"), Mapping) else FRAME
