"""What the live page costs a whole run: the simulated microscope at 24 full frames/s, with and without visitors.

One real run (camera, detector, tracker, writer, control, each a process) of 1440 x 2560 with 200 particles,
detected in 2D by the classical detector. While it is on, the page is opened and closed and visitors come and go, in
turns of some seconds, so that whatever else the computer does shows in all cases alike. A row has the medians over
the rounds and the median change against the turns without a page before and after. Latency is from exposure to the
arrival of the tracks at a listener.

    python benchmarks/live_page_run.py --json benchmarks/results/live_page_run.json
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
from live_page import visitors
from reporting import save

from liveptv.config import build_experiment
from liveptv.files import RunFiles
from liveptv.monitor.process import PageProcess
from liveptv.session.events import read_events
from liveptv.session.run_card import read_card
from liveptv.workflows.run import run_experiment
from stream.commands import CommandClient
from stream.messages import Command, CommandKind, Tracks
from stream.monitor import MonitorSubscriber

IMAGES_HZ = 15.0
SETTLE_S = 4.0
CONNECTIONS = 1000
# visitors, visitors that read nothing, connections that ask for nothing; None without a page
CASES = {
    "no page": None,
    "page, no visitor": (0, 0, 0),
    "1 visitor": (1, 0, 0),
    "10 visitors": (10, 0, 0),
    "10 and 1 silent": (10, 1, 0),
    "1 and 1000 connections": (1, 0, CONNECTIONS),
}
COMPARED = ("frames_per_s", "latency_p50_ms", "cpu_ms_per_frame")


def hold_connections(url, seconds):
    """Open connections that ask for nothing, and again those that are closed, all the time."""
    place = urlsplit(url)
    held, until_s = [], time.monotonic() + seconds
    while time.monotonic() < until_s:
        while len(held) < CONNECTIONS:
            with contextlib.suppress(OSError):
                held.append(socket.create_connection((place.hostname, place.port), timeout=2))
        time.sleep(0.5)
        for connection in list(held):
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                with contextlib.suppress(ConnectionError):
                    connection.recv(1)
                held.remove(connection)
                connection.close()


class Turns:
    """Goes through the cases while a run is on, some rounds, then stops it."""

    def __init__(self, run, rounds, seconds):
        self.run, self.rounds, self.seconds = run, rounds, seconds
        self.rows = {case: [] for case in CASES}
        self.arrived = []
        self.fault = None
        self._over = threading.Event()

    @contextlib.contextmanager
    def __call__(self, card):
        threads = [threading.Thread(target=work, args=(card,)) for work in (self._listen, self._go_through)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _listen(self, card):
        while not (address := read_card(card).track):
            time.sleep(0.1)
        tracks = MonitorSubscriber(address, security=read_card(card).listening.security())
        while not self._over.is_set():
            message = tracks.receive(0.2)
            if isinstance(message, Tracks):
                now_ns = time.perf_counter_ns()
                self.arrived.append((now_ns, (now_ns - message.info.monotonic_ns) / 1e6))
        tracks.close()

    def _go_through(self, card):
        while len(self.arrived) < 100 and not self._over.is_set():
            time.sleep(0.1)
        try:
            for _ in range(self.rounds + 1):
                for case, counts in CASES.items():
                    if len(self.rows["no page"]) > self.rounds:
                        break
                    with contextlib.ExitStack() as stack:
                        self.rows[case].append(self._turn(card, counts, stack))
                    told = {key: round(value, 2) for key, value in self.rows[case][-1].items()}
                    print(case, json.dumps(told), flush=True)
        except Exception as error:  # noqa: BLE001 - told at the end
            self.fault = error
        client = CommandClient(read_card(card).commands, read_card(card).steering.security())
        client.request(Command(CommandKind.STOP, "measured"), 10.0)
        client.close()

    def _turn(self, card, counts, stack):
        context, processes = multiprocessing.get_context("spawn"), []
        ours, theirs = context.Pipe()
        people = 0
        if counts is not None:
            people, silent, connections = counts
            url = stack.enter_context(PageProcess(card)).wait_for_url()
            lasting_s = SETTLE_S + self.seconds + 1
            if people + silent:
                arguments = (url, lasting_s, people, silent, theirs)
                processes.append(context.Process(target=visitors, args=arguments))
            if connections:
                processes.append(context.Process(target=hold_connections, args=(url, lasting_s)))
        for process in processes:
            process.start()
        time.sleep(SETTLE_S)
        row = self._measured()
        if people and ours.poll(self.seconds + 10):
            ages = ours.recv()
            every = [age for each in ages for age in each] or [np.nan]
            row |= {
                "age_p50_ms": float(np.median(every)),
                "age_p95_ms": float(np.percentile(every, 95)),
                "pictures_per_s": float(np.median([len(each) for each in ages])) / lasting_s,
            }
        for process in processes:
            process.join(5)
            process.kill()
        return row

    def _measured(self):
        began_ns, before_s, first = time.perf_counter_ns(), self._cpu_s(), len(self.arrived)
        time.sleep(self.seconds)
        seen = self.arrived[first:]
        seconds, cpu_s = (time.perf_counter_ns() - began_ns) / 1e9, self._cpu_s() - before_s
        latencies = [latency for _, latency in seen]
        return {
            "frames_per_s": len(seen) / seconds,
            "latency_p50_ms": float(np.median(latencies)),
            "latency_p95_ms": float(np.percentile(latencies, 95)),
            "cpu_ms_per_frame": 1e3 * cpu_s / len(seen),
        }

    def _cpu_s(self):
        """Processor time of the run's own processes, s; the page is none of them."""
        pids = [event["pid"] for event in read_events(self.run.events) if event["kind"] == "process"]
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def summary(case, rows, without):
    """Medians over the rounds, and of the changes, per cent; each turn is compared with the mean of those without a
    page before and after it.
    """
    found = {"case": case, "rounds": len(rows)}
    for name in rows[0]:
        found[name] = round(float(np.nanmedian([row[name] for row in rows])), 2)
    for name in COMPARED:
        between = [(before[name] + after[name]) / 2 for before, after in pairwise(without)]
        changes = [100 * (row[name] / other - 1) for row, other in zip(rows, between, strict=True)]
        found[f"{name}_change_percent"] = round(float(np.median(changes)), 2)
        found[f"{name}_changes_percent"] = [round(change, 1) for change in changes]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LIVEPTV_RUNS"] = name
        config = folder / "full.cfg"
        config.write_text((files("acquisition.simulated") / "paper.cfg").read_text())
        experiment = build_experiment(
            {
                "run": {"output": str(folder / "tracks.h5")},
                "microscope": {"config": str(config)},
                "detector": {"polarity": "dark", "diameter_px": 15, "workers": 2},
                "session": {"monitor_hz": IMAGES_HZ},
            },
            "the benchmark",
        )
        run = RunFiles.beside(experiment.run.output)
        turns = Turns(run, options.rounds, options.seconds)
        outcome = run_experiment(experiment, run, on_update=lambda _: None, on_note=print, beside=turns)
    if turns.fault is not None:
        raise turns.fault
    without = turns.rows["no page"]
    rows = [summary(case, rows[: options.rounds], without) for case, rows in turns.rows.items()]
    print("lost:", outcome.result.lost)
    for row in rows:
        print(row)
    if options.json:
        save(options.json, {"lost": outcome.result.lost, "cases": rows})


if __name__ == "__main__":
    main()
