"""A cluster that processes recordings, event by event: how long a batch takes with any number of workers.

What it knows of `liveptv batch`: recordings are asked for from the largest down; one that is longer than a piece
is first answered with its number of frames, then its pieces are queued behind everything else, and joined when all
of them are there. Tasks go one by one through the scheduler, which takes its time for each. A worker that is lost
takes its task with it; the task is queued again, first, when the loss is noticed. Not simulated: the file server.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, as measured on one worker.

    `frame_s` of a frame; `recording_s` of opening a recording or piece and publishing its result; `count_s` of
    looking how many frames it has; `join_s` of tracking a frame's detections when pieces are joined; `task_s` of a
    task in scheduler and batch; `start_s` until a worker has started. `spread` are measured durations
    over their mean, from which that of each task is drawn.
    """

    frame_s: float
    recording_s: float = 0.0
    count_s: float = 0.0
    join_s: float = 0.0
    task_s: float = 0.0
    start_s: float = 0.0
    spread: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True)
class Losses:
    """Workers that die.

    `each_s` is the mean life of one, `noticed_s` the time until its task is queued again, `back_s` until there is
    another worker in its place.
    """

    each_s: float = float("inf")
    noticed_s: float = 0.0
    back_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a simulated batch went. `ideal_s`: the work of one worker without pieces and losses, over the workers."""

    seconds: float
    ideal_s: float
    tasks: int
    lost_workers: int
    lost_s: float

    @property
    def efficiency(self) -> float:
        """Part of the workers' time that one worker alone would have needed as well."""
        return self.ideal_s / self.seconds


@dataclass(order=True, slots=True)
class _Event:
    at_s: float
    order: int
    kind: str = field(compare=False)
    worker: int = field(compare=False)
    task: tuple[str, int, int] | None = field(compare=False, default=None)


class _Cluster:
    def __init__(
        self,
        frames: Sequence[int],
        costs: Costs,
        workers: int,
        piece_frames: int | None,
        warm_frames: int,
        losses: Losses,
        rng: np.random.Generator,
    ) -> None:
        self.frames, self.costs, self.losses, self.rng = frames, costs, losses, rng
        self.spread = np.array(costs.spread)
        self.piece_frames, self.warm_frames = piece_frames, warm_frames
        largest_first = sorted(range(len(frames)), key=lambda number: -frames[number])
        self.queue: deque[tuple[str, int, int]] = deque(("recording", number, 0) for number in largest_first)
        self.left = [0] * len(frames)
        self.open = len(frames)
        self.idle: deque[int] = deque()
        self.events: list[_Event] = []
        self.began: dict[int, float] = {}
        self.scheduler_free_s = 0.0
        self.count = self.tasks = self.lost_workers = 0
        self.lost_s = 0.0
        for worker in range(workers):
            self._at(costs.start_s, "ready", worker)

    def _at(self, at_s: float, kind: str, worker: int = -1, task: tuple[str, int, int] | None = None) -> None:
        self.count += 1
        heapq.heappush(self.events, _Event(at_s, self.count, kind, worker, task))

    def run(self) -> float:
        now_s = 0.0
        while self.open:
            event = heapq.heappop(self.events)
            now_s = event.at_s
            if event.kind == "ready":
                self.idle.append(event.worker)
            elif event.kind == "done":
                assert event.task is not None
                self.idle.append(event.worker)
                self._finished(event.task)
            elif event.kind == "lost":
                assert event.task is not None
                self.lost_workers += 1
                self.lost_s += now_s - self.began[event.worker]
                self._at(now_s + self.losses.noticed_s, "again", task=event.task)
                self._at(now_s + self.losses.back_s, "ready", event.worker)
            else:
                assert event.task is not None
                self.queue.appendleft(event.task)
            self._hand_out(now_s)
        return now_s

    def _hand_out(self, now_s: float) -> None:
        while self.idle and self.queue:
            worker, task = self.idle.popleft(), self.queue.popleft()
            self.scheduler_free_s = max(self.scheduler_free_s, now_s) + self.costs.task_s
            begins_s = self.scheduler_free_s
            self.began[worker] = begins_s
            self.tasks += 1
            takes_s = self._seconds(task)
            lives_s = self.rng.exponential(self.losses.each_s) if np.isfinite(self.losses.each_s) else np.inf
            if lives_s < takes_s:
                self._at(begins_s + lives_s, "lost", worker, task)
            else:
                self._at(begins_s + takes_s, "done", worker, task)

    def _is_cut(self, number: int) -> bool:
        return self.piece_frames is not None and self.frames[number] > self.piece_frames

    def _seconds(self, task: tuple[str, int, int]) -> float:
        kind, number, piece = task
        costs = self.costs
        factor = float(self.rng.choice(self.spread))
        if kind == "join":
            return factor * (costs.recording_s + costs.join_s * self.frames[number])
        if kind == "recording":
            if self._is_cut(number):
                return factor * costs.count_s
            return factor * (costs.recording_s + costs.frame_s * self.frames[number])
        first, stop = (self.frames[number] * k // self._pieces(number) for k in (piece, piece + 1))
        return factor * (costs.recording_s + costs.frame_s * (stop - max(0, first - self.warm_frames)))

    def _pieces(self, number: int) -> int:
        return -(-self.frames[number] // (self.piece_frames or self.frames[number]))

    def _finished(self, task: tuple[str, int, int]) -> None:
        kind, number, _ = task
        if kind == "recording" and self._is_cut(number):
            self.left[number] = self._pieces(number)
            self.queue.extend(("piece", number, piece) for piece in range(self.left[number]))
        elif kind == "piece":
            self.left[number] -= 1
            if self.left[number] == 0:
                self.queue.append(("join", number, 0))
        else:
            self.open -= 1


def simulate(
    frames: Sequence[int],
    costs: Costs,
    workers: int,
    *,
    piece_frames: int | None = None,
    warm_frames: int = 0,
    losses: Losses | None = None,
    seed: int = 0,
) -> Outcome:
    """A batch of recordings of so many frames each on so many workers; from the same seed follows the same."""
    cluster = _Cluster(
        frames, costs, workers, piece_frames, warm_frames, losses or Losses(), np.random.default_rng(seed)
    )
    seconds = cluster.run()
    mean = float(np.mean(costs.spread))
    ideal_s = mean * (costs.recording_s * len(frames) + costs.frame_s * sum(frames)) / workers
    return Outcome(seconds, ideal_s, cluster.tasks, cluster.lost_workers, cluster.lost_s)
