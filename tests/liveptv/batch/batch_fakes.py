"""Recordings of a few blobs, and workers that do as they are told."""

import os
import signal
import time
from collections import deque
from pathlib import Path

import numpy as np
import tifffile

from liveptv.batch.task import Answer, Task
from liveptv.batch.workers.interface import Lost


def blobs(frames=12, seed=0, shape=(64, 80), count=6):
    """Dark round particles that move to the right, uint8 (frames, H, W)."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(8, max(9, shape[1] - 24), count), np.linspace(8, shape[0] - 8, count)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    stack = np.empty((frames, *shape), np.uint8)
    for n in range(frames):
        image = 150 + rng.normal(0, 2, shape)
        for k in range(count):
            image -= 90 * np.exp(-((columns - x[k] - 0.7 * n) ** 2 + (rows - y[k]) ** 2) / 8)
        stack[n] = np.clip(image, 0, 255)
    return stack


def write_recording(path: Path, frames=12, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, blobs(frames, seed), imagej=True, metadata={"axes": "TYX", "finterval": 0.1})
    return path


class ScriptedWorkers:
    """Answers with what `reply(task, number of times asked)` gives, one at a time, newest or oldest first."""

    def __init__(self, reply, newest_first=False):
        self.reply, self.newest_first = reply, newest_first
        self.waiting = deque()
        self.asked = []
        self.count = 3
        self.title = "scripted workers"

    def submit(self, ticket, task):
        self.asked.append(task)
        self.waiting.append((ticket, task))

    def answers(self, timeout_s):
        if not self.waiting:
            return []
        ticket, task = self.waiting.pop() if self.newest_first else self.waiting.popleft()
        answer = self.reply(task)
        if isinstance(answer, Lost) and not answer.gives_up:
            self.waiting.append((ticket, task))
        return [(ticket, answer)]

    def close(self):
        pass


def task(name="a", kind="recording", **more):
    return Task(kind, "out", name, "a.tif", {}, {}, "0", **more)


def echo(given: Task) -> Answer:
    """The work of a worker that says who it is."""
    return Answer("failed", given.name, worker=str(os.getpid()))


def dies_so_often(given: Task) -> Answer:
    """Kills its process as long as the file `given.out` has fewer lines than `given.number`."""
    log = Path(given.out)
    deaths = len(log.read_text().splitlines()) if log.exists() else 0
    if deaths < given.number:
        with log.open("a") as file:
            file.write("died\n")
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        time.sleep(60)
    return Answer("failed", f"alive after {deaths} deaths")


def all_answers(workers, count, tries=600):
    found = []
    for _ in range(tries):
        found += workers.answers(0.5)
        if sum(not isinstance(answer, Lost) or answer.gives_up for _, answer in found) >= count:
            return found
    raise AssertionError(f"only {found}")
