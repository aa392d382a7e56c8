"""Building the engine of a model file: export to ONNX, build, compare with ONNX Runtime, keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.cuda.check import EXACT, HALF, Agreement, check_slot, drawn_frame, reference_answer
from engines.cuda.layout import FrameFormat
from engines.cuda.slot import Slot
from engines.engine import BackEndError
from engines.flatfield import FlatField
from engines.network.model import OnnxModel
from engines.tensorrt.build import build_plan
from engines.tensorrt.library import Progress
from engines.tensorrt.onnx_file import write_onnx
from engines.tensorrt.runner import TensorRTBackEnd, TensorRTRunner


def make_engine(
    path: Path, frame: FrameFormat, back_end: TensorRTBackEnd, progress: Progress
) -> tuple[Path, Agreement]:
    """Build and keep the engine of a model for frames of one format; returns its path and the comparison.

    Raises `BackEndError` where TensorRT cannot build it, `WrongNumbersError` where the engine does not find what
    ONNX Runtime finds (it is not kept then), `ConfigurationError` for an unusable model.
    """
    model, frame = OnnxModel(path), back_end.frame_of(frame)
    # an even reference is enough: the references are inputs
    full = np.full((frame.height, frame.width), float((1 << 8 * frame.bytes_per_pixel) - 1))
    flat_field = FlatField(full) if frame.flat_field else None
    plan = build_plan(back_end.trt, write_onnx(path, model, frame, half=back_end.half), progress)
    image = drawn_frame(model.card, model.psf(), frame, flat_field)
    reference = reference_answer(model, image, flat_field)
    try:
        runner = TensorRTRunner(back_end.trt, back_end.device, plan, frame, flat_field)
        slot = Slot(back_end.device, runner)
        slot.fill(image)
        found = check_slot(slot, reference, model.card, HALF if back_end.half else EXACT)
    except RuntimeError as error:
        if isinstance(error, BackEndError):
            raise
        raise BackEndError(
            f"the engine that was built does not run: {' '.join(str(error).split())}"
        ) from error
    return back_end.cache.write(back_end.key(path, frame), plan, {"agreement": str(found)}), found
