"""The loop of each training process: steps until the time is over, scores and checkpoints."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from calibration.errors import CalibrationError
from calibration.training import checkpoint
from calibration.training.checkpoint import Course
from calibration.training.group.meeting import LostPeerError, PeerFailedError, check_alike, joined
from calibration.training.group.member import Member
from calibration.training.method import Learnt, Method
from calibration.training.settings import TrainingError, TrainingSettings
from calibration.training.trainer import Trainer

REPORT_S = 1.0
SMOOTHING = 0.98
LOST = 75
"""Exit code of a process that ends because another one is gone."""
SCORING_PART = 0.2
"""Largest part of the time that scores take, where a score takes long against the time between two."""
# While the learning rate is high, the loss need not fall.
SETTLING_PART = 0.9


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be trained: settings, images, method, weights to start from, what all processes must agree on."""

    settings: TrainingSettings
    recipe: Callable[[], Learnt]
    method: Method
    weights: dict[str, Any] | None
    agreed: str = ""

    def in_words(self, made_from: str) -> str:
        """The same for every process that trains the same, wherever its files are."""
        start = self.settings.start_from
        named = self.settings.model_copy(update={"start_from": start and Path(start.name)})
        return self.agreed + checkpoint.kept(named, made_from)


class Messages(Protocol):
    """A queue to this process's or to another one's main thread."""

    def put(self, item: tuple[Any, ...], /) -> None:
        """Send a message."""
        ...


class Stop(Protocol):
    """An event of this process or of another one."""

    def is_set(self) -> bool:
        """Whether the training is to end."""
        ...


def run(member: Member, work: Work, messages: Messages, stop: Stop) -> None:
    """Train as this member; reports progress through `messages`, and finally ("done", `Course`).

    A failure is reported as ("failed", text), ("lost", text) for the loss of another
    process or ("elsewhere",) where another one says why; a process that was started for the training ends with it.
    """
    spawned = not member.alone and not member.launched
    if spawned and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        threads = member.threads()
        if threads is not None:
            torch.set_num_threads(threads)
        if work.settings.device == "cuda":
            torch.cuda.set_device(member.local_rank)
        with joined(member, work.settings.device):
            course = _train(member, work, messages, stop)
        if member.first or not spawned:
            messages.put(("done", course.with_arrays()))
    except LostPeerError as error:
        if spawned:
            raise SystemExit(LOST) from error
        messages.put(("lost", str(error)))
    except PeerFailedError as error:
        if spawned:
            raise SystemExit(LOST) from error
        messages.put(("elsewhere",))
    except Exception as error:  # any failure must be reported to the process that started the training
        named = str(error) if isinstance(error, CalibrationError) else f"{type(error).__name__}: {error}"
        messages.put(("failed", named))
        if spawned and isinstance(
            error, CalibrationError
        ):  # said in one line by the program that started this
            raise SystemExit(1) from error
        if spawned:
            raise


def _train(member: Member, work: Work, messages: Messages, stop: Stop) -> Course:
    settings = work.settings
    device = torch.device(settings.device)
    try:
        trainer, course = _prepared(member, work)
    except Exception:
        check_alike(member, None, device)
        raise
    check_alike(member, work.in_words(trainer.material.made_from), device)
    trainer.start_alike()
    messages.put(("joined",))
    loop = _Loop(trainer, course, messages) if member.first else None
    part, ended = 0.0, False
    orphaned = _Orphaned(member)
    while not ended:
        if orphaned():
            raise TrainingError("the program that started this training was killed")
        if loop is not None:
            part = loop.part()
        out_of_steps = settings.steps is not None and trainer.steps + 1 >= settings.steps
        over = part >= 1 or stop.is_set() or out_of_steps or (loop is not None and loop.stuck)
        losses, part, ended = trainer.step(min(part, 1.0), over)
        if loop is not None:
            loop.after(float(losses.total.detach()), ended)
    return course


def _prepared(member: Member, work: Work) -> tuple[Trainer, Course]:
    """The trainer as it starts; the first process reads the checkpoint, and the others get its state."""
    trainer = Trainer(work.settings, work.recipe(), member.rank, work.method)
    if work.weights is not None:
        trainer.start_from(work.weights)
    folder = work.settings.checkpoint if member.first else None
    course = None if folder is None else checkpoint.resume(folder, trainer)
    return trainer, course or Course()


class _Orphaned:
    """Whether the program that started this process (this one's training, or torchrun) was killed."""

    def __init__(self, member: Member) -> None:
        self._parent = None if member.alone else multiprocessing.parent_process()
        # Windows leaves a process the number of its dead parent
        self._launcher = os.getppid() if member.launched and os.name == "posix" else None

    def __call__(self) -> bool:
        if self._launcher is not None:
            return os.getppid() != self._launcher
        return self._parent is not None and not self._parent.is_alive()


class _Loop:
    """What the first process does between steps: reports, scores, checkpoints."""

    def __init__(self, trainer: Trainer, course: Course, messages: Messages) -> None:
        self._trainer, self._course, self._messages = trainer, course, messages
        self._settings = trainer.settings
        self._examine = trainer.method.examine(trainer.settings, trainer.material, trainer.method)
        self._start_s = time.monotonic() - course.trained_s
        self._score_s = course.trained_s + self._settings.score_every_s
        self._report_s = 0.0
        self._loss = float("nan")
        self.stuck = False

    def part(self) -> float:
        """The part of the training that is over."""
        by_time = (time.monotonic() - self._start_s) / (60.0 * self._settings.minutes)
        by_steps = self._trainer.steps / self._settings.steps if self._settings.steps else 0.0
        return max(by_time, by_steps)

    def after(self, loss: float, ended: bool) -> None:
        """After a step: report, and from time to time score and save."""
        self._loss = loss if np.isnan(self._loss) else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        course, settings = self._course, self._settings
        course.trained_s = time.monotonic() - self._start_s
        if ended or course.trained_s >= self._score_s:
            self._score()
            took_s = time.monotonic() - self._start_s - course.trained_s
            self._score_s = course.trained_s + max(settings.score_every_s, took_s / SCORING_PART)
            if settings.checkpoint is not None:
                checkpoint.save(settings.checkpoint, self._trainer, course)
        if ended or course.trained_s >= self._report_s:
            self._report_s = course.trained_s + REPORT_S
            steps = self._trainer.steps
            last = course.scores[-1] if course.scores else {}
            self._messages.put(("at", min(1.0, self.part()), steps, self._loss, last))

    def _score(self) -> None:
        course = self._course
        held_out_loss, scores = self._examine(self._trainer.averaged, self._trainer.device)
        at = {"trained_s": round(course.trained_s, 1), "steps": self._trainer.steps, "loss": self._loss}
        course.scores.append(at | {"held_out_loss": held_out_loss} | scores)
        # the counts of missed and false particles are too few to choose by
        if held_out_loss <= course.best:
            course.best, course.best_at_s = held_out_loss, course.trained_s
            state = self._trainer.averaged.state_dict()
            course.weights = {name: value.detach().cpu().clone() for name, value in state.items()}
        late = course.trained_s - course.best_at_s > self._settings.patience * 60.0 * self._settings.minutes
        self.stuck = bool(late and course.weights and self.part() > SETTLING_PART)
