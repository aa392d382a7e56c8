"""What only a GPU can tell of the engines for it: what runs, how fast, how exactly, and what takes the time.

    python benchmarks/gpu_engine.py --json benchmarks/results/gpu_engine.json             # ten minutes

Give it the machine alone. It needs what the libraries there need, and installs nothing: `liveptv[rtx]` for
TensorRT for RTX; `liveptv[train]` (torch with CUDA) for torch, and for a large network of random weights where none
is given with --large. Each part runs in a process of its own with a time limit, and each row is written as soon as
it is known: a run that is killed leaves what it had, and a part that fails is a row with its error.

    python benchmarks/gpu_engine.py --rehearse     # the same on the processor, in small: no figure means anything

--live-hz is the rate of the simulated camera, which draws its frames on the processor (6 ms each).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpu_record import Clock, Part, Record, arguments_of, run_parts, tell_rows

Row = dict[str, Any]
PROCESSOR = "onnxruntime"
MINUTES = 10.0
REHEARSED_PACE = 4.0
LIVE_HZ = 100.0
HEAD = (("device", "name"), ("driver", "driver_version"))
TARGETS = (
    ("large network, no fit, frames/s", "large", "", "frames_per_s", 800.0, 2000.0),
    ("large network, fit of 200 particles, frames/s", "large", "fit", "frames_per_s", 400.0, 800.0),
    ("large network, fit of 200 particles, p99 in ms", "large", "fit", "latency_p99_ms", 5.0, 5.0),
)
"""What is asked for, of which rows, the value to reach and the one hoped for."""
LEAST_FOUND = 0.8
"""Part of the particles that have to be found for a row to count: decoding and fit need them."""


def plan(looked: list[Row]) -> list[Part]:
    """The parts for the roads that can be used (rows of `machine`), the most telling first.

    A library that is installed but not used on this GPU is tried as well, for what it says itself.
    """
    gpu = [row["road"] for row in looked if _is_gpu(row)]
    tried = [row["road"] for row in looked if row.get("could_be_tried")]
    parts = [Part("prepare", 90)]
    parts += [Part("fit", 60)] if {*gpu, *tried} - {"openvino"} else []
    for road in gpu:
        builds_for_minutes, is_intel = road == "tensorrt", road == "openvino"
        parts += [Part("start", 150 if builds_for_minutes else 30, road, "small")]
        parts += [] if is_intel or builds_for_minutes else [Part("agreement", 40, road, "small")]
        parts += [
            Part("speed", 60, road, "small"),
            Part("speed", 150 if builds_for_minutes else 60, road, "large"),
        ]
    if gpu:
        after = next(number for number, part in enumerate(parts) if part.name == "speed") + 1
        parts[after:after] = [Part("live", 85, gpu[0], "small")]
    parts += [Part("start", 30, road, "small") for road in tried]
    parts += [Part("kernels", 20, road, "small") for road in gpu if road == "torch"]
    return [*parts, Part("speed", 20, PROCESSOR, "small")]


def _is_gpu(row: Row) -> bool:
    """Whether it says of a road on a GPU that it can be used."""
    return bool(row.get("usable")) and row["road"] != PROCESSOR


def summary(rows: list[Row]) -> str:
    """Frames/s and latency of every engine that was timed, and what failed, in lines for a person."""
    lines = [
        f"{'road':12} {'network':8} {'precision':9} {'fit on':10} {'frames/s':>8} {'p50 ms':>8} {'p99 ms':>8}"
    ]
    for row in rows:
        if "frames_per_s" in row:
            numbers = (row["frames_per_s"], row["latency_p50_ms"], row["latency_p99_ms"])
            names = (row["road"], row["model"], "half" if row["half"] else "single", row["fit"] or "none")
            lines.append(
                "{:12} {:8} {:9} {:10} ".format(*names) + " ".join(f"{value:8.1f}" for value in numbers)
            )
    for row in rows:
        if "failed" in row:
            which = " ".join(str(row[name]) for name in ("part", "road", "model") if name in row)
            lines.append(f"{which}: {row['failed']}")
    return "\n".join(lines)


def targets(rows: list[Row]) -> list[Row]:
    """What was asked for beside the best that was found on a GPU; found is None where it was not measured."""
    told = []
    for name, model, fit, figure, asked, hoped in TARGETS:
        fitting = [
            row[figure]
            for row in rows
            if figure in row
            and row.get("model") == model
            and row.get("road") != PROCESSOR
            and bool(row.get("fit")) == bool(fit)
            and row["found_per_frame"] >= LEAST_FOUND * row["particles"]
        ]
        least_is_best = figure.endswith("_ms")
        best = (min if least_is_best else max)(fitting, default=None)
        reached = None if best is None else best <= asked if least_is_best else best >= asked
        told.append({"target": name, "asked": asked, "hoped": hoped, "found": best, "reached": reached})
    return told


def main() -> int:
    """0: measured; 1: there is no GPU that anything here can use; 2: wrong usage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="written anew after each row")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything")
    parser.add_argument("--large", type=Path, help="a trained large network, .onnx")
    parser.add_argument("--live-hz", type=float, default=LIVE_HZ)
    parser.add_argument(
        "--only", nargs="+", help="parts to do: prepare, start, agreement, speed, live, fit, kernels"
    )
    parser.add_argument("--rehearse", action="store_true", help="on the processor, in small")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--limit-s", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        return _do(options)
    with tempfile.TemporaryDirectory(prefix="liveptv-gpu-", ignore_cleanup_errors=True) as folder:
        return _measure(options, Path(folder))


def _do(options: argparse.Namespace) -> int:
    """A part, in its own process."""
    from gpu_parts import PARTS, Task

    part = Part(**json.loads(options.part))
    task = Task(
        road=part.road,
        model=part.model,
        limit_s=options.limit_s,
        rehearse=options.rehearse,
        folder=options.folder,
        live_hz=options.live_hz,
        large=options.large,
    )
    tell_rows(PARTS[part.name](task))
    return 0


def _measure(options: argparse.Namespace, folder: Path) -> int:
    def command(part: Part, limit_s: float) -> list[str]:
        given = ["--part", arguments_of(part), "--limit-s", f"{limit_s:.1f}", "--folder", str(folder)]
        given += ["--live-hz", f"{options.live_hz:g}"]
        given += ["--rehearse"] if options.rehearse else []
        given += ["--large", str(options.large)] if options.large is not None else []
        return [sys.executable, str(Path(__file__)), *given]

    head: Row = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")}
    # a rehearsal may be beside other programs, and its figures mean nothing however long they take
    pace = REHEARSED_PACE if options.rehearse else 1.0
    look, clock = Record(None, head), Clock(60.0 * options.minutes * pace)
    run_parts([Part("machine", 60 * pace)], clock, look, command)
    facts = next((row for row in look.rows if "gpus" in row), {})
    if options.rehearse:  # one road is enough: they differ in how they are opened only
        others = [row for row in look.rows if _is_gpu(row)][1:]
        look.rows[:] = [row for row in look.rows if row not in others]
    parts = [replace(part, wants_s=pace * part.wants_s) for part in plan(look.rows)]
    parts = [part for part in parts if part.name in (options.only or (part.name,))]
    if not [row for row in look.rows if row.get("could_be_tried") or _is_gpu(row)]:
        sys.stderr.write(
            "no GPU here that any of these libraries can use; --rehearse does the same on the processor\n"
        )
        return 1
    gpus = [{"name": "none: a rehearsal on the processor"}] if options.rehearse else facts.get("gpus", [])
    head = {name: "; ".join(gpu.get(key, "") for gpu in gpus) for name, key in HEAD} | head
    record = Record(options.json, head | {"rehearsal": options.rehearse})
    record.rows += look.rows
    with contextlib.suppress(KeyboardInterrupt):
        run_parts(parts, clock, record, command)
    for row in targets(record.rows):
        record.add(row)
    print(summary(record.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
