"""How the message links of a run treat frames and results: policy, age limit, room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from engines.ordered_threads import default_workers
from liveptv.config.experiment import IN_SIMULATED_TIME, Experiment
from liveptv.session.plan import ImageFormat
from stream.errors import ConfigurationError
from stream.link import Policy

SLOTS = 64
"""Frames that a ring holds where the settings do not say: two seconds of a common camera."""
LIVE_BYTES = 64_000_000
"""Memory for the frames of a live run, bytes. Its ring holds only frames that are being worked on or whose results
the tracker has not acknowledged: a few. What it holds beyond them bridges a tracker that stops for a moment: 17
full frames (2560 x 1440), 0.7 s at 24 frames/s."""
WAITING_BYTES = 256_000_000
"""Memory for frames on their way in a run that waits, bytes: `SLOTS` full frames (2560 x 1440), or 48 volumes of
512 x 512 x 10. A source that waits is never slower for less, as long as one frame waits for each worker."""
WAITING_LEAST = (
    4  # frames on their way at least, whatever they take: at the detector, waiting, sent, being read
)
LIVE_SPARE = 3  # frames beyond the one of each worker: one waiting, one on its way, one being acknowledged
PERIODS, LEAST_MS = 3.0, 100.0
"""Age limit of a result where the settings do not say: frame periods, and at least so many ms. Shorter than what
detector and transport take (two cores: 20 to 60 ms), every frame would be late; a person does not notice 100 ms."""
LIVE_RESULTS = 1024
"""Results that a link of a live run holds while their consumer is stopped: 5 s at 200 frames/s, which no detector
on a processor exceeds with full frames. Only what a backlog needs is touched, the bytes of its messages."""
RESULT_BYTES = 512_000_000
"""Address space for one link of results, bytes, most of which is never touched. With detector.max_particles = 2000
it holds 890 messages of tracks."""


RECORD_PART = 0.25
"""Part of the free memory that the recorder's ring may take: the other stages and the page cache need the rest."""
RECORD_LEAST = 8  # frames in the recorder's ring at least, whatever they take
MOST_SLOTS = 65536  # of a ring
SHARED = Path("/dev/shm")  # where shared memory is kept on Linux; a container may have little of it
PREDICTIONS = 32
"""Predictions on their way to the detector at most. Where frames wait for them there are never more than
`engines.prediction_choice.LAG`, and as many again after a restart of the detector."""
PREDICTIONS_LOST_S = 10.0
"""Silence of the tracker after which its link is opened again, s: longer than a busy computer freezes a process. A
shorter one loses predictions, a longer one delays the end of frames that wait for a tracker that is gone."""


@dataclass(frozen=True, slots=True)
class FrameRules:
    """What happens to frames on their way to the detector; `age_limit_ms` is infinite unless the policy is live."""

    policy: Policy
    age_limit_ms: float = math.inf

    @property
    def is_live(self) -> bool:
        """Whether results have an age limit."""
        return self.policy is Policy.LIVE

    def in_words(self) -> str:
        """For a user."""
        return (
            f"{self.policy}, results at most {self.age_limit_ms:g} ms old"
            if self.is_live
            else f"{self.policy}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As it is stored: `link_policy`, and `age_limit_ms` where there is a limit."""
        limit = {"age_limit_ms": self.age_limit_ms} if self.is_live else {}
        return {"link_policy": str(self.policy), **limit}


def frame_rules(experiment: Experiment, source: ImageFormat) -> FrameRules:
    """The policy for frames and the age limit of results, from the settings and the frame rate of the source.

    Raises `ConfigurationError` for the policy `live` in simulated time, in which no frame can be late.
    """
    link = experiment.link
    if link.is_live and not source.keeps_time:
        raise ConfigurationError(IN_SIMULATED_TIME)
    default = Policy.LIVE if experiment.is_live and source.keeps_time else Policy.BLOCK
    policy = default if link.policy is None else link.policy
    if policy is not Policy.LIVE:
        return FrameRules(policy)
    return FrameRules(policy, link.age_limit_ms or default_age_limit_ms(source.frame_rate_hz))


def default_age_limit_ms(frame_rate_hz: float) -> float:
    """Three frame periods, at least 100 ms; 100 ms where the frame rate (frames/s) is not known."""
    known = math.isfinite(frame_rate_hz) and frame_rate_hz > 0
    return max(LEAST_MS, PERIODS * 1000 / frame_rate_hz) if known else LEAST_MS


def frame_options(experiment: Experiment, source: ImageFormat) -> dict[str, Any]:
    """Keyword arguments of `stream.links.open_sender` for the frames, from the camera to the detector.

    Only the session decides who is lost, so no message link gives up by itself.
    """
    link, policy = experiment.link, frame_rules(experiment, source).policy
    slots, in_transit = link.slots or _slots_that_wait(source.nbytes), link.credits
    if policy is Policy.LIVE and link.slots is None:
        workers = experiment.detector.workers or default_workers()
        slots = max(workers + LIVE_SPARE, min(SLOTS, LIVE_BYTES // max(1, source.nbytes)))
    if policy is Policy.LIVE and in_transit is None:
        in_transit = slots - 1
    if in_transit is not None and in_transit >= slots:
        slots = in_transit + 1
    options = {"policy": policy, "slots": slots, "credits": in_transit}
    return options | {"patience_s": link.patience_s, "give_up_s": None}


def _slots_that_wait(nbytes: int) -> int:
    """Frames of `nbytes` in the ring of a run that waits."""
    return max(WAITING_LEAST, min(SLOTS, WAITING_BYTES // max(1, nbytes)))


def record_options(experiment: Experiment, source: ImageFormat) -> dict[str, Any]:
    """The same for the frames to the recorder, which gets every one.

    A live run never waits for a disk: what does not fit into the ring is dropped, and declared. Other runs wait.
    """
    is_live = frame_rules(experiment, source).is_live
    nbytes = max(1, source.nbytes)
    free = psutil.virtual_memory().available * RECORD_PART
    room = min(experiment.record.buffer_mb * 1e6, free)
    if is_shared := experiment.link.transport == "shm" and SHARED.is_dir():
        room = min(room, psutil.disk_usage(str(SHARED)).free * RECORD_PART * 2)
    slots = max(RECORD_LEAST, min(MOST_SLOTS, int(room // nbytes)))
    policy = Policy.DROP_NEWEST if is_live else Policy.BLOCK
    options = {"policy": policy, "slots": slots, "credits": slots - 1, "sparse": not is_shared}
    return options | {"patience_s": experiment.link.patience_s, "give_up_s": None}


def wants_predictions(experiment: Experiment) -> bool:
    """Whether the tracker of a run opens a link for its predictions: only with depths, and with a filter."""
    detector = experiment.detector
    return detector.prediction == "auto" and detector.model is not None and experiment.tracker.mode == "flow"


def prediction_options(experiment: Experiment) -> dict[str, Any]:
    """The same for the tracker's predictions. Old ones are of no use: the tracker never waits for the detector."""
    options = {"policy": Policy.DROP_OLDEST, "slots": PREDICTIONS, "sparse": True}
    return options | {"patience_s": experiment.link.patience_s, "give_up_s": None}


def result_options(experiment: Experiment, slot_bytes: int) -> dict[str, Any]:
    """The same for results of at most `slot_bytes`: whatever was detected reaches the file, nothing is dropped.

    With live frames the ring holds what comes in several seconds, while the consumer is stopped.
    """
    slots = SLOTS
    if experiment.is_live:
        slots = max(SLOTS, min(LIVE_RESULTS, RESULT_BYTES // max(1, slot_bytes)))
    options = {"slots": slots, "sparse": experiment.is_live}
    return options | {"patience_s": experiment.link.patience_s, "give_up_s": None}
