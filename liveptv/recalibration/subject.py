"""What a run's recalibration is about; the session hands it to the process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, its references, what is known, and `output`, the run's file, beside which proposals are written."""

    model: Path
    output: Path
    run_id: str
    bright: Path | None = None
    dark: Path | None = None
    wall_distance_um: float | None = None
    wall_focus_um: float | None = None
    refraction_factor: float = 1.0
