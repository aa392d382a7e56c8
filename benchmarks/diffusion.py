"""Diffusion coefficient of 1 um beads in water, by our own detector and tracker and by trackpy, in one run.

`liveptv` is this project's path, or a trajectory file given as argument (`liveptv replay VIDEO -o FILE`);
`trackpy` is its walk-through (https://soft-matter.github.io/trackpy): diameter 11, link 5 px with memory 3,
tracks of 25 frames and more, drift subtracted. One estimator of ours (a line through the first four lags) is
applied to both; trackpy's own, a power law through its ensemble MSD up to 100 lags, stands beside it. The
walk-through also picks tracks by their looks, which ours does not: that row is shown, but not compared. The
exit status is 1 if liveptv and trackpy differ by more than 10 % with either estimator.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import trackpy
from reporting import save

from engines.factory import open_engine
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, FrameInfo, TrackFlag
from tracking.analysis.velocity import Diffusion, diffusion_coefficient
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

VIDEO = Path(__file__).resolve().parents[2] / "shared" / "data" / "bulk-water" / "video.ome.tif"
PIXEL_UM, FRAMES_PER_S = 1.0 / 2.85, 24.0
MIN_LENGTH, AGREEMENT = 25, 0.10
BOLTZMANN_J_K, TEMPERATURE_K, VISCOSITY_PA_S, RADIUS_M = 1.380649e-23, 293.15, 1.002e-3, 0.5e-6

Columns = tuple[npt.NDArray[np.float64], ...]


def detect(video: npt.NDArray[np.uint8]) -> list[Detections]:
    """Detections of every frame, by the classical engine in 2D."""
    engine = open_engine(DetectorSettings(), model=None, pixel_size_um=PIXEL_UM)
    engine.warmup(video.shape[1], video.shape[2], video.dtype)
    found: list[Detections] = []
    for number, image in enumerate(video):
        info = FrameInfo("bulk-water", number, number, number / FRAMES_PER_S, 0, 0.0, pixel_size_um=PIXEL_UM)
        engine.submit(Frame(info, image))
        found += engine.results(0.0)
    while engine.pending:
        found += engine.results(1.0)
    engine.close()
    return found


def liveptv_tracks(video: npt.NDArray[np.uint8]) -> Columns:
    """Track, frame, x and y (um) of every measured row of our own path."""
    tracker = OnlineTracker(TrackerSettings(frame_rate_hz=FRAMES_PER_S))
    parts = []
    for detections in detect(video):
        tracks = tracker.step(detections)
        measured = tracks.detection >= 0
        frame = np.full(len(tracks), float(tracks.info.frame))
        parts.append(np.stack([tracks.track, frame, tracks.x_um, tracks.y_um])[:, measured])
    return tuple(np.concatenate(parts, axis=1))


def file_tracks(path: Path) -> Columns:
    """Track, frame, x and y (um) of every measured row of a trajectory file."""
    from tracking.trajectories.file import read_trajectories

    rows = read_trajectories(path)
    measured = np.asarray(rows.flags).astype(np.int64) & int(TrackFlag.PREDICTED) == 0
    return tuple(np.asarray(c, np.float64)[measured] for c in (rows.track, rows.frame, rows.x_um, rows.y_um))


def trackpy_tracks(video: npt.NDArray[np.uint8]) -> Any:
    """trackpy's walk-through up to the long enough trajectories, a data frame in pixels."""
    spots = trackpy.batch(list(video), 11, minmass=20, invert=True, processes=1)
    return trackpy.filter_stubs(trackpy.link(spots, 5, memory=3), MIN_LENGTH)


def picked(tracks: Any) -> Any:
    """The tracks that the walk-through keeps for their looks: bright, small, round."""
    looks = tracks.groupby("particle")[["mass", "size", "ecc"]].mean()
    good = looks[(looks["mass"] > 50) & (looks["size"] < 2.6) & (looks["ecc"] < 0.3)].index
    return tracks[tracks["particle"].isin(good)]


def trackpy_results(tracks: Any) -> tuple[Diffusion, float]:
    """D from trackpy's tracks: with our estimator, and from trackpy's power law A t^n, A = 4 D."""
    table = trackpy.subtract_drift(tracks.copy(), trackpy.compute_drift(tracks)).reset_index(drop=True)
    columns = tuple(
        table[name].to_numpy(np.float64) * scale
        for name, scale in (("particle", 1.0), ("frame", 1.0), ("x", PIXEL_UM), ("y", PIXEL_UM))
    )
    msd = trackpy.emsd(table, PIXEL_UM, FRAMES_PER_S)
    power_law = trackpy.utils.fit_powerlaw(msd, plot=False)
    return estimate(columns, remove_drift=False), float(power_law["A"].iloc[0]) / 4.0


def estimate(columns: Columns, *, remove_drift: bool) -> Diffusion:
    return diffusion_coefficient(
        *columns, 1.0 / FRAMES_PER_S, min_length=MIN_LENGTH, remove_drift=remove_drift
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tracks", type=Path, nargs="?", help="trajectory file of the same video")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    if not VIDEO.is_file():
        sys.exit(f"no video {VIDEO}; put the project's shared data there")
    trackpy.quiet()
    warnings.simplefilter("ignore", FutureWarning)
    video = tifffile.imread(VIDEO)
    own = estimate(
        file_tracks(options.tracks) if options.tracks else liveptv_tracks(video), remove_drift=True
    )
    tracks = trackpy_tracks(video)
    peer, peer_power_law = trackpy_results(tracks)
    looks, looks_power_law = trackpy_results(picked(tracks))
    stokes_einstein = BOLTZMANN_J_K * TEMPERATURE_K / (6.0 * np.pi * VISCOSITY_PA_S * RADIUS_M) * 1e12
    rows: list[dict[str, Any]] = [
        {"case": case, "um2_s": d.um2_s, "standard_error_um2_s": d.standard_error_um2_s, "tracks": d.tracks}
        for case, d in (
            ("liveptv", own),
            ("trackpy, same estimator", peer),
            ("trackpy picked, same estimator", looks),
        )
    ]
    rows += [
        {"case": "trackpy, power law", "um2_s": peer_power_law},
        {"case": "trackpy picked, power law", "um2_s": looks_power_law},
        {"case": "Stokes-Einstein, 1 um, 20 C", "um2_s": float(stokes_einstein)},
    ]
    for row in rows:
        row["liveptv_ratio"] = own.um2_s / row["um2_s"]
        error = f" +- {row['standard_error_um2_s']:.4f}, {row['tracks']} tracks" if "tracks" in row else ""
        print(f"{row['case']:<31} {row['um2_s']:.4f} um^2/s, ratio {row['liveptv_ratio']:.3f}{error}")
    if options.json is not None:
        save(options.json, rows)
    agrees = all(abs(own.um2_s / d - 1.0) <= AGREEMENT for d in (peer.um2_s, peer_power_law))
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
