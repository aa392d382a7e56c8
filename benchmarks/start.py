"""Start of `liveptv demo`: from the command to the first live frame and to the end, on a new installation.

    python benchmarks/start.py [-o FILE] [--rounds N] [--cores N] [--seconds S]

Each round copies the checkout without anything compiled by numba, with fresh cache folders (NUMBA_CACHE_DIR is not
set, XDG_CACHE_HOME and LOCALAPPDATA are new) and Python's own byte code made, as pip does. It runs `liveptv demo`
there twice. The first live frame is the first one in the trajectory file with tracks, at the time when it was
tracked (exposed, for files that do not have the age of results). `fit_s` is when the fit has joined; null if it
did not. `warmup` is `liveptv warmup` after these two. Processor time is of all processes of a command together.
"""

from __future__ import annotations

import argparse
import compileall
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import psutil

HOME = Path(__file__).resolve().parent.parent
PACKAGES = ("acquisition", "stream", "engines", "tracking", "calibration", "liveptv")
RESULTS = HOME / "benchmarks" / "results" / "start.json"
POLL_S = 0.05
MOST_S = 600.0


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="processor cores that the commands may use")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the run")
    given = parser.parse_args()
    if hasattr(psutil.Process(), "cpu_affinity"):
        cores = psutil.Process().cpu_affinity()[: given.cores]
        psutil.Process().cpu_affinity(cores)
    rounds = [measured(given.seconds) for _ in range(given.rounds)]
    medians = {
        which: {name: _median([one[which][name] for one in rounds]) for name in rounds[0][which]}
        for which in rounds[0]
    }
    for which, values in medians.items():
        print(f"{which:>9}  " + "  ".join(f"{name} {value}" for name, value in values.items()))
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{_processor()}, {given.cores} cores",
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "run_s": given.seconds,
        "medians": medians,
        "rounds": [
            {which: {name: _median([value]) for name, value in one[which].items()} for which in one}
            for one in rounds
        ],
    }
    given.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def measured(seconds: float) -> dict[str, dict[str, float]]:
    """A new installation's first `demo`, its second, and `warmup`."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "installed"
        for package in PACKAGES:
            shutil.copytree(HOME / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(home, quiet=2)
        cache = Path(folder) / "cache"
        given = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "PYTHONPATH")}
        environment = given | {"XDG_CACHE_HOME": str(cache), "LOCALAPPDATA": str(cache)}
        python = _environment(Path(folder) / "venv", home)
        found = {
            name: demo(python, Path(folder) / name, seconds, environment) for name in ("first", "second")
        }
        took_s, cpu_s, _ = run(python, ["warmup"], environment, Path(folder))
        return found | {"warmup": {"whole_s": took_s, "cpu_s": cpu_s}}


def _environment(folder: Path, home: Path) -> Path:
    """The interpreter of an environment with the copy of the program, and the packages of this one."""
    venv.create(folder, with_pip=False)
    windows = sys.platform == "win32"
    (packages,) = folder.glob("Lib/site-packages" if windows else "lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("-packages")]
    (packages / "copy.pth").write_text("\n".join([str(home), *others]), encoding="utf-8")
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def demo(python: Path, output: Path, seconds: float, environment: dict[str, str]) -> dict[str, float]:
    """One `liveptv demo`: s from the command to its moments."""
    began_s = time.time()
    command = ["demo", "-o", str(output), "--seconds", f"{seconds:g}"]
    whole_s, cpu_s, text = run(python, command, environment, output.parent)
    events = [json.loads(line) for line in (output / "events.jsonl").read_text("utf-8").splitlines()]

    def first(kind: str, says: str = "") -> float:
        return next(
            (e["wall_s"] - began_s for e in events if e["kind"] == kind and says in e["text"]), float("nan")
        )

    return {
        "first_frame_s": _first_frame_s(output / "tracks.h5") - began_s,
        "processes_s": first("process"),
        "ready_s": first("ready", "acquire"),
        "fit_s": first("note", "the fit has joined"),
        "end_s": first("end"),
        "whole_s": whole_s,
        "cpu_s": cpu_s,
        "lines": float(len(text.splitlines())),
    }


def _first_frame_s(tracks: Path) -> float:
    """Wall time at which the first frame with tracks was tracked (exposed, where its age is unknown)."""
    sys.path.insert(0, str(HOME))
    from tracking.trajectories.file import TrajectoryFile

    with TrajectoryFile(tracks) as file:
        frames = file.frames
        names = frames.dtype.names or ()
        row = frames[int((frames["rows"] > 0).argmax())]
        age_ms = float(row["age_ms"]) if "age_ms" in names else 0.0
        return float(row["wall_s"]) + 1e-3 * age_ms


def run(
    python: Path, command: list[str], environment: dict[str, str], where: Path
) -> tuple[float, float, str]:
    """Run a command of liveptv: its wall time and the processor time of all its processes, s, and its output."""
    began_s = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = psutil.Popen(
            [python, "-m", "liveptv", *command],
            env=environment,
            cwd=where,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        spent: dict[int, float] = {}
        while process.poll() is None:
            if time.perf_counter() - began_s > MOST_S:
                process.kill()
                raise SystemExit(f"liveptv {command[0]} took more than {MOST_S:g} s")
            _note_times(process, spent)
            time.sleep(POLL_S)
        took_s = time.perf_counter() - began_s
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"liveptv {command[0]} failed: {text}")
    return took_s, sum(spent.values()), text


def _note_times(process: Any, spent: dict[int, float]) -> None:
    """Note the processor time of each process so far; one that ends between two looks loses 50 ms at most."""
    try:
        for one in [process, *process.children(recursive=True)]:
            times = one.cpu_times()
            spent[one.pid] = times.user + times.system
    except psutil.Error:
        return


def _median(values: list[float]) -> float | None:
    """The median of those that are numbers, to 0.1; None where none is."""
    numbers = [value for value in values if math.isfinite(value)]
    return round(statistics.median(numbers), 1) if numbers else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
