"""Joins camera images with their detections and tracks, and keeps the newest complete one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from liveptv.monitor.images import SmallImage, small_image
from stream.messages import Detections, Frame, Tracks

# Frames: 2.7 s at 24 frames/s, more than the pipeline lags unless it is overloaded; if the lag is longer, the page
# shows no images. Larger costs memory (3.7 MB for an image of 1440 x 2560 x 8 bit).
REMEMBERED_FRAMES = 64
# Percentiles of depth that the colours span: single outliers do not stretch the colour scale.
COLOURED_PERCENT = (2, 98)
# Fraction of the difference by which the colour scale shrinks per image: 0.05 takes about 20 images, so the colours
# follow a new slice in a second or two without flickering. Sets only the look.
SHRINKING = 0.05
FEWEST_DEPTHS = 5  # detections below which percentiles mean nothing; the scale then stays as it is


@dataclass(frozen=True, slots=True)
class Shown:
    """One camera image with its detections and the tracks alive in it."""

    number: int
    frame: Frame
    detections: Detections
    tracks: Tracks | None


class LatestImage:
    """Takes frames, detections and tracks in any order; `shown` is the newest image whose results are complete."""

    def __init__(self) -> None:
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._found: OrderedDict[int, Detections] = OrderedDict()
        self._tracked: OrderedDict[int, Tracks] = OrderedDict()
        self._number = 0
        self._image: tuple[int, SmallImage] | None = None
        self._depth_um: tuple[float, float] | None = None
        self.shown: Shown | None = None

    def take(self, message: Frame | Detections | Tracks, *, expects_tracks: bool) -> None:
        """Take one message; with `expects_tracks` an image is complete only with its tracks."""
        number = message.info.frame
        if isinstance(message, Frame):
            _remember(self._frames, number, message)
            return
        if isinstance(message, Detections):
            _remember(self._found, number, message)
        else:
            _remember(self._tracked, number, message)
        tracks = self._tracked.get(number)
        if number not in self._frames or number not in self._found or (tracks is None and expects_tracks):
            return
        self._number += 1
        self.shown = Shown(self._number, self._frames.pop(number), self._found[number], tracks)

    def small(self, shown: Shown) -> SmallImage:
        """The image of `shown` for browsers; computed once for all of them."""
        if self._image is None or self._image[0] != shown.number:
            self._image = (shown.number, small_image(shown.frame))
        return self._image[1]

    def depth_range_um(self, shown: Shown) -> tuple[float, float] | None:
        """Depths that the colours span: 2 to 98 % of the detections', shrinking slowly; None in 2D.

        In volumes, those of the stack.
        """
        if (sides := self.small(shown).sides) is not None:
            return sides.z_um
        z_um = shown.detections.z_um
        z_um = z_um[np.isfinite(z_um)]
        if z_um.size >= FEWEST_DEPTHS:
            low, high = (float(value) for value in np.percentile(z_um, COLOURED_PERCENT))
            before = self._depth_um
            if before is not None:
                low = min(low, before[0] + SHRINKING * (low - before[0]))
                high = max(high, before[1] + SHRINKING * (high - before[1]))
            self._depth_um = (low, max(high, low + 1.0))
        return self._depth_um


def _remember(store: OrderedDict[int, Any], number: int, message: Frame | Detections | Tracks) -> None:
    store[number] = message
    while len(store) > REMEMBERED_FRAMES:
        store.popitem(last=False)
