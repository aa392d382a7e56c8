"""The recordings of a batch on their way: what is to be done with each next, whatever its workers do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from liveptv import __version__
from liveptv.batch.pieces.plan import plan_pieces
from liveptv.batch.recordings.entry import Entry
from liveptv.batch.results.marker import Marker
from liveptv.batch.task import Answer, Kind, Task
from liveptv.batch.workers.interface import Lost, Workers

POLL_S = 0.5
"""Time between two looks at what else is due while no worker answers, s."""
BUSY_S = 3.0
"""Time after which a recording that somebody else has is asked for again, s. A look takes a millisecond."""


class JobState(StrEnum):
    """What became of a recording. `THERE`: its result was there before; `ELSEWHERE`: another batch has it."""

    OPEN = "open"
    DONE = "done"
    THERE = "there"
    FAILED = "failed"
    ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class Job:
    """A recording and what is known of it. `size` is its bytes, by which the time left is estimated."""

    entry: Entry
    settings: dict[str, Any]
    identity: dict[str, Any]
    size: int
    cut_above: int | None = None
    warm_frames: int = 0
    replace: bool = False
    state: JobState = JobState.OPEN
    why: str = ""
    marker: Marker | None = None
    worker: str = ""
    losses: int = 0
    pieces: tuple[tuple[int, int, int], ...] = ()
    pieces_done: set[int] = field(default_factory=set)

    @property
    def is_open(self) -> bool:
        """Whether something is still to be done."""
        return self.state is JobState.OPEN

    @property
    def part_done(self) -> float:
        """Part (0 to 1) of the work that is done."""
        if not self.is_open:
            return 1.0
        return len(self.pieces_done) / len(self.pieces) if self.pieces else 0.0


@dataclass(slots=True)
class _Asked:
    """A task that is due: which recording, what of it, and how often it was asked for."""

    job: int
    kind: Kind
    number: int = 0
    tries: int = 0


class Jobs:
    """Drives the recordings through `workers` until each is done, has failed, or is somebody else's."""

    def __init__(
        self,
        jobs: list[Job],
        out: str,
        workers: Workers,
        *,
        waits_for_others: bool = True,
        on_note: Callable[[str], None] = lambda _text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.jobs = jobs
        self._out, self._workers, self._clock = out, workers, clock
        self._waits = waits_for_others
        self._note = on_note
        self._asked: dict[str, _Asked] = {}
        self._busy: list[tuple[float, _Asked]] = []
        self._count = 0

    def begin(self, order: Iterable[int] | None = None) -> None:
        """Ask for all recordings, the largest first: the last ones to end are then small, and few workers idle."""
        open_ones = [number for number, job in enumerate(self.jobs) if job.is_open]
        largest_first = sorted(open_ones, key=lambda number: -self.jobs[number].size)
        for number in largest_first if order is None else order:
            self._ask(_Asked(number, "recording"))

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be waited for any more."""
        if not self._waits and not self._asked and self._busy:
            for _, asked in self._busy:
                job = self.jobs[asked.job]
                if job.is_open:
                    job.state = JobState.ELSEWHERE
            self._busy.clear()
        return not self._asked and not self._busy

    def poll(self, timeout_s: float = POLL_S) -> list[Job]:
        """Take answers and ask for what is due; returns the recordings of which something is new.

        Raises `LivePTVError` if there are no workers any more.
        """
        changed: list[Job] = []
        for ticket, answer in self._workers.answers(timeout_s):
            asked = self._asked.get(ticket)
            if asked is None:
                continue
            job = self.jobs[asked.job]
            changed.append(job)
            if isinstance(answer, Lost):
                self._lost(job, ticket, answer)
            else:
                del self._asked[ticket]
                self._take(job, asked, answer)
        now_s = self._clock()
        due = [asked for due_s, asked in self._busy if due_s <= now_s]
        self._busy = [(due_s, asked) for due_s, asked in self._busy if due_s > now_s]
        for asked in due:
            self._ask(asked)
        return changed

    def _ask(self, asked: _Asked) -> None:
        job = self.jobs[asked.job]
        if not job.is_open:
            return
        self._count += 1
        asked.tries += 1
        ticket = f"{self._count}-{asked.job}-{asked.kind}"
        self._asked[ticket] = asked
        self._workers.submit(
            ticket,
            Task(
                asked.kind,
                self._out,
                job.entry.name,
                str(job.entry.path),
                job.settings,
                job.identity,
                __version__,
                job.cut_above if asked.kind == "recording" else None,
                job.pieces,
                asked.number,
                job.replace,
            ),
        )

    def _lost(self, job: Job, ticket: str, lost: Lost) -> None:
        job.losses += 1
        if lost.gives_up:
            del self._asked[ticket]
            self._end(job, JobState.FAILED, lost.why)
        else:
            self._note(f"{job.entry.name}: its worker was lost ({lost.why}); another one does it")

    def _take(self, job: Job, asked: _Asked, answer: Answer) -> None:
        job.worker = answer.worker or job.worker
        if not job.is_open:
            return
        if answer.state == "busy":
            job.why = f"another batch has it: {answer.why}"
            self._busy.append((self._clock() + BUSY_S, asked))
        elif answer.state == "failed":
            self._end(job, JobState.FAILED, answer.why)
        elif answer.state == "cut":
            self._cut(job, asked.job, answer.frames)
        elif answer.state == "piece":
            job.pieces_done.add(asked.number)
            if len(job.pieces_done) == len(job.pieces):
                self._ask(_Asked(asked.job, "join"))
        else:
            job.marker = Marker.of(answer.marker)
            self._end(job, JobState.THERE if answer.was_there and not job.pieces else JobState.DONE, "")

    def _cut(self, job: Job, number: int, frames: int) -> None:
        longest = job.cut_above or frames
        pieces = plan_pieces(frames, longest, job.warm_frames)
        job.pieces = tuple((piece.warm, piece.first, piece.stop) for piece in pieces)
        for k in range(len(pieces)):
            self._ask(_Asked(number, "piece", k))

    def _end(self, job: Job, state: JobState, why: str) -> None:
        job.state, job.why = state, why
