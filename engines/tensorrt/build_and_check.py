"""Building the engine of a model file: write as ONNX, build, compare with ONNX Runtime where it can run, keep."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from engines.cuda.check import EXACT, HALF, Agreement, check_slot, drawn_frame, reference_answer
from engines.cuda.layout import FrameFormat
from engines.cuda.slot import Slot
from engines.engine import BackEndError
from engines.flatfield import FlatField
from engines.network.model import OnnxModel
from engines.tensorrt.messages import Progress
from engines.tensorrt.plans import Plans
from engines.tensorrt.runner import TensorRTBackEnd


def make_engine(
    path: Path, frame: FrameFormat, plans: Plans, back_end: TensorRTBackEnd | None, progress: Progress
) -> tuple[Path, Agreement | None]:
    """Build and keep the engine of a model for frames of one format; returns its file and the comparison.

    Without a `back_end` to run it, it is compared when it first runs. Raises `BackEndError` where TensorRT cannot
    build it, `WrongNumbersError` where the engine does not find what ONNX Runtime finds (it is not kept then),
    `ConfigurationError` for an unusable model, `OutputError` where it cannot be kept.
    """
    model = OnnxModel(path)
    plan = plans.build(path, model, frame, progress)
    found = None if back_end is None else _compare(path, model, plans.frame_of(frame), back_end, plan)
    return plans.keep(path, frame, plan, "" if found is None else str(found)), found


def _compare(
    path: Path, model: OnnxModel, frame: FrameFormat, back_end: TensorRTBackEnd, plan: bytes
) -> Agreement:
    # an even reference is enough: the references are inputs
    full = np.full((frame.height, frame.width), float((1 << 8 * frame.bytes_per_pixel) - 1))
    flat_field = FlatField(full) if frame.flat_field else None
    image = drawn_frame(model.card, model.psf(), frame, flat_field)
    reference = reference_answer(model, image, flat_field)
    try:
        with closing(Slot(back_end.device, back_end.runner_of(plan, path, frame, flat_field))) as slot:
            slot.fill(image)
            return check_slot(slot, reference, model.card, HALF if back_end.half else EXACT)
    except RuntimeError as error:
        if isinstance(error, BackEndError):
            raise
        raise BackEndError(
            f"the engine that was built does not run: {' '.join(str(error).split())}"
        ) from error
