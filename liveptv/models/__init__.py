"""The models that come with the program; docs/network.md tells how they were trained."""

from __future__ import annotations

from pathlib import Path

SHIPPED_MODEL = Path(__file__).parent / "simulated.onnx"
"""For the optics of the simulated microscope."""
SHIPPED_VOLUME_MODEL = Path(__file__).parent / "volumes.onnx"
"""For volumes, spots of 1.3 voxels along all axes: where trainings of other optics start."""
