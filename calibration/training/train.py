"""Training of a network: in this process, or in several that average their gradients."""

from __future__ import annotations

import multiprocessing as mp
import queue
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from calibration.training.checkpoint import Course
from calibration.training.material import Recipe
from calibration.training.method import Method
from calibration.training.settings import TrainingError, TrainingSettings
from calibration.training.trainer import OURS

WAIT_S = 0.2
LAST_WORDS_S = 5.0
END_S = 30.0


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Progress of a training: finished part, steps, running mean of the loss, and its last scores."""

    part: float
    steps: int
    loss: float
    scores: dict[str, Any]


def train(
    recipe: Recipe,
    settings: TrainingSettings,
    weights: dict[str, Any] | None = None,
    on_progress: Callable[[TrainingProgress], None] = lambda _progress: None,
    method: Method = OURS,
) -> Course:
    """Train until the time is over, the scores no longer improve, or Ctrl-C; returns the best weights.

    `weights` are those to start from, `method` says which network is trained. Raises
    `TrainingError` where a process fails.
    """
    context = mp.get_context("spawn")
    messages: Any = context.Queue()
    stop = context.Event()
    with tempfile.TemporaryDirectory(prefix="liveptv-train-", ignore_cleanup_errors=True) as folder:
        work = (settings, recipe, method, weights, Path(folder) / "meeting", messages, stop)
        from calibration.training.worker import run

        workers: list[Any]
        if settings.processes == 1:
            workers = [threading.Thread(target=run, args=(0, *work), daemon=True)]
        else:
            workers = [
                context.Process(target=run, args=(rank, *work), daemon=True)
                for rank in range(settings.processes)
            ]
        for worker in workers:
            worker.start()
        try:
            return _follow(workers, messages, stop, on_progress)
        finally:
            stop.set()
            for worker in workers:
                worker.join(END_S if not isinstance(worker, BaseProcess) or worker.is_alive() else None)
                if isinstance(worker, BaseProcess) and worker.is_alive():
                    worker.terminate()
                    worker.join()


def _follow(
    workers: list[Any], messages: Any, stop: Any, on_progress: Callable[[TrainingProgress], None]
) -> Course:
    while True:
        try:
            kind, *what = messages.get(timeout=WAIT_S)
        except queue.Empty:
            _check(workers, messages)
            continue
        except KeyboardInterrupt:
            if stop.is_set():
                raise
            stop.set()
            continue
        if kind == "at":
            on_progress(TrainingProgress(*what))
        elif kind == "failed":
            raise TrainingError(f"the training failed: {what[0]}")
        else:
            return what[0].with_tensors()


def _check(workers: list[Any], messages: Any) -> None:
    """Raise where a process has died without a report."""
    for worker in workers:
        if isinstance(worker, BaseProcess) and worker.exitcode not in (None, 0):
            try:
                while True:
                    kind, *what = messages.get(timeout=LAST_WORDS_S)
                    if kind == "failed":
                        raise TrainingError(f"the training failed: {what[0]}")
            except queue.Empty:
                raise TrainingError(
                    f"a training process died with exit code {worker.exitcode} (out of memory?); start again "
                    "with fewer processes, with the same --checkpoint to continue"
                ) from None
