"""The control loops under three times the load, beside unloaded ones: settling time, error of the focus.

    python benchmarks/closed_loop_live.py --json benchmarks/results/closed_loop_live.json

`simulated`: simulated time, the same camera rate; every third frame is detected and results are as old as the
live policy lets them become, or all frames are and results are two frames old. `live`: runs in real time with
the network and the live policy; the camera at three times the frames that this machine tracks (measured first),
and at half of them. Rows: `flow` (time after a doubled target until the measured velocity stays within 3 %),
`focus` (error of the true focal plane while it drifts by 1 um/s, after its beginning).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from closed_loop import EXAMPLES, rehearsal, settled_s
from reporting import device, save

from acquisition.configuration import config_path
from liveptv.workflows.demo import make_width_curve
from tracking.trajectories.control_record import read_control
from tracking.trajectories.reader import TrajectoryFile

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "liveptv" / "models" / "simulated.onnx"
LOAD = 3
TRIAL_HZ = 200.0  # above what the detector does anywhere; the simulated camera loses what it cannot render
BEGIN_S = 8.0  # of the focus, left out: the drift is not known yet
SLOW_S, FAST_S, FOCUS_S = 10, 25, 40
STEPS = f"protocol.steps=[{{target=75,settle_s=2,seconds={SLOW_S}}},{{target=150,seconds={FAST_S}}}]"


def age_limit_s(rate_hz: float) -> float:
    """The default limit of the live policy, s."""
    return max(0.1, 3 / rate_hz)


def simulated_flow(home: Path, seed: int, rate_hz: float, load: int) -> dict[str, Any]:
    work = round(rate_hz * age_limit_s(rate_hz)) if load > 1 else 2
    own = {"Seed": seed, "FrameRate": rate_hz}
    more = (STEPS, "microscope.properties={'Pump.Lag_s'=0.3}")
    with rehearsal("hold_flow.toml", config_path(), home, own, *more, every=load, frames_in_work=work) as one:
        history, doubled_s = [], np.nan
        while not one.stopped:
            one.step()
            measured = one.controller.measured()
            if np.isnan(doubled_s) and measured["target_um_s"] == 150:
                doubled_s = one.stream.now_s()
            history.append((one.stream.now_s(), measured["velocity_um_s"]))
    time_s, velocity = np.array(history).T
    settled = settled_s(time_s, velocity, 150, doubled_s, time_s[-1])
    return {"case": "simulated, flow", "seed": seed, "load": load, "settled_s": round(settled, 2)}


def simulated_focus(home: Path, seed: int, rate_hz: float, load: int) -> dict[str, Any]:
    work = round(rate_hz * age_limit_s(rate_hz)) if load > 1 else 2
    own = {"Seed": seed, "FrameRate": rate_hz}
    with rehearsal("hold_focus.toml", config_path(), home, own, every=load, frames_in_work=work) as one:
        world, errors = one.stream.world, []
        while one.stream.now_s() < FOCUS_S:
            one.step()
            if one.stream.now_s() > BEGIN_S:
                errors.append(world.focus.focal_plane_um(world.time_s) - 150)
    return {"case": "simulated, focus", "seed": seed, "load": load, **_error(np.array(errors))}


def _error(off_um: np.ndarray) -> dict[str, float]:
    return {
        "rms_um": round(float(np.sqrt((off_um**2).mean())), 2),
        "largest_um": round(float(np.abs(off_um).max()), 2),
    }


def live(home: Path, example: str, rate_hz: float, *settings: str, **properties: Any) -> Path:
    """A run of an example at a camera rate; returns its trajectory file."""
    output = home / f"{len(list(home.glob('*.h5')))}.h5"
    given = {"Camera.FrameRate": rate_hz, "Camera.TruthFile": f"{output.with_suffix('.csv')}", **properties}
    table = ", ".join(f"{name!r} = {value!r}" for name, value in given.items())
    own = (f"microscope.properties={{{table}}}", *settings)
    command = [sys.executable, "-m", "liveptv", "run", EXAMPLES / example, "-m", MODEL, "-o", output]
    command += [part for one in own for part in ("--set", one)]
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return output


def tracked(output: Path, after_s: float = 0.0) -> dict[str, float]:
    """How many frames a second the run tracked, and their ages, from `after_s` on."""
    with TrajectoryFile(output) as file:
        frames = file.frames
    chosen = frames[frames["time_s"] >= after_s]
    number, time_s = chosen["frame"].astype(int), chosen["time_s"]
    return {
        "camera_hz": round(float((number[-1] - number[0]) / (time_s[-1] - time_s[0])), 1),
        "tracked_hz": round(float((len(chosen) - 1) / (time_s[-1] - time_s[0])), 1),
        "longest_gap_frames": int(np.diff(number).max()),
        "age_p50_ms": round(float(np.nanmedian(chosen["age_ms"])), 1),
        "age_p99_ms": round(float(np.nanpercentile(chosen["age_ms"], 99)), 1),
    }


def capacity_hz(home: Path) -> float:
    """Frames a second that this machine tracks when there are always more."""
    return tracked(live(home, "hold_flow.toml", TRIAL_HZ, STEPS), after_s=6.0)["tracked_hz"]


def live_flow(home: Path, rate_hz: float, load: float) -> dict[str, Any]:
    output = live(home, "hold_flow.toml", rate_hz, STEPS, **{"Pump.Lag_s": 0.3})
    measured = [entry for entry in read_control(output) if "velocity_um_s" in entry.get("measured", {})]
    time_s = np.array([entry["time_s"] for entry in measured])
    velocity = np.array([entry["measured"]["velocity_um_s"] for entry in measured])
    target = np.array([entry["measured"]["target_um_s"] for entry in measured])
    doubled_s = time_s[target == 150][0]
    settled = settled_s(time_s, velocity, 150, doubled_s, time_s[-1])
    return {
        "case": "live, flow",
        "load": load,
        "settled_s": round(settled, 2),
        "deviation_after": round(float(np.abs(velocity[time_s > doubled_s + 12] / 150 - 1).max()), 4),
        **tracked(output, after_s=4.0),
    }


def live_focus(home: Path, rate_hz: float, load: float) -> dict[str, Any]:
    output = live(home, "hold_focus.toml", rate_hz, f"run.seconds={FOCUS_S}", **{"Focus.Drift_um_s": 1.0})
    table = np.genfromtxt(output.with_suffix(".csv"), delimiter=",", names=True)
    _, first = np.unique(table["frame"], return_index=True)
    plane_um = (table["height_um"] - table["z_um"])[first]
    time_s = table["time_s"][first]
    off_um = plane_um[time_s > time_s[0] + BEGIN_S] - 150
    moves = sum(entry["kind"] == "command" for entry in read_control(output))
    return {"case": "live, focus", "load": load, "moves": moves, **_error(off_um), **tracked(output, 4.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="of the runs in simulated time")
    parser.add_argument("--rate", type=float, default=60.0, help="frames/s of the runs in simulated time")
    parser.add_argument("--capacity", type=float, help="frames/s tracked at most; left out: measured")
    parser.add_argument("--only", nargs="+", choices=("simulated", "flow", "focus"))
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    wanted = options.only or ("simulated", "flow", "focus")
    print(device())
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        if "simulated" in wanted:
            make_width_curve(home / "curve.h5", print)
            for seed in range(1, options.seeds + 1):
                for load in (1, LOAD):
                    add(simulated_flow(home, seed, options.rate, load))
                    add(simulated_focus(home, seed, options.rate, load))
        if {"flow", "focus"} & {*wanted}:
            most_hz = options.capacity or capacity_hz(home)
            add({"case": "live, capacity", "tracked_hz": most_hz})
            for load in (0.5, LOAD):
                if "flow" in wanted:
                    add(live_flow(home, load * most_hz, load))
                if "focus" in wanted:
                    add(live_focus(home, load * most_hz, load))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
