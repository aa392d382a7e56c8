"""However a run ends, the hardware is made safe first: seen from outside, in what the devices were told."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from small_run import Run, kill, small_experiment, wait_until

from acquisition.simulated.settings_log import read_settings
from liveptv.session import signals, supervisor
from liveptv.session.run_card import cards_folder, read_card
from stream.commands import CommandClient
from stream.messages import Command, CommandKind
from tracking.trajectories.file import TrajectoryFile

pytestmark = pytest.mark.slow

SAFE_UL_S, SAFE_UM = 0.001, 145.0
LIMITS = {
    "max_flow_ul_s": 0.03,
    "safe_flow_ul_s": SAFE_UL_S,
    "min_focus_um": 140,
    "max_focus_um": 160,
    "safe_focus_um": SAFE_UM,
    "watchdog_s": 3.0,
}
QUICK = {"hang_s": 5.0, "stop_timeout_s": 20.0}


def logged(experiment):
    """Let pump and focus of an experiment log what they are told; returns the log's path."""
    config = Path(experiment.microscope.config)
    log = config.with_name("settings.jsonl")
    lines = "".join(f"#py Property,{device},LogFile,{log}\n" for device in ("Pump", "Focus"))
    config.write_text(
        config.read_text().replace("Property,Core,Initialize,1", f"{lines}Property,Core,Initialize,1")
    )
    return log


def last(log):
    """What each device was told last."""
    return {entry["device"]: entry["value"] for entry in read_settings(log)}


def live(folder, act, act_after=40, **sections):
    sections = {"frames": 100_000, "limits": LIMITS, "session": QUICK} | sections
    experiment = small_experiment(folder, **sections)
    log = logged(experiment)
    return Run(experiment, act, act_after), log


def assert_safe(run, log):
    assert last(log) == {"Pump": SAFE_UL_S, "Focus": SAFE_UM}
    assert [device.safe for device in run.result.safety] == [True, True]


def freeze(stage):
    return lambda run: run.process(stage).suspend()


@pytest.mark.parametrize("stage", ["acquire", "track", "write"])
def test_a_stage_that_is_killed_leaves_the_hardware_safe(tmp_path, stage):
    run, log = live(tmp_path, kill(stage))
    assert_safe(run, log)
    assert run.result.failures[0].startswith(f"{stage} ended without reporting why")
    if stage == "acquire":
        assert any("opened again, safe state" in note for note in run.notes)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be frozen in the same way")
@pytest.mark.parametrize("stage", ["acquire", "track", "write"])
def test_a_stage_that_hangs_leaves_the_hardware_safe(tmp_path, stage):
    run, log = live(tmp_path, freeze(stage))
    assert_safe(run, log)
    assert f"{stage} hung" in run.result.failures[0]
    with TrajectoryFile(run.files.tracks) as file:
        assert file.finished
        assert len(file.frames) >= run.acted_at


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be frozen in the same way")
@pytest.mark.parametrize("stage", ["track", "write"])
def test_a_freeze_shorter_than_hang_s_ends_nothing_and_loses_nothing(tmp_path, stage):
    def pause(run):
        process = run.process(stage)
        process.suspend()
        threading.Timer(4.0, process.resume).start()

    run, log = live(tmp_path, pause, frames=500, session={"hang_s": 12.0})
    assert run.result.ok
    assert run.frames()[0] == list(range(500))
    assert any("is back after" in note for note in run.notes) or stage == "write"
    assert_safe(run, log)


def test_what_fails_in_the_session_leaves_the_hardware_safe_and_a_complete_file(tmp_path, monkeypatch):
    experiment = small_experiment(tmp_path, frames=100_000, limits=LIMITS, session=QUICK)
    log = logged(experiment)
    monkeypatch.setattr(
        supervisor.Session, "_watch_age", lambda session: 1 / (session.progress().frames < 40)
    )
    run = Run(experiment)
    assert_safe(run, log)
    assert "the session failed: ZeroDivisionError" in run.result.failures[0]
    frames, _ = run.frames()
    assert frames == list(range(len(frames)))
    assert len(frames) >= 40


def test_what_shows_the_run_cannot_end_it(tmp_path):
    def closed(_run):
        raise OSError(5, "Input/output error")

    run, log = live(tmp_path, closed, frames=200)
    assert run.result.ok
    assert len(run.frames()[0]) == 200
    assert any("no longer shown" in event["text"] for event in run.events("note"))
    assert_safe(run, log)


def test_a_second_request_to_stop_ends_the_run_at_once_and_safely(tmp_path):
    def twice(run):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    run, log = live(tmp_path, twice)
    assert_safe(run, log)


def test_a_pump_that_runs_already_is_made_safe_when_the_start_is_stopped(tmp_path):
    experiment = small_experiment(tmp_path, frames=100_000, limits=LIMITS, session=QUICK)
    log = logged(experiment)

    class Early(Run):
        def _update(self, progress):
            if read_settings(log):
                os.kill(os.getpid(), signal.SIGTERM)

    run = Early(experiment)
    assert not run.result.started
    assert_safe(run, log)


def start_cli(folder, *arguments):
    experiment = small_experiment(folder, frames=1_000_000, limits=LIMITS)
    log = logged(experiment)
    toml = folder / "experiment.toml"
    limits = "\n".join(f"{key} = {value}" for key, value in LIMITS.items())
    toml.write_text(
        f"[microscope]\nconfig = {experiment.microscope.config!r}\npixel_size_um = 0.8\n"
        f"[detector]\ndiameter_px = 15\npolarity = 'dark'\nworkers = 1\n[limits]\n{limits}\n"
    )
    command = [sys.executable, "-m", "liveptv", "run", str(toml), "-o", str(folder / "cli.h5"), *arguments]
    return command, log


def committed(path):
    try:
        with TrajectoryFile(path) as file:
            return len(file.frames)
    except OSError:
        return 0


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are closed in another way there")
def test_a_terminal_that_is_closed_ends_the_run_cleanly(tmp_path):
    command, log = start_cli(tmp_path)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=tmp_path
    )
    os.close(theirs)
    drained = threading.Event()

    def drain():
        while not drained.is_set():
            try:
                if not os.read(ours, 65536):
                    return
            except OSError:
                return

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    wait_until(lambda: committed(tmp_path / "cli.h5") > 30, 120)
    children = psutil.Process(process.pid).children(recursive=True)
    drained.set()
    os.killpg(process.pid, signal.SIGHUP)
    os.close(ours)
    assert process.wait(300) == 0
    assert last(log) == {"Pump": SAFE_UL_S, "Focus": SAFE_UM}
    _, alive = psutil.wait_procs(children, timeout=300)
    assert alive == []
    with TrajectoryFile(tmp_path / "cli.h5") as file:
        assert file.finished
        assert "SIGHUP" in file.attributes["session_end_reason"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_signals_that_end_a_run_are_heard_and_given_back():
    heard = []
    before = {name: signal.getsignal(getattr(signal, name)) for name in ("SIGTERM", "SIGHUP", "SIGTSTP")}
    with signals.ending_signals(heard.append):
        for name in ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP"):
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(0.01)
    assert heard == ["SIGTERM", "SIGHUP", "SIGQUIT"]
    assert {name: signal.getsignal(getattr(signal, name)) for name in before} == before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_run_that_was_started_with_nohup_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard = []
    try:
        with signals.ending_signals(heard.append):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard == []


def test_a_stop_is_heard_while_hundreds_of_commands_wait_for_their_time(tmp_path):
    def flood(run):
        address = next(event["text"] for event in run.events("commands"))
        client = CommandClient(address, run.keys())
        try:
            for _ in range(300):
                client.send(Command(CommandKind.SET_FLOW, 0.03, at_time_s=55.0))
                time.sleep(0.005)
            time.sleep(1.0)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            client.close()

    run, log = live(tmp_path, flood, limits={**LIMITS, "commands_per_s": 10_000})
    assert run.result.ok, json.dumps(run.result.failures)
    assert_safe(run, log)
    assert run.result.count("acquire", "commands_refused") >= 250


def test_a_safe_state_that_was_asked_for_is_not_undone_by_the_controller(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVEPTV_RUNS", str(tmp_path / "cards"))
    code = tmp_path / "eager.py"
    code.write_text(
        "from stream.messages import Command, CommandKind\n\nclass Eager:\n    def update(self, tracks):\n"
        "        n = tracks.info.frame\n"
        "        return [Command(CommandKind.SET_FLOW, 0.02 + 1e-5 * (n % 50))]\n"
    )
    seen = {}

    def act(run):
        card = read_card(next(cards_folder().glob("*.json")))
        client = CommandClient(card.commands, card.steering.security())
        log = tmp_path / "settings.jsonl"
        try:
            client.send(Command(CommandKind.MAKE_SAFE, "enough", sender="a person"))
            wait_until(lambda: last(log)["Pump"] == SAFE_UL_S)
            time.sleep(2.0)
            seen["held"] = last(log)["Pump"]
            client.send(Command(CommandKind.RESUME, sender="a person"))
            wait_until(lambda: last(log)["Pump"] != SAFE_UL_S)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            client.close()

    def beside(run):  # the session goes on meanwhile
        threading.Thread(target=act, args=(run,), daemon=True).start()

    run, log = live(
        tmp_path, beside, controller={"file": str(code)}, limits={**LIMITS, "commands_per_s": 1000}
    )
    assert run.result.ok, run.result.failures
    assert seen["held"] == SAFE_UL_S
    assert run.result.count("control", "controller_errors") == 0
    assert sum("safe state" in note and "enough" in note for note in run.notes) == 1
    assert_safe(run, log)
