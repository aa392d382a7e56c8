"""The Particle Tracking Challenge (Chenouard et al. 2014): detection and tracking of all its sequences, scored.

    python benchmarks/ptc.py FOLDER                    this program on all that is there; goes on where it ended
    python benchmarks/ptc.py FOLDER --results OTHER    scores the XML of another program, by the same names

Its data may not be passed on. Who has registered (bioimageanalysis.org/track) puts the images and the truth in one
FOLDER, anywhere below it and as they were unpacked: `VIRUS snr 7 density high.xml` and, of the same name, a folder
with `... t000 z00.tif` or one TIFF with all of them.

Printed, and kept in FOLDER/liveptv.json, for each sequence: F1 and RMSE of the detections within 5 pixels, means
over the time points as in Spilger et al., and alpha, beta, JSC, JSC of tracks and RMSE, with distances cut off at
5 pixels, slices counted as pixels. `offset` is the median of found minus true along x, y and z: where it is half a
pixel on every axis, the truth counts from the corner of the first voxel, and `--origin 0.5` says so.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from volume_scoring import GATE, pairs, score

import liveptv
from acquisition.recording import open_recording
from engines.factory import open_engine
from engines.settings import MOST_PARTICLES, DetectorSettings
from liveptv.api.dataframes import detections_frame
from liveptv.workflows.offline import WAIT_S, recorded_frames
from stream.messages import Detections
from tracking.analysis.metrics import TrackPoints, track_scores
from tracking.imports.challenge import ChallengeTracks, is_challenge, read_tracks

NAME = re.compile(r"(?P<scenario>\w+) snr (?P<snr>\d+) density (?P<density>\w+)", re.IGNORECASE)
TIFF = (".tif", ".tiff")
KEPT = "liveptv.json"
DENSITIES = ("low", "mid", "high")
MEASURES = ("f1", "rmse_voxels", "alpha", "beta", "jsc", "jsc_tracks", "rmse")


@dataclass(frozen=True, slots=True)
class Sequence:
    """One of the challenge's sequences; `images` None where only its truth is there."""

    scenario: str
    snr: int
    density: str
    truth: Path
    images: Path | None

    @property
    def name(self) -> str:
        return f"{self.scenario} snr {self.snr} density {self.density}"


def find(folder: Path) -> list[Sequence]:
    """All sequences below a folder whose truth is there, in the challenge's order."""
    truths: dict[tuple[str, int, str], Path] = {}
    images: dict[tuple[str, int, str], Path] = {}
    for path in sorted(folder.rglob("*")):
        named = NAME.fullmatch(path.stem if path.is_file() else path.name)
        if named is None:
            continue
        key = named["scenario"].upper(), int(named["snr"]), named["density"].lower()
        if path.is_file() and path.suffix.lower() == ".xml":
            if is_challenge(path):
                truths.setdefault(key, path)
        elif path.suffix.lower() in TIFF or (path.is_dir() and has_images(path)):
            images.setdefault(key, path)
    order = sorted(
        truths, key=lambda k: (k[0], k[1], DENSITIES.index(k[2]) if k[2] in DENSITIES else 9, k[2])
    )
    return [Sequence(*key, truths[key], images.get(key)) for key in order]


def has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in TIFF for path in folder.iterdir())


def points_of(tracks: ChallengeTracks, origin: float = 0.0) -> TrackPoints:
    """As the measures take them: pixels and slices from the first voxel's centre, which is at `origin`."""
    axes = 3 if tracks.has_depth else 2
    return TrackPoints.of(tracks.track, tracks.frame, tracks.position[:, :axes].T - origin)


def detected(truth: TrackPoints, frame: npt.NDArray[Any], points: npt.NDArray[np.float64]) -> dict[str, Any]:
    """F1 and RMSE of detections (N,), (axes, N), means over the time points with a true particle or a detection."""
    f1, rmse, off = [], [], []
    for when in np.union1d(truth.frame, frame):
        real, found = truth.points[:, truth.frame == when].T, points[:, frame == when].T
        result = score(real, found)
        f1.append(result.f1)
        rmse.append(result.rmse)
        rows, columns, _ = pairs(real, found)
        off.append(found[columns] - real[rows])
    offset = np.median(np.concatenate(off), axis=0) if any(map(len, off)) else []
    return {
        "f1": float(np.mean(f1)),
        "rmse_voxels": float(np.nanmean(rmse)) if np.isfinite(rmse).any() else math.nan,
        "offset": [round(float(value), 3) for value in offset],
    }


def run(sequence: Sequence, axes: int, detector: dict[str, Any], tracker: dict[str, Any]) -> dict[str, Any]:
    """Detect and track one sequence with this program. With three `axes` it is one of volumes, whose slices are
    taken to lie a pixel apart, as the measures do, and whose particles switch between Brownian and directed motion.
    """
    assert sequence.images is not None
    if axes == 3:
        found = detections_frame(volumes_of(sequence.images, detector))
        tracker = {"motion": "switching", **tracker}
    else:
        found = liveptv.detect(sequence.images, pixel_size_um=1.0, **detector)
    tracks = liveptv.track(found, frame_rate_hz=1.0, **tracker)
    names = ["x_um", "y_um", "z_um"][:axes]
    return {
        "detections": (found["frame"].to_numpy(), found[names].to_numpy().T),
        "tracks": TrackPoints.of(tracks["track"], tracks["frame"], tracks[names].to_numpy().T),
    }


def volumes_of(path: Path, options: dict[str, Any]) -> Iterator[Detections]:
    """The particles of each volume of a recording."""
    settings = DetectorSettings(**{"max_particles": MOST_PARTICLES, **options})
    recording = open_recording(path, run_id="challenge", pixel_size_um=1.0, z_step_um=1.0, volumes=True)
    info = recording.info
    engine = open_engine(settings, model=settings.model, pixel_size_um=1.0, volumes=True)
    try:
        engine.warmup(info.height, info.width, np.dtype(info.dtype), info.depth)
        for frame in recorded_frames(recording):
            engine.submit(frame)
            yield from engine.results(0.0)
        while engine.pending:
            yield from engine.results(WAIT_S)
    finally:
        engine.close()
        recording.close()


def of_results(path: Path, axes: int) -> dict[str, Any]:
    """What another program handed in; its detections are those on tracks."""
    tracks = read_tracks(path)
    points = TrackPoints.of(tracks.track, tracks.frame, tracks.position[:, :axes].T)
    return {"detections": (points.frame, points.points), "tracks": points}


def scored(truth: TrackPoints, found: dict[str, Any]) -> dict[str, Any]:
    row = detected(truth, *found["detections"])
    return row | track_scores(truth, found["tracks"], GATE).to_dict()


def settings(given: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE as the fields of a section; a value that is not JSON is text."""
    found: dict[str, Any] = {}
    for text in given:
        name, value = text.split("=", 1)
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def table(rows: list[dict[str, Any]]) -> str:
    head = ["sequence", "F1", "RMSE", "alpha", "beta", "JSC", "JSC tracks", "RMSE tracks", "offset"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        values = [f"{row[name]:.3f}" if row[name] is not None else "" for name in MEASURES]
        lines.append(f"| {row['sequence']} | {' | '.join(values)} | {row['offset']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, help="folder with another program's XML")
    parser.add_argument("--origin", type=float, default=0.0, help="of the first voxel's centre in the truth")
    parser.add_argument("--only", default="", help="part of the sequences' names, as VIRUS")
    parser.add_argument("--detector", action="append", default=[], metavar="KEY=VALUE", help="of [detector]")
    parser.add_argument("--tracker", action="append", default=[], metavar="KEY=VALUE", help="of [tracker]")
    given = parser.parse_args()
    sequences = [s for s in find(given.folder) if given.only.lower() in s.name.lower()]
    if not sequences:
        parser.error(f"{given.folder} holds no truth of the challenge, as 'VIRUS snr 7 density high.xml'")
    how = {"detector": settings(given.detector), "tracker": settings(given.tracker), "origin": given.origin}
    kept_at = (given.results or given.folder) / KEPT
    kept = json.loads(kept_at.read_text(encoding="utf-8")) if kept_at.is_file() else {}
    others = {} if given.results is None else {s.name: s.truth for s in find(given.results)}
    rows: list[dict[str, Any]] = []
    for sequence in sequences:
        known = kept.get(sequence.name)
        if known is None or known["how"] != how:
            truth = points_of(read_tracks(sequence.truth), given.origin)
            if given.results is not None:
                if sequence.name not in others:
                    print(f"{sequence.name}: no result, left out")
                    continue
                found = of_results(others[sequence.name], len(truth.points))
            elif sequence.images is None:
                print(f"{sequence.name}: no images, left out")
                continue
            else:
                found = run(sequence, len(truth.points), how["detector"], how["tracker"])
            known = {"sequence": sequence.name, **scored(truth, found), "how": how}
            kept[sequence.name] = known
            kept_at.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        rows.append(known)
    print(table(rows))


if __name__ == "__main__":
    main()
