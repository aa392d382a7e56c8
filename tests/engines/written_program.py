"""The GPU program as ONNX, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from engines.cuda.layout import FrameFormat
from engines.cuda.unpacking import Answer
from engines.flatfield import FlatField
from engines.network.model import OnnxModel
from engines.tensorrt.onnx_file import DARK, FACTOR, RAW, write_onnx


def session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def raw_bytes(image: np.ndarray) -> np.ndarray:
    """As a GPU gets them: 16-bit pixels are pairs of bytes, the low one first."""
    return image if image.dtype == np.uint8 else image.astype("<u2").view(np.uint8).reshape(*image.shape, 2)


class WrittenProgram:
    """The program of a model file for frames of one format."""

    def __init__(self, path: Path, frame: FrameFormat, *, half: bool) -> None:
        self.frame = frame
        self.file = write_onnx(path, OnnxModel(path), frame, half=half)
        self._session = session(self.file)

    def __call__(self, image: np.ndarray, field: FlatField | None = None) -> tuple[Answer, np.ndarray]:
        """The answer, and the maps (H/4, W/4, slots, values)."""
        given = {RAW: raw_bytes(image)}
        if field is not None:
            given |= {DARK: field.dark, FACTOR: field.factor}
        kept, summary, maps = self._session.run(["kept", "summary", "maps"], given)
        return Answer(kept, summary), maps[0]
