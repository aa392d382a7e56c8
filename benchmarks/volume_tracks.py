"""How well particles that switch between Brownian and directed motion are followed in volumes.

    python benchmarks/volume_tracks.py [--seeds 3] [--quick] [--world NAME] [--output FILE]
                                       [--setting tracker.motion=single]

As in the virus scenario of the Particle Tracking Challenge (Chenouard et al. 2014): 512 x 512 x 10 voxels, 100
volumes, 100, 500 or 1,000 particles, which appear, vanish, and switch between Brownian and directed motion. Its
speeds and switching rates are not published as numbers, so they are varied here (`WORLDS`), fixed before anything
was measured. Detections have the errors, misses and false ones of the stand-in scene (../shared/facts/volumes.md):
standard errors at the bound, twice as large in z at the ends of the stack; a share missed and as many false ones by
the F1 there; particles nearer than 2 voxels are detected as one.

Reported is alpha of the tracker over alpha of perfect linking of the same detections (gate 5 voxels): 1 would be
links without a mistake. Mean and worst over the seeds. `limit` is the same of a linker that knows more than any can
(`oracle`). Alpha is that of `tracking.analysis.metrics`, as benchmarks/ptc.py has it.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from reporting import save
from scipy.optimize import linear_sum_assignment

from stream.messages import Detections, FrameInfo, TrackFlag
from stream.volume_info import VolumeInfo
from tracking.analysis.metrics import TrackPoints, link_scores, track_scores
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
from tracking.trajectories.relinking import renamed

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GATE = 5.0  # voxels, as in the challenge
FRAMES = 100
SHAPE = (512.0, 512.0, 10.0)  # x, y, z
PIXEL_UM = 0.1
PERIOD_S = 0.1
SIGMA = {1: 0.477, 2: 0.219, 4: 0.095, 7: 0.047}
"""Standard error of each axis in the middle of the stack, voxels, by SNR: the bound of the facts."""
SIGMA_END = {1: 0.85, 2: 0.39, 4: 0.17, 7: 0.086}  # of z in the first and last slice
MISSED = {1: 0.3, 2: 0.025, 4: 0.007, 7: 0.006}
"""Share of the particles that is missed; as many detections are false. 1 - F1 of the probe."""
MERGED = 2.0  # voxels; nearer particles are detected as one, between them
SIGMA_ERROR = 0.1  # stated standard errors are wrong by so much from detection to detection


@dataclass(frozen=True, slots=True)
class World:
    """How particles move, in voxels along x and y and frames.

    Brownian steps have `step` in each axis; directed motion has `speed` (between half and 1.5 times that) and steps
    of a quarter. Either lasts `persistence` frames in the mean, a particle `life`. `z_scale` is the size of a voxel
    along x over that along z: motion is the same in um. `mixture` is the share of time of directed motion.
    """

    step: float = 1.0
    speed: float = 3.0
    persistence: float = 10.0
    life: float = 30.0
    z_scale: float = 1.0
    mixture: float = 0.5


BASE = World()
WORLDS = {
    "middle": BASE,
    "slow": replace(BASE, step=0.5, speed=1.5),
    "fast": replace(BASE, step=1.5, speed=5.0),
    "brownian": replace(BASE, mixture=0.0, step=1.5),
    "directed": replace(BASE, mixture=1.0, persistence=1e9),
    "fast, little diffusion": replace(BASE, step=0.4, speed=5.0),
    "switches often": replace(BASE, persistence=4.0),
    "switches seldom": replace(BASE, persistence=30.0, life=60.0),
    "mostly brownian": replace(BASE, mixture=0.2),
    "mostly directed": replace(BASE, mixture=0.8),
    "short lives": replace(BASE, life=12.0),
    "tall voxels": replace(BASE, z_scale=1 / 3),
}


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """All points: `particle` and `frame` (N,), `points` (3, N) in voxels, `directed` (N,).

    `ahead` (3, N): where the particle will be in the next frame but for its random step, which has the standard
    deviations `spread` (3, N), voxels.
    """

    particle: IntArray
    frame: IntArray
    points: FloatArray
    directed: npt.NDArray[np.bool_]
    ahead: FloatArray
    spread: FloatArray


def move(world: World, particles: int, seed: int) -> Truth:
    """The particles of a sequence; about `particles` in each frame."""
    rng = np.random.default_rng(seed)
    size = np.array(SHAPE)
    scale = np.array([1.0, 1.0, world.z_scale])
    ages_out = 1.0 / world.life
    count = particles
    place = rng.uniform(0.0, 1.0, (particles, 3)) * (size - 1)
    is_directed = rng.random(particles) < world.mixture
    velocity = _velocities(rng, world, particles)
    name = np.arange(particles)
    rows: list[tuple[IntArray, int, FloatArray, npt.NDArray[np.bool_], FloatArray, FloatArray]] = []
    for frame in range(FRAMES):
        was, was_directed = place.copy(), is_directed.copy()
        # switch, move, reflect at the ends of the stack, leave at its sides, vanish, appear
        to_directed = 2 * world.mixture / world.persistence
        to_brownian = 2 * (1 - world.mixture) / world.persistence
        chance = np.where(is_directed, to_brownian, to_directed)
        switches = rng.random(name.size) < np.minimum(chance, 1.0)
        is_directed = is_directed ^ switches
        velocity[switches] = _velocities(rng, world, int(switches.sum()))
        step = rng.standard_normal((name.size, 3)) * world.step
        ahead = place + scale * np.where(is_directed[:, None], velocity, 0.0)
        spread = world.step * scale * np.where(is_directed[:, None], 0.25, np.ones((1, 3)))
        rows.append((name.copy(), frame, was, was_directed, ahead, spread))
        place = place + scale * np.where(is_directed[:, None], velocity + 0.25 * step, step)
        for side, sign in ((0.0, -1), (size[2] - 1, 1)):
            out = (place[:, 2] - side) * sign > 0
            place[out, 2] = 2 * side - place[out, 2]
            velocity[out, 2] *= -1
        place[:, 2] = np.clip(place[:, 2], 0.0, size[2] - 1)
        stays = ((place[:, :2] >= 0) & (place[:, :2] <= size[:2] - 1)).all(axis=1)
        stays &= rng.random(name.size) >= ages_out
        new = rng.poisson(max(particles * ages_out + 0.05 * (particles - stays.sum()), 0.0))
        fresh = rng.uniform(0.0, 1.0, (new, 3)) * (size - 1)
        name = np.concatenate([name[stays], count + np.arange(new)])
        place = np.concatenate([place[stays], fresh])
        is_directed = np.concatenate([is_directed[stays], rng.random(new) < world.mixture])
        velocity = np.concatenate([velocity[stays], _velocities(rng, world, new)])
        count += new
    return Truth(
        np.concatenate([row[0] for row in rows]),
        np.concatenate([np.full(row[0].size, row[1]) for row in rows]),
        np.concatenate([row[2] for row in rows]).T,
        np.concatenate([row[3] for row in rows]),
        np.concatenate([row[4] for row in rows]).T,
        np.concatenate([row[5] for row in rows]).T,
    )


def _velocities(rng: np.random.Generator, world: World, count: int) -> FloatArray:
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * (world.speed * rng.uniform(0.5, 1.5, (count, 1)))


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """Detections (N,): their frame, true particle (-1: none), position and standard errors (3, N) in voxels."""

    frame: IntArray
    particle: IntArray
    points: FloatArray
    sigma: FloatArray
    missed: float  # share of particles


def detect(truth: Truth, snr: int, seed: int) -> Detected:
    """Detections as of images with this SNR."""
    rng = np.random.default_rng(10_000 + seed)
    parts: list[tuple[IntArray, IntArray, FloatArray, FloatArray]] = []
    for frame in range(FRAMES):
        rows = np.flatnonzero(truth.frame == frame)
        points = truth.points[:, rows].copy()
        kept = rng.random(rows.size) >= MISSED[snr]
        close = np.linalg.norm(points[:, :, None] - points[:, None, :], axis=0)
        np.fill_diagonal(close, np.inf)
        for a, b in zip(*np.nonzero(np.triu(close < MERGED)), strict=True):
            if kept[a] and kept[b]:
                points[:, a] = (points[:, a] + points[:, b]) / 2
                kept[b] = False
        points, who = points[:, kept], truth.particle[rows[kept]]
        false = rng.poisson(MISSED[snr] * rows.size)
        points = np.concatenate(
            [points, rng.uniform(0, 1, (3, false)) * (np.array(SHAPE)[:, None] - 1)], axis=1
        )
        who = np.concatenate([who, np.full(false, -1)])
        from_end = np.minimum(points[2], SHAPE[2] - 1 - points[2])
        sigma = np.full(points.shape, SIGMA[snr])
        sigma[2] += (SIGMA_END[snr] - SIGMA[snr]) * np.clip(1 - from_end, 0, 1)
        seen = points + sigma * rng.standard_normal(points.shape)
        stated = sigma * np.exp(SIGMA_ERROR * rng.standard_normal(points.shape))
        order = rng.permutation(who.size)
        parts.append((np.full(who.size, frame), who[order], seen[:, order], stated[:, order]))
    frames, whos, points_, sigmas = zip(*parts, strict=True)
    return Detected(
        np.concatenate(frames), np.concatenate(whos), np.concatenate(points_, 1), np.concatenate(sigmas, 1),
        MISSED[snr],
    )  # fmt: skip


def track(seen: Detected, settings: TrackerSettings, z_scale: float = 1.0) -> tuple[IntArray, float]:
    """The track of each detection, as known a frame later, -1 for none; and the time of a frame, ms of one core."""
    tracker = OnlineTracker(settings)
    um = PIXEL_UM * np.array([1.0, 1.0, 1.0 / z_scale])[:, None]
    z_um = tuple((um[2, 0] * np.arange(int(SHAPE[2]))).tolist())
    of_detection = np.full(seen.frame.size, -1)
    confirmed: set[int] = set()
    before = np.zeros(0, np.int64)
    spent = 0.0
    for frame in range(FRAMES):
        rows = np.flatnonzero(seen.frame == frame)
        info = FrameInfo("run", frame, frame, PERIOD_S * frame, 0, 0.0, volume=VolumeInfo(z_um))
        at, sigma = seen.points[:, rows] * um, seen.sigma[:, rows] * um
        detections = Detections.from_columns(
            info, x_um=at[0], y_um=at[1], z_um=at[2], sigma_x_um=sigma[0], sigma_y_um=sigma[1],
            sigma_z_um=sigma[2], brightness=np.full(rows.size, 20.0), confidence=np.ones(rows.size),
        )  # fmt: skip
        began = time.process_time()
        found = tracker.step(detections)
        spent += time.process_time() - began
        if (relinked := np.isfinite(found.track_before)).any():
            was, now = found.track_before[relinked], found.track[relinked]
            of_detection[before] = renamed(of_detection[before], was.astype(int), now.astype(int))
        before = rows
        there = found.detection >= 0
        of_detection[rows[found.detection[there].astype(int)]] = found.track[there]
        flags = found.flags.astype(int)
        confirmed |= set(found.track[there & (flags & TrackFlag.TENTATIVE == 0)].astype(int).tolist())
    of_detection[~np.isin(of_detection, list(confirmed))] = -1
    return of_detection, 1e3 * spent / FRAMES


def oracle(truth: Truth, seen: Detected, world: World) -> IntArray:
    """The track of each detection by a linker that knows more than any can: a limit for all of them.

    In each frame it knows where every particle truly is, whether that is moving in a direction, and its velocity;
    and whose each merged detection is, and its exact position. It does not know the random step, who vanishes, and
    which detection belongs to whom: these are assigned by the likelihoods of the true motion.
    """
    birth = (1 / world.life + seen.missed) * np.mean(np.bincount(truth.frame)) / math.prod(SHAPE)
    of_detection = np.full(seen.frame.size, -1)
    track_of: dict[int, int] = {}
    names = itertools.count()
    for frame in range(FRAMES):
        now = np.flatnonzero(seen.frame == frame)
        there = {int(p): k for k, p in enumerate(truth.particle[truth.frame == frame])}
        true = truth.points[:, truth.frame == frame]
        points = seen.points[:, now].copy()
        for k, p in enumerate(seen.particle[now].tolist()):
            if p >= 0:
                points[:, k] = true[:, there[p]]
        moved: dict[int, int] = {}
        before = np.flatnonzero(truth.frame == frame - 1)
        before = before[np.isin(truth.particle[before], list(track_of))]
        rows = truth.particle[before].tolist()
        density = _density(truth.ahead[:, before], truth.spread[:, before], points) * (1 - 1 / world.life)
        with np.errstate(divide="ignore"):
            gain = np.log(density) - math.log(birth)
        i, j = linear_sum_assignment(np.minimum(-gain, 0.0))
        keep = gain[i, j] > 0
        links = dict(zip(i[keep].tolist(), j[keep].tolist(), strict=True))
        free = []
        for row, p in enumerate(rows):
            if row in links:
                at = links[row]
                of_detection[now[at]] = track_of[p]
                who = int(seen.particle[now[at]])
                if who >= 0:
                    moved[who] = track_of[p]
                else:
                    free.append((p, track_of[p]))
            else:
                free.append((p, track_of[p]))
        for p, track_name in free:  # unseen, or at a false detection: goes on at its own place
            if p in there and p not in moved:
                moved[p] = track_name
        for at in now[of_detection[now] < 0].tolist():
            of_detection[at] = next(names)
            if seen.particle[at] >= 0 and int(seen.particle[at]) not in moved:
                moved[int(seen.particle[at])] = int(of_detection[at])
        track_of = moved
    count = np.bincount(of_detection)
    return np.where(count[of_detection] > 1, of_detection, -1)


def _density(ahead: FloatArray, spread: FloatArray, points: FloatArray) -> FloatArray:
    """Of each of `points` (3, M) after a step from each of `ahead` (3, N), with reflection at the ends: (N, M)."""
    total: FloatArray = np.ones((ahead.shape[1], points.shape[1]))
    for a in range(3):
        images = [ahead[a]] if a < 2 else [ahead[a], -ahead[a], 2 * (SHAPE[2] - 1) - ahead[a]]
        off = [(points[a][None, :] - image[:, None]) / spread[a][:, None] for image in images]
        total *= sum(np.exp(-0.5 * o**2) for o in off) / (math.sqrt(2 * math.pi) * spread[a][:, None])
    return total


@dataclass(frozen=True, slots=True)
class Result:
    """Alpha of the tracker, and of the `oracle`, over that of perfect linking; the latter; F1 of links; pieces a
    particle; ms a frame."""

    ratio: float
    limit: float
    perfect: float
    f1: float
    fragments: float
    ms: float


def measure(world: World, particles: int, snr: int, seed: int, settings: TrackerSettings) -> Result:
    """One sequence."""
    truth = move(world, particles, seed)
    seen = detect(truth, snr, seed)
    of_detection, ms = track(seen, settings, world.z_scale)
    true = TrackPoints.of(truth.particle, truth.frame, truth.points)
    alphas = []
    for name in (seen.particle, of_detection, oracle(truth, seen, world)):
        there = name >= 0
        found = TrackPoints.of(name[there], seen.frame[there], seen.points[:, there])
        alphas.append(track_scores(true, found, GATE).alpha)
    links = link_scores(seen.frame, seen.particle, of_detection)
    return Result(alphas[1] / alphas[0], alphas[2] / alphas[0], alphas[0], links.f1, links.fragments, ms)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="500 particles and SNR 4 only")
    parser.add_argument("--world", action="append", help="only these")
    parser.add_argument("--number", type=int, help="particles in a frame, only this")
    parser.add_argument("--snr", type=int, choices=list(SIGMA), help="only this")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    parser.add_argument("--setting", action="append", default=[], help="of the tracker, NAME=VALUE")
    given = parser.parse_args(arguments)
    settings = TrackerSettings.model_validate(dict(text.split("=", 1) for text in given.setting))
    OnlineTracker(settings).warmup()
    cases = [(500, 4)] if given.quick else list(itertools.product((100, 500), (4, 7)))
    if given.number or given.snr:
        cases = list(itertools.product((given.number or 500,), (given.snr or 4,)))
    rows = []
    print(f"{'motion':24s} {'number':>6s} {'SNR':>3s} {'ratio':>6s} {'worst':>6s} {'limit':>6s} {'perfect':>7s} "
          f"{'link F1':>7s} {'pieces':>6s} {'ms':>5s}")  # fmt: skip
    for name in given.world or WORLDS:
        for particles, snr in cases:
            found = [measure(WORLDS[name], particles, snr, seed, settings) for seed in range(given.seeds)]
            mean = {key: math.fsum(getattr(one, key) for one in found) / len(found) for key in
                    ("ratio", "limit", "perfect", "f1", "fragments", "ms")}  # fmt: skip
            print(
                f"{name:24s} {particles:6d} {snr:3d} {mean['ratio']:6.3f} {min(one.ratio for one in found):6.3f} "
                f"{mean['limit']:6.3f} "
                f"{mean['perfect']:7.3f} {mean['f1']:7.3f} {mean['fragments']:6.2f} {mean['ms']:5.1f}",
                flush=True,
            )
            rows.append({"motion": name, "particles": particles, "snr": snr, "seeds": given.seeds,
                         "worst": min(one.ratio for one in found), **mean})  # fmt: skip
    if given.output is not None:
        save(given.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
