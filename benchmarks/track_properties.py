"""Whether stated errors of a track's mean property are right, where the errors of its detections are partly alike.

python benchmarks/track_properties.py [--seeds 5] [--json benchmarks/results/track_properties.json]

200 particles are detected 60 times each with errors of known parts. Prints the standard deviation of
(mean - truth) / stated error after 1, 5, 20 and 60 detections, over all particles and seeds: 1 is right, below 1 is
too cautious.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from reporting import save

from stream.messages import Detections, FrameInfo, Properties, Tracks
from tracking.properties import TrackProperties

PARTICLES, DETECTIONS = 200, 60
AFTER = (1, 5, 20, 60)


class Case(NamedTuple):
    """Errors of detections.

    `alike` is the part of their variance that is the same along a track, `correlation` that of the rest from one
    detection to the next; they are so many times `larger` than stated; the part `wrong` of the values is anything.
    """

    words: str
    alike: float = 0.0
    correlation: float = 0.0
    larger: float = 1.0
    wrong: float = 0.0
    stated: bool = True


CASES = (
    Case("all independent"),
    Case("half alike", alike=0.5),
    Case("nine tenths alike", alike=0.9),
    Case("all alike", alike=1.0),
    Case("errors last for ten detections", correlation=0.9),
    Case("twice as large as stated, independent", larger=2.0),
    Case("twice as large as stated, half alike", alike=0.5, larger=2.0),
    Case("no stated errors, independent", stated=False),
    Case("half alike, 2 % wrong values", alike=0.5, wrong=0.02),
)


def ratios(case: Case, seed: int) -> dict[int, np.ndarray]:
    """(mean - truth) / stated error of each particle (N,), by the number of its detections."""
    rng = np.random.default_rng(seed)
    remembered = TrackProperties()
    truth = rng.uniform(0.1, 0.5, PARTICLES)
    sigma = 0.02 * rng.uniform(0.5, 2.0, PARTICLES)
    bias = rng.normal(0.0, 1.0, PARTICLES) * np.sqrt(case.alike)
    rest = rng.normal(0.0, 1.0, PARTICLES)
    number, found = np.arange(PARTICLES), {}
    for detection in range(1, DETECTIONS + 1):
        value = truth + case.larger * sigma * (bias + np.sqrt(1.0 - case.alike) * rest)
        value = np.where(rng.random(PARTICLES) < case.wrong, rng.uniform(0.1, 0.5, PARTICLES), value)
        rest = case.correlation * rest + np.sqrt(1 - case.correlation**2) * rng.normal(0.0, 1.0, PARTICLES)
        info = FrameInfo("run", detection, detection, 0.1 * detection, 0, 0.0)
        errors = sigma if case.stated else np.full(PARTICLES, np.nan)
        known = Properties(("radius_um",), value[None], errors[None])
        seen = Detections(info, Detections.from_columns(info, x_um=number, y_um=0.0).table, known)
        rows = remembered.write(Tracks.from_columns(info, track=number, detection=number), seen)
        if detection in AFTER:
            found[detection] = (rows.properties.values[0] - truth) / rows.properties.errors[0]
    return found


def main() -> None:
    """Run all cases and print, or write, their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    lines = []
    for case in CASES:
        runs = [ratios(case, seed) for seed in range(given.seeds)]
        scatter = {n: float(np.std(np.concatenate([run[n] for run in runs]))) for n in AFTER}
        lines.append(
            {
                "case": case.words,
                **{f"after_{n}": None if np.isnan(s) else round(s, 3) for n, s in scatter.items()},
            }
        )
        print(f"{case.words:40}", " ".join(f"{s:6.2f}" for s in scatter.values()))
    if given.json is not None:
        save(given.json, lines)


if __name__ == "__main__":
    main()
