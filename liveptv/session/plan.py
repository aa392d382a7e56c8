"""What the supervisor and its stages tell each other while a run is being set up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from acquisition.safety.hardware_state import DeviceSafety
from liveptv.config import Experiment
from stream.run_keys import RunKeys


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage is told at birth, with the secrets of the run.

    `consumers` are the stages it sends to. `addresses` (of its outputs, by consumer, and `monitor`) are given
    where it must bind what an earlier life of it had bound.
    """

    stage: str
    run_id: str
    experiment: Experiment
    status_address: str
    keys: RunKeys
    consumers: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """What the source's images look like, so that everything behind it can be compiled and sized in advance."""

    height: int
    width: int
    depth: int
    dtype: str
    pixel_size_um: float
    frame_rate_hz: float
    frames: int | None
    description: str

    @property
    def nbytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * self.depth * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Bound:
    """A stage's first words: where its outputs can be had, by the name of who wants them."""

    addresses: dict[str, str]
    image_format: ImageFormat | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry for the event log and the trajectory file: a kind, a line of text, and JSON-able facts."""

    kind: str
    text: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Peers:
    """The supervisor's answer: where the stage's inputs are, by name (`upstream`, `commands`)."""

    addresses: dict[str, str]
    upstream_stage: str = ""
    image_format: ImageFormat | None = None


@dataclass(frozen=True, slots=True)
class UpstreamLost:
    """The supervisor's judgement: the stage before this one will not come back."""

    why: str


@dataclass(frozen=True, slots=True)
class MakeSafe:
    """To the acquisition, by its own lane: make the hardware safe, and (`ends`) end the run.

    `orphaned`: nobody is left to say more.
    """

    reason: str
    ends: bool
    orphaned: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """From the acquisition: devices are touched from now on."""


@dataclass(frozen=True, slots=True)
class Secured:
    """From the acquisition: what is known of each device after it was made safe.

    With `ends` nothing changes that any more.
    """

    devices: tuple[DeviceSafety, ...]
    reason: str
    ends: bool
