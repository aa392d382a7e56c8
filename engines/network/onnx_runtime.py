"""ONNX Runtime, without its reports to Microsoft: a microscope's computer must send nothing of its own accord."""

from __future__ import annotations

import os
from typing import Any

NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Read once, when the library starts; from version 1.31 on it otherwise gives the computer a number, kept in the
user's cache folder, and reports in the background."""


def onnx_runtime() -> Any:
    """The module. Every import of it has to come through here, as the first one decides."""
    os.environ.setdefault(NO_TELEMETRY, "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime
