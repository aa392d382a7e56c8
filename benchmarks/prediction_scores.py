"""How detections and tracks of a sequence compare with its truth: missed, false, errors, crossings, links, ghosts.

Detections and true particles are paired in each frame as everywhere (`calibration.matching`). True particles beyond
the picture or the depth range may be found, but need not be.

- *Crossing*: a particle whose image is overlapped (`moving_particles.overlapping`) by one that is `APART_UM` or
  more above or below it.
- *Depth flip*: in a crossing, the track that had the particle before has a row nearer to the other's depth than to
  the particle's own. Successive ones of a track count once.
- *Ghost track*: `GHOST_ROWS` or more successive detections of one track where no true particle is.
- *Recovery*: frames after an event until, for `STEADY_FRAMES` frames on end, no more is missed than before it,
  within `SIGMAS` standard errors of one frame's count and one particle. Whether particles are tracked is asked of
  those that were seen for `CONFIRM_FRAMES` frames on end: no track is confirmed sooner, and a flow that becomes
  faster brings in more new ones a frame.
- *Out of view*: a trajectory that begins after its particle was not seen, beyond the picture or the depth range, in
  one of the frames since it was last detected, more than the tracker bridges. It has to begin anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from moving_particles import LONE_PX, Truth

from calibration.matching import GATE_XY_UM, GATE_Z_UM, match
from stream.messages import Detections, TrackFlag, Tracks
from tracking.analysis.metrics import link_scores

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

APART_UM = 20.0
SAME_CENTRE_PX = 1.5
GHOST_ROWS = 3
STEADY_FRAMES = 5
SIGMAS = 3.0
CONFIRM_FRAMES = 3
OWNED_FRAMES = 4  # a track without a detection for longer has ended


@dataclass(frozen=True)
class Paired:
    """The truth with what was found of it: `row` (N,) is the detection in its frame, -1 if there is none.

    `who` is, for each frame, the true particle of each detection, -1 for a false one; `track` that of its track,
    -1 if it has none; `confirmed` whether that track was then confirmed.
    """

    truth: Truth
    row: IntArray
    error_um: FloatArray
    sigma_um: FloatArray
    who: list[IntArray]
    track: list[IntArray]
    confirmed: list[npt.NDArray[np.bool_]]

    def until(self, frame: int) -> Paired:
        """The frames before this one."""
        early = self.truth.frame < frame
        return Paired(
            self.truth.where(early),
            self.row[early],
            self.error_um[early],
            self.sigma_um[early],
            self.who[:frame],
            self.track[:frame],
            self.confirmed[:frame],
        )


def pair(truth: Truth, detections: list[Detections], tracks: list[Tracks]) -> Paired:
    """Pair the true particles of all frames with the detections, and these with the tracks."""
    row = np.full(truth.frame.size, -1)
    error, sigma = np.full((2, truth.frame.size, 3), np.nan)
    whos, names, confirmed = [], [], []
    for number, (found, followed) in enumerate(zip(detections, tracks, strict=True)):
        here = np.flatnonzero(truth.frame == number)
        where = np.column_stack([truth.x_um[here], truth.y_um[here], truth.z_um[here]])
        i, j = match(where, found.table[:3].T, GATE_XY_UM, GATE_Z_UM)
        row[here[i]] = j
        error[here[i]] = found.table[:3, j].T - where[i]
        sigma[here[i]] = found.table[3:6, j].T
        who = np.full(len(found), -1)
        who[j] = truth.particle[here[i]]
        name, sure = np.full(len(found), -1), np.zeros(len(found), np.bool_)
        use = followed.detection >= 0
        at = followed.detection[use].astype(np.int64)
        name[at] = followed.track[use].astype(np.int64)
        sure[at] = (followed.flags[use].astype(np.int64) & TrackFlag.TENTATIVE) == 0
        whos.append(who)
        names.append(name)
        confirmed.append(sure)
    return Paired(truth, row, error, sigma, whos, names, confirmed)


def detection_scores(paired: Paired, bound_um: FloatArray, first: int) -> dict[str, Any]:
    """Of the frames from `first` on."""
    truth = paired.truth
    late = truth.frame >= first
    seen, found = truth.seen & late, paired.row >= 0
    crossing = seen & crosses(truth)
    same = seen & (truth.nearest_px < SAME_CENTRE_PX)
    lone = seen & (truth.nearest_px >= LONE_PX) & found
    detected = sum(len(who) for who in paired.who[first:])
    false = sum(int((who < 0).sum()) for who in paired.who[first:])
    error, pull = paired.error_um, paired.error_um / paired.sigma_um
    result: dict[str, Any] = {
        "particles": int(seen.sum()),
        "missed": _share(seen & ~found, seen),
        "false": round(false / max(detected, 1), 5),
        "false_detections": false,
        "lone_rms_um": _rms(error[lone]),
        "crossing": int(crossing.sum()),
        "crossing_missed": _share(crossing & ~found, crossing),
        "same_centre": int(same.sum()),
        "same_centre_missed": _share(same & ~found, same),
        "same_centre_rms_um": _rms(error[same & found]),
        "true_over_stated_lone": _rms(pull[lone], 2),
        "true_over_stated": _rms(pull[seen & found], 2),
        "usual_true_over_stated": _typical(pull[seen & found]),
    }
    if len(bound_um):
        limit = np.sqrt((bound_um**2).mean(axis=0))
        result["lone_over_bound"] = [
            round(float(v), 3) for v in np.sqrt((error[lone] ** 2).mean(axis=0)) / limit
        ]
    return result


def track_scores(paired: Paired, tracks: list[Tracks], first: int) -> dict[str, Any]:
    """Of the frames from `first` on; `extra_fragments` are trajectories beyond one for each particle."""
    later = slice(first, None)
    who, name = np.concatenate(paired.who[later]), np.concatenate(paired.track[later])
    sure = np.concatenate(paired.confirmed[later])
    frame = np.repeat(np.arange(len(paired.who[later])), [w.size for w in paired.who[later]])
    links = link_scores(frame, who, np.where(np.isin(name, np.unique(name[sure])), name, -1))
    followed = np.unique(who[(who >= 0) & np.isin(name, np.unique(name[sure]))]).size
    fragments = 0 if not followed else round((links.fragments - 1.0) * followed)
    out_of_view = begun_anew(paired, np.where(np.isin(name, np.unique(name[sure])), name, -1), first)
    seen = paired.truth.seen & (paired.truth.frame >= first)
    return {
        "trajectories": followed,
        "extra_fragments": fragments,
        "of_them_out_of_view": out_of_view,
        "true_links": links.true_links,
        "wrong_links": links.wrong_links,
        "link_recall": round(links.recall, 5),
        "depth_flips": depth_flips(paired, tracks, first),
        "ghost_tracks": sum(at >= first for at in ghost_tracks(paired)),
        "untracked": _share(seen & ~tracked(paired), seen),
    }


def begun_anew(paired: Paired, name: IntArray, first: int) -> int:
    """How many trajectories began anew after their particle was out of view; `name` are those of all detections."""
    truth = paired.truth
    order = np.lexsort((truth.frame, truth.particle))
    gone: dict[int, list[int]] = {}
    for particle, frame in zip(
        truth.particle[order][~truth.seen[order]].tolist(), truth.frame[order][~truth.seen[order]].tolist(),
        strict=True,
    ):  # fmt: skip
        gone.setdefault(particle, []).append(frame)
    frame = np.repeat(np.arange(first, len(paired.who)), [w.size for w in paired.who[first:]])
    who = np.concatenate(paired.who[first:])
    had: dict[int, tuple[int, set[int]]] = {}
    count = 0
    for at, particle, track in zip(frame.tolist(), who.tolist(), name.tolist(), strict=True):
        if particle < 0 or track < 0:
            continue
        last, tracks = had.get(particle, (at, set()))
        if tracks and track not in tracks and at - last > OWNED_FRAMES:
            count += any(last < n < at for n in gone.get(particle, ()))
        tracks.add(track)
        had[particle] = (at, tracks)
    return count


def crosses(truth: Truth) -> npt.NDArray[np.bool_]:
    """Which particles (N,) are overlapped by one of another depth."""
    apart: npt.NDArray[np.bool_] = np.abs(truth.z_um - truth.other_um) >= APART_UM
    return apart


def tracked(paired: Paired) -> npt.NDArray[np.bool_]:
    """Which true particles (N,) have a detection that is in a confirmed track."""
    out = paired.row >= 0
    for index in np.flatnonzero(out):
        out[index] = paired.confirmed[paired.truth.frame[index]][paired.row[index]]
    return out


def depth_flips(paired: Paired, tracks: list[Tracks], first: int) -> int:
    """Number of depth flips at crossings that begin in the frames from `first` on."""
    truth, count = paired.truth, 0
    crossing = crosses(truth) & truth.seen
    owner: dict[int, tuple[int, int]] = {}
    flipped: dict[int, int] = {}
    for number, followed in enumerate(tracks):
        measured = followed.detection >= 0
        depth = dict(
            zip(followed.track[measured].astype(int).tolist(), followed.z_um[measured].tolist(), strict=True)
        )
        for index in np.flatnonzero((truth.frame == number) & crossing):
            track, last = owner.get(int(truth.particle[index]), (-1, -1))
            if track not in depth or number - last > OWNED_FRAMES:
                continue
            if abs(depth[track] - truth.other_um[index]) < abs(depth[track] - truth.z_um[index]):
                count += number >= first and flipped.get(track, -2) < number - 1
                flipped[track] = number
        for who, track in zip(paired.who[number].tolist(), paired.track[number].tolist(), strict=True):
            if who >= 0 and track >= 0:
                owner[who] = (track, number)
    return count


def ghost_tracks(paired: Paired) -> list[int]:
    """The frame in which each ghost track begins."""
    began: list[int] = []
    run: dict[int, tuple[int, int]] = {}
    for number, (whos, names) in enumerate(zip(paired.who, paired.track, strict=True)):
        for who, name in zip(whos.tolist(), names.tolist(), strict=True):
            if name < 0:
                continue
            if who >= 0:
                run.pop(name, None)
                continue
            start, length = run.get(name, (number, 0))
            run[name] = (start, length + 1)
            if length + 1 == GHOST_ROWS:
                began.append(start)
    return began


def recovery(
    truth: Truth, good: npt.NDArray[np.bool_], event: int, first: int, seen_frames: int = 1
) -> int | None:
    """Frames from the `event` on until as many of the seen particles are `good` (N,) as in the frames from `first`.

    None if they never are. Particles count once they were seen for `seen_frames` frames on end.
    """
    frames = int(truth.frame.max()) + 1
    asked = truth.seen.copy()
    name = truth.particle * (frames + seen_frames) + truth.frame + seen_frames
    for back in range(1, seen_frames):
        asked &= np.isin(name - back, name[truth.seen])
    all_of = np.bincount(truth.frame[asked], minlength=frames)
    bad = np.bincount(truth.frame[asked & ~good], minlength=frames)
    level = bad[first:event].sum() / max(all_of[first:event].sum(), 1)
    limit = all_of * level + SIGMAS * np.sqrt(all_of * level * (1 - level)) + 1.0
    within = bad <= limit
    for start in range(event, frames - STEADY_FRAMES + 1):
        if within[start : start + STEADY_FRAMES].all():
            return start - event
    return None


def _share(some: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> float | None:
    return round(float(some.sum() / of.sum()), 5) if of.any() else None


def _rms(values: FloatArray, digits: int = 3) -> list[float] | None:
    if not len(values):
        return None
    return [round(float(v), digits) for v in np.sqrt((values**2).mean(axis=0))]


def _typical(values: FloatArray) -> list[float] | None:
    if not len(values):
        return None
    return [round(float(v), 2) for v in 1.4826 * np.median(np.abs(values), axis=0)]
