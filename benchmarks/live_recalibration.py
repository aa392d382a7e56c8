"""Whether a run proposes a recalibration where the optics have changed, and nothing where they have not.

Runs as in `self_check.py` (the paper's particle density and noise, the shipped network), of which 60 images a
second apart are sampled, as in a run that looks once a minute, and one look. `look_cpu_s` is the processor time of
the look, in a process of the lowest priority beside a run; by default there is one look in ten minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from detection import SHIPPED_MODEL
from reporting import save
from self_check import OPTICS, SHAPE, Change, Scene

from engines.factory import open_engine
from engines.settings import DetectorSettings
from liveptv.recalibration.proposals import Proposer
from liveptv.recalibration.sample import MOST_FRAMES, Sample
from liveptv.recalibration.subject import Subject
from stream.messages import Frame, FrameInfo
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

RATE_HZ, SAMPLED_EVERY = 2.0, 2
CASES = {
    "focal planes 5 % closer": Change("", separation=0.95),
    "focal planes 3 % further apart": Change("", separation=1.03),
}


def sampled(change: Change, seed: int, detector: Any) -> Sample:
    """The images and tracks that a run keeps."""
    scene, tracker, kept = Scene(change, seed), OnlineTracker(TrackerSettings()), Sample()
    for number in range(MOST_FRAMES * SAMPLED_EVERY):
        now_s = number / RATE_HZ
        image = scene.image(now_s)
        info = FrameInfo(
            "run", number, number, now_s, 0, now_s, exposure_ms=2.0, pixel_size_um=OPTICS.pixel_size_um
        )
        frame = Frame(info, image)
        detector.submit(frame)
        found = []
        while detector.pending:
            found += detector.results(60.0)
        tracks = tracker.step(found[0])
        if number % SAMPLED_EVERY == 0:
            kept.add(frame, tracks)
        scene.move(1 / RATE_HZ)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--clean", type=int, default=4, help="runs without a change")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    cases: list[tuple[str, Change]] = [*CASES.items()] + [("nothing", Change(""))] * args.clean
    settings = DetectorSettings(workers=1, backend="onnxruntime", self_check=False)
    engine = open_engine(settings, model=args.model, pixel_size_um=OPTICS.pixel_size_um)
    with closing(engine) as detector, tempfile.TemporaryDirectory() as folder:
        detector.warmup(*SHAPE, np.dtype(np.uint8))
        for k, (name, change) in enumerate(cases):
            kept = sampled(change, args.seed + k, detector)
            proposer = Proposer(Subject(args.model, Path(folder) / f"{k}.h5", "run"))
            began_s = time.process_time()
            found = proposer.look(kept)
            cpu_s = time.process_time() - began_s
            terms = found.facts.get("terms", [])
            rows.append(
                {
                    "change": name,
                    "proposed": {term["name"]: term["after"][0] - term["before"][0] for term in terms},
                    "chi_square": found.facts.get("chi_square"),
                    "images": found.facts.get("images"),
                    "look_cpu_s": round(cpu_s, 1),
                }
            )
            print(f"{name}: {found.text or found.facts['last']} ({cpu_s:.1f} s)", flush=True)
    if args.json:
        save(args.json, rows)


if __name__ == "__main__":
    main()
