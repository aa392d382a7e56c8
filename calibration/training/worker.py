"""The loop of each training process: steps until the time is over, scores and checkpoints."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from datetime import timedelta
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from calibration.training import checkpoint
from calibration.training.checkpoint import Course
from calibration.training.material import Recipe
from calibration.training.method import Method
from calibration.training.scoring import HeldOut
from calibration.training.settings import TrainingError, TrainingSettings
from calibration.training.trainer import Trainer

REPORT_S = 1.0
SMOOTHING = 0.98
PEER_TIMEOUT = timedelta(minutes=10)
HELD_OUT_IMAGES = 160
AT_ONCE = 16
# While the learning rate is high, the loss need not fall.
SETTLING_PART = 0.9


def run(
    rank: int,
    settings: TrainingSettings,
    recipe: Recipe,
    method: Method,
    weights: dict[str, Any] | None,
    meeting: Path,
    messages: Queue[Any],
    stop: Event,
) -> None:
    """Train as process `rank`; reports progress through `messages`, and finally ("done", `Course`).

    A failure is reported as ("failed", text), and also raised in a process that was started for the training.
    """
    if settings.processes > 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if settings.processes > 1:
            torch.set_num_threads(1)
            store = dist.FileStore(str(meeting), settings.processes)
            dist.init_process_group(
                "gloo", store=store, rank=rank, world_size=settings.processes, timeout=PEER_TIMEOUT
            )
        course = _train(rank, settings, recipe, method, weights, messages, stop)
        if rank == 0:
            messages.put(("done", course.with_arrays()))
        if settings.processes > 1:
            dist.destroy_process_group()
    except Exception as error:  # any failure must be reported to the process that started the training
        messages.put(("failed", f"{type(error).__name__}: {error}"))
        if settings.processes > 1:
            raise


def _train(
    rank: int,
    settings: TrainingSettings,
    recipe: Recipe,
    method: Method,
    weights: dict[str, Any] | None,
    messages: Queue[Any],
    stop: Event,
) -> Course:
    trainer = Trainer(settings, recipe(), rank, method)
    if weights is not None:
        trainer.start_from(weights)
    folder = settings.checkpoint
    course = (checkpoint.resume(folder, trainer) if folder is not None else None) or Course()
    loop = _Loop(trainer, course, messages) if rank == 0 else None
    part, ended = 0.0, False
    parent = multiprocessing.parent_process() if settings.processes > 1 else None
    while not ended:
        if parent is not None and not parent.is_alive():
            raise TrainingError("the program that started this training was killed")
        if loop is not None:
            part = loop.part()
        out_of_steps = settings.steps is not None and trainer.steps + 1 >= settings.steps
        over = part >= 1 or stop.is_set() or out_of_steps or (loop is not None and loop.stuck)
        losses, part, ended = trainer.step(min(part, 1.0), over)
        if loop is not None:
            loop.after(float(losses.total.detach()), ended)
    return course


class _Loop:
    """What the first process does between steps: reports, scores, checkpoints."""

    def __init__(self, trainer: Trainer, course: Course, messages: Queue[Any]) -> None:
        self._trainer, self._course, self._messages = trainer, course, messages
        self._settings = trainer.settings
        self._held_out = HeldOut(trainer.material, HELD_OUT_IMAGES)
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
            self._score_s = course.trained_s + settings.score_every_s
            self._score()
            if settings.checkpoint is not None:
                checkpoint.save(settings.checkpoint, self._trainer, course)
        if ended or course.trained_s >= self._report_s:
            self._report_s = course.trained_s + REPORT_S
            steps = self._trainer.steps
            last = course.scores[-1] if course.scores else {}
            self._messages.put(("at", min(1.0, self.part()), steps, self._loss, last))

    def _score(self) -> None:
        course = self._course
        scores = self._held_out.score(self._detect, read=self._trainer.method.decode)
        held_out_loss = self._held_out_loss()
        at = {"trained_s": round(course.trained_s, 1), "steps": self._trainer.steps, "loss": self._loss}
        course.scores.append(at | {"held_out_loss": held_out_loss} | scores.summary())
        # the counts of missed and false particles are too few to choose by
        if held_out_loss <= course.best:
            course.best, course.best_at_s = held_out_loss, course.trained_s
            state = self._trainer.averaged.state_dict()
            course.weights = {name: value.detach().cpu().clone() for name, value in state.items()}
        late = course.trained_s - course.best_at_s > self._settings.patience * 60.0 * self._settings.minutes
        self.stuck = bool(late and course.weights and self.part() > SETTLING_PART)

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        trainer, scene = self._trainer, self._held_out.scene
        at_once = self._held_out.at_once(AT_ONCE)
        images = torch.from_numpy(scene.images)[:, None] / trainer.material.noise_contrast
        answers = [trainer.averaged(some.to(trainer.device)) for some in images.split(at_once)]
        return float(trainer.method.loss(torch.cat(answers), scene, trainer.material).total)

    @torch.no_grad()
    def _detect(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        tensor = torch.from_numpy(images).to(self._trainer.device)
        maps: npt.NDArray[np.float32] = self._trainer.averaged(tensor).float().cpu().numpy()
        return maps
