"""Training method: the parts that differ between the networks that can be trained on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from calibration.training.settings import TrainingSettings


class Learnt(Protocol):
    """What the loop needs of training material."""

    @property
    def training(self) -> Sequence[Any]:
        """Sources of images to train on, used in turn: `draw(rng, (H, W), count)` gives a scene."""
        ...

    @property
    def made_from(self) -> str:
        """What was measured or simulated, in words: a training and its continuation have the same."""
        ...


class Examination(Protocol):
    """Held-out images, drawn once."""

    def __call__(self, network: nn.Module, device: torch.device) -> tuple[float, dict[str, Any]]:
        """The loss of a network on them, by which the best weights are chosen, and its scores."""
        ...


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


def never() -> bool:
    """For methods that are trained in single precision on processors."""
    return False


@dataclass(frozen=True, slots=True)
class Method:
    """A network, its loss, how its output is decoded, and its learning rate.

    All are functions of a module, so that they can be sent to another process. `loss` gets the network's answer
    to the images of a scene; `decode` makes particles (N, 8), columns `engines.network.decode.ROW`, of the
    answer to one image; `rate_at` is the learning rate over the largest after a part of the training. `given` is
    what the network gets of a scene, `examine` draws the held-out images, and `half_on_cpu` says whether to train
    in bfloat16 on this processor.
    """

    build: Callable[[TrainingSettings, Any], nn.Module]
    loss: Callable[[torch.Tensor, Any, Any], LossParts]
    decode: Callable[..., npt.NDArray[np.float64]]
    rate_at: Callable[[float], float]
    given: Callable[[Any, Any], torch.Tensor]
    examine: Callable[[TrainingSettings, Any, Method], Examination]
    half_on_cpu: Callable[[], bool] = never

    def reader(self, learnt: int) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]:
        """`decode` for a network that learnt so many numbers beside place and class; not all methods can."""
        return partial(self.decode, learnt=learnt) if learnt else self.decode
