"""Every stage, every way to fail: what becomes of pump, shutter, focus, file and account. Started by hand.

    python benchmarks/faults.py [--only acquire,track] [--faults kill,freeze] [--controller]

Each row is one run of `liveptv run` on a simulated microscope whose pump, shutter and focus log their settings to
a file that survives everything. The fault comes once 60 frames are in the file. Measured from outside: after how
many seconds each device had its safe setting for good, how the program ended, whether the file is whole, and
whether its account adds up. `exception` is raised in the stage's main thread from outside; `slow disk` stops the
writer for 1.5 s of every 1.6 s, as a disk does that stalls.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from reporting import save

from acquisition.simulated.settings_log import read_settings
from tracking.trajectories.file import TrajectoryFile

RESULTS = Path(__file__).parent / "results" / "faults.json"
STAGES = ("acquire", "detect", "track", "write", "control", "session", "page")
FAULTS = ("kill", "freeze", "pause 3 s", "exception", "SIGTERM", "SIGINT", "SIGHUP")
SAFE = {"Pump": 0.001, "Shutter": False, "Focus": 145.0}
BEFORE_FRAMES, LONGEST_S, RATE_HZ = 60, 120.0, 60

CONFIG = """
#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py pyDevice,Pump,acquisition.simulated.devices,SimulatedPump
#py pyDevice,Shutter,acquisition.simulated.devices,SimulatedShutter
#py Property,Pump,LogFile,{log}
#py Property,Focus,LogFile,{log}
#py Property,Shutter,LogFile,{log}
#py Property,Camera,Width,320
#py Property,Camera,Height,256
#py Property,Camera,ParticlesPerFrame,20
#py Property,Camera,FrameRate,{rate}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
#py Property,Pump,FlowRate,0.0246
#py Property,Shutter,State,1
"""
EXPERIMENT = """
[microscope]
config = {config!r}
pixel_size_um = 0.8
shutter = "Shutter"
[limits]
max_flow_ul_s = 0.03
safe_flow_ul_s = 0.001
min_focus_um = 140
max_focus_um = 160
safe_focus_um = 145
watchdog_s = 4
[detector]
polarity = "dark"
diameter_px = 15
workers = 1
[session]
hang_s = 6
stop_timeout_s = 30
{controller}
"""
CONTROLLER = """
[controller]
file = {path!r}
"""
QUIET = """
class Quiet:
    def update(self, tracks):
        return []
"""
RAISER = """
import ctypes, multiprocessing, os, sys, threading, time
def watch():
    folder = os.environ["LIVEPTV_RAISE_IN"]
    while True:
        time.sleep(0.05)
        path = os.path.join(folder, "raise-" + multiprocessing.current_process().name)
        if os.path.exists(path):
            os.remove(path)
            main = threading.main_thread().ident
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(RuntimeError))
            return
threading.Thread(target=watch, daemon=True).start()
"""


class LiveRun:
    """One run of the program, its files, and its processes."""

    def __init__(
        self, folder: Path, *, controller: bool, page: bool = True, extra: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.log = folder, folder / "settings.jsonl"
        (folder / "scope.cfg").write_text(CONFIG.format(log=self.log, rate=RATE_HZ))
        (folder / "quiet.py").write_text(QUIET)
        (folder / "sitecustomize.py").write_text(RAISER)
        steered = CONTROLLER.format(path=str(folder / "quiet.py")) if controller else ""
        text = EXPERIMENT.format(config=str(folder / "scope.cfg"), controller=steered)
        (folder / "experiment.toml").write_text(text)
        self.tracks, self.output = folder / "run.h5", folder / "output.txt"
        command = [sys.executable, "-m", "liveptv", "run", "experiment.toml", "-o", "run.h5", *extra]
        command += ["--monitor"] if page else []
        root = Path(__file__).resolve().parents[1]
        paths = os.pathsep.join((str(folder), str(root)))
        environment = os.environ | {"PYTHONPATH": paths, "LIVEPTV_RAISE_IN": str(folder)}
        with self.output.open("w") as output:
            self.process = psutil.Popen(
                command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def frames(self) -> int:
        """Frames committed to the file so far."""
        try:
            with TrajectoryFile(self.tracks) as file:
                return len(file.frames)
        except Exception:  # noqa: BLE001 - while it is made or mended it may be anything
            return 0

    def wait_for_frames(self, count: int) -> None:
        """Wait until so many frames are in the file."""
        until_s = time.monotonic() + LONGEST_S
        while self.frames() < count:
            if self.process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"the run did not get going: {self.output.read_text()}")
            time.sleep(0.05)

    def events(self) -> list[dict[str, Any]]:
        """What the event log has."""
        lines = (self.folder / "run.events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def target(self, stage: str) -> psutil.Process:
        """The process of a stage, of the session or of the page."""
        if stage == "session":
            return psutil.Process(self.process.pid)
        if stage == "page":
            known = {event.get("pid") for event in self.events()}
            children = [child for child in self.process.children() if child.pid not in known]
            return max(
                (c for c in children if "spawn_main" in " ".join(c.cmdline())), key=lambda c: c.create_time()
            )
        pids = [event["pid"] for event in self.events() if event.get("stage") == stage and event.get("pid")]
        return psutil.Process(pids[-1])

    def inflict(self, stage: str, fault: str) -> None:
        """Let a fault happen to a stage."""
        target = self.target(stage)
        if fault == "kill":
            target.kill()
        elif fault == "freeze":
            target.suspend()
        elif fault == "pause 3 s":
            target.suspend()
            time.sleep(3.0)
            target.resume()
        elif fault == "exception":
            name = {"session": "MainProcess"}.get(stage, f"liveptv-{stage}")
            (self.folder / f"raise-{name}").touch()
        elif fault == "slow disk":
            until_s = time.monotonic() + 10
            while time.monotonic() < until_s and target.is_running():
                target.suspend()
                time.sleep(1.5)
                target.resume()
                time.sleep(0.1)
        elif fault == "terminal closed":
            os.killpg(self.process.pid, signal.SIGHUP)
        else:
            target.send_signal(getattr(signal, fault))


def safe_after(log: Path, since_s: float) -> dict[str, float | None]:
    """Seconds until each device had its safe setting for good; None: never."""
    after: dict[str, float | None] = dict.fromkeys(SAFE)
    for entry in read_settings(log):
        device, value = entry["device"], entry["value"]
        is_safe = abs(float(value) - float(SAFE[device])) < 1e-9
        if not is_safe:
            after[device] = None
        elif after[device] is None:
            after[device] = round(entry["wall_s"] - since_s, 2)
    return after


def shared_memory(processes: list[psutil.Process]) -> set[Path]:
    """Segments of shared memory that these processes have mapped (Linux)."""
    found = set()
    for process in processes:
        maps = Path(f"/proc/{process.pid}/maps")
        lines = maps.read_text().splitlines() if maps.exists() else []
        found |= {Path(line.split()[-1]) for line in lines if "/dev/shm/psm_" in line}
    return found


def one(stage: str, fault: str, *, controller: bool) -> dict[str, Any]:
    """One run with one fault."""
    with tempfile.TemporaryDirectory(prefix="liveptv-fault-") as name:
        run = LiveRun(Path(name), controller=controller, page=stage == "page")
        run.wait_for_frames(BEFORE_FRAMES)
        children = run.process.children(recursive=True)
        segments = shared_memory(children)
        before = run.frames()
        began_s = time.time()
        run.inflict(stage, fault)
        goes_on = None
        try:
            run.process.wait(25)
        except psutil.TimeoutExpired:
            goes_on = run.process.status() != psutil.STATUS_STOPPED
            if goes_on:
                run.process.send_signal(signal.SIGINT)
        stop_s = time.time() if goes_on else began_s
        try:
            run.process.wait(90)
        except psutil.TimeoutExpired:
            run.process.kill()
        _, alive = psutil.wait_procs(children, timeout=45)
        for orphan in alive:
            orphan.kill()
        row: dict[str, Any] = {"stage": stage, "fault": fault, "controller": controller}
        row |= {"ended": "went on" if goes_on else f"status {run.process.returncode}"}
        since_fault = safe_after(run.log, began_s)
        row |= {device.lower(): after for device, after in since_fault.items()}
        if goes_on:
            row["after_stop"] = safe_after(run.log, stop_s)
        try:
            with TrajectoryFile(run.tracks) as file:
                row |= {"frames": len(file.frames), "whole": bool(file.finished)}
                row["gaps"] = int((file.frames["frame"][1:] - file.frames["frame"][:-1] != 1).sum())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the file is the finding
            row |= {"frames": 0, "whole": f"{type(error).__name__}: {error}", "gaps": None}
        row |= {"before": before, "orphans": len(alive), "segments": sum(path.exists() for path in segments)}
        output = run.output.read_text()
        row["said"] = [line for line in output.splitlines() if "error" in line or "hardware" in line][-3:]
        row["traceback"] = "Traceback" in output
        return row


def main() -> None:
    """Measure the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(STAGES))
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--controller", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    rows = []
    for stage in options.only.split(","):
        for fault in options.faults.split(","):
            try:
                row = one(stage, fault, controller=options.controller)
            except Exception as error:  # noqa: BLE001 - the other rows are still wanted
                row = {"stage": stage, "fault": fault, "problem": f"{type(error).__name__}: {error}"}
            rows.append(row)
            print(json.dumps(row), flush=True)
    if options.save:
        save(RESULTS, rows)


if __name__ == "__main__":
    main()
