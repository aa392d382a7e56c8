"""Training of a network: in this process, in several that it starts, or as one of those that torchrun started."""

from __future__ import annotations

import multiprocessing as mp
import queue
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from calibration.training.checkpoint import Course
from calibration.training.group.member import Member
from calibration.training.method import Learnt, Method
from calibration.training.settings import SaidElsewhereError, TrainingError, TrainingSettings
from calibration.training.trainer import OURS
from calibration.training.worker import LOST, Work, run

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
    recipe: Callable[[], Learnt],
    settings: TrainingSettings,
    weights: dict[str, Any] | None = None,
    on_progress: Callable[[TrainingProgress], None] = lambda _progress: None,
    method: Method = OURS,
    member: Member | None = None,
    agreed: str = "",
) -> Course:
    """Train until the time is over, the scores no longer improve, or Ctrl-C; returns the best weights.

    `weights` are those to start from, `method` says which network is trained. `member` is this process's part where
    a launcher started all of them; only the first one's `Course` has weights then. All must have the same `agreed`,
    in words.

    Raises `TrainingError` where a process fails, `SaidElsewhereError` where another process reports it.
    """
    context = mp.get_context("spawn")
    here = member or (Member() if settings.processes == 1 else None)
    # in one program without semaphores of the system, which a killed program would leave behind
    messages: Any = context.Queue() if here is None else queue.Queue()
    stop: Any = context.Event() if here is None else threading.Event()
    work = Work(settings, recipe, method, weights, agreed)
    with tempfile.TemporaryDirectory(prefix="liveptv-train-", ignore_cleanup_errors=True) as folder:
        workers: list[Any]
        if here is not None:
            workers = [threading.Thread(target=run, args=(here, work, messages, stop), daemon=True)]
        else:
            size = settings.processes
            members = [Member(rank, size, rank, size, Path(folder) / "meeting") for rank in range(size)]
            workers = [
                context.Process(target=run, args=(each, work, messages, stop), daemon=True)
                for each in members
            ]
        for worker in workers:
            worker.start()
        try:
            return _follow(member or Member(), workers, messages, stop, on_progress)
        finally:
            stop.set()
            # a launched process's thread can wait for others for minutes; it ends with the program
            launched = member is not None and member.launched
            for worker in workers:
                worker.join(_patience_s(worker, launched))
                if isinstance(worker, BaseProcess) and worker.is_alive():
                    worker.terminate()
                    worker.join()


def _patience_s(worker: Any, launched: bool) -> float | None:
    if launched:
        return WAIT_S
    return END_S if not isinstance(worker, BaseProcess) or worker.is_alive() else None


def _follow(
    member: Member,
    workers: list[Any],
    messages: Any,
    stop: Any,
    on_progress: Callable[[TrainingProgress], None],
) -> Course:
    joined = False
    while True:
        try:
            kind, *what = messages.get(timeout=WAIT_S)
            if kind == "joined":
                joined = True
                if member.launched:
                    _signals_stop(stop if member.first else None)
        except queue.Empty:
            _check(workers, messages)
            continue
        except KeyboardInterrupt:
            if member.launched and not joined and not member.first:
                raise SaidElsewhereError("stopped before the training began") from None
            if stop.is_set() or (member.launched and not joined):
                raise
            stop.set()
            continue
        if kind == "at":
            on_progress(TrainingProgress(*what))
        elif kind == "done":
            return what[0].with_tensors()
        elif kind != "joined":
            raise _failure(kind, *what)


def _signals_stop(stop: Any | None) -> None:
    """Let signals to one of several launched processes set `stop`, or do nothing.

    Ctrl-C and a cluster's signals reach all of them, those of a cluster twice, as the launcher sends them on, and a
    launcher ends all when one has failed. The first process decides, and the others hear of it with the next step.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_IGN if stop is None else lambda _number, _frame: stop.set())


def _failure(kind: str, text: str = "") -> TrainingError:
    if kind == "elsewhere":
        return SaidElsewhereError("another process of the training has failed")
    return TrainingError(text if kind == "lost" else f"the training failed: {text}")


def _check(workers: list[Any], messages: Any) -> None:
    """Raise where a process has died without a report."""
    ended = [
        worker for worker in workers if isinstance(worker, BaseProcess) and worker.exitcode not in (None, 0)
    ]
    if not ended:
        return
    try:
        while True:
            kind, *what = messages.get(timeout=LAST_WORDS_S)
            if kind == "failed":
                raise TrainingError(f"the training failed: {what[0]}")
    except queue.Empty:
        # those that only noticed that another one is gone come last
        codes = sorted((worker.exitcode == LOST, worker.exitcode) for worker in workers if worker.exitcode)
        raise TrainingError(
            f"a training process died with exit code {codes[0][1]} (out of memory?); start again "
            "with fewer processes, with the same --checkpoint to continue"
        ) from None
