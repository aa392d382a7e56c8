"""Synthetic particle sequences with their truth, and how well links reproduce it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stream.messages import Detections, FrameInfo, TrackFlag, Tracks

SPACING = 10.0
DEPTH = 50.0
FRAME_S = 0.02


def info(frame: int, *, camera_frame: int | None = None, time_s: float | None = None, **more) -> FrameInfo:
    camera_frame = frame if camera_frame is None else camera_frame
    time_s = camera_frame * FRAME_S if time_s is None else time_s
    return FrameInfo("run", frame, camera_frame, time_s, 0, 0.0, **more)


@dataclass
class Sequence:
    detections: list[Detections]
    truth: list[np.ndarray]
    """For each frame, the particle behind each detection, -1 for a false one."""
    particles: list[np.ndarray]
    """For each frame, the number of every particle, detected or not."""
    positions: list[np.ndarray]
    """For each frame, where they are, (N, 3) um."""
    displacement: float
    """The largest displacement between frames, in mean spacings."""


def channel_flow(
    count: int = 500,
    displacement: float = 0.15,
    frames: int = 60,
    seed: int = 0,
    *,
    plug: bool = False,
    planar: bool = False,
    sigma=(0.1, 0.1, 1.0),
    brownian: float = 0.2,
    missed: float = 0.03,
    false: float = 0.03,
) -> Sequence:
    """Poiseuille flow along x, periodic; `displacement` is the largest, in mean spacings a frame."""
    rng = np.random.default_rng(seed)
    side = SPACING * np.sqrt(count)
    size = np.array([side, side, DEPTH])
    position = rng.uniform(0, size, (count, 3))
    name = np.arange(count)
    fresh = count
    detections, truth, particles, positions = [], [], [], []
    for frame in range(frames):
        if frame:
            depth = position[:, 1] / side if planar else position[:, 2] / DEPTH
            profile = 1.0 if plug else 4 * depth * (1 - depth)
            position[:, 0] += displacement * SPACING * profile
            position += rng.normal(0, brownian, position.shape)
            position[:, 2] = DEPTH - np.abs(DEPTH - np.abs(position[:, 2]))
            gone = np.any((position[:, :2] < 0) | (position[:, :2] > side), axis=1)
            position[gone] %= size
            name[gone] = np.arange(fresh, fresh + gone.sum())
            fresh += gone.sum()
        particles.append(name.copy())
        positions.append(position.copy())
        seen = rng.random(count) >= missed
        noise = rng.poisson(false * count)
        where = np.vstack(
            [position[seen] + rng.normal(0, sigma, (seen.sum(), 3)), rng.uniform(0, size, (noise, 3))]
        )
        who = np.concatenate([name[seen], np.full(noise, -1)])
        mixed = rng.permutation(len(who))
        x, y, z = where[mixed].T
        detections.append(
            Detections.from_columns(
                info(frame), x_um=x, y_um=y, z_um=np.nan if planar else z,
                sigma_x_um=sigma[0], sigma_y_um=sigma[1], sigma_z_um=np.nan if planar else sigma[2],
                brightness=1.0, confidence=1.0,
            )
        )  # fmt: skip
        truth.append(who[mixed])
    return Sequence(detections, truth, particles, positions, displacement)


def with_second_detections(
    sequence: Sequence, share: float = 0.05, offset: float = 1.0, missed: float = 0.1, seed: int = 0
) -> tuple[Sequence, list[np.ndarray]]:
    """Some particles detected twice, the second time beside them (um) and with errors of its own.

    Each of these particles has its own place beside it; its second detection is missed now and then. Also
    returns for each frame which detections are second ones.
    """
    rng = np.random.default_rng(seed)
    last = max(int(names.max()) for names in sequence.particles) + 1
    twice = rng.random(last) < share
    beside = rng.normal(0, offset, (last, 3)) * np.array([1.0, 1.0, 5.0])
    detections, truth, second = [], [], []
    for found, who, names, where in zip(
        sequence.detections, sequence.truth, sequence.particles, sequence.positions, strict=True
    ):
        chosen = twice[names] & (rng.random(names.size) > missed)
        table = found.table
        sigma = table[3:6, :1]
        again = where[chosen] + beside[names[chosen]]
        extra = np.full((len(table), chosen.sum()), np.nan)
        extra[:3] = again.T + np.nan_to_num(sigma) * rng.normal(size=again.T.shape)
        extra[3:6], extra[6], extra[7], extra[-1] = sigma, 1.0, 0.8, 0.0
        if np.isnan(sigma[2]):
            extra[2] = np.nan
        detections.append(Detections(found.info, np.hstack([table, extra])))
        truth.append(np.concatenate([who, names[chosen]]))
        second.append(np.arange(table.shape[1] + extra.shape[1]) >= table.shape[1])
    return replace(sequence, detections=detections, truth=truth), second


def second_detection_scores(
    rows: list[Tracks], truth: list[np.ndarray], fewest: int = 10
) -> tuple[float, float, int]:
    """Precision and recall of the tracks flagged as second detections at their end, and how many there are to find.

    A particle has a second detection if two of its tracks share `fewest` frames; one of these is to be flagged.
    """
    frames_of: dict[int, set[int]] = {}
    owners: dict[int, dict[int, int]] = {}
    flagged: dict[int, bool] = {}
    for frame, tracks in enumerate(rows):
        for track, row, flags in zip(
            tracks.track.astype(int), tracks.detection.astype(int), tracks.flags.astype(int), strict=True
        ):
            if row < 0:
                continue
            frames_of.setdefault(track, set()).add(frame)
            of = owners.setdefault(track, {})
            who = int(truth[frame][row])
            of[who] = of.get(who, 0) + 1
            flagged[track] = bool(flags & TrackFlag.SECOND_DETECTION)
    tracks_of: dict[int, list[int]] = {}
    for track, of in owners.items():
        who = max(of, key=of.__getitem__)
        if who >= 0 and len(frames_of[track]) >= fewest:
            tracks_of.setdefault(who, []).append(track)
    pairs = [
        (a, b)
        for found in tracks_of.values()
        for i, a in enumerate(found)
        for b in found[i + 1 :]
        if len(frames_of[a] & frames_of[b]) >= fewest
    ]
    right = {(a if flagged[a] else b) for a, b in pairs if flagged[a] != flagged[b]}
    long = {t for t, name in flagged.items() if name and len(frames_of[t]) >= fewest}
    precision = len(right) / len(long) if long else np.nan
    return precision, len(right) / len(pairs) if pairs else np.nan, len(pairs)


def links_of(rows: list[Tracks], truth: list[np.ndarray]) -> tuple[set, set, float]:
    """Links found and true links, each as ((frame, row), (frame, row)); fragments a true trajectory."""
    found, true = set(), set()
    last: dict[int, tuple[int, int]] = {}
    pieces: dict[int, set[int]] = {}
    confirmed = {
        int(t)
        for tracks in rows
        for t, f in zip(tracks.track, tracks.flags, strict=True)
        if not int(f) & TrackFlag.TENTATIVE
    }
    for frame, tracks in enumerate(rows):
        for track, row in zip(tracks.track.astype(int), tracks.detection.astype(int), strict=True):
            if row < 0 or track not in confirmed:
                continue
            if track in last:
                found.add((last[track], (frame, row)))
            last[track] = (frame, row)
            if truth[frame][row] >= 0:
                pieces.setdefault(int(truth[frame][row]), set()).add(track)
    last = {}
    for frame, who in enumerate(truth):
        for row, particle in enumerate(who):
            if particle >= 0:
                if particle in last:
                    true.add((last[particle], (frame, row)))
                last[particle] = (frame, row)
    return found, true, float(np.mean([len(p) for p in pieces.values()])) if pieces else np.nan


def link_f1(rows: list[Tracks], truth: list[np.ndarray]) -> float:
    found, true, _ = links_of(rows, truth)
    right = len(found & true)
    return 2 * right / (len(found) + len(true))
