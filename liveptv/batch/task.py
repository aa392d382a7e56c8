"""What a worker is asked to do, and what it answers; plain data, so that any worker on any computer understands
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["recording", "piece", "join"]
State = Literal["done", "cut", "piece", "busy", "failed"]


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work.

    `settings` are those of the experiment, `identity` what decides the result. A `recording` of more than
    `cut_above` frames is not processed but answered with its number of frames. `pieces` are the bounds (warm,
    first, stop) of all pieces, `number` is that of this one. `replace`: an older result may be replaced.
    """

    kind: Kind
    out: str
    name: str
    recording: str
    settings: dict[str, Any]
    identity: dict[str, Any]
    version: str
    cut_above: int | None = None
    pieces: tuple[tuple[int, int, int], ...] = ()
    number: int = 0
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a task.

    `done`: `marker` is that of the result, which `was_there` before. `cut`: the recording has `frames` frames.
    `busy`: `why` says who has it. `failed`: `why`.
    """

    state: State
    why: str = ""
    marker: dict[str, Any] = field(default_factory=dict)
    was_there: bool = False
    frames: int = 0
    worker: str = ""
    seconds: float = 0.0
