"""A file with DetNet3D or DM-DetNet3D, run by ONNX Runtime on the calling thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bounded_reading import MOST_MODEL_BYTES, read_file
from engines.comparison.volumes.card import HourglassCard, hourglass_card
from engines.comparison.volumes.input import normalised, padded
from engines.comparison.volumes.kinds import TITLES
from engines.engine import BackEndError
from engines.network.session import OnnxSession
from stream.errors import ConfigurationError

INPUT, OUTPUT = "volume", "map"
LONGEST_RUN_S = 600.0
"""Longest time for one stack, s: 512 x 512 x 10 voxels take some 15 on one core."""
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
        self._session = OnnxSession(path)
        self.card: HourglassCard = hourglass_card(self._session.metadata, str(path))
        self._path = path
        names = self._session.ends
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
        size = f"a volume of {' x '.join(str(count) for count in volume.shape)} voxels"
        try:
            answer = self._session.run(OUTPUT, {INPUT: volume[None, None]}, LONGEST_RUN_S, size)
        except BackEndError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common class but this one
            raise BackEndError(f"{self._path} failed on {size}: {' '.join(str(error).split())}") from error
        if answer.shape[2:] != volume.shape:
            raise BackEndError(f"{self._path} gives maps of another shape than the volume; export it again")
        found: npt.NDArray[np.float32] = answer[0, 0]
        return found
