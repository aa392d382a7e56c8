"""Messages between the supervisor and the pipeline stages, through their pipes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from acquisition.safety.hardware_state import DeviceSafety
from liveptv.config import Experiment
from stream.run_keys import RunKeys

RECORD = "record"
"""Name of the stage that records camera images, a second consumer of the acquisition."""
PREDICTIONS_ADDRESS = "predictions"
"""Name of the address that the tracker binds for its predictions, the only link against the stream of data."""
HARDWARE = "hardware"
"""Kind of the acquisition's records that a watched property has become another number than 0."""
RECORD_REQUESTS = "record.requests"
"""Name of the address at which the record stage takes commands of the kind `record`."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage needs to start, including the secrets of the run.

    `consumers` are the stages it sends to. `addresses` (of its outputs, by consumer, and `monitor`) are set for a
    stage that is started again, for the time `restarts`: it must bind the same addresses as before.
    """

    stage: str
    run_id: str
    experiment: Experiment
    status_address: str
    keys: RunKeys
    consumers: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """Size, type and scale of the source's images, so that all later stages can compile and allocate in advance."""

    height: int
    width: int
    depth: int
    dtype: str
    pixel_size_um: float
    frame_rate_hz: float
    frames: int | None
    description: str
    keeps_time: bool = True
    """Whether frames come at the pace of a clock: a microscope (not in simulated time), or a paced replay."""
    follows: bool = False
    """Whether the frames say what the detector is to do with them, as it did in the run that is replayed."""
    z_step_um: float = math.nan
    """Distance between two slices of a volume, um; NaN for images."""

    @property
    def is_volume(self) -> bool:
        """Whether frames are volumes."""
        return self.depth > 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) of images, (Z, H, W) of volumes."""
        plane = self.height, self.width
        return (self.depth, *plane) if self.is_volume else plane

    @property
    def nbytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * self.depth * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Bound:
    """First message of a stage: the addresses of its outputs, by consumer."""

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
    """The supervisor's answer: where the stage's inputs are, by name (`upstream`, `commands`, `predictions`)."""

    addresses: dict[str, str]
    upstream_stage: str = ""
    image_format: ImageFormat | None = None


@dataclass(frozen=True, slots=True)
class UpstreamLost:
    """From the supervisor: the stage before this one is lost for good."""

    why: str


@dataclass(frozen=True, slots=True)
class ConsumerLost:
    """From the supervisor to the acquisition: a consumer that the run can do without is lost for good."""

    consumer: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """From the supervisor to a stage that runs in a thread, which cannot be killed: end at once."""


@dataclass(frozen=True, slots=True)
class MakeSafe:
    """To the acquisition, through the safety lane: make the hardware safe, and with `ends` also end the run.

    `orphaned`: the session is gone, so no further message will come.
    """

    reason: str
    ends: bool
    orphaned: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """From the acquisition: it starts to open devices."""


@dataclass(frozen=True, slots=True)
class Secured:
    """From the acquisition: the state of each device after the hardware was made safe; final with `ends`."""

    devices: tuple[DeviceSafety, ...]
    reason: str
    ends: bool
