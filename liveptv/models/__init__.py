"""The models that come with the program; docs/network.md tells how they were trained."""

from __future__ import annotations

from pathlib import Path

SHIPPED_MODEL = Path(__file__).parent / "simulated.onnx"
"""For the optics of the simulated microscope."""
