"""How a batch scales: real runs on 1 and 2 workers, what a task costs a real dask scheduler, and a simulation.

The simulation has up to 1,000 workers.

    python benchmarks/batch_scaling.py runs FOLDER       # real recordings (simulated particles), 1 and 2 processes
    python benchmarks/batch_scaling.py scheduler         # needs dask.distributed
    python benchmarks/batch_scaling.py simulation        # from the results of both

Each writes its rows to benchmarks/results/batch_scaling_*.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile
from reporting import save
from simulated_cluster import Costs, Losses, simulate

from acquisition.physics.optics import OpticsModel
from calibration.training.material import from_optics

RESULTS = Path(__file__).with_name("results")
SHORT, LONG, MANY = 60, 240, 12
"""Frames of the recordings of the real runs, and how many there are: two lengths tell what a recording costs from
what a frame costs."""
SHAPE = (256, 256)
WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
RECORDINGS, FRAMES = (200, 1000, 10000), 20_000
"""Recordings of about 14 minutes at 24 frames/s."""
PIECES = (None, 5000, 1000)


def recordings(folder: Path) -> list[Path]:
    """Stacks of drawn particles in the simulated optics, which drift by two pixels a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    source = from_optics(OpticsModel())().scoring
    found = []
    for number in range(MANY):
        path = folder / f"r{number:03d}.tif"
        found.append(path)
        if path.exists():
            continue
        scene = source.draw(np.random.default_rng(number), SHAPE, 1)
        grey = np.clip(200 * (1 - scene.images[0]), 0, 255).astype(np.uint8)
        frames = SHORT if number % 2 else LONG
        tifffile.imwrite(path, np.stack([np.roll(grey, 2 * k, axis=1) for k in range(frames)]))
    return found


def run_batch(folder: Path, out: Path, workers: int, model: Path) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of `liveptv batch`, and what its markers say."""
    command = [sys.executable, "-m", "liveptv", "batch", str(folder), "-m", str(model), "-o", str(out)]
    command += ["--workers", str(workers), "--pixel-size", "0.8", "--frame-rate", "24"]
    began_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began_s
    return seconds, [json.loads(path.read_text()) for path in sorted(out.rglob("*.done.json"))]


def costs_of(markers: list[dict[str, Any]]) -> Costs:
    """What a recording and what a frame costs, by a line through the durations over the frames."""
    frames = np.array([marker["result"]["frames"] for marker in markers], float)
    seconds = np.array([marker["seconds"] for marker in markers], float)
    frame_s, recording_s = np.polyfit(frames, seconds, 1)
    spread = seconds / (recording_s + frame_s * frames)
    return Costs(
        float(frame_s), max(0.0, float(recording_s)), spread=tuple((spread / spread.mean()).tolist())
    )


def scheduler_rows(counts: tuple[int, ...], tasks: int) -> Iterator[dict[str, Any]]:
    """A dask scheduler with workers that have nothing to do: what a task costs it, its worker and its client.

    Processor time, as it does not depend on what else the computer does.
    """
    from distributed import Client, LocalCluster

    for count in counts:
        cluster = LocalCluster(
            n_workers=count, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50
        )
        with cluster, Client(cluster) as client:
            client.wait_for_workers(count)
            client.gather(client.map(_nothing, range(count), pure=False))
            process = psutil.Process()
            used_s = sum(process.cpu_times()[:2])
            client.gather(client.map(_nothing, range(tasks), pure=False))
            used_s = sum(process.cpu_times()[:2]) - used_s
        yield {"workers": count, "tasks": tasks, "cpu_ms_per_task": 1e3 * used_s / tasks}


def _nothing(number: int) -> int:
    return number


def simulated_rows(costs: Costs) -> Iterator[dict[str, Any]]:
    """Efficiency over workers, recordings and pieces, and with workers that are lost."""
    rng = np.random.default_rng(0)
    for recordings_ in RECORDINGS:
        frames = np.clip(rng.lognormal(np.log(FRAMES), 0.5, recordings_), 1000, None).astype(int).tolist()
        for piece in PIECES:
            for workers in WORKERS:
                found = simulate(frames, costs, workers, piece_frames=piece)
                yield {
                    "recordings": recordings_,
                    "piece_frames": piece,
                    "workers": workers,
                    "hours": found.seconds / 3600,
                    "efficiency": found.efficiency,
                    "tasks": found.tasks,
                }
    frames = [FRAMES] * 1000
    for piece in (None, 5000):
        for life_h in (np.inf, 24.0, 8.0, 2.0):
            for noticed_s in (0.0, 300.0):
                losses = Losses(life_h * 3600, noticed_s, 60.0)
                found = simulate(frames, costs, 100, piece_frames=piece, losses=losses)
                yield {
                    "recordings": 1000,
                    "piece_frames": piece,
                    "workers": 100,
                    "life_h": life_h if np.isfinite(life_h) else None,
                    "noticed_s": noticed_s,
                    "lost_workers": found.lost_workers,
                    "lost_part": found.lost_s / (found.seconds * 100),
                    "efficiency": found.efficiency,
                }


def main() -> None:
    """Measure what was asked for and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    runs = commands.add_parser("runs")
    runs.add_argument("folder", type=Path)
    runs.add_argument("--model", type=Path, default=Path("liveptv/models/simulated.onnx"))
    runs.add_argument("--repeats", type=int, default=3)
    scheduler = commands.add_parser("scheduler")
    scheduler.add_argument("--workers", type=int, nargs="+", default=[1, 10, 50])
    scheduler.add_argument("--tasks", type=int, default=2000)
    commands.add_parser("simulation")
    arguments = parser.parse_args()
    rows = []
    for row in globals()[f"_{arguments.what}"](arguments):
        rows.append(row)
        save(RESULTS / f"batch_scaling_{arguments.what}.json", rows)


def _runs(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    recordings(arguments.folder / "recordings")
    for repeat in range(arguments.repeats):
        for workers in (1, 2):
            out = arguments.folder / f"out-{workers}-{repeat}"
            seconds, markers = run_batch(arguments.folder / "recordings", out, workers, arguments.model)
            costs = costs_of(markers)
            # the same tasks on the simulated cluster: what is left is the start, and what the scheduler is blind to
            lengths = [round(1e3 * marker["seconds"]) for marker in markers]
            predicted = simulate(lengths, Costs(1e-3), workers)
            row = {
                "workers": workers,
                "seconds": seconds,
                "predicted_s": predicted.seconds,
                "frames": [marker["result"]["frames"] for marker in markers],
                "durations_s": [marker["seconds"] for marker in markers],
                "frame_ms": 1e3 * costs.frame_s,
                "recording_s": costs.recording_s,
            }
            print(f"{workers} workers: {seconds:.1f} s, {row['frame_ms']:.1f} ms a frame", flush=True)
            yield row


def _scheduler(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for row in scheduler_rows(tuple(arguments.workers), arguments.tasks):
        print(row, flush=True)
        yield row


def _simulation(_arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    yield from simulated_rows(simulated_costs())


def simulated_costs() -> Costs:
    """What a full frame (1440 x 2560, 200 particles) costs on one core, and a task of dask.

    0.1 s a frame with the network and the fit, and below 1 ms for its tracking, are those of docs/benchmarks.md;
    1 s for the start of a recording or piece, and 20 s for that of a worker, are rounded up from real runs.
    Recordings differ by 10 % from what their length says, as durations do on a computer of one's own.
    """
    rows = json.loads((RESULTS / "batch_scaling_scheduler.json").read_text())["rows"]
    spread = np.random.default_rng(1).normal(1.0, 0.1, 1000).clip(0.7, 1.5)
    return Costs(
        frame_s=0.1,
        recording_s=1.0,
        count_s=0.2,
        join_s=1e-3,
        task_s=max(row["cpu_ms_per_task"] for row in rows) / 1e3,
        start_s=20.0,
        spread=tuple(spread.tolist()),
    )


if __name__ == "__main__":
    main()
