"""A DeepTrack pipeline with one bead, for tests; needs deeptrack."""

from __future__ import annotations

from pathlib import Path

from calibration.deeptrack.loading import load_pipeline
from calibration.deeptrack.recording import Recorder

BEADS = """
import deeptrack as dt
import numpy as np
bead = dt.Sphere(
    position=lambda: 8 + 32 * np.random.rand(2),
    radius=lambda: (0.3 + 0.4 * np.random.rand()) * 1e-6,
    intensity=lambda: 10 + 5 * np.random.rand(),
)
optics = dt.Fluorescence(NA=0.8, wavelength=600e-9, resolution=1e-6, magnification=5, output_region=(0, 0, 48, 48))
"""


def recorder_of(tmp_path: Path, text: str, name: str = "") -> Recorder:
    """Of a file with this text."""
    path = tmp_path / "beads.py"
    path.write_text(text, encoding="utf-8")
    return Recorder(load_pipeline(path, name))
