"""All that tracks tell during a run: errors, focus, particles cut in two."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np

from stream.evidence import is_sure
from stream.messages import Detections, TrackFlag, Tracks
from tracking.run_check.focus import FocusCheck
from tracking.run_check.scatter import ScatterCheck

CUT_TOLERATED = 0.02
"""Part of the particles that may be second detections of others: twice what calibrated particles give."""
CUT_FRAMES, CUT_PERIOD, FEWEST_COUNTS = 500, 25, 6
"""Frames over which second detections are counted, how often, and counts before the first judgement."""


class RunCheck:
    """Takes the detections and the tracks of each frame."""

    def __init__(self) -> None:
        self._scatter = ScatterCheck()
        self._focus = FocusCheck()
        self._cut: deque[tuple[set[float], set[float]]] = deque(maxlen=CUT_FRAMES // CUT_PERIOD)
        self._looks = 0
        self._frames = 0

    def widened(self, detections: Detections) -> Detections:
        """The detections of a frame with standard errors widened where the tracks demand it, else themselves."""
        factor = self._scatter.factor
        if (factor == 1.0).all():
            return detections
        table = detections.table.copy()
        first = Detections.COLUMNS.index("sigma_x_um")
        table[first : first + 3] *= factor[:, None]
        return replace(detections, table=table)

    def look(self, tracks: Tracks) -> list[str]:
        """Judge the tracks of a frame; returns what is to be told, each once."""
        told = [*self._scatter.look(tracks), *self._focus.look(tracks)]
        self._frames += 1
        if self._frames % CUT_PERIOD == 0:
            told += self._count_cut(tracks)
        return told

    def _count_cut(self, tracks: Tracks) -> list[str]:
        flags = tracks.flags.astype(np.int64)
        good = (tracks.detection >= 0) & (flags & TrackFlag.TENTATIVE == 0)
        second = good & (flags & TrackFlag.SECOND_DETECTION != 0)
        self._cut.append((set(tracks.track[second].tolist()), set(tracks.track[good & ~second].tolist())))
        if len(self._cut) < FEWEST_COUNTS:
            return []
        self._looks += 1
        part, error = self._part()
        if not is_sure(part, error, CUT_TOLERATED, self._looks, 1):
            return []
        return [
            f"{100 * part:.0f} % of the particles are seen twice, close together and moving alike: their images "
            "are not those of the calibration (another size or shape, or the optics have changed); the second ones "
            "are flagged, calibrate with these particles"
        ]

    def _part(self) -> tuple[float, float]:
        """Second tracks over the others, of different particles, and its standard error."""
        second = set().union(*(one for one, _ in self._cut))
        others = set().union(*(one for _, one in self._cut)) - second
        part = len(second) / max(len(others), 1)
        return part, math.sqrt(max(len(second), 1) * (1 + part)) / max(len(others), 1)

    def facts(self) -> dict[str, float]:
        """Gauges, `check_*`."""
        cut = {"check_cut_in_two": self._part()[0]} if self._cut else {}
        return self._scatter.facts() | self._focus.facts() | cut
