"""A model file opened with ONNX Runtime: one session, run by any number of threads, each for a limited time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bounded_reading import MOST_MODEL_BYTES, read_file
from engines.engine import BackEndError
from engines.network.onnx_runtime import onnx_runtime
from engines.network.time_limit import LIMITS
from stream.errors import ConfigurationError

ERRORS_ONLY, NOTHING = 3, 4
"""Log levels of ONNX Runtime; nothing from a run, as its errors are raised as well."""
LOAD_S = 60.0
"""Longest time to open a file; files of this program take 0.1 s."""


class OnnxSession:
    """The graph and the metadata of a `.onnx` file. Each call runs on the calling thread.

    Raises `ConfigurationError` for a file that is missing, is not ONNX, or does not open in time.
    """

    def __init__(self, path: Path) -> None:
        self._library = onnxruntime = onnx_runtime()
        if not path.is_file():
            raise ConfigurationError(f"no model file {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        try:
            content = read_file(path, MOST_MODEL_BYTES)
            with LIMITS.limited(LOAD_S, partial(options.set_load_cancellation_flag, True)):
                self.graph: Any = onnxruntime.InferenceSession(
                    content, options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # ONNX Runtime's exceptions have no common class but this one
            detail = " ".join(str(error).split())
            raise ConfigurationError(f"{path} is not an ONNX model, or damaged: {detail}") from error
        self.metadata: dict[str, str] = self.graph.get_modelmeta().custom_metadata_map
        self._path = path

    @property
    def ends(self) -> list[list[str]]:
        """Names of the inputs and of the outputs."""
        return [[end.name for end in ends] for ends in (self.graph.get_inputs(), self.graph.get_outputs())]

    def run(
        self, output: str, given: Mapping[str, npt.NDArray[np.float32]], limit_s: float, what: str
    ) -> npt.NDArray[np.float32]:
        """One output. Raises `BackEndError` where it takes longer than `limit_s` on `what`."""
        options = self._library.RunOptions()
        options.log_severity_level = NOTHING
        stopped: list[bool] = []

        def stop() -> None:
            stopped.append(True)
            options.terminate = True

        with LIMITS.limited(limit_s, stop):
            try:
                (result,) = self.graph.run([output], dict(given), options)
            except Exception as error:  # as above
                if not stopped:
                    raise
                raise BackEndError(f"{self._path} was stopped after {limit_s:g} s on {what}") from error
        answer: npt.NDArray[np.float32] = result
        return answer
