"""What a batch needs of its workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from liveptv.batch.task import Answer, Task

Perform = Callable[[Task], Answer]
MOST_LOSSES = 3
"""How often a task is given to another worker after its worker died. Machines fail one at a time; a recording whose
worker died four times (memory, a library that crashes on it) would kill every worker that there is."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of a task died: `why` says how, as far as known. `gives_up`: too often."""

    why: str
    gives_up: bool = False


class Workers(Protocol):
    """Performs tasks in any order; a task whose worker is lost is given to another one, `MOST_LOSSES` times."""

    @property
    def count(self) -> int:
        """How many there are now; it may change."""
        ...

    @property
    def title(self) -> str:
        """Who they are, for a user."""
        ...

    def submit(self, ticket: str, task: Task) -> None:
        """Queue a task; its answer comes with the ticket."""
        ...

    def answers(self, timeout_s: float) -> list[tuple[str, Answer | Lost]]:
        """What has come, waiting for the first for so long at most.

        Raises `LivePTVError` if there will be no more.
        """
        ...

    def close(self) -> None:
        """Stop all work. Idempotent."""
        ...
