"""How right the trajectories are: the tracker beside perfect linking, trackpy and plain linking in the same run.

The sequences are those of tests/tracking/flows.py: channel flow, 10 um between particles, standard errors 0.1,
0.1 and 1 um, Brownian steps of 0.2 um a frame, 3 % missed, 3 % false. Distances are in standard errors, cut off
at 5 (Chenouard et al. 2014 cut off at 5 pixels). `alpha_of_perfect` is alpha over that of linking every detection
by its true particle, which misses and noise keep from 1. Links are those between successive detections of a
particle. `learnt` has tracked another sequence of the same flow before, `no prior` starts with nothing known.
trackpy's ranges are those of some that gave the best F1.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas
import trackpy
from reporting import save

from stream.messages import Detections, FrameInfo, TrackFlag
from tracking.analysis.metrics import TrackPoints, link_scores, track_scores
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking"))
from flows import FRAME_S, SPACING, Sequence, channel_flow, second_detection_scores, with_second_detections

Names = list[npt.NDArray[np.int64]]

SIGMA_UM = np.array([0.1, 0.1, 1.0])
GATE_SIGMAS = 5.0
DISPLACEMENTS = (0.15, 1.2)
FRAMES = 100
SEED = 1
LEARNING_SEED = 77
SHORTEST = 3
MEMORY = 2
ADAPTIVE = {"adaptive_stop": 1.0, "adaptive_step": 0.95}
PREDICTED_REACH_UM = 8.0


def perfect(sequence: Sequence) -> Names:
    """Each detection in the trajectory of its true particle."""
    return [who.astype(np.int64) for who in sequence.truth]


def liveptv(settings: TrackerSettings, *, learnt: bool = False) -> Callable[[Sequence], Names]:
    def link(sequence: Sequence) -> Names:
        tracker = OnlineTracker(settings)
        shift = 0
        if learnt:
            before = channel_flow(sequence.particles[0].size, sequence.displacement, 60, seed=LEARNING_SEED)
            for found in before.detections:
                tracker.step(found)
            shift = 60 + settings.max_gap_frames + 1
        rows = [tracker.step(_later(found, shift)) for found in sequence.detections]
        real = np.unique(
            np.concatenate([r.track[(r.flags.astype(int) & TrackFlag.TENTATIVE) == 0] for r in rows])
        )
        names = []
        for found, r in zip(sequence.detections, rows, strict=True):
            name = np.full(len(found), -1, np.int64)
            use = (r.detection >= 0) & np.isin(r.track, real)
            name[r.detection[use].astype(np.int64)] = r.track[use].astype(np.int64)
            names.append(name)
        return names

    return link


def _later(found: Detections, frames: int) -> Detections:
    info = found.info
    if not frames:
        return found
    later = info.time_s + frames * FRAME_S
    return Detections(
        FrameInfo(info.run_id, info.frame + frames, info.frame + frames, later, 0, 0.0), found.table
    )


def with_trackpy(sequence: Sequence) -> Names:
    """trackpy in space, with a memory of 2 frames and a range beyond the longest step; no stubs."""
    frames = [np.column_stack([d.x_um, d.y_um, d.z_um]) for d in sequence.detections]
    reach = max(1.2 * sequence.displacement * SPACING, 5.0)
    levels = trackpy.link_iter(iter(frames), search_range=reach, memory=MEMORY, **ADAPTIVE)
    return _without_stubs([np.array(particle, np.int64) for _, particle in levels])


def with_trackpys_prediction(sequence: Sequence) -> Names:
    """The same, predicting each particle by its nearest neighbour's velocity."""
    frames = [
        pandas.DataFrame({"x": d.x_um, "y": d.y_um, "z": d.z_um, "frame": frame})
        for frame, d in enumerate(sequence.detections)
    ]
    predictor = trackpy.predict.NearestVelocityPredict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = predictor.link_df_iter(
            iter(frames),
            search_range=PREDICTED_REACH_UM,
            memory=MEMORY,
            pos_columns=["x", "y", "z"],
            **ADAPTIVE,
        )
        return _without_stubs([level.sort_index().particle.to_numpy(np.int64) for level in levels])


def _without_stubs(names: Names) -> Names:
    number, length = np.unique(np.concatenate(names), return_counts=True)
    short = number[length < SHORTEST]
    return [np.where(np.isin(name, short), -1, name) for name in names]


def score(sequence: Sequence, names: Names) -> dict[str, float]:
    frame = np.repeat(np.arange(len(names)), [name.size for name in names])
    track = np.concatenate(names)
    who = np.concatenate(sequence.truth)
    where = np.concatenate([np.stack([d.x_um, d.y_um, d.z_um]) for d in sequence.detections], axis=1)
    true_frame = np.repeat(np.arange(len(names)), [p.size for p in sequence.particles])
    truth = TrackPoints.of(
        np.concatenate(sequence.particles), true_frame,
        (np.concatenate(sequence.positions) / SIGMA_UM).T,
    )  # fmt: skip
    used = track >= 0
    found = TrackPoints.of(track[used], frame[used], where[:, used] / SIGMA_UM[:, None])
    tracks = track_scores(truth, found, GATE_SIGMAS)
    links = link_scores(frame, who, track)
    return {
        "alpha": tracks.alpha,
        "beta": tracks.beta,
        "jsc": tracks.jsc,
        "jsc_tracks": tracks.jsc_tracks,
        "rmse_sigmas": tracks.rmse,
        "link_precision": links.precision,
        "link_recall": links.recall,
        "link_f1": links.f1,
        "wrong_links": links.wrong_links,
        "fragments": links.fragments,
    }


def cases(displacement: float) -> dict[str, Callable[[Sequence], Names]]:
    plain = TrackerSettings(
        mode="hungarian", max_distance_um=max(1.2 * displacement * SPACING, 5.0), min_length_frames=SHORTEST
    )
    return {
        "perfect linking": perfect,
        "liveptv, no prior": liveptv(TrackerSettings()),
        "liveptv, learnt": liveptv(TrackerSettings(), learnt=True),
        "liveptv, plain Hungarian": liveptv(plain),
        "trackpy": with_trackpy,
        "trackpy, predicting": with_trackpys_prediction,
    }


def measure(count: int, displacement: float) -> list[dict[str, Any]]:
    sequence = channel_flow(count, displacement, FRAMES, seed=SEED)
    rows: list[dict[str, Any]] = []
    for case, link in cases(displacement).items():
        start = time.perf_counter()
        names = link(sequence)
        ms = 1e3 * (time.perf_counter() - start) / FRAMES
        scores = score(sequence, names)
        best = rows[0]["alpha"] if rows else scores["alpha"]
        row = {
            "case": case, "particles": count, "displacement_spacings": displacement, **scores,
            "alpha_of_perfect": scores["alpha"] / best, "ms_a_frame": ms,
        }  # fmt: skip
        rows.append(row)
    theirs = next(row["wrong_links"] for row in rows if row["case"] == "trackpy")
    for row in rows:
        row["trackpys_wrong_links_over_ours"] = (
            theirs / row["wrong_links"] if row["wrong_links"] else math.inf
        )
    return rows


def measure_second_detections(count: int, displacement: float) -> list[dict[str, Any]]:
    """Precision and recall of trajectories flagged as second detections, by either test."""
    sequence, _ = with_second_detections(channel_flow(count, displacement, FRAMES, seed=SEED), share=0.05)
    rows = []
    for rule in ("likelihood", "paper"):
        tracker = OnlineTracker(TrackerSettings(double_test=rule))
        tracks = [tracker.step(found) for found in sequence.detections]
        precision, recall, pairs = second_detection_scores(tracks, sequence.truth)
        rows.append(
            {
                "case": f"second detections, {rule}", "particles": count, "displacement_spacings": displacement,
                "pairs": pairs, "precision": precision, "recall": recall,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, nargs="+", default=[2000])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    trackpy.quiet()
    found: list[dict[str, Any]] = []
    for count in options.particles:
        for displacement in DISPLACEMENTS:
            found += measure(count, displacement)
            print(f"\n{count} particles, {displacement} spacings a frame")
            table = pandas.DataFrame(found).query(
                "particles == @count and displacement_spacings == @displacement"
            )
            print(table.drop(columns=["particles", "displacement_spacings"]).round(4).to_string(index=False))
    for count in options.particles:
        for displacement in DISPLACEMENTS:
            found += (twice := measure_second_detections(count, displacement))
            print(f"\n{pandas.DataFrame(twice).round(3).to_string(index=False)}", flush=True)
    if options.json is not None:
        save(options.json, found)


if __name__ == "__main__":
    main()
