"""Which of the tracker's predictions each frame gets.

A prediction reaches the detector some frames late: the frames in between are still being worked on. So that a
recording gives the same result every time, the choice is a function of the frames' order, never of arrival times:

- where frames wait for the detector (recordings), the frame submitted as number i gets the prediction made after
  frame i - `LAG`, and waits for it;
- where they do not (a camera), the newest that is there, if it is not older than `MOST_AGE` frames;
- where a run is replayed with its decisions, the one that the frame had in the run, and waits for it.

A prediction of another pixel size (another objective) is none. While the link to the tracker is down there is none
either, which is said once; frames then are searched as if there were no tracker.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from stream.errors import LinkError, PeerLostError
from stream.link import PeerState, Receiver
from stream.messages import Decisions, FrameInfo, Predictions, StreamEnd, StreamStart

LAG = 4
"""Frames between a frame and the prediction that it gets, where frames wait. At most so many are in work at once:
fewer would leave threads without work while results are on their way to the tracker and back, more make predictions
less certain (by the square root of the age for random steps). The same on every computer, so that results are."""
MOST_AGE = 24
"""Age of the oldest prediction that is used, camera frames: a second of 24 frames/s. Its own covariance says
whether it is good enough (`correction.REACH_PX`), so this is only a bound. A computer that searches whole
frames at first, each in so many camera frames, never gets younger ones: four times slower than the one that
measured it, it kept searching them with 10 (results 582 ms old, 62 of 432 frames of a channel flow), and is out
of it with 24 (169 ms, 240 frames; `benchmarks/prediction_slow.py`)."""
KEPT = 64
"""Predictions kept in a replay until a frame needs a later one: more than `MOST_AGE` frames, and the pair that the
link may bring twice."""
MEET_S = 10.0
"""How long frames that wait do so for the link to the tracker to come up, s. The tracker binds it before the first
frame is taken; only a computer at its limit needs seconds."""
UNANSWERED_S = 5.0
"""How long frames wait for a prediction that the tracker should have sent already, having consumed all detections,
s. Predictions are sent before that, so there is none on its way: it only bounds the wait should one be lost."""
REQUIRED = [n for n, name in enumerate(Predictions.COLUMNS) if name not in {"brightness", "kind"}]
VARIANCES = [n for n, name in enumerate(Predictions.COLUMNS) if name[:2] in {"pp", "vv"}]


class PredictionChoice:
    """Takes predictions from a message link and chooses the one for each frame.

    For each frame: `is_due` until it is true, then `choose`. All methods belong to one thread.
    """

    def __init__(
        self,
        open_link: Callable[[], Receiver],
        *,
        waits: bool,
        say: Callable[[str], None],
        follows: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_link` opens the link to the tracker, again when it was lost; `waits`: whether frames wait.

        `follows`: each frame says itself whose predictions it had in the run that is replayed, and waits for them.
        """
        self._open = open_link
        self._waits = waits or follows
        self._follows = follows
        self._say = say
        self._clock = clock
        self._said = False
        self._link = open_link()
        self._is_met = self._is_over = False
        self._meet_until_s: float | None = None
        self._given: deque[int] = deque(maxlen=LAG)
        self._answers: dict[int, Predictions] = {}
        self._answered = self._offered = -1
        self._idle_since_s: float | None = None
        self.age = float("nan")

    @property
    def is_met(self) -> bool:
        """Whether the link to the tracker is up, or was."""
        return self._is_met

    def is_due(self, given: Decisions | None = None, *, all_consumed: bool) -> bool:
        """Whether the next frame can be submitted: it does not wait, or its prediction is there or never will be.

        `given` are the decisions that this frame follows in a replay. `all_consumed`: whether the tracker has
        consumed all detections that were sent to it.
        """
        self.take(0.0)
        if not self._waits or self._is_over:
            return True
        if not self._is_met:
            return self._has_waited_to_meet()
        needed = self._needed(given)
        if needed <= self._answered:
            return True
        return self._is_unanswered(needed, all_consumed=all_consumed)

    def _needed(self, given: Decisions | None) -> int:
        """The frame whose prediction the next one gets; -1 for none."""
        if self._follows:
            return -1 if given is None else given.predicted_from
        return self._given[0] if len(self._given) == LAG else -1

    def _has_waited_to_meet(self) -> bool:
        now_s = self._clock()
        if self._meet_until_s is None:
            self._meet_until_s = now_s + MEET_S
        if now_s < self._meet_until_s:
            return False
        self._tell(f"the tracker could not be reached for {MEET_S:g} s")
        return True

    def _is_unanswered(self, needed: int, *, all_consumed: bool) -> bool:
        now_s = self._clock()
        if not all_consumed or needed > self._offered:
            self._idle_since_s = None
            return False
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        if now_s - self._idle_since_s < UNANSWERED_S:
            return False
        self._idle_since_s, self._answered = None, needed
        self._tell(f"the tracker gave none for frame {needed}")
        return True

    def offered(self, frame: int) -> None:
        """The detections of this frame were sent to the tracker, which answers with a prediction."""
        self._offered = frame

    def choose(self, info: FrameInfo) -> Predictions | None:
        """The prediction for a frame, None if there is none for it; to be called once, when it is submitted."""
        found = self._chosen(info)
        if found is None or not len(found) or found.info.pixel_size_um != info.pixel_size_um:
            return None
        frames = info.frame - found.info.frame
        age = max(frames, info.camera_frame - found.info.camera_frame)
        if frames <= 0 or age > MOST_AGE:
            return None
        self.age = float(age)
        return found

    def _chosen(self, info: FrameInfo) -> Predictions | None:
        if not self._waits:
            return self._answers.get(self._answered)
        if self._is_over or not self._is_met:
            return None
        needed = self._needed(info.decisions)
        self._given.append(info.frame)
        found = self._answers.get(needed)
        if self._follows:
            return found
        for number in [number for number in self._answers if number <= needed]:
            del self._answers[number]
        return found

    def take(self, timeout_s: float) -> None:
        """Take what has arrived, waiting for the first so long at most, or until the link's wakers wake."""
        if self._is_over:
            return
        try:
            delivery = self._link.receive(timeout_s)
            while delivery is not None:
                message = delivery.message
                if isinstance(message, Predictions):
                    self._keep(usable(message))
                elif isinstance(message, StreamEnd):
                    self._is_over = True
                elif not isinstance(message, StreamStart):
                    raise TypeError(
                        f"{self._link.address} sends {type(message).__name__}, not the tracker's predictions"
                    )
                delivery.done()
                delivery = None if self._is_over else self._link.receive(0.0)
        except PeerLostError as error:
            self._reopen(str(error))
        except LinkError as error:  # one message could not be read; it comes again
            self._tell(str(error))
        self._is_met = self._is_met or self._link.peer is PeerState.CONNECTED

    def _keep(self, found: Predictions) -> None:
        number = found.info.frame
        if not self._waits:
            self._answers.clear()
        while self._follows and len(self._answers) >= KEPT:
            del self._answers[min(self._answers)]
        self._answers.setdefault(number, found)  # the first answer: that to a repeated frame is empty
        self._answered = max(self._answered, number) if self._waits else number

    def _reopen(self, why: str) -> None:
        self._tell(why)
        self._link.close()
        self._link = self._open()
        self._is_met, self._meet_until_s = False, self._clock() + MEET_S
        self._given.clear()
        self._answers.clear()
        self._answered, self._idle_since_s = -1, None

    def _tell(self, why: str) -> None:
        if not self._said:
            self._said = True
            self._say(f"frames are searched without the tracker's predictions for now: {why}")

    def close(self) -> None:
        """Close the link. Idempotent."""
        self._is_over = True
        self._link.close()


def usable(found: Predictions) -> Predictions:
    """A copy without the rows that are not numbers or whose variances are negative."""
    table = found.table
    good = np.isfinite(table[REQUIRED]).all(axis=0) & (table[VARIANCES] >= 0).all(axis=0)
    return Predictions(found.info, np.ascontiguousarray(table[:, good]))
