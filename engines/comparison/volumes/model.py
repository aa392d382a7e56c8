"""A file with DetNet3D or DM-DetNet3D, run by ONNX Runtime on the calling thread."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bounded_reading import MOST_MODEL_BYTES, read_file
from engines.comparison.volumes.card import HourglassCard, hourglass_card
from engines.comparison.volumes.input import normalised, padded
from engines.comparison.volumes.kinds import TITLES
from engines.engine import BackEndError
from engines.network.onnx_runtime import onnx_runtime
from engines.network.time_limit import LIMITS
from stream.errors import ConfigurationError

INPUT, OUTPUT = "volume", "map"
LOAD_S = 60.0
"""Longest time to open a file, s; those of this program take 0.1."""
LONGEST_RUN_S = 600.0
"""Longest time for one stack, s: 512 x 512 x 10 voxels take some 15 on one core."""
ERRORS_ONLY, NOTHING = 3, 4
"""Log levels of ONNX Runtime."""
MARKS = tuple(f'"kind":"{kind}"'.encode() for kind in TITLES)
"""What only a file with the card of one of these networks holds."""


def is_hourglass(path: Path) -> bool:
    """Whether a model file says that it holds one of these networks, without opening it."""
    try:
        content = read_file(path, MOST_MODEL_BYTES)
    except (OSError, ValueError):
        return False  # whoever opens it says why
    return any(mark in content for mark in MARKS)


class HourglassModel:
    """The network of a `.onnx` file and its card; any number of threads may call it.

    Raises `ConfigurationError` for a file that is missing, is no ONNX, or holds none of these networks.
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
                self._session = onnxruntime.InferenceSession(
                    content, options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # ONNX Runtime's exceptions have no common class but this one
            detail = " ".join(str(error).split())
            raise ConfigurationError(f"{path} is not an ONNX model, or damaged: {detail}") from error
        self.card: HourglassCard = hourglass_card(
            self._session.get_modelmeta().custom_metadata_map, str(path)
        )
        self._path = path
        names = [
            [end.name for end in ends] for ends in (self._session.get_inputs(), self._session.get_outputs())
        ]
        if names != [[INPUT], [OUTPUT]]:
            raise ConfigurationError(
                f"{path} has inputs and outputs {names}, not {INPUT} and {OUTPUT}; export it again"
            )

    def __call__(
        self, image: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.float32]:
        """The map, within 0 to 1, of a stack (Z, H, W) of grey values without the `missing` slices (Z,)."""
        slices, height, width = image.shape
        return self.map_of(padded(normalised(image, missing)))[:slices, :height, :width]

    def map_of(self, volume: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The map of a stack with mean 0, standard deviation 1 and sizes that are `input.MULTIPLE`s.

        Raises `BackEndError` where that takes longer than `LONGEST_RUN_S` or gives another shape.
        """
        options = self._library.RunOptions()
        options.log_severity_level = NOTHING
        stopped: list[bool] = []

        def stop() -> None:
            stopped.append(True)
            options.terminate = True

        with LIMITS.limited(LONGEST_RUN_S, stop):
            try:
                (answer,) = self._session.run([OUTPUT], {INPUT: volume[None, None]}, options)
            except Exception as error:  # as above
                size = " x ".join(str(count) for count in volume.shape)
                detail = f"it took over {LONGEST_RUN_S:g} s" if stopped else " ".join(str(error).split())
                raise BackEndError(f"{self._path} failed on a volume of {size} voxels: {detail}") from error
        if answer.shape[2:] != volume.shape:
            raise BackEndError(f"{self._path} gives maps of another shape than the volume; export it again")
        found: npt.NDArray[np.float32] = answer[0, 0]
        return found
