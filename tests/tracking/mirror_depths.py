"""Particles whose images fit two depths, one on each side of focus, and how many rows are on the right side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from flows import info

from stream.messages import Detections, Tracks
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

Motion = Literal["still", "flow", "sinking", "scan", "steps"]
FRAME_S = 0.05
DEPTH_UM = 50.0
FOCUS_UM = 18.0
TWO_FROM_UM = 1.5  # nearer to focus the two depths are one
SIGMA_UM = (0.1, 0.1, 0.6)
BROWNIAN_UM = 0.05


@dataclass(frozen=True)
class Depths:
    """Detections of a run, and of each its true and its mirrored depth, its particle, whether it has two depths."""

    detections: list[Detections]
    true_um: list[np.ndarray]
    mirror_um: list[np.ndarray]
    particles: list[np.ndarray]
    has_two: list[np.ndarray]


def mirror(z: np.ndarray) -> np.ndarray:
    """The depth that gives the same image; optics are not quite symmetric about focus."""
    return 0.4 - 0.92 * z


def focus_at(motion: Motion, frame: int) -> float:
    if motion == "scan":  # up and down by 12 um
        return FOCUS_UM + 12.0 * (1.0 - abs(1.0 - frame % 120 / 60.0))
    if motion == "steps":
        return FOCUS_UM + 2.0 * (frame // 10 % 2)
    return FOCUS_UM


def move(motion: Motion, place: np.ndarray) -> None:
    if motion == "flow":  # the parabola of a channel, 3 um a frame in its middle
        place[:, 0] += 12.0 * place[:, 2] / DEPTH_UM * (1.0 - place[:, 2] / DEPTH_UM)
    if motion == "sinking":
        place[:, 2] -= 0.3


def two_sided(
    motion: Motion,
    *,
    wrong: float = 0.08,
    alike: bool = False,
    count: int = 400,
    frames: int = 100,
    seed: int = 0,
    p_other: float | None = None,
) -> Depths:
    """A run in which a share `wrong` of the images is taken for the other side.

    `alike`: not each image by itself errs, but all images of so many particles. `p_other` is what is stated, by
    default the share.
    """
    rng = np.random.default_rng(seed)
    side = 21.0 * np.sqrt(count)
    place = rng.uniform(0, [side, side, DEPTH_UM], (count, 3))
    name, fresh, errs = np.arange(count), count, rng.random(count) < wrong
    run = Depths([], [], [], [], [])
    for frame in range(frames):
        if frame:
            move(motion, place)
            place += rng.normal(0, BROWNIAN_UM, place.shape)
        gone = (place[:, 0] < 0) | (place[:, 0] > side) | (place[:, 2] < 0) | (place[:, 2] > DEPTH_UM)
        new = int(gone.sum())
        place[gone] = rng.uniform(0, [side, side, DEPTH_UM], (new, 3))
        if motion == "flow":
            place[gone, 0] = rng.uniform(0, 3, new)
        if motion == "sinking":
            place[gone, 2] = DEPTH_UM - rng.uniform(0, 1, new)
        name[gone], fresh = np.arange(fresh, fresh + new), fresh + new
        errs[gone] = rng.random(new) < wrong
        focus_um = focus_at(motion, frame)
        z = place[:, 2] - focus_um
        seen_z = z + rng.normal(0, SIGMA_UM[2], count)
        has_two = np.abs(z) > TWO_FROM_UM
        err = (errs if alike else rng.random(count) < wrong) & has_two
        first, other = np.where(err, mirror(seen_z), seen_z), np.where(err, seen_z, mirror(seen_z))
        seen = rng.random(count) >= 0.03
        found = Detections.from_columns(
            info(frame, time_s=frame * FRAME_S, focus_um=focus_um),
            x_um=place[:, 0] + rng.normal(0, SIGMA_UM[0], count),
            y_um=place[:, 1] + rng.normal(0, SIGMA_UM[1], count),
            z_um=first, z_other_um=np.where(has_two, other, np.nan),
            p_other=np.where(has_two, wrong if p_other is None else p_other, np.nan),
            sigma_x_um=SIGMA_UM[0], sigma_y_um=SIGMA_UM[1], sigma_z_um=SIGMA_UM[2], brightness=1.0, confidence=1.0,
        )  # fmt: skip
        run.detections.append(Detections(found.info, np.ascontiguousarray(found.table[:, seen])))
        run.true_um.append(z[seen])
        run.mirror_um.append(mirror(z)[seen])
        run.particles.append(name[seen])
        run.has_two.append(has_two[seen])
    return run


def track(run: Depths, settings: TrackerSettings | None = None) -> list[Tracks]:
    tracker = OnlineTracker(settings or TrackerSettings())
    return [tracker.step(found) for found in run.detections]


@dataclass(frozen=True)
class Sides:
    """Shares of the rows with two depths that are on the right side: by single images, as tracked, and revised.

    `sure` is the share that the tracker is sure of (`p_side` above 0.9), `right_if_sure` how many of these are
    right. `tracks` are those found for each true particle.
    """

    single: float
    tracked: float
    revised: float
    sure: float
    right_if_sure: float
    tracks: float


def sides_of(run: Depths, rows: list[Tracks]) -> Sides:
    """Score rows, with revisions as a reader applies them."""
    parts = []
    for found, tracks, z, other, name, two in zip(
        run.detections, rows, run.true_um, run.mirror_um, run.particles, run.has_two, strict=True
    ):
        m = tracks.detection >= 0
        j = tracks.detection[m].astype(int)
        frame = np.full(m.sum(), found.info.frame)
        back = np.nan_to_num(tracks.revised[m])
        parts.append(
            np.stack([
                frame, tracks.track[m], tracks.z_um[m], tracks.z_other_um[m], back, tracks.p_side[m],
                z[j], other[j], name[j], two[j], found.z_um[j],
            ])
        )  # fmt: skip
    frame, number, chosen, not_chosen, back, p, true, mirrored, name, two, single = np.concatenate(
        parts, axis=1
    )
    final, rest = chosen.copy(), not_chosen.copy()
    for k in np.flatnonzero(back):
        mine = (number == number[k]) & (frame < frame[k]) & (frame >= frame[k] - back[k]) & ~np.isnan(rest)
        final[mine], rest[mine] = rest[mine], final[mine]
    asked = two > 0

    def right(z: np.ndarray) -> np.ndarray:
        return (np.abs(z - true) < np.abs(z - mirrored))[asked]

    sure = p[asked] > 0.9
    return Sides(
        single=float(right(single).mean()),
        tracked=float(right(chosen).mean()),
        revised=float(right(final).mean()),
        sure=float(sure.mean()),
        right_if_sure=float(right(chosen)[sure].mean()) if sure.any() else 1.0,
        tracks=len(np.unique(number)) / len(np.unique(name)),
    )
