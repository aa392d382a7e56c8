"""What a stage of the pipeline is: an object with a `step`, no thread of its own, and counts of its work."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stream.messages import StageState


@runtime_checkable
class Stage(Protocol):
    """One stage. Whoever runs it (a process, a thread, a test) calls `step` until it returns False.

    A stage acknowledges its input only after its own output is safe downstream, so that a stage that is
    killed and started again loses nothing.
    """

    @property
    def name(self) -> str:
        """`acquire`, `detect`, `track`, `write` or `control`."""
        ...

    @property
    def state(self) -> StageState:
        """Where the stage is in its life."""
        ...

    def step(self, timeout_s: float) -> bool:
        """Do one piece of work, waiting at most `timeout_s` for input; False once there is nothing to come.

        Raises a `LivePTVError` when the stage cannot go on.
        """
        ...

    def counts(self) -> dict[str, int]:
        """Totals since the start: `received`, `sent`, `dropped`, and what else the stage counts."""
        ...

    def gauges(self) -> dict[str, float]:
        """Momentary values, units in the names: `queue`, `latency_ms`, `particles` ..."""
        ...

    def close(self) -> None:
        """Release what the stage holds, also after a failure. Idempotent."""
        ...
