"""Training method: the parts that differ between the networks that can be trained on the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from calibration.synthesis import Scene
from calibration.training.material import Material
from calibration.training.settings import TrainingSettings


class LossParts(Protocol):
    """A loss; only its total is minimised."""

    @property
    def total(self) -> torch.Tensor:
        """The scalar that is minimised."""
        ...

    @property
    def over(self) -> int:
        """What the total is a mean over: particles, or 1 where every batch has as many.

        The losses of several batches, weighted by it (at least 1), are the loss of all their images.
        """
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """A network, its loss, how its output is decoded, and its learning rate.

    All are functions of a module, so that they can be sent to another process. `loss` gets the network's answer
    to the images of a scene; `decode` makes particles (N, 8), columns `engines.network.decode.ROW`, of the
    answer to one image; `rate_at` is the learning rate over the largest after a part of the training.
    """

    build: Callable[[TrainingSettings, Material], nn.Module]
    loss: Callable[[torch.Tensor, Scene, Material], LossParts]
    decode: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
    rate_at: Callable[[float], float]
