"""How long a batch will still take."""

from __future__ import annotations

import math
from collections.abc import Sequence

from liveptv.batch.jobs import Job, JobState

IN_WORK = 0.5
"""Part of a recording that is in work which counts as done, on average: it may have just begun or be nearly
done.
"""


def time_left_s(jobs: Sequence[Job], elapsed_s: float, workers: int) -> float:
    """Seconds left, by the bytes of the recordings done since the start and those left; NaN before the first."""
    done = sum(job.size * job.part_done for job in jobs if job.state is not JobState.THERE)
    still = sorted((job.size * (1.0 - job.part_done) for job in jobs if job.is_open), reverse=True)
    in_work = IN_WORK * sum(still[:workers])
    if done <= 0 or elapsed_s <= 0:
        return math.nan
    return (sum(still) - in_work) * elapsed_s / (done + in_work)


def in_words(seconds: float) -> str:
    """A time, as short as it may be: 40 s, 12 min, 3 h 20 min."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
