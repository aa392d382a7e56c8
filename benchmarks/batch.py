"""A batch of small recordings whose workers and whose batch are killed: is each done once, and as a single run?

    python benchmarks/batch.py [--recordings 200] [--kills 10] [--json FILE]

1. An undisturbed batch on two workers: the results that are expected; some are compared with `liveptv replay`.
2. The same with `--kills` kill -9 of workers and one of the batch, which is started again.
3. With dask.distributed: the same kills of a local cluster's workers, and one of its scheduler.
4. One worker against two, in turns. On a computer that others use, wall time tells of them; so efficiency is what
   workers lose: the part of their time in which they have a recording, from the end of their first one on (the
   start apart), times the processor time of a recording on one worker over that on two.
5. What a lost worker costs: processor time of the start of the worker that replaces it, and what was done of its
   recording.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import psutil
import tifffile
from reporting import save

import liveptv
from liveptv.models import SHIPPED_MODEL

SHAPE, PARTICLES, PIXEL_UM = (160, 240), 25, 0.8
TIMES = ("wall_s", "commit", "age_ms")
POLL_S = 0.05
PORT = 38901
OPTIONS: list[str] = []
"""Of all commands; set once."""
CLUSTER = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, processes=True, host="127.0.0.1",
                           scheduler_port=int(sys.argv[2]), dashboard_address="127.0.0.1:0")
    print(cluster.scheduler_address, flush=True)
    time.sleep(36000)
"""


def make_recordings(folder: Path, count: int, frames: int) -> None:
    """Particles that drift through the picture, another set in each recording."""
    for number in range(count):
        rng = np.random.default_rng(number)
        x = rng.uniform(0, SHAPE[1] * PIXEL_UM, PARTICLES)
        y = rng.uniform(0, SHAPE[0] * PIXEL_UM, PARTICLES)
        z = rng.uniform(-25, 25, PARTICLES)
        rows = []
        for frame in range(frames):
            at = (x + 2.0 * frame + rng.normal(0, 0.1, PARTICLES)) % (SHAPE[1] * PIXEL_UM)
            rows.append(pd.DataFrame({"frame": frame, "x_um": at, "y_um": y, "z_um": z}))
        images = liveptv.simulate(pd.concat(rows), SHAPE, seed=number)
        path = folder / f"day{number % 5}" / f"recording{number:04d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"axes": "TYX", "finterval": 0.02, "unit": "um"}
        tifffile.imwrite(path, images, imagej=True, metadata=metadata, resolution=(1 / PIXEL_UM,) * 2)


def contents(path: Path) -> tuple[bytes, ...]:
    """Rows and frames of a trajectory file, without what tells when it was made."""
    with h5py.File(path) as file:
        frames = file["frames"][:]
        kept = [frames[name].tobytes() for name in frames.dtype.names if name not in TIMES]
        return file["tracks/rows"][:].tobytes(), file["tracks/more"][:].tobytes(), *kept


def settings_of(detector: str) -> list[str]:
    """Options of the command for one of two detectors."""
    if detector == "classical":
        return ["--set", "detector.diameter_px=9"]
    return ["-m", str(SHIPPED_MODEL), "--set", "detector.self_check=false"]


def batch_command(source: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "liveptv", "batch", str(source), "-o", str(out), *OPTIONS, *more]


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The processes that detect, of a batch or of a cluster."""
    try:
        children = process.children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def markers(out: Path) -> dict[str, int]:
    """The recordings that are done, and when their result was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("day*/*.done.json")}


class Killed:
    """What kills of workers did."""

    def __init__(self, kills: int, total: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.at = sorted(self.rng.sample(range(2, max(total - 2, kills + 3)), kills))
        self.cpu_s: list[float] = []

    def look(self, out: Path, process: psutil.Process) -> None:
        """Kill a worker whenever so many recordings are done."""
        if not self.at or len(markers(out)) < self.at[0]:
            return
        time.sleep(self.rng.uniform(0, 1.5))  # somewhere within a recording
        alive = workers_of(process)
        if alive:
            victim = self.rng.choice(alive)
            times = victim.cpu_times()
            victim.send_signal(signal.SIGKILL)
            self.at.pop(0)
            self.cpu_s.append(times.user + times.system)


def run_killed(
    source: Path, out: Path, kills: int, total: int, scheduler: int | None, seed: int
) -> dict[str, Any]:
    """Run a batch; kill workers, and once the batch itself or the scheduler; start again until all is done."""
    killed, first_done = Killed(kills, total, seed), {}
    fatal_at, starts = total // 2, 0
    began_s = time.perf_counter()
    while True:
        starts += 1
        cluster, more = (None, ["--workers", "2"]) if scheduler is None else start_cluster(scheduler)
        batch = subprocess.Popen(
            batch_command(source, out, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        victim = psutil.Process(batch.pid if cluster is None else cluster.pid)
        try:
            while batch.poll() is None:
                killed.look(out, victim)
                if starts == 1 and len(markers(out)) >= fatal_at:
                    victim.send_signal(signal.SIGKILL)
                    first_done = markers(out)
                    if cluster is not None:
                        batch.wait()
                    break
                time.sleep(POLL_S)
        except BaseException:
            batch.kill()
            if cluster is not None:
                end(cluster)
            raise
        said = batch.communicate()[0]
        if cluster is not None:
            end(cluster)
        if starts > 1 or not first_done:
            break
    now = markers(out)
    again = [name for name, when in first_done.items() if now.get(name) != when]
    return {
        "status": batch.returncode,
        "starts": starts,
        "worker_kills": len(killed.cpu_s),
        "done": len(now),
        "done_before_the_second_start": len(first_done),
        "done_again": len(again),
        "seconds": round(time.perf_counter() - began_s, 1),
        "last_lines": said.strip().splitlines()[-2:],
        "left_over": [
            path.name for path in out.rglob("*") if ".batch" in path.parts or "partial" in path.name
        ],
        "cpu_s_of_killed_workers": [round(s, 2) for s in killed.cpu_s],
    }


def start_cluster(port: int) -> tuple[subprocess.Popen[str], list[str]]:
    """A scheduler with two workers in processes of their own."""
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, "2", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    assert cluster.stdout is not None
    return cluster, ["--scheduler", cluster.stdout.readline().strip()]


def end(cluster: subprocess.Popen[str]) -> None:
    left = []
    with contextlib.suppress(psutil.Error):
        left = psutil.Process(cluster.pid).children(recursive=True)
    cluster.kill()
    cluster.wait()
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.kill()


def compared(out: Path, expected: Path) -> int:
    """How many results differ from those that are expected."""
    return sum(
        contents(path) != contents(expected / path.relative_to(out))
        for path in sorted(out.rglob("*.h5"))
        if ".batch" not in path.parts
    )


def compared_with_replay(source: Path, out: Path, count: int, scratch: Path) -> int:
    """How many of `count` results differ from those of `liveptv replay`."""
    differ = 0
    for path in sorted(source.rglob("*.tif"))[:: max(1, len(list(source.rglob("*.tif"))) // count)][:count]:
        tracks = scratch / f"{path.stem}.h5"
        command = [sys.executable, "-m", "liveptv", "replay", str(path), "-o", str(tracks), *OPTIONS]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        differ += contents(tracks) != contents((out / path.relative_to(source)).with_suffix(".h5"))
    return differ


def timed(source: Path, out: Path, workers: int) -> dict[str, float]:
    """A batch and how its workers spent their time from the end of their first recording on."""
    began_s = time.perf_counter()
    batch = subprocess.Popen(batch_command(source, out, "--workers", str(workers)), stdout=subprocess.DEVNULL)
    cpu: dict[int, float] = {}
    seen: dict[str, float] = {}
    first: dict[int, tuple[float, float]] = {}
    last_s = 0.0
    busy: dict[int, float] = {}
    while batch.poll() is None:
        for worker in workers_of(psutil.Process(batch.pid)):
            with contextlib.suppress(psutil.Error):
                times = worker.cpu_times()
                cpu[worker.pid] = times.user + times.system
        for path in out.glob("day*/*.done.json"):
            if path.name not in seen:
                fact = json.loads(path.read_text())
                pid, now_s = int(fact["worker"].split(":")[1]), time.perf_counter() - began_s
                seen[path.name] = fact["seconds"]
                last_s = now_s
                if pid in first:
                    busy[pid] = busy.get(pid, 0.0) + fact["seconds"]
                else:
                    first[pid] = (now_s, cpu[pid])
        time.sleep(POLL_S)
    later = len(seen) - len(first)
    return {
        "workers": workers,
        "recordings": len(seen),
        "wall_s": round(time.perf_counter() - began_s, 2),
        "until_first_done_s": round(min(at for at, _ in first.values()), 2),
        "cpu_s_until_first_done": round(statistics.mean(spent for _, spent in first.values()), 2),
        "busy": round(sum(busy.values()) / sum(last_s - at for at, _ in first.values()), 4),
        "cpu_s_a_recording": round(sum(cpu[pid] - spent for pid, (_, spent) in first.items()) / later, 3),
    }


def killed_batches(top: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Parts 1 to 3."""
    found: dict[str, Any] = {}
    make_recordings(top / "all", chosen.recordings, chosen.frames)
    began_s = time.perf_counter()
    subprocess.run(batch_command(top / "all", top / "calm", "--workers", "2"), check=True)
    found["calm"] = {"seconds": round(time.perf_counter() - began_s, 1), "done": len(markers(top / "calm"))}
    found["replays"] = chosen.replays
    found["differ_from_replay"] = compared_with_replay(top / "all", top / "calm", chosen.replays, top)
    print(found, flush=True)
    for name, port in {"processes": None, "dask": PORT}.items():
        out = top / name
        found[name] = run_killed(top / "all", out, chosen.kills, chosen.recordings, port, seed=7)
        found[name]["differ_from_calm"] = compared(out, top / "calm")
        print(name, found[name], flush=True)
    return found


def one_against_two(top: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Parts 4 and 5."""
    rounds = []
    for number in range(chosen.rounds):
        part = top / f"part{number}"
        make_recordings(part, 24, 4 * chosen.frames)
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            rounds.append(timed(part, top / f"timed{number}-{workers}", workers))
            print(rounds[-1], flush=True)
    one, two = ([r for r in rounds if r["workers"] == w] for w in (1, 2))
    cpu = [statistics.median(r["cpu_s_a_recording"] for r in some) for some in (one, two)]
    start_s = statistics.median(r["cpu_s_until_first_done"] for r in rounds)
    return {
        "rounds": rounds,
        "efficiency_on_two": round(statistics.median(r["busy"] for r in two) * cpu[0] / cpu[1], 3),
        "cpu_s_of_a_start": round(start_s - statistics.median(cpu), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replays", type=int, default=3)
    parser.add_argument("--detector", choices=("network", "classical"), default="network")
    parser.add_argument("--only", choices=("all", "kills", "workers"), default="all")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", os.pathsep.join([str(Path.cwd()), *filter(None, sys.path[1:2])]))
    found: dict[str, Any] = {"recordings": chosen.recordings, "frames": chosen.frames}
    found["detector"] = chosen.detector
    OPTIONS[:] = settings_of(chosen.detector)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.only in {"kills", "all"}:
            found |= killed_batches(Path(folder), chosen)
        if chosen.only in {"workers", "all"}:
            found |= one_against_two(Path(folder), chosen)
    print(json.dumps(found, indent=1))
    if chosen.json:
        save(chosen.json, found)


if __name__ == "__main__":
    main()
