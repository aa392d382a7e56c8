"""The protocol of a pipeline stage: an object with a `step`, without a thread, that counts its work."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stream.messages import StageState


@runtime_checkable
class Stage(Protocol):
    """One pipeline stage. Its caller (a process, a thread, a test) calls `step` until it returns False.

    A stage acknowledges its input only after its output is safe downstream, so that a stage that is killed and
    started again loses nothing.
    """

    @property
    def name(self) -> str:
        """`acquire`, `detect`, `track`, `write` or `control`."""
        ...

    @property
    def state(self) -> StageState:
        """State of the stage."""
        ...

    def step(self, timeout_s: float) -> bool:
        """Do one piece of work, waiting at most `timeout_s` for input; False once nothing more will come.

        Raises a `LivePTVError` if the stage cannot continue.
        """
        ...

    def counts(self) -> dict[str, int]:
        """Totals since the start: `received`, `sent`, `dropped`, and other counts of the stage."""
        ...

    def gauges(self) -> dict[str, float]:
        """Current values, with units in the names: `queue`, `latency_ms`, `particles` ..."""
        ...

    def close(self) -> None:
        """Release all resources, also after a failure. Idempotent."""
        ...
