"""Scores of found trajectories against true ones: those of the Particle Tracking Challenge, and links.

Chenouard et al., Nature Methods 11, 281 (2014), supplementary note 3. Distances are Euclidean and cut off at a
gate; where the errors of the axes differ, give positions in units of their standard errors.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from stream.errors import ConfigurationError
from tracking.assignment import AssignmentWorkspace, assign

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrackScores:
    """Scores of the Particle Tracking Challenge.

    `alpha` (0 to 1) is 1 if all true trajectories were found exactly; `beta` is alpha with a penalty for spurious
    trajectories. `jsc` is the Jaccard index of points, `jsc_tracks` of trajectories. `rmse` is the root mean square
    distance of the `matched` points (NaN without any). Of the `true_tracks` and `found_tracks`, `paired` were
    paired.
    """

    alpha: float
    beta: float
    jsc: float
    jsc_tracks: float
    rmse: float
    matched: int
    true_points: int
    found_points: int
    paired: int
    true_tracks: int
    found_tracks: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; what is not finite becomes None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class LinkScores:
    """Scores of links, which are pairs of successive points of a trajectory.

    `precision` is the part of the found links that are right, `recall` the part of the true links that were found,
    `f1` their harmonic mean; NaN if there are none. `fragments` is the number of trajectories found for a true one.
    """

    precision: float
    recall: float
    f1: float
    found_links: int
    true_links: int
    wrong_links: int
    fragments: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; what is not finite becomes None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, eq=False)
class TrackPoints:
    """Points of trajectories in any order: `track` and `frame` (N,) whole numbers, `points` (axes, N)."""

    track: IntArray
    frame: IntArray
    points: FloatArray

    @classmethod
    def of(cls, track: npt.ArrayLike, frame: npt.ArrayLike, points: npt.ArrayLike) -> TrackPoints:
        """Check and convert the arrays.

        Raises `ConfigurationError` if lengths differ, a position is not finite, or a trajectory has two points
        in one frame.
        """
        name, when = np.asarray(track).astype(np.int64), np.asarray(frame).astype(np.int64)
        where = np.atleast_2d(np.asarray(points, np.float64))
        if not name.shape == when.shape == where.shape[1:]:
            raise ConfigurationError(
                "tracks, frames and positions differ in length; give one of each for every point"
            )
        if not np.isfinite(where).all():
            raise ConfigurationError(
                "some positions are not finite; leave out these points, or the depth of all points"
            )
        order = np.lexsort((when, name))
        name, when, where = name[order], when[order], where[:, order]
        twice = np.flatnonzero((np.diff(name) == 0) & (np.diff(when) == 0))
        if twice.size:
            at = int(twice[0])
            raise ConfigurationError(
                f"track {name[at]} has two points in frame {when[at]}; leave out one of them"
            )
        return cls(name, when, where)


def track_scores(truth: TrackPoints, found: TrackPoints, gate: float) -> TrackScores:
    """Pair true and found trajectories such that the total distance is least, and score the pairs.

    The distance of two trajectories is the sum over frames of min(distance, `gate`), and `gate` in frames in which
    only one of them has a point. A true trajectory may stay unpaired, at the cost of `gate` for each of its points.
    Trajectories that are never within `gate` of each other are not paired.
    """
    if not gate > 0:
        raise ConfigurationError(f"the gate must be positive, not {gate}")
    _, true_of, true_length = np.unique(truth.track, return_inverse=True, return_counts=True)
    _, found_of, found_length = np.unique(found.track, return_inverse=True, return_counts=True)
    i, j, apart = _near(truth, found, gate)
    pairs = Pairs.of(true_of[i], found_of[j], gate - apart)
    common = _common_frames(truth, found, true_of, found_of, pairs)
    # Cost relative to no pair: each frame that only the found one has costs the gate, each near point saves some.
    cost = gate * (found_length[pairs.column] - common) - pairs.gain
    partner = _assign(true_length.size, pairs, cost, found_length.size)
    chosen = partner[pairs.row] == pairs.column
    nothing = gate * float(truth.track.size)
    saved = -float(cost[chosen].sum())
    taken = np.zeros(found_length.size, np.bool_)
    taken[partner[partner >= 0]] = True
    spurious = gate * float(found_length[~taken].sum())
    hits = partner[true_of[i]] == found_of[j]
    matched, paired = int(hits.sum()), int(taken.sum())
    points = truth.track.size + found.track.size - matched
    tracks = true_length.size + found_length.size - paired
    return TrackScores(
        alpha=saved / nothing if nothing else math.nan,
        beta=saved / (nothing + spurious) if nothing + spurious else math.nan,
        jsc=matched / points if points else math.nan,
        jsc_tracks=paired / tracks if tracks else math.nan,
        rmse=float(np.sqrt(np.mean(apart[hits] ** 2))) if matched else math.nan,
        matched=matched,
        true_points=truth.track.size,
        found_points=found.track.size,
        paired=paired,
        true_tracks=true_length.size,
        found_tracks=found_length.size,
    )


def link_scores(frame: npt.ArrayLike, particle: npt.ArrayLike, track: npt.ArrayLike) -> LinkScores:
    """Score the linking of given detections by their frame, true particle and trajectory, (N,) each.

    A particle of -1 is a false detection, a trajectory of -1 none. True links join successive detections of a
    particle, however many frames lie between: only what was detected can be linked.
    """
    when, who, where = (np.asarray(values).astype(np.int64) for values in (frame, particle, track))
    true, found = _links(when, who), _links(when, where)
    right = np.intersect1d(_keys(true, when.size), _keys(found, when.size), assume_unique=True).size
    seen = (who >= 0) & (where >= 0)
    pieces = np.unique(np.stack([who[seen], where[seen]]), axis=1)
    particles = np.unique(pieces[0]).size
    links = len(true[0]) + len(found[0])
    return LinkScores(
        precision=right / len(found[0]) if len(found[0]) else math.nan,
        recall=right / len(true[0]) if len(true[0]) else math.nan,
        f1=2 * right / links if links else math.nan,
        found_links=len(found[0]),
        true_links=len(true[0]),
        wrong_links=len(found[0]) - right,
        fragments=pieces.shape[1] / particles if particles else math.nan,
    )


def nearest_tracks(truth: TrackPoints, found: TrackPoints, gate: float) -> tuple[IntArray, IntArray]:
    """Pair as many points as possible within `gate`, one to one in each frame, at the least total distance.

    Returns the indices of both.
    """
    i, j, apart = _near(truth, found, gate)
    pairs = Pairs.of(i, j, apart)
    # A pair costs so much less than no pair that one more pair always outweighs longer distances.
    cost = pairs.gain / gate - 1.0 - 2.0 * min(truth.track.size, found.track.size)
    partner = _assign(truth.track.size, pairs, cost, found.track.size)
    rows = np.flatnonzero(partner >= 0)
    return rows, partner[rows]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Gains summed over equal (row, column), in order of rows."""

    row: IntArray
    column: IntArray
    gain: FloatArray

    @classmethod
    def of(cls, row: IntArray, column: IntArray, gain: FloatArray) -> Pairs:
        """Add up the gains of equal pairs."""
        width = int(column.max(initial=0)) + 1
        key, which = np.unique(row * width + column, return_inverse=True)
        total: FloatArray = np.bincount(which, gain, key.size).astype(np.float64)
        return cls(key // width, key % width, total)


def _near(truth: TrackPoints, found: TrackPoints, gate: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Indices and distances of all points of the same frame nearer than `gate`."""
    parts: list[tuple[IntArray, IntArray, FloatArray]] = []
    true_rows, found_rows = _rows_of_frames(truth.frame), _rows_of_frames(found.frame)
    for frame in sorted(true_rows.keys() & found_rows.keys()):
        mine, theirs = true_rows[frame], found_rows[frame]
        near = KDTree(truth.points[:, mine].T).sparse_distance_matrix(
            KDTree(found.points[:, theirs].T), gate, output_type="ndarray"
        )
        near = near[near["v"] < gate]
        parts.append((mine[near["i"]], theirs[near["j"]], near["v"]))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    i, j, apart = (np.concatenate(column) for column in zip(*parts, strict=True))
    return i, j, apart


def _rows_of_frames(frame: IntArray) -> dict[int, IntArray]:
    order = np.argsort(frame, kind="stable")
    frames, first = np.unique(frame[order], return_index=True)
    return dict(zip(frames.tolist(), np.split(order, first)[1:], strict=True))


def _common_frames(
    truth: TrackPoints, found: TrackPoints, true_of: IntArray, found_of: IntArray, pairs: Pairs
) -> IntArray:
    """Number of frames in which both trajectories of each pair have a point, near or not."""
    mine = np.split(truth.frame, np.flatnonzero(np.diff(true_of)) + 1)
    theirs = np.split(found.frame, np.flatnonzero(np.diff(found_of)) + 1)
    return np.array(
        [
            np.intersect1d(mine[r], theirs[c], assume_unique=True).size
            for r, c in zip(pairs.row.tolist(), pairs.column.tolist(), strict=True)
        ],
        np.int64,
    )


def _assign(rows: int, pairs: Pairs, cost: FloatArray, columns: int) -> IntArray:
    """The column of each row at the least total cost; -1 for none, which costs nothing."""
    indptr = np.searchsorted(pairs.row, np.arange(rows + 1)).astype(np.int32)
    found = assign(indptr, pairs.column.astype(np.int32), cost, 0.0, AssignmentWorkspace(), columns)
    return found.astype(np.int64)


def _links(frame: IntArray, name: IntArray) -> tuple[IntArray, IntArray]:
    """Indices of successive detections of the same name."""
    order = np.lexsort((frame, name))
    order = order[name[order] >= 0]
    same = name[order[1:]] == name[order[:-1]]
    return order[:-1][same], order[1:][same]


def _keys(links: tuple[IntArray, IntArray], count: int) -> IntArray:
    return links[0] * count + links[1]


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
