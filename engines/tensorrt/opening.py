"""Opening TensorRT on this computer's GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from engines.cuda.driver.device import open_cuda
from engines.cuda.driver.first_gpu import first_gpu
from engines.engine import BackEndError
from engines.file_hash import file_hash
from engines.tensorrt.cache import EngineCache
from engines.tensorrt.library import library_for, library_to_build_with, load_library
from engines.tensorrt.plans import Plans
from engines.tensorrt.runner import TensorRTBackEnd

log = logging.getLogger(__name__)


def open_tensorrt(*, half: bool, say: Callable[[str], None] = log.info) -> TensorRTBackEnd:
    """The library for the first GPU, on it. Raises `BackEndError` where there is none, with what to do."""
    loaded = load_library(library_for(first_gpu()))
    device = open_cuda()
    return TensorRTBackEnd(device, Plans(loaded, device.facts, half), say)


def open_to_build(
    *, half: bool, say: Callable[[str], None] = log.info
) -> tuple[Plans, TensorRTBackEnd | None, str]:
    """The library to build with, and what runs it here: None, and why, where nothing does.

    Raises `BackEndError`, with what to do, where no library can build here.
    """
    library = library_to_build_with()
    try:
        back_end = open_tensorrt(half=half, say=say)
    except BackEndError as error:
        if not library.is_portable:
            raise
        return Plans(load_library(library), None, half), None, str(error)
    return back_end.plans, back_end, ""


def why_no_engine(model: Path) -> str:
    """That an engine has to be built first, and how; "" where there is one, or it is built in seconds."""
    if library_for(first_gpu()).is_portable or not model.is_file():
        return ""
    if EngineCache().built(file_hash(model), model.parent):
        return ""
    return f"no engine was built for {model.name}: run `liveptv engine build` with the size of the images"
