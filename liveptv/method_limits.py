"""What was outside the method's limits in a run (too dense, too fast): a line for its summary."""

from __future__ import annotations

from collections.abc import Mapping

from engines.stage_report import LEFT_OUT
from engines.watched_engine import summary_of as summary_of_detection
from tracking.displacements import summary_of as summary_of_tracking


def outside_the_limits(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What was left out, not searched or not resolved, from the counts of each stage; "" if nothing."""
    detect = {name.removeprefix(LEFT_OUT): count for name, count in counts.get("detect", {}).items()}
    lines = (summary_of_detection(detect), summary_of_tracking(counts.get("track", {})))
    return "; ".join(line for line in lines if line)
