"""Random faults in running experiments: is the hardware safe, the account closed, every acknowledged frame there?

Each round runs `liveptv run` on the simulated microscope (pump, focus and shutter write every setting to a file)
with a controller and a watchdog, and does some random things to it: kills, stops (and continues) processes of the
run, stalls the writer's disk, sends the signals of an impatient user and of a closed terminal, and throws bytes of
every size at every socket that the run has open. Then it looks at what is left. Linux only.

    python benchmarks/soak.py --faults 200 --json benchmarks/results/soak.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zmq
from reporting import save

from acquisition.simulated.settings_log import read_settings
from liveptv.session.frame_account import account_of
from tracking.trajectories.file import TrajectoryFile

HERE = Path(__file__).resolve().parent
SAFE = {"Pump": 0.001, "Focus": 140.0, "Shutter": False}
WATCHDOG_S, SECONDS = 2.0, 14.0
SLACK_S = 3.0  # two busy cores: a poll, a device call and the start of a process may all be late
OPENED_ANEW_S = (
    12.0  # a frozen acquisition is waited for, killed, and its devices are opened by another process
)
END_S = 90.0
MARK = "LIVEPTV_SOAK"  # in the environment of every process of a round: its folder
STAGES = ("acquire", "detect", "track", "write", "control")
SIZES = (0, 1, 7, 64, 1000, 65_536, 1 << 20, 8 << 20)

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
#py Property,Camera,ParticlesPerFrame,15
#py Property,Camera,FrameRate,40
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
#py Property,Core,Shutter,Shutter
Property,Core,AutoShutter,0
#py Property,Pump,FlowRate,0.0246
#py Property,Shutter,State,1
"""
CONTROLLER = """
from stream.messages import Command, CommandKind
class Steps:
    def update(self, tracks):
        n = tracks.info.frame
        if n % 20:
            return []
        flow_ul_s, focus_um = 0.02 + 0.0001 * (n // 20 % 20), 150.0 + n // 20 % 3
        return [Command(CommandKind.SET_FLOW, flow_ul_s), Command(CommandKind.MOVE_FOCUS, focus_um)]
"""
EXPERIMENT = """
[run]
output = "tracks.h5"
seconds = {seconds}
[microscope]
config = "logged.cfg"
pump = "Pump"
pump_property = "FlowRate"
focus = "Focus"
shutter = "Shutter"
pixel_size_um = 0.8
[limits]
min_focus_um = 130
max_focus_um = 160
max_flow_ul_s = 0.03
safe_flow_ul_s = 0.001
safe_focus_um = 140
watchdog_s = {watchdog}
[detector]
polarity = "dark"
diameter_px = 15
workers = 1
[session]
hang_s = 6
recover_s = 20
stop_timeout_s = 15
[controller]
file = "steps.py"
"""
# Imported by every Python process of a round: the writer's commits take so many seconds as `stall` says.
STALL = """
import os
from pathlib import Path
stall = Path(os.environ["LIVEPTV_SOAK"]) / "stall"
import h5py
_flush = h5py.Dataset.flush
def flush(self):
    if stall.exists():
        import time
        time.sleep(float(stall.read_text() or 0))
    _flush(self)
h5py.Dataset.flush = flush
"""


@dataclass
class Round:
    """One run under attack."""

    folder: Path
    rng: np.random.Generator
    process: subprocess.Popen[bytes]
    terminal: int
    done: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    committed: int = 0
    segments: set[Path] = field(default_factory=set)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        found = []
        with contextlib.suppress(OSError):
            for line in (self.folder / "tracks.events.jsonl").read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return [event for event in found if kind in {None, event.get("kind")}]

    def pid(self, stage: str) -> int | None:
        pids = [event["pid"] for event in self.events("process") if event.get("stage") == stage]
        return pids[-1] if pids else None

    @property
    def acquisition_was_hit(self) -> bool:
        """Whether the process that holds the devices was killed or stopped."""
        return any("acquire" in what for what in self.done)

    def frames(self) -> int:
        """Frames whose commit mark is on the disk: acknowledged, or about to be."""
        try:
            with TrajectoryFile(self.folder / "tracks.h5") as file:
                return len(file.frames)
        except Exception:  # noqa: BLE001 - not there yet
            return 0

    def processes(self) -> list[psutil.Process]:
        """All processes of the run, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.pid != os.getpid():
                    found.append(process)
        return found


def shared_memory(processes: list[psutil.Process]) -> set[Path]:
    """The segments of shared memory that processes have open."""
    found = set()
    for process in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            found |= {Path(line.split(maxsplit=5)[5]) for line in lines if "/dev/shm/" in line}
    return found


def start(folder: Path, rng: np.random.Generator) -> Round:
    (folder / "logged.cfg").write_text(CONFIG.format(log=folder / "devices.jsonl"))
    (folder / "steps.py").write_text(CONTROLLER)
    (folder / "experiment.toml").write_text(EXPERIMENT.format(seconds=SECONDS, watchdog=WATCHDOG_S))
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(STALL)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(HERE), str(HERE.parent)]),
        MARK: str(folder),
        "LIVEPTV_RUNS": str(folder / "cards"),
        "TERM": "dumb",
    }
    ours, theirs = pty.openpty()
    with (folder / "screen.txt").open("wb") as screen:
        process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, "run", "experiment.toml"],
            cwd=folder, env=environment, stdin=theirs, stdout=screen, stderr=screen, start_new_session=True,
        )  # fmt: skip
    os.close(theirs)
    return Round(folder, rng, process, ours)


# The run's own session takes the pseudo-terminal for its own, so that closing it is a closed terminal.
BEGIN = """
import fcntl, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from liveptv.__main__ import main
main()
"""


def kill(run: Round) -> str:
    stage = str(run.rng.choice(STAGES))
    return f"kill -9 {stage}" if send(run, run.pid(stage), signal.SIGKILL) else ""


def kill_supervisor(run: Round) -> str:
    return "kill -9 supervisor" if send(run, run.process.pid, signal.SIGKILL) else ""


def stop_for_a_while(run: Round) -> str:
    stage, seconds = str(run.rng.choice([*STAGES, "supervisor"])), float(run.rng.uniform(0.3, 4.0))
    pid = run.process.pid if stage == "supervisor" else run.pid(stage)
    if not send(run, pid, signal.SIGSTOP):
        return ""
    time.sleep(seconds)
    send(run, pid, signal.SIGCONT)
    return f"stop {stage} for {seconds:.1f} s"


def hang(run: Round) -> str:
    stage = str(run.rng.choice(STAGES))
    return f"hang {stage}" if send(run, run.pid(stage), signal.SIGSTOP) else ""


def ask(run: Round) -> str:
    number = signal.Signals(run.rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
    return f"{number.name} to the session" if send(run, run.process.pid, number) else ""


def close_terminal(run: Round) -> str:
    if run.terminal < 0:
        return ""
    os.close(run.terminal)
    run.terminal = -1
    return "closed terminal"


def slow_disk(run: Round) -> str:
    seconds, lasts_s = float(run.rng.choice([0.05, 0.5, 3.0])), float(run.rng.uniform(0.5, 4.0))
    (run.folder / "stall").write_text(str(seconds))
    time.sleep(lasts_s)
    (run.folder / "stall").unlink(missing_ok=True)
    return f"disk slow by {seconds:g} s a write for {lasts_s:.1f} s"


def garbage(run: Round) -> str:
    ports = set()
    for process in run.processes():
        with contextlib.suppress(psutil.Error):
            ports |= {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    if not ports:
        return ""
    size = int(run.rng.choice(SIZES))
    data = run.rng.bytes(size)
    for port in ports:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as raw:
            raw.settimeout(0.5)
            raw.sendall(data)
    context = zmq.Context()
    for port in ports:
        for kind in (zmq.DEALER, zmq.PUSH, zmq.SUB):
            with contextlib.suppress(zmq.ZMQError), context.socket(kind) as s:
                s.linger = 300
                s.connect(f"tcp://127.0.0.1:{port}")
                if kind == zmq.SUB:
                    s.setsockopt(zmq.SUBSCRIBE, data[:100_000])
                else:
                    for _ in range(3):
                        s.send_multipart([data, data[: size // 2]], zmq.NOBLOCK)
                time.sleep(0.05)
    context.destroy(linger=300)
    return f"{size} bytes to {len(ports)} sockets"


FAULTS = (
    (kill, 3), (hang, 2), (stop_for_a_while, 4), (ask, 1), (close_terminal, 1), (kill_supervisor, 1),
    (slow_disk, 3), (garbage, 4),
)  # fmt: skip


def send(run: Round, pid: int | None, number: int) -> bool:
    """Send a signal to a process of the run that still lives."""
    if pid is None or all(process.pid != pid for process in run.processes()):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def attack(run: Round, faults: int) -> None:
    deadline_s = time.monotonic() + 60
    while len(run.events("ready")) < len(STAGES) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    weights = np.array([weight for _, weight in FAULTS], float)
    while len(run.done) < faults:
        time.sleep(float(run.rng.uniform(0.3, 2.0)))
        if run.process.poll() is not None:
            return
        run.committed = max(run.committed, run.frames())
        run.segments |= shared_memory(run.processes())
        act = FAULTS[int(run.rng.choice(len(FAULTS), p=weights / weights.sum()))][0]
        began_s = time.time()
        if what := act(run):
            run.done.append(what)
            run.times.append(began_s)


def judge(run: Round) -> dict[str, Any]:
    """Wait for the end; returns what was found, with a line for each thing that is not as it should be."""
    began_s = time.monotonic()
    while (left := run.processes()) and time.monotonic() - began_s < END_S:
        run.process.poll()
        time.sleep(0.2)
    problems = []
    if left:
        problems.append(f"processes are left after {END_S:g} s: {[process.pid for process in left]}")
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
    status = run.process.wait()
    if run.terminal >= 0:
        os.close(run.terminal)
    settings = read_settings(run.folder / "devices.jsonl")
    made_safe_s = {}
    for device, value in SAFE.items():
        of_it = [(entry["wall_s"], entry["value"]) for entry in settings if entry["device"] == device]
        if not of_it or of_it[-1][1] != value:
            problems.append(f"{device} is not safe: {of_it[-1:]}")
            continue
        # the first set-point is the configuration's, from before there was a controller
        gaps = [after - before for (before, was), (after, _) in pairwise(of_it[1:]) if was != value]
        made_safe_s[device] = round(max(gaps, default=0.0), 2)
        limit_s = WATCHDOG_S + SLACK_S + (OPENED_ANEW_S if run.acquisition_was_hit else 0.0)
        if device != "Shutter" and made_safe_s[device] > limit_s:
            problems.append(
                f"{device} was left as it was for {made_safe_s[device]:.1f} s without a live result"
            )
    frames, account, end = 0, None, None
    found = sorted(run.folder.glob("tracks*.h5"))
    try:
        with TrajectoryFile(run.folder / "tracks.h5") as file:
            frames, found_account = len(file.frames), account_of(file.attributes, file.frames)
            account = None if found_account is None else found_account.to_dict()
            end = file.attributes.get("session_end_reason") or file.attributes.get("end_reason")
    except Exception as error:  # noqa: BLE001 - it is a finding
        problems.append(f"the trajectory file cannot be read: {error}")
    if account is None:
        problems.append("no account")
    elif (
        account["exposed"] != account["in_file"] + sum(account["lost"].values())
        or account["in_file"] != frames
    ):
        problems.append(f"the account does not add up: {account}, {frames} frames in the file")
    if frames < run.committed:
        problems.append(f"{run.committed} frames had been committed, {frames} are in the file")
    segments = sorted(path.name for path in run.segments if path.exists())
    if segments:
        problems.append(f"shared memory is left: {segments}")
    lines = (run.folder / "screen.txt").read_text(errors="replace").splitlines()
    if any("Traceback" in line for line in lines):
        problems.append("a traceback on the screen")
    return {
        "faults": run.done, "status": status, "end": end, "frames": frames, "committed_before": run.committed,
        "account": account, "made_safe_s": made_safe_s, "files": [p.name for p in found],
        "segments": segments, "problems": problems, "times": run.times, "last_line": lines[-1:],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--a-round", type=int, default=3, help="faults in one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the folders of rounds with problems here")
    args = parser.parse_args()
    rounds, count, number = [], 0, 0
    while count < args.faults:
        rng = np.random.default_rng([args.seed, number])
        folder = Path(tempfile.mkdtemp(prefix="soak-", dir=args.keep))
        run = start(folder, rng)
        attack(run, args.a_round)
        found = judge(run) | {"round": number}
        count += len(found["faults"])
        number += 1
        rounds.append(found)
        print(
            f"{number:3d} {count:3d} {'; '.join(found['faults'])} ->",
            f"{found['status']} {found['end']} {found['problems'] or 'ok'}",
            flush=True,
        )
        if args.json:
            save(args.json, summary(rounds))
    print(json.dumps(summary(rounds)["totals"], indent=1))


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = Counter(fault.split(" for ")[0].split(" by ")[0] for r in rounds for fault in r["faults"])
    bad = [r for r in rounds if r["problems"]]
    totals = {
        "rounds": len(rounds),
        "faults": sum(len(r["faults"]) for r in rounds),
        "rounds_with_problems": len(bad),
    }
    return {"totals": totals, "kinds": dict(kinds.most_common()), "problems": bad}


if __name__ == "__main__":
    main()
