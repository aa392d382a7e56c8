"""Whether the replay of a live run gives the rows of the run, bit for bit.

Each case is a run of the simulated microscope in real time, recorded whole, beside busy programs, so that frames
are dropped, particles are left unfitted and predictions are of every age. It is replayed from its recording through
the command line, and both trajectory files are compared, also by `liveptv compare`. The last column says what a
replay through all frames gives in place of that.

    python benchmarks/replay.py                 # all cases, some 25 minutes on two busy cores
    python benchmarks/replay.py --case network_two_workers --seconds 10
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from reporting import save

from liveptv.models import SHIPPED_MODEL
from liveptv.workflows.demo import make_width_curve
from stream.errors import LivePTVError
from tracking.trajectories.reader import TrajectoryFile

KILL_AFTER = 25  # frames in the file
RESULTS = Path(__file__).parent / "results" / "replay.json"
MICROSCOPE = """\
#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py pyDevice,Pump,acquisition.simulated.devices,SimulatedPump
#py Property,Camera,Width,800
#py Property,Camera,Height,600
#py Property,Camera,ParticlesPerFrame,150
#py Property,Camera,FrameRate,30
#py Property,Camera,Seed,{seed}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
#py Property,Pump,FlowRate,0.0246
"""
HOLD = ("controller.hold_flow.target_um_s=75", "controller.hold_flow.max_flow_ul_s=0.1")
NETWORK, CURVE, NO_DEPTH = "network", "curve", ""
CASES: dict[str, tuple[str, int, tuple[str, ...], tuple[str, ...]]] = {
    # name: model, busy programs, settings of the run, settings of the replay
    "network_one_worker": (NETWORK, 1, ("detector.workers=1",), ()),
    "network_two_workers": (NETWORK, 1, ("detector.workers=2",), ()),
    "network_other_workers": (NETWORK, 2, ("detector.workers=2",), ("detector.workers=1",)),
    "network_no_prediction": (NETWORK, 2, ("detector.workers=2", "detector.prediction=off"), ()),
    "network_block": (NETWORK, 0, ("detector.workers=2", "link.policy=block"), ()),
    "network_drop_oldest": (
        NETWORK,
        1,
        ("detector.workers=1", "link.policy=drop_oldest", "link.slots=6"),
        (),
    ),
    "network_torn_apart": (NETWORK, 4, ("detector.workers=2",), ("detector.workers=2",)),
    "classical_depth": (CURVE, 2, ("detector.workers=2",), ()),
    "classical_2d": (NO_DEPTH, 2, ("detector.workers=1",), ()),
    "killed_detector": (NETWORK, 1, ("detector.workers=1",), ()),
    "controlled": (NETWORK, 1, ("detector.workers=1", "limits.max_flow_ul_s=0.1", *HOLD), HOLD),
    "ome_tiff": (NETWORK, 1, ("detector.workers=1", "record.format=ome-tiff"), ()),
}


@contextlib.contextmanager
def busy(programs: int) -> Iterator[None]:
    """Programs that compute for nothing meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def liveptv(*arguments: object) -> str:
    """Run a command to its end; returns what it printed. Raises `RuntimeError` if it fails."""
    command = [sys.executable, "-m", "liveptv", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def live(
    folder: Path, model: str, seconds: float, seed: int, settings: tuple[str, ...], kill_after: int
) -> None:
    """A live run that is recorded; its detector is killed once after `kill_after` frames (0: not)."""
    (folder / "microscope.cfg").write_text(MICROSCOPE.format(seed=seed))
    lines = ["[run]", f"seconds = {seconds}", "[microscope]"]
    lines += [f"config = '{(folder / 'microscope.cfg').as_posix()}'", "pixel_size_um = 0.8"]
    if model:
        path = SHIPPED_MODEL if model == NETWORK else folder / "curve.h5"
        if model == CURVE:
            make_width_curve(path, print)
        lines += ["[detector]", f"model = '{path.as_posix()}'"]
    (folder / "experiment.toml").write_text("\n".join(lines))
    options = [part for text in ("record.mode=all", *settings) for part in ("--set", text)]
    command = ["run", folder / "experiment.toml", "-o", folder / "tracks.h5", *options]
    if not kill_after:
        liveptv(*command)
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "liveptv", *map(str, command)], stdout=subprocess.DEVNULL
    )
    try:
        while process.poll() is None and frames_so_far(folder / "tracks.h5") < kill_after:
            time.sleep(0.1)
        log = (folder / "tracks.events.jsonl").read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in log if '"detect started"' in line]
        psutil.Process(events[0]["pid"]).kill()
        process.wait()
    finally:
        process.kill()


def frames_so_far(path: Path) -> int:
    """Frames that a run has written by now."""
    with contextlib.suppress(LivePTVError), TrajectoryFile(path) as file:
        return len(file.frames)
    return 0


def stored(path: Path) -> tuple[bytes, Any, dict[str, Any]]:
    """All rows as bytes, the entries of the frames, and the attributes."""
    with TrajectoryFile(path) as file:
        return file.rows(0, file.row_count).tobytes(), file.frames, file.attributes


def measure(name: str, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """One case: what the run did, and what its replays gave."""
    model, programs, settings, of_replay = CASES[name]
    with busy(programs):
        live(folder, model, seconds, seed, settings, KILL_AFTER if name == "killed_detector" else 0)
    options = [part for text in of_replay for part in ("--set", text)]
    began_s = time.perf_counter()
    said = liveptv("replay", folder / "tracks.h5", "-o", folder / "again.h5", *options)
    took_s = time.perf_counter() - began_s
    liveptv("replay", folder / "tracks.frames.jsonl", "-o", folder / "all.h5", "--all-frames")
    again = json.loads(liveptv("compare", folder / "tracks.h5", folder / "again.h5", "--json"))
    whole = json.loads(liveptv("compare", folder / "tracks.h5", folder / "all.h5", "--json"))
    rows, frames, attributes = stored(folder / "tracks.h5")
    rows_again, _, _ = stored(folder / "again.h5")
    lost = attributes["account"]["lost"]
    predicted = frames["predicted_from"][frames["predicted_from"] >= 0]
    ages = frames["frame"][frames["predicted_from"] >= 0] - predicted
    return {
        "case": name,
        "seed": seed,
        "frames_exposed": attributes["account"]["exposed"],
        "frames_tracked": len(frames),
        "lost": lost,
        "rows": attributes["statistics"]["rows"],
        "fit": {str(k): int((frames["fit"] == k).sum()) for k in np.unique(frames["fit"])},
        "fitted_in_part": int(np.isfinite(frames["fit_credit"]).sum()),
        "prediction_ages": [int(ages.min()), int(ages.max())] if ages.size else [],
        "engines": len(np.unique(frames["opened"])),
        "replay": "as it was" if "as it was" in said else "through all frames",
        "replay_s": round(took_s, 1),
        "same_bytes": rows == rows_again,
        "identical_rows": again["identical_rows"],
        "other_decisions": again["frames"]["other_decisions"],
        "commands": again["commands"],
        "all_frames": {key: whole["detections"][key] for key in ("same", "only_a", "only_b")}
        | {"moved": whole["detections"]["moved"]["count"], "tracks": whole["tracks"]["same"]},
    }


def kept_rows(path: Path, again: list[str]) -> list[dict[str, Any]]:
    """The results of other cases, where only some are measured `again`."""
    if not again or not path.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [row for row in found if row["case"] not in again]


def main() -> int:
    """Measure the cases and keep the results; 1 if a replay was not the run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = kept_rows(given.results, given.case or [])
    for name in given.case or CASES:
        for seed in range(given.seeds):
            folder = Path(tempfile.mkdtemp(prefix="replay-"))
            try:
                rows.append(measure(name, folder, given.seconds, seed))
                print(json.dumps(rows[-1]), flush=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            save(given.results, rows)
    return int(not all(row["same_bytes"] and row["identical_rows"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
