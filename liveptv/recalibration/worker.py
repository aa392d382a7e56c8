"""The process that samples a run and proposes recalibrations; the run neither waits for it nor depends on it."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from liveptv.recalibration.proposals import Look
    from liveptv.recalibration.sample import Sample
    from liveptv.recalibration.subject import Subject
    from stream.messages import Frame, Message, Tracks
    from stream.sockets import Security

# Modules that compute are imported in the process itself, so that the session, which starts it, does not load them.

LOWEST = 19
"""Niceness: the process takes what the run leaves."""
WAIT_S = 0.2
"""Time for one message, and between two looks at the clock while nothing is asked for, s: how late it ends."""
LEAST_BETWEEN_S = 0.5
"""Between two images, s; the detector publishes two a second by default."""
MOST_WAITING_FRAMES, MOST_WAITING_TRACKS = 4, 64
"""Images and tracks that wait for their partner: the tracks of an image come up to a latency later."""
FRAMES, TRACKS = "liveptv/detect/frame", "liveptv/track/tracks"


@dataclass(frozen=True, slots=True)
class Watch:
    """What to listen to (`detect`, `track`: addresses and keys), how often to look, and at what."""

    detect: str
    track: str
    watching: Security | None
    listening: Security | None
    period_s: float
    subject: Subject


class Subscriber(Protocol):
    """Of `stream.monitor`."""

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, if there is one in time."""
        ...

    def pause(self) -> None:
        """Ask for nothing more."""
        ...

    def resume(self) -> None:
        """Listen again."""
        ...


class Pairs:
    """Takes an image and the tracks of the same frame from two subscriptions, then asks for nothing for a while.

    While nobody else watches, the detector then copies no image. `rests` tells whether nothing is asked for.
    """

    def __init__(self, frames: Subscriber, tracks: Subscriber) -> None:
        self._frames, self._tracks = frames, tracks
        self._images: dict[int, Frame] = {}
        self._found: dict[int, Tracks] = {}
        self.rests = False
        self._due_s = -math.inf

    def rest_until(self, due_s: float) -> None:
        """Ask for nothing until then."""
        self._due_s, self.rests = due_s, True
        for one in (self._frames, self._tracks):
            one.pause()
        self._images.clear()
        self._found.clear()

    def poll(self, now_s: float, timeout_s: float) -> tuple[Frame, Tracks] | None:
        """The next pair, if it has come within `timeout_s`; always None, without waiting, while it rests."""
        from stream.messages import Frame, Tracks

        if now_s < self._due_s:
            return None
        if self.rests:
            self.rests = False
            for one in (self._frames, self._tracks):
                one.resume()
        message = self._frames.receive(0.0 if self._images else timeout_s)
        while message is not None:
            if isinstance(message, Frame):
                _keep(self._images, message.info.frame, message, MOST_WAITING_FRAMES)
            message = self._frames.receive(0.0)
        message = self._tracks.receive(timeout_s if self._images else 0.0)
        while message is not None:
            if isinstance(message, Tracks):
                _keep(self._found, message.info.frame, message, MOST_WAITING_TRACKS)
            if self._images.keys() & self._found.keys():
                break
            message = self._tracks.receive(0.0)
        for number in self._images.keys() & self._found.keys():
            return self._images[number], self._found[number]
        return None


def _keep(store: dict[int, Any], number: int, message: Frame | Tracks, most: int) -> None:
    store[number] = message
    while len(store) > most:
        del store[next(iter(store))]


class Recalibration:
    """Samples the run and looks at the sample every `period_s`; `say` gets what is to be told.

    An entry is a kind (`proposed`, `looked`, `failed`), a line ("" for none) and facts. `start` makes what is
    looked with, at the first look: shorter runs do not pay for it.
    """

    def __init__(
        self,
        pairs: Pairs,
        sample: Sample,
        period_s: float,
        start: Callable[[], Callable[[Sample], Look]],
        say: Callable[[str, str, dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pairs, self._sample, self._period_s = pairs, sample, period_s
        self._start, self._say, self._clock = start, say, clock
        self._look: Callable[[Sample], Look] | None = None
        self._due_s = clock() + period_s
        self._told: set[str] = set()

    def step(self, timeout_s: float) -> None:
        """Take a pair that has come, and look if it is time."""
        from liveptv.recalibration.sample import frames_for

        now_s = self._clock()
        pair = self._pairs.poll(now_s, timeout_s)
        if pair is not None:
            self._sample.add(*pair)
            between_s = self._period_s / frames_for(pair[0].image.nbytes)
            self._pairs.rest_until(now_s + max(between_s, LEAST_BETWEEN_S))
        if now_s >= self._due_s and len(self._sample):
            self._try()
            self._due_s = self._clock() + self._period_s

    def _try(self) -> None:
        try:
            if self._look is None:
                self._look = self._start()
            found = self._look(self._sample)
        except Exception as error:  # noqa: BLE001 - whatever fails here, the run goes on, and so does the next look
            self._fail(error)
            return
        self._say("proposed" if found.is_proposal else "looked", found.text, found.facts)

    def _fail(self, error: Exception) -> None:
        """Tell a failure once."""
        from stream.errors import LivePTVError

        why = str(error) if isinstance(error, LivePTVError) else f"{type(error).__name__}: {error}"
        if why not in self._told:
            self._told.add(why)
            text = f"recalibration during the run does not work: {why}; the run is not affected"
            self._say("failed", text, {})


def recalibrate_beside(watch: Watch, pipe: Connection) -> None:
    """Main function of the process; it ends soon after the other end of the pipe has been closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the session decides what Ctrl-C means
    _take_lowest_priority()
    from threadpoolctl import threadpool_limits

    from liveptv.recalibration.proposals import Proposer
    from liveptv.recalibration.sample import Sample
    from stream.monitor import MonitorSubscriber

    frames = MonitorSubscriber(watch.detect, security=watch.watching, source=FRAMES)
    tracks = MonitorSubscriber(watch.track, security=watch.listening, source=TRACKS)
    pairs = Pairs(frames, tracks)

    def say(kind: str, text: str, facts: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the run is over
            pipe.send((kind, text, facts))

    made = Recalibration(pairs, Sample(), watch.period_s, lambda: Proposer(watch.subject).look, say)
    try:
        with threadpool_limits(1):
            while not _is_over(pipe, WAIT_S if pairs.rests else 0.0):
                made.step(WAIT_S)
    finally:
        frames.close()
        tracks.close()


def _is_over(pipe: Connection, timeout_s: float) -> bool:
    try:
        if pipe.poll(timeout_s):
            pipe.recv()
    except (EOFError, OSError):
        return True
    return False


def _take_lowest_priority() -> None:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().nice(psutil.IDLE_PRIORITY_CLASS if sys.platform == "win32" else LOWEST)
