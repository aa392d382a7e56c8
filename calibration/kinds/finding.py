"""How many kinds of particles a scan shows, and of which kind each trace is.

Kinds are found by splitting: traces are divided by what differs most between them, then each goes to the kind whose
images (a spline over depth through the other traces of that kind, at the best depth and brightness) leave less of
it, until nothing changes. Two kinds are two only where the likeness of the traces, left of one less left of the
other, falls into two groups with a gap between them (`two_groups`): sizes or places in the field that vary
continuously do not. A kind is split again in the same way. Kinds that look alike are told by brightness where that
falls into two groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from calibration.alignment.aligned import Positions
from calibration.errors import CalibrationError
from calibration.kinds.traces import Kind, Traces
from calibration.kinds.two_groups import best_cut, least_separation, separation
from engines.network.layout import MOST_KINDS

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

LEAST_PART = 0.08
"""Part of the traces that a kind has at least; fewer are dirt and clumps, which are left out."""
COMPONENTS = 3
"""Principal components of the traces by which they are divided at first, beside the brightness."""
WORTH_D = 3.5
"""D of a first division below which it is not worth a closer look: what a uniform distribution leaves. Of two
simulated mixtures of 1 : 2 the best first division had 149, and 9.8 (sizes +-10 %)."""
ROUNDS = 12
"""Most rounds of assigning traces to the kinds; not varied."""
BRIGHTNESS_RATIO = 1.5
"""Ratio of brightness below which two groups of particles that look alike are one kind."""
SEEN_PART = 0.9
"""Part of the traces that must show a depth for it to count in their first division."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Kind (N,) of each trace, 0 the most frequent, and its depth (N,), um, and brightness (N,) in that kind."""

    kind: IntArray
    z_um: FloatArray
    brightness: FloatArray

    @property
    def count(self) -> int:
        """How many kinds there are."""
        return int(self.kind.max()) + 1


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """A division of some traces in two: which (M,) are the second kind, D, and whether that is a real one."""

    second: BoolArray
    d: float
    real: bool


def find_kinds(
    images: Float32Array,
    now: Positions,
    focus_um: FloatArray,
    step_um: float,
    *,
    fewest: int,
    wanted: int | None = None,
) -> Found:
    """Find the kinds among aligned traces (N, K, P, P); `wanted` of them, or as many as there are.

    Raises `CalibrationError` where `wanted` kinds of `fewest` traces or more cannot be had.
    """
    count = len(images)
    most = MOST_KINDS if wanted is None else wanted
    if most == 1 or count < 2 * fewest:
        if most > 1 and wanted is not None:
            raise CalibrationError(_too_few(count, most, fewest))
        return Found(np.zeros(count, np.int64), now.z_um, now.brightness)
    with threadpool_limits(1):  # the matrices are small; threads would only wait for one another
        return _find(Traces.of(images, now, focus_um, step_um), now, fewest, most, wanted)


def _find(traces: Traces, now: Positions, fewest: int, most: int, wanted: int | None) -> Found:
    count = len(traces)
    kind = np.zeros(count, np.int64)
    least = max(fewest, round(LEAST_PART * count))
    while kind.max() + 1 < most:
        splits = {
            k: _split(traces, np.flatnonzero(kind == k), now, least, wanted is not None)
            for k in range(int(kind.max()) + 1)
        }
        possible = {k: s for k, s in splits.items() if s is not None and (s.real or wanted is not None)}
        if not possible:
            break
        at = max(possible, key=lambda k: (possible[k].real, possible[k].d))
        kind[np.flatnonzero(kind == at)[possible[at].second]] = kind.max() + 1
    if wanted is not None and kind.max() + 1 < wanted:
        raise CalibrationError(_too_few(count, wanted, fewest))
    if kind.max() == 0:
        return Found(kind, now.z_um, now.brightness)
    return _in_order(traces, kind, now)


def _too_few(count: int, wanted: int, fewest: int) -> str:
    return (
        f"{count} particles that stand alone cannot be divided into {wanted} kinds of {fewest} or more; scan more "
        "particles, or calibrate with --kinds auto"
    )


def _split(traces: Traces, mine: IntArray, now: Positions, least: int, wanted: bool) -> _Split | None:
    """The best division of traces `mine` (M,), if it is real or `wanted`; None where there is none."""
    if len(mine) < 2 * least:
        return None
    some = Traces(traces.values[mine], traces.power[mine], traces.focus_um, traces.step_um)
    there = now.take(mine)
    limit = least_separation(len(mine), least)
    cuts = [best_cut(start, least) for start in [*_components(some, there), np.log(there.brightness)]]
    found: list[_Split] = []
    for second, d in sorted(cuts, key=lambda cut: -cut[1]):
        if (d < WORTH_D and not wanted) or any(split.real for split in found):
            continue
        done = _assign(some, second, there, least)
        if done is not None:
            found.append(_Split(done[0], done[1], done[1] > limit))
    light = np.log(there.brightness)
    second, d = cuts[-1]
    if d > limit and light[second].mean() - light[~second].mean() > np.log(BRIGHTNESS_RATIO):
        found.append(_Split(second, d, real=not any(split.real for split in found)))
    return max(found, key=lambda split: (split.real, split.d), default=None)


def _components(traces: Traces, now: Positions) -> list[FloatArray]:
    """What differs most between traces (N,): their first principal components, at depths that nearly all show."""
    depth = now.z_um[:, None] - traces.focus_um
    grid = np.arange(depth.min(), depth.max(), traces.step_um)
    nearest = np.abs(depth[:, :, None] - grid).argmin(axis=1)
    off = np.abs(np.take_along_axis(depth, nearest, axis=1) - grid)
    shown = off < 0.75 * traces.step_um
    common = shown.mean(axis=0) >= SEEN_PART
    if not common.any():
        return []
    picked = np.take_along_axis(traces.values, nearest[:, common, None], axis=1)
    picked = picked * shown[:, common, None] / now.brightness[:, None, None]
    rest = (picked - np.median(picked, axis=0)).reshape(len(picked), -1)
    values, vectors = np.linalg.eigh(rest @ rest.T)
    return [
        vectors[:, -n] * np.sqrt(max(values[-n], 0.0)) for n in range(1, min(COMPONENTS, len(values)) + 1)
    ]


def _assign(traces: Traces, second: BoolArray, now: Positions, least: int) -> tuple[BoolArray, float] | None:
    """Assign traces (N,) to two kinds until nothing changes; the second (N,) and D. None where one vanishes."""
    z_um, brightness = now.z_um.copy(), now.brightness.copy()
    for _ in range(ROUNDS):
        if min(second.sum(), (~second).sum()) < least:
            return None
        parts = [
            Kind(traces, np.flatnonzero(mine), z_um, brightness).compare(now.z_um)
            for mine in (~second, second)
        ]
        more = parts[0].left - parts[1].left
        before, second = second, more > 0
        z_um = np.where(second, parts[1].z_um, parts[0].z_um)
        brightness = np.where(second, parts[1].brightness, parts[0].brightness)
        for mine in (~second, second):
            if mine.any():
                brightness[mine] /= brightness[mine].mean()
        brightness = np.maximum(brightness, 0.05)
        if (before == second).all():
            break
    if min(second.sum(), (~second).sum()) < least:
        return None
    return second, separation(more, second)


def _in_order(traces: Traces, kind: IntArray, now: Positions) -> Found:
    """The kinds by their numbers, and the places of the traces in them."""
    numbers = np.argsort(-np.bincount(kind), kind="stable")
    rank = np.empty_like(numbers)
    rank[numbers] = np.arange(len(numbers))
    kind = rank[kind].astype(np.int64)
    z_um, brightness = now.z_um.copy(), now.brightness.copy()
    for k in range(int(kind.max()) + 1):
        mine = np.flatnonzero(kind == k)
        like = Kind(traces, mine, now.z_um, now.brightness).compare(now.z_um)
        z_um[mine] = like.z_um[mine]
        brightness[mine] = np.maximum(like.brightness[mine] / like.brightness[mine].mean(), 0.05)
    return Found(kind, z_um, brightness)
