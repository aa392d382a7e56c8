"""The fit where there is no time for all particles: some groups are fitted, the others keep the network's answer.

What is not fitted is drawn, with the network's places, into the image of what is, so that this is not biased. The
network's standard errors are multiplied by what the fitted particles show (`stated_errors`).
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from engines.refine.arguments import BoolArray, FloatArray, IntArray
from engines.refine.fit_notes import FitNotes, Learnt, Remembered
from engines.refine.grouping import blocks_of, usable_boxes
from engines.refine.particle_count import NEAR_PX
from engines.refine.psf import FitModel
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, X, Y, Z
from engines.refine.sample import add_misfit
from engines.refine.stated_errors import StatedErrors, are_known
from engines.refine.turns import Allowance, Candidates, FitTurns
from engines.refine.typical import ENOUGH, Sample
from stream.messages import DetectionFlag, Detections

X_UM, Z_UM, SIGMA_X, SIGMA_Z, CONFIDENCE, FLAGS = (
    Detections.COLUMNS.index(name)
    for name in ("x_um", "z_um", "sigma_x_um", "sigma_z_um", "confidence", "flags")
)
XYZ, SIGMAS = slice(X_UM, X_UM + 3), slice(SIGMA_X, SIGMA_X + 3)


class Part(NamedTuple):
    """What is fitted of a frame: the `rows` (K,) of its particles (N) that take part; `drawn` (K,) only are images.

    `chosen` (N,) says which are fitted, `overlapped` (N,) which are in groups; `units` is what their fit costs.
    """

    rows: IntArray
    drawn: BoolArray
    chosen: BoolArray
    overlapped: BoolArray
    units: float


class PartialFit:
    """What the fit remembers from frame to frame to be done in part; several threads may use it at once."""

    def __init__(self, model: FitModel) -> None:
        self.turns = FitTurns()
        self.errors = StatedErrors(model.z_min_um, model.z_max_um)
        self._model = model
        self._lock = threading.Lock()
        self._known = Sample(np.empty((0, 4)), np.empty((0, 2)), np.empty(0))

    def remembered(self) -> Remembered:
        """What is known now."""
        with self._lock:
            return Remembered(self._known, self.errors.all_factors)

    def _going_by(self, notes: FitNotes | None) -> Remembered:
        return self.remembered() if notes is None or notes.remembered is None else notes.remembered

    def known(self, notes: FitNotes | None) -> Sample:
        """The particles that were fitted last."""
        return self._going_by(notes).known

    def part(
        self,
        frame: int,
        table: FloatArray,
        start: FloatArray,
        proposals: FloatArray,
        shape: tuple[int, ...],
        allowed: Allowance,
    ) -> Part:
        """Which particles of a `table` (9, N) are fitted in an image of `shape` (H, W).

        `start` (N, 3) and `proposals` (P, 3) are the places, px, px, um, of the particles and of those that were
        too unlikely to be reported.
        """
        n = len(start)
        group, boxes = self._groups(start, shape)
        doubts = _nearest_group(proposals, start, group)
        candidates = Candidates(frame, table[:2].T, group, table[CONFIDENCE], table[SIGMA_Z], doubts)
        chosen, units = self.turns.choose(candidates, allowed)
        overlapped = np.bincount(group, minlength=n)[group] > 1 if n else np.zeros(0, np.bool_)
        rows = np.flatnonzero(chosen | reached(boxes, chosen))
        return Part(rows, ~chosen[rows], chosen, overlapped, units)

    def _groups(self, start: FloatArray, shape: tuple[int, ...]) -> tuple[IntArray, IntArray]:
        """The group (N,) of each particle, as the fit will make them, and their rectangles (N, 4)."""
        theta = np.column_stack([start, np.ones(len(start))])
        usable = np.asarray(np.isfinite(theta).all(axis=1), np.bool_)
        boxes = usable_boxes(theta, usable, (int(shape[0]), int(shape[1])), self._model.for_kernels(shape))
        group, _ = blocks_of(boxes, usable)
        return group, boxes

    def reduced(
        self, table: FloatArray, start: FloatArray, shape: tuple[int, ...], notes: FitNotes | None = None
    ) -> FloatArray:
        """A `table` (9, N) none of which is fitted; `start` and `shape` as in `part`."""
        overlapped = np.zeros(len(start), np.bool_)
        if are_known(self._going_by(notes).factors) and len(start):
            group, _ = self._groups(start, shape)
            overlapped = np.bincount(group)[group] > 1
        out = table.copy()
        self.flag(out, np.ones(table.shape[1], np.bool_), overlapped, start, shape, notes)
        return out

    def flag(
        self,
        table: FloatArray,
        reduced: BoolArray,
        overlapped: BoolArray,
        start: FloatArray,
        shape: tuple[int, ...],
        notes: FitNotes | None = None,
    ) -> None:
        """Flag the particles (N,) of a `table` (9, N) that are `reduced`, and correct what they state as errors.

        As long as nothing is known of these, they have the model's misfit added; `start` and `shape` as in `part`.
        """
        table[FLAGS, reduced] = float(DetectionFlag.REDUCED)
        factors = self._going_by(notes).factors
        if not are_known(factors):
            variance = add_misfit(table[SIGMAS].T ** 2, self._model, start[:, :2], start[:, Z], shape)
            table[SIGMAS, reduced] = np.sqrt(variance.T[:, reduced])
            return
        table[SIGMAS, reduced] *= self.errors.factors(table[Z_UM, reduced], overlapped[reduced], factors).T

    def learn(self, learnt: Learnt, notes: FitNotes | None = None) -> None:
        """Take what a frame has shown, or leave it in its notes to be taken in the order of frames."""
        if notes is not None:
            notes.learnt = learnt
            return
        before, after, fitted, overlapped = learnt
        off_um = (before[XYZ] - after[XYZ]).T
        self.errors.add(off_um, before[SIGMAS].T, after[SIGMAS].T, before[Z_UM], overlapped)
        with self._lock:
            known = self._known
            joined = (np.concatenate(pair) for pair in zip(known, fitted, strict=True))
            self._known = Sample(*(part[-ENOUGH:] for part in joined))


def _nearest_group(proposals: FloatArray, start: FloatArray, group: IntArray) -> IntArray:
    """The group (P,) of the particle that each proposal (P, 3) is settled with; -1 where there is none."""
    out = np.full(len(proposals), -1)
    for p, place in enumerate(proposals):
        apart = np.maximum(np.abs(start[:, X] - place[X]), np.abs(start[:, Y] - place[Y]))
        if len(apart) and apart.min() < NEAR_PX:
            out[p] = group[apart.argmin()]
    return out


def reached(boxes: IntArray, chosen: BoolArray) -> BoolArray:
    """Which rectangles (N, 4) may share pixels with a `chosen` one (N,) or what is added within `NEAR_PX`."""
    mine, others = boxes[chosen], np.flatnonzero(~chosen)
    near = chosen.copy()
    reach = int(NEAR_PX)
    box = boxes[others, None]
    near[others] = (
        (mine[:, TOP] - reach < box[..., BOTTOM])
        & (mine[:, BOTTOM] + reach > box[..., TOP])
        & (mine[:, LEFT] - reach < box[..., RIGHT])
        & (mine[:, RIGHT] + reach > box[..., LEFT])
    ).any(axis=1)
    return near
