"""How many particles the tracker puts on the right side of focus, and what it costs: beside single images.

The runs are those of tests/tracking/mirror_depths.py: standard errors 0.1, 0.1 and 0.6 um, a second depth wherever
a particle is more than 1.5 um from focus, 3 % missed. A share of the images is taken for the wrong side: single
images by chance (`by image`), or all images of as many particles (`by particle`), as where size or neighbours
mislead. Shares are of all detections that have two depths, over some seeds. `ms` is the processor time of a frame,
with second depths and, of the same detections, without.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

from stream.messages import Detections
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking"))
from mirror_depths import Depths, Motion, Sides, sides_of, track, two_sided

CASES: tuple[tuple[Motion, int, float], ...] = (
    ("flow", 400, 0.08),
    ("sinking", 400, 0.08),
    ("scan", 400, 0.08),
    ("steps", 400, 0.08),
    ("still", 400, 0.08),
    ("scan", 30, 0.08),
    ("scan", 400, 0.3),
    ("sinking", 400, 0.3),
)
SEEDS = 4
FRAMES = 120


def score(motion: Motion, count: int, wrong: float, *, alike: bool) -> dict[str, Any]:
    """Shares over all seeds."""
    found = []
    for seed in range(SEEDS):
        run = two_sided(motion, wrong=wrong, alike=alike, count=count, frames=FRAMES, seed=seed)
        found.append(asdict(sides_of(run, track(run))))
    mean = {f.name: round(float(np.mean([one[f.name] for one in found])), 4) for f in fields(Sides)}
    errs = "by particle" if alike else "by image"
    return {"motion": motion, "particles": count, "wrong": wrong, "errs": errs, **mean}


def without(run: Depths) -> list[Detections]:
    """The same detections without their second depths."""
    row = Detections.COLUMNS.index("z_other_um")
    plain = []
    for found in run.detections:
        table = found.table.copy()
        table[row : row + 2] = np.nan
        plain.append(Detections(found.info, table))
    return plain


def cost(count: int) -> dict[str, Any]:
    """Median processor time of a frame with and without second depths, ms."""
    run = two_sided("flow", count=count, frames=60)
    times: dict[str, list[float]] = {"ms_without": [], "ms_with": []}
    trackers = {name: OnlineTracker(TrackerSettings()) for name in times}
    trackers["ms_with"].warmup()
    for plain, sided in zip(without(run), run.detections, strict=True):
        for name, found in (("ms_without", plain), ("ms_with", sided)):
            begun = time.process_time()
            trackers[name].step(found)
            times[name].append(1e3 * (time.process_time() - begun))
    return {
        "particles": count,
        **{name: round(float(np.median(values[20:])), 3) for name, values in times.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    rows = []
    print(
        f"{'motion':8} {'particles':>9} {'wrong':>6} {'errs':12} {'single':>7} {'tracked':>8} "
        f"{'revised':>8} {'sure':>6}"
    )
    for motion, count, wrong in CASES:
        for alike in (False, True):
            row = score(motion, count, wrong, alike=alike)
            rows.append(row)
            print(
                f"{motion:8} {count:9} {wrong:6.2f} {row['errs']:12} {row['single']:7.3f} {row['tracked']:8.3f} "
                f"{row['revised']:8.3f} {row['sure']:6.2f}"
            )
    costs = [cost(count) for count in (200, 2000)]
    for row in costs:
        print(
            f"{row['particles']} particles: {row['ms_without']} ms a frame, {row['ms_with']} ms with second depths"
        )
    if arguments.json:
        save(arguments.json, [*rows, *costs])


if __name__ == "__main__":
    main()
