"""How a frame's fit is decided when the frame is submitted, and what earlier fits have shown until then.

A frame goes by what all frames before it have shown that were finished when it was submitted, in their order. So
its result follows from the image, the prediction and `stream.messages.Decisions`, and a replay that is given these
comes to the same, with any number of threads.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Protocol

from engines.engine import DetectionError
from engines.refine.fit_notes import FitNotes, Given, Learnt
from engines.refine.turns import ALL, Allowance
from stream.messages import Decisions, Detections, FitDecision

SOME = 1.0, 1.0
"""Share and ms of a limited fit whose credit is given: any that is neither all nor nothing."""
FINISHED_S = 60.0
"""s that a frame of a replay waits for an earlier one to be finished; it bounds the wait should that one hang."""


class LimitedFit(Protocol):
    """A fit that can be done in part; what is fitted of a frame depends on the frames before it."""

    def notes(self) -> FitNotes:
        """Notes for a frame, which goes by what the fits so far have shown."""
        ...

    def begins(self, frame: int) -> None:
        """A frame is being worked on."""
        ...

    def ends(self, frame: int) -> None:
        """A frame is finished: no other need wait for it."""
        ...

    def learn(self, learnt: Learnt) -> None:
        """Take what a frame's notes say it has shown; in the order of frames."""
        ...


@dataclass(slots=True)
class FrameTask:
    """What was decided for a frame: how much of the fit (`decision`), and what is `allowed`."""

    frame: int
    decision: FitDecision
    allowed: Allowance = ALL
    learnt_from: int = -1
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def may_predict(self) -> bool:
        """Whether predictions may be used: the fit is there."""
        return self.decision is not FitDecision.NOT_COMPILED

    def signed(self, found: Detections) -> Detections:
        """The detections with what was decided about their frame."""
        notes = self.allowed.notes
        made = Decisions(
            fit=self.decision,
            credit=math.inf if notes is None else notes.credit,
            turns_from=-1 if notes is None else notes.turns_from,
            learnt_from=self.learnt_from,
        )
        return replace(found, info=replace(found.info, decisions=made))


class FrameTasks:
    """Decides for frames in their order, in the thread that submits them."""

    def __init__(self, fit: LimitedFit | None) -> None:
        self._fit = fit
        self._unlearnt: deque[FrameTask] = deque()
        self._learnt_from = -1

    def next(
        self, frame: int, share: float, ms: float, *, is_compiled: bool, given: Decisions | None
    ) -> FrameTask:
        """What is to be done with a frame; with `given`, what was done with it in an earlier run.

        `share` and `ms` are those of `Allowance`. Raises `DetectionError` if an earlier frame on which a replayed
        one depends does not end.
        """
        if self._fit is None:
            return FrameTask(frame, FitDecision.WHOLE)
        self._learn(None if given is None else given.learnt_from)
        if given is not None:
            decision = given.fit
        elif not is_compiled:
            decision = FitDecision.NOT_COMPILED
        elif (asked := Allowance(share, ms)).is_all:
            decision = FitDecision.WHOLE
        else:
            decision = FitDecision.NO_TIME if asked.is_none else FitDecision.LIMITED
        if decision is FitDecision.WHOLE:
            return FrameTask(frame, decision)
        notes = self._fit.notes()
        if given is not None:
            notes.given, share, ms = Given(given.credit, given.turns_from), *SOME
        if decision is not FitDecision.LIMITED:
            share, ms = 0.0, 0.0
        allowed = Allowance(share, ms, notes)
        task = FrameTask(frame, decision, allowed, self._learnt_from)
        if notes.remembered is not None:
            self._unlearnt.append(task)
        self._fit.begins(frame)
        return task

    def finished(self, task: FrameTask) -> None:
        """A frame was worked on, with or without success; from any thread."""
        if self._fit is not None:
            self._fit.ends(task.frame)
        task.finished.set()

    def _learn(self, up_to: int | None) -> None:
        """Take what frames have shown, in their order: the finished ones, or in a replay those `up_to` one."""
        while self._unlearnt and (up_to is None or self._unlearnt[0].frame <= up_to):
            first = self._unlearnt[0]
            if not first.finished.wait(0.0 if up_to is None else FINISHED_S):
                if up_to is None:
                    return
                raise DetectionError(
                    f"frame {first.frame}, on which later ones depend, was not finished in time"
                )
            self._unlearnt.popleft()
            notes = first.allowed.notes
            if self._fit is not None and notes is not None and notes.learnt is not None:
                self._fit.learn(notes.learnt)
                self._learnt_from = first.frame
