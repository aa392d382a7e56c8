"""D, its standard error and what is told of particles, on simulated tracks and on the real video `bulk-water`.

Simulated: `--seeds` repetitions of each case; the stated standard error over the scatter of the results, and their
mean over the true D. Real: the video's trajectory file, against lumicks.pylake's covariance-based estimator on the
same tracks (its value: `--pylake`, since it is no dependency of ours). The cost of the live estimate is processor
time, with 2,000 tracks in every frame.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking"))
from brownian_tracks import brownian_tracks, together

from tracking.physics.diffusion.estimate import diffusion_of
from tracking.trajectories.file import read_trajectories

D = 0.4
CASES: dict[str, dict[str, Any]] = {
    "3D, 100 tracks of 30 frames": {},
    "short tracks of 5 frames": {"frames": 5, "tracks": 400},
    "motion blur": {"exposure_s": 0.04, "sigma_um": 0.1},
    "errors of two steps": {"sigma_um": 0.25},
    "20 % of the frames missed": {"missing": 0.2},
    "5 tracks": {"tracks": 5, "frames": 60},
}


def repeated(seeds: int) -> list[dict[str, Any]]:
    """Bias and standard error of each case."""
    rows = []
    for case, made in CASES.items():
        found = []
        for seed in range(seeds):
            result = diffusion_of(
                *brownian_tracks(seed, **made), exposure_s=made.get("exposure_s", 0.0), kinds=False
            )
            found.append((result.um2_s, result.standard_error_um2_s))
        value, error = np.array(found).T
        scatter = float(value.std(ddof=1))
        rows.append(
            {
                "case": case,
                "seeds": seeds,
                "method": result.axes[0].method,
                "mean_over_true": float(value.mean() / D),
                "its_error": scatter / D / seeds**0.5,
                "relative_scatter": scatter / D,
                "stated_over_actual": float(np.sqrt((error**2).mean())) / scatter,
            }
        )
    return rows


def wrong_links(seeds: int) -> list[dict[str, Any]]:
    """D with wrong links, cut and not cut."""
    rows = []
    for share in (0.0, 0.003, 0.01, 0.03):
        both = []
        for seed in range(seeds):
            rng = np.random.default_rng(1000 + seed)
            track, time_s, position = brownian_tracks(seed, tracks=200)
            jump = np.where(rng.random(track.size) < share, rng.uniform(-2, 2, position.shape), 0.0)
            for name in np.unique(track):
                mine = track == name
                position[:, mine] += np.cumsum(jump[:, mine], axis=1)
            both.append(
                [
                    diffusion_of(track, time_s, position, kinds=False, without_outliers=cut).um2_s
                    for cut in (True, False)
                ]
            )
        cut, kept = np.mean(both, axis=0) / D
        rows.append(
            {
                "case": f"{100 * share:g} % wrong links",
                "seeds": seeds,
                "mean_over_true": float(cut),
                "not_cut": float(kept),
            }
        )
    return rows


def kinds(seeds: int) -> list[dict[str, Any]]:
    """How often kinds are told where there is one, and where there are three (100, 60 and 30 tracks)."""
    one = [len(diffusion_of(*brownian_tracks(seed, frames=20)).populations.kinds) for seed in range(seeds)]
    three, shares = [], []
    for seed in range(seeds):
        slow = brownian_tracks(3000 + seed, tracks=60, um2_s=0.1)
        stuck = brownian_tracks(4000 + seed, tracks=30, um2_s=0.0, velocity_um_s=0.0)
        found = diffusion_of(*together(brownian_tracks(2000 + seed), slow, stuck)).populations
        right = len(found.kinds) == 3 and [kind.stuck for kind in found.kinds] == [True, False, False]
        three.append(right)
        shares += [abs(found.kinds[0].share - 30 / 190)] if right else []
    return [
        {"case": "one kind", "seeds": seeds, "told_right": sum(number == 1 for number in one)},
        {
            "case": "three kinds, one at rest",
            "seeds": seeds,
            "told_right": sum(three),
            "share_at_rest_off_by": float(np.max(shares, initial=0.0)),
        },
    ]


def real(path: Path, pylake: list[float]) -> list[dict[str, Any]]:
    """D along x and y of tracks with ten detections and more, without drift as pylake supposes, and as reported."""
    rows = read_trajectories(path)
    kept = (np.bincount(rows.track) >= 10)[rows.track]
    position = np.stack([rows.x_um, rows.y_um])[:, kept]
    found = []
    for case, choice in (
        ("bulk-water, as pylake supposes", {"drift": False, "without_outliers": False}),
        ("bulk-water, as reported", {}),
    ):
        result = diffusion_of(rows.track[kept], rows.time_s[kept], position, kinds=False, **choice)
        for at, axis in enumerate(result.axes):
            row = {
                "case": f"{case}, {axis.axis}",
                "um2_s": axis.um2_s,
                "standard_error_um2_s": axis.standard_error_um2_s,
                "tracks": result.tracks,
            }
            found.append(row | ({"pylake_um2_s": pylake[at]} if choice and pylake else {}))
    return found


def live() -> list[dict[str, Any]]:
    """Processor time of the live estimate a second of run: 2,000 tracks in every frame, 60 frames/s."""
    from stream.messages import FrameInfo, Tracks
    from tracking.physics.live.running_diffusion import LOOKS, PERIOD_S, RunningDiffusion

    rng = np.random.default_rng(1)
    tracks, frames, rate = 2000, 600, 60.0
    x = rng.uniform(0, 300, (3, tracks))
    messages = []
    for frame in range(frames):
        x = x + np.sqrt(2 * D / rate) * rng.normal(size=x.shape)
        info = FrameInfo("run", frame, frame, frame / rate, 0, 0.0)
        seen = x + 0.05 * rng.normal(size=x.shape)
        columns = {"x_um": seen[0], "y_um": seen[1], "z_um": seen[2], "age_frames": np.full(tracks, frame)}
        number = np.arange(tracks)
        messages.append(Tracks.from_columns(info, track=number, detection=number, **columns))
    running = RunningDiffusion()
    began = time.process_time()
    for message in messages:
        running.update(message)
    updating = time.process_time() - began
    began = time.process_time()
    facts = running.facts()
    showing = (time.process_time() - began) / (LOOKS * PERIOD_S)
    return [
        {
            "case": "live, 2,000 tracks, 60 frames/s",
            "cpu_ms_a_second": 1e3 * (updating / (frames / rate) + showing),
            "um2_s": facts["um2_s"],
            "standard_error_um2_s": facts["error_um2_s"],
            "seconds": frames / rate,
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tracks", type=Path, nargs="?", help="trajectory file of the video bulk-water")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--pylake", type=float, nargs=2, default=[], help="D along x and y by pylake, um^2/s")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows = repeated(options.seeds) + wrong_links(options.seeds // 5) + kinds(options.seeds // 5) + live()
    if options.tracks is not None:
        rows += real(options.tracks, options.pylake)
    for row in rows:
        numbers = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
        )
        print(", ".join(numbers))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
