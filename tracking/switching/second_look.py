"""Decides the links of the frame before once more, by what the newest frame shows.

A link that was the likeliest when it was made may be wrong: where two particles pass each other, or one has just
switched, the next position tells. So a frame later the tracks are cut before that frame, and their paths since are
given to them anew, each path to one track, or to a new one: the assignment of `tracking.assignment`, with the
likelihoods of whole paths (`tracking.switching.hindsight`). Each such cut makes all links together likelier
(Collins, CVPR 2012: Multitarget data association with higher-order motion models).

Only tracks are looked at that could have been linked otherwise: most could not. Cuts two and three frames back, in
any order with this one, mended hardly more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tracking.assignment import AssignmentWorkspace, assign
from tracking.switching import hindsight
from tracking.switching.hindsight import NONE
from tracking.switching.motion import (
    APART,
    CONFIRMED,
    EXISTS,
    FIRST,
    HITS,
    ID,
    LABELS,
    LINK,
    MISSED,
    PAST_KIND,
    SEEN,
    SHARES,
    STATES,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

UNLIKELY = 12.0
"""A link that would have made those of its frame e^(12/2) times less likely is not thought of again: the frame
since hardly ever says as much against the others. With 8 and 40 the same links were mended; 40 takes longer."""
FRAMES = 2  # whose links are decided together: one that was linked before, and the newest


class Rules(NamedTuple):
    """Axes, detections that confirm, longest gap; probabilities that a new track is directed and real; below which
    probability of being there a track ends."""

    axes: int
    confirm: int
    max_gap: int
    directed: float
    real: float
    least_exists: float


@dataclass(slots=True, eq=False)
class Kept:
    """A frame: all tracks after it (`state`, `label`), its detections, and the links that were thought of.

    `tried` (2, K): number of a track, and a detection that it might have had but did not get.
    """

    frame: int
    clock: int
    now: float
    height: float
    slices: tuple[FloatArray, FloatArray, BoolArray]
    state: FloatArray
    label: IntArray
    z: FloatArray
    R: FloatArray
    times: FloatArray
    tried: IntArray

    def columns_of(self, numbers: IntArray) -> IntArray:
        """Where the tracks with these numbers are, -1: nowhere."""
        return places(self.label[ID], numbers)


def places(ordered: IntArray, numbers: IntArray) -> IntArray:
    """Where each of `numbers` (N,) is in `ordered` (M,), -1 where it is not."""
    if not ordered.size:
        return np.full(numbers.shape, -1)
    at = np.minimum(np.searchsorted(ordered, numbers), ordered.size - 1)
    return np.where(ordered[at] == numbers, at, -1)


class SecondLook:
    """Keeps the last frames; `look` decides and changes them.

    After it `newest` holds all tracks as they are known now; `born` is how many new ones there are.
    """

    def __init__(self) -> None:
        self._frames: deque[Kept] = deque(maxlen=FRAMES + 1)
        self._workspace = AssignmentWorkspace()
        self._touched: set[int] = set()
        self.born = 0

    @property
    def newest(self) -> Kept:
        """The last frame."""
        return self._frames[-1]

    def add(self, frame: Kept) -> None:
        """Take a frame as it was linked."""
        self._frames.append(frame)

    def look(
        self, next_id: int, rules: Rules, chances: Any, motion: Any, flow: Any, work: FloatArray
    ) -> dict[int, int]:
        """Decide again; a new track gets the number `next_id`, and so on.

        Returns the numbers of the tracks whose last row but one was written under another number, and that number.
        """
        self.born = 0
        self._touched = set()
        if len(self._frames) <= FRAMES:
            return {}
        cut = _Cut(list(self._frames), rules, (chances, motion, flow, work))
        if not cut.decide(self._workspace):
            return {}
        numbers, self.born = cut.numbers(next_id)
        before = set(self._frames[-FRAMES].label[ID].tolist())
        cut.rewrite(numbers)
        self._touched = {*numbers, *numbers.values(), *cut.path_of}
        return {number: was for was, number in numbers.items() if number != was and was in before}

    def touched(self, numbers: IntArray) -> BoolArray:
        """Which of the tracks with these numbers (N,) were changed by the last look."""
        return np.isin(numbers, list(self._touched))


class _Cut:
    """The tracks before a frame (`heads`) and their paths since (`window`)."""

    def __init__(self, frames: list[Kept], rules: Rules, given: tuple[Any, Any, Any, FloatArray]) -> None:
        self.heads, self.window = frames[0], frames[1:]
        self.rules = rules
        self._given = given
        self.path_of: dict[int, int] = {}  # of the tracks that are looked at, by number; -1 a new one
        self.pieces: set[int] = set()
        self._numbers = np.unique(np.concatenate([frame.label[ID] for frame in self.window]))
        self._columns = [frame.columns_of(self._numbers) for frame in self.window]
        self._path = self._paths()

    def _paths(self) -> tuple[IntArray, FloatArray]:
        """Of each track that was there since, and behind them one without detections."""
        count = self._numbers.size
        detection = np.full((len(self.window), count + 1), NONE)
        apart = np.zeros((len(self.window), 3, count + 1))
        for k, (frame, at) in enumerate(zip(self.window, self._columns, strict=True)):
            there = np.flatnonzero(at >= 0)
            detection[k, there] = frame.label[LINK, at[there]]
            apart[k][:, there] = frame.state[APART : APART + 3, at[there]]
        return detection, apart

    def _pairs(self) -> tuple[IntArray, IntArray]:
        """Which tracks may have which paths, by numbers: their own, and what they might have been linked to."""
        first = self.window[0]
        track, detection = first.tried
        owner = np.full(first.times.size, -1)
        owns = (first.label[LINK] >= 0) & (first.label[SHARES] == 0)
        owner[first.label[LINK, owns]] = first.label[ID, owns]
        other = owner[detection]
        is_seen = (self._path[0][:, :-1] >= 0).any(axis=0)
        seen = self._numbers[is_seen]
        usable = (other >= 0) & (other != track) & (self.heads.columns_of(track) >= 0)
        usable &= places(seen, other) >= 0
        newest = self.window[-1]
        # who has ended since keeps what it did: it has no row now that could tell of another
        usable &= newest.columns_of(other) >= 0
        usable &= (newest.columns_of(track) >= 0) | (places(seen, track) < 0)
        track, other = track[usable], other[usable]
        heads = np.concatenate([track, track, other, other])
        tails = np.concatenate([other, track, track, other])
        there = (self.heads.columns_of(heads) >= 0) & (places(seen, tails) >= 0)
        pairs = np.unique(np.stack([heads[there], tails[there]]), axis=1)
        return pairs[0], pairs[1]

    def _frames_given(self) -> tuple[Any, ...]:
        count = max(1, *(frame.times.size for frame in self.window))
        slices = max(1, *(max(part.size for part in frame.slices) for frame in self.window))
        n = len(self.window)
        z, R, times = np.zeros((n, 3, count)), np.zeros((n, 3, count)), np.zeros((n, count))
        of_slices, known = np.zeros((n, 3, slices)), np.zeros((n, 3), np.int64)
        for k, frame in enumerate(self.window):
            m = frame.times.size
            z[k, :, :m], R[k, :, :m], times[k, :m] = frame.z, frame.R, frame.times
            for row, part in enumerate(frame.slices):
                of_slices[k, row, : part.size] = part
                known[k, row] = part.size
        now = np.array([frame.now for frame in self.window])
        height = np.array([frame.height for frame in self.window])
        return z, R, times, now, height, of_slices, known

    def decide(self, workspace: AssignmentWorkspace) -> bool:
        """Find the likeliest paths of the tracks; returns whether any is another than it was."""
        heads, tails = self._pairs()
        if not heads.size:
            return False
        self._shown = self._frames_given()
        rows, row_of = np.unique(heads, return_inverse=True)
        pieces, piece_of = np.unique(tails, return_inverse=True)
        columns = places(self._numbers, pieces)
        at = self.heads.columns_of(rows)
        empty = self._numbers.size
        logs = self._weigh(
            np.concatenate([at[row_of], at, np.full(pieces.size, NONE)]),
            np.concatenate([columns[piece_of], np.full(rows.size, empty), columns]),
        )
        pairs, without, new = np.split(logs, [heads.size, heads.size + rows.size])
        costs = -2.0 * (pairs - without[row_of] - new[piece_of])
        indptr = np.zeros(rows.size + 1, np.int32)
        np.cumsum(np.bincount(row_of, minlength=rows.size), out=indptr[1:])
        chosen = assign(indptr, piece_of.astype(np.int32), costs, 0.0, workspace, pieces.size)
        found = np.where(chosen >= 0, pieces[chosen], -1)
        before = np.where(places(pieces, rows) >= 0, rows, -1)
        changed = found != before
        if not changed.any():
            return False
        self.path_of = dict(zip(rows[changed].tolist(), found[changed].tolist(), strict=True))
        self.pieces = (set(found[changed].tolist()) | set(before[changed].tolist())) - {-1}
        return True

    def _weigh(self, heads: IntArray, columns: IntArray) -> FloatArray:
        logs = np.zeros(heads.size)
        chances, motion, flow, work = self._given
        real = (self.rules.directed, self.rules.real)
        hindsight.weigh(
            self.heads.state, heads, columns, self.rules.axes, self._path, self._shown, chances, real, motion, flow,
            work, logs,
        )  # fmt: skip
        return logs

    def _retrace(self, heads: IntArray, columns: IntArray) -> FloatArray:
        """The states (N, frames, STATES) along paths of tracks."""
        states = np.zeros((heads.size, len(self.window), STATES))
        chances, motion, flow, work = self._given
        real = (self.rules.directed, self.rules.real)
        hindsight.retrace(
            self.heads.state, heads, columns, self.rules.axes, self._path, self._shown, chances, real, motion, flow,
            work, states,
        )  # fmt: skip
        return states

    def numbers(self, next_id: int) -> tuple[dict[int, int], int]:
        """The number of each path that was that of another track, by the one that it had; and how many are new.

        A path that has no track any more is that of a new one. If a new one's path has become that of an older
        track in its turn, it takes that number, which is free: so nothing that was written is lost.
        """
        numbers = {piece: head for head, piece in self.path_of.items() if piece >= 0}
        born = 0
        for piece in sorted(self.pieces - set(numbers)):
            if piece not in self.path_of:  # it was a new one's, and is
                numbers[piece] = piece
                continue
            free = piece
            while free in self.path_of and self.path_of[free] >= 0:
                free = self.path_of[free]
            if free in self.path_of:
                numbers[piece] = next_id + born
                born += 1
            else:
                numbers[piece] = free
        return numbers, born

    def rewrite(self, numbers: dict[int, int]) -> None:
        """Put the changed tracks into the frames since."""
        left = [head for head, piece in self.path_of.items() if piece < 0]
        head_of = {piece: head for head, piece in self.path_of.items() if piece >= 0}
        old = np.array([*numbers, *left])
        new = np.array([*numbers.values(), *left])
        heads = np.array([head_of.get(piece, -1) for piece in numbers] + left)
        at = np.where(heads >= 0, self.heads.columns_of(heads), NONE)
        columns = np.where(np.arange(old.size) < len(numbers), places(self._numbers, old), self._numbers.size)
        states = self._retrace(at, columns)
        gone = np.union1d(old, new)
        firsts = self._firsts(new, at)
        labels = np.zeros((old.size, LABELS), np.int64)
        labels[at >= 0] = self.heads.label[:, at[at >= 0]].T
        is_there = at >= 0
        for k, frame in enumerate(self.window):
            detection = self._path[0][k, columns]
            hit = detection >= 0
            is_there = is_there | hit
            labels[:, ID], labels[:, FIRST] = new, firsts
            labels[:, LINK] = detection
            where = frame.columns_of(old)
            labels[:, SHARES] = np.where((where >= 0) & hit, frame.label[SHARES, where], 0)
            labels[hit, HITS] += 1
            labels[hit, SEEN] = frame.clock
            labels[:, MISSED] = np.where(hit, 0, labels[:, MISSED] + 1)
            labels[:, CONFIRMED] |= labels[:, HITS] >= self.rules.confirm
            fails = is_there & ~hit & ((labels[:, CONFIRMED] == 0) | (labels[:, MISSED] > self.rules.max_gap))
            fails |= is_there & ~hit & (states[:, k, EXISTS] < self.rules.least_exists)
            states[:, k, PAST_KIND] = 0.0
            states[:, k, APART : APART + 3] = self._path[1][k][:, columns].T
            if k == len(self.window) - 1:
                is_there &= ~(fails & (columns == self._numbers.size))
            stays = ~np.isin(frame.label[ID], gone)
            state = np.concatenate([frame.state[:, stays], states[is_there, k].T], axis=1)
            label = np.concatenate([frame.label[:, stays], labels[is_there].T], axis=1)
            order = np.argsort(label[ID])
            frame.state, frame.label = (
                np.ascontiguousarray(state[:, order]),
                np.ascontiguousarray(label[:, order]),
            )
            if k:
                frame.tried = self._renamed(frame.tried, numbers)

    def _firsts(self, new: IntArray, at: IntArray) -> IntArray:
        """The frame of each track's first row: it has its number from there on."""
        newest = self.window[-1]
        where = newest.columns_of(new)
        firsts = np.where(where >= 0, newest.label[FIRST, where], newest.frame)
        return np.where(at >= 0, self.heads.label[FIRST, at], firsts)

    def _renamed(self, tried: IntArray, numbers: dict[int, int]) -> IntArray:
        track = tried[0].copy()
        for was, number in numbers.items():
            track[tried[0] == was] = number
        return np.stack([track, tried[1]])
