"""Are all frames of an event there? A live run in mode `events`, asked from the command line at random times.

The simulated microscope runs in real time through `liveptv run` with `record.mode = "events"`; `liveptv record`
asks for 20 events, at random times, some of which overlap. Then the recording is compared with the camera's own
frame numbers: within `before` s before and `after` s after the time of each event (from the frame table) all its
frames must be stored, once, in order, with their own images; outside none. Frames that the camera itself lost (gaps
in its numbers, none in ours) are counted apart.

    python benchmarks/recorder_events.py --json benchmarks/results/recorder_events.json
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from reporting import device, save

from acquisition.configuration import config_path
from acquisition.recorder.frame_table import FrameTable, read_frame_table
from liveptv.session.events import read_events
from tracking.trajectories.file import TrajectoryFile

READY_S = 120.0  # s until the first frame: all processes start, and the detector compiles
ASKING_S = (
    15.0  # s that a request takes at most until it is answered, Python's start included, on a busy computer
)
LIVEPTV = [sys.executable, "-m", "liveptv"]


def small_microscope(rate_hz: float) -> str:
    """The configuration of the simulated microscope, with small images of few particles."""
    settings = {"Width": 320, "Height": 256, "ParticlesPerFrame": 20, "FrameRate": rate_hz}
    lines = "".join(f"#py Property,Camera,{name},{value:g}\n" for name, value in settings.items())
    before, initialize, after = (
        config_path().read_text(encoding="utf-8").partition("Property,Core,Initialize,1\n")
    )
    return before + lines + initialize + after


def experiment(seconds: float, before_s: float, after_s: float) -> str:
    """The experiment file: the classical detector in 2D; the camera, drawn on the same processor, is small."""
    return f"""
[run]
seconds = {seconds}

[microscope]
config = "small.cfg"

[record]
mode = "events"
before_s = {before_s}
after_s = {after_s}
"""


def wait_for_frames(log: Path, run: subprocess.Popen[bytes]) -> None:
    """Wait until the run has started."""
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s and run.poll() is None:
        if log.exists() and any(
            event.get("kind") == "ready" and event.get("stage") == "acquire" for event in read_events(log)
        ):
            return
        time.sleep(0.2)
    raise SystemExit(f"the run did not start within {READY_S:g} s; see {log}")


def ask(number: int, environment: dict[str, str], answers: dict[int, str]) -> None:
    """Ask from the command line, as a person would."""
    asked = subprocess.run(
        [*LIVEPTV, "record", "--why", f"trigger {number}"], env=environment, capture_output=True, check=False
    )
    answers[number] = "" if asked.returncode == 0 else asked.stderr.decode().strip()


def live_run(arguments: argparse.Namespace, folder: Path) -> tuple[Path, dict[int, str]]:
    """Run and ask; the folder of the results, and the error of each request ("" for none)."""
    environment = {**os.environ, "LIVEPTV_RUNS": str(folder / "runs")}
    (folder / "experiment.toml").write_text(experiment(arguments.seconds, arguments.before, arguments.after))
    (folder / "small.cfg").write_text(small_microscope(arguments.rate))
    tracks = folder / "tracks.h5"
    run = subprocess.Popen(
        [*LIVEPTV, "run", "experiment.toml", "-o", str(tracks)], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for_frames(folder / "tracks.events.jsonl", run)
    began_s = time.monotonic()
    last_s = arguments.seconds - arguments.after - ASKING_S
    chosen = random.Random(arguments.seed)
    times_s = sorted(chosen.uniform(arguments.before, last_s) for _ in range(arguments.triggers))
    answers: dict[int, str] = {}
    threads = []
    for number, at_s in enumerate(times_s):
        time.sleep(max(0.0, began_s + at_s - time.monotonic()))
        threads.append(threading.Thread(target=ask, args=(number, environment, answers)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    run.wait()
    return tracks, answers


def judged(
    table: FrameTable, images: Path, tracked: np.ndarray[Any, Any], before_s: float, after_s: float
) -> dict[str, Any]:
    """What is missing, double, out of order or too much, by the frames' own times and the camera's numbers."""
    times = np.array([row.info.time_s for row in table.rows])
    frames = np.array([row.info.frame for row in table.rows])
    camera = np.array([row.info.camera_frame for row in table.rows])
    period_s = float(np.median(np.diff(times)))
    missing, edges, in_camera = 0, 0, 0
    inside = np.zeros(len(times), bool)
    for event in table.events:
        mine = (times >= event.time_s - before_s) & (times <= event.time_s + after_s)
        inside |= mine
        missing += int((np.diff(frames[mine]) - 1).sum())
        in_camera += int((np.diff(camera[mine]) - np.diff(frames[mine])).sum())
        late = times[mine][0] - (event.time_s - before_s), event.time_s + after_s - times[mine][-1]
        edges += sum(bool(gap_s > 1.5 * period_s) for gap_s in late)
    not_there = [
        row["frame"]
        for row in tracked
        if any(-before_s <= row["time_s"] - event.time_s <= after_s for event in table.events)
        and row["frame"] not in set(frames.tolist())
    ]
    stored = zarr.open_group(images, mode="r")["0"]
    return {
        "events": len(table.events),
        "overlapping": int(np.count_nonzero(np.diff([e.time_s for e in table.events]) < before_s + after_s)),
        "frames": len(table.rows),
        "images": int(stored.shape[0]),
        "missing": missing,
        "lost_in_camera_itself": in_camera,
        "edges_missing": edges,
        "tracked_but_not_there": len(not_there),
        "twice": len(frames) - len(set(frames.tolist())),
        "out_of_order": int(np.count_nonzero(np.diff(frames) <= 0)),
        "outside": int(np.count_nonzero(~inside)),
        "declared_lost": table.total_lost,
        "ended": [(end.event, end.frames, end.missing) for end in table.ended],
        "equal_neighbours": _equal_neighbours(stored),
    }


def _equal_neighbours(stored: Any) -> int:
    """Images that are the same as the one before: a frame that was stored in another's place."""
    equal, before = 0, None
    for index in range(stored.shape[0]):
        image = np.asarray(stored[index])
        equal += before is not None and bool((image == before).all())
        before = image
    return equal


def main() -> int:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--triggers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=110.0)
    parser.add_argument("--before", type=float, default=5.0)
    parser.add_argument("--after", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=30.0, help="frames/s of the camera")
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument(
        "--keep", type=Path, help="empty folder for the run's files; left out: deleted afterwards"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        if arguments.keep is not None:
            folder = arguments.keep.absolute()
            folder.mkdir(parents=True)
        tracks, answers = live_run(arguments, folder)
        refused = [answer for answer in answers.values() if answer]
        table = read_frame_table(tracks.with_name("tracks.frames.jsonl"))
        (end,) = [e for e in read_events(folder / "tracks.events.jsonl") if e["kind"] == "end"]
        lost_in_camera = end["counts"]["acquire"].get("lost_in_camera", 0)
        with TrajectoryFile(tracks) as file:
            tracked = file.frames
        row = judged(
            table, tracks.with_name("tracks.frames.ome.zarr"), tracked, arguments.before, arguments.after
        )
    row |= {"lost_in_camera_in_all": lost_in_camera, "asked": len(answers), "refused": refused}
    print(device())
    for key, value in row.items():
        print(f"{key:>22}  {value}")
    if arguments.json:
        save(arguments.json, [row])
    wrong = ["missing", "tracked_but_not_there", "twice", "out_of_order", "outside", "declared_lost"]
    if not lost_in_camera:
        wrong.append("edges_missing")  # what the camera lost may be missing at an edge as well
    return int(any(row[name] for name in wrong) or row["events"] != arguments.triggers)


if __name__ == "__main__":
    raise SystemExit(main())
