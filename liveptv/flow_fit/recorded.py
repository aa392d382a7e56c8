"""The fits of the flow that were made during a run, from its trajectory file."""

from __future__ import annotations

from pathlib import Path

from tracking.control.record import FLOW
from tracking.physics.live.findings import FlowFindings, findings_from
from tracking.trajectories.control_record import read_control


def recorded_flow(path: Path) -> list[FlowFindings]:
    """Every fit in order of time; none if the flow was not fitted. Raises `SourceError` if it cannot be read."""
    return [findings_from(entry) for entry in read_control(path) if entry.get("kind") == FLOW]
