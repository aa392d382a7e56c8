"""The tracking stage: receives detections on one message link and sends tracks on any number of others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from stream.errors import LinkError, PeerLostError
from stream.link import PeerState, Receiver, Sender
from stream.messages import Detections, FrameInfo, Predictions, StageState, StreamEnd, Tracks
from stream.monitor import Publisher
from tracking.as_detected import as_kept
from tracking.row_limit import without_excess
from tracking.run_check.check import RunCheck
from tracking.tracker import OnlineTracker

log = logging.getLogger(__name__)

SIDE_DRAIN_S = 1.0
"""How long to wait at the end until a consumer other than the first has the last tracks, s. It delays the end of a
run by as much if that consumer hangs; tracks that it does not get are in the file."""
WITH_PEER = {PeerState.CONNECTED, PeerState.STALLED}
AXES = 3
"""Tracks in 3D are checked (`run_check`); in 2D there is no focus, and errors are as a rule not stated."""


class TrackStage:
    """Runs the tracker on each frame's detections.

    The first of `senders` must not lose anything (the trajectory file): a delivery is acknowledged once this sender
    has taken the tracks, and its failure ends the stage. The others (controller) never delay the run: tracks that
    one of them has no room for, or that cannot be sent, are counted in `skipped`.

    A frame whose number is not greater than the last one's (from a detector that was restarted) is acknowledged and
    counted in `duplicates`. If the pixel size changes (another objective), all tracks end. `missing_frames` counts
    frame numbers that never came, from 0 on; `lost_in_camera` counts gaps in the camera's own numbers beyond that.
    """

    name = "track"

    def __init__(
        self,
        receiver: Receiver,
        tracker: OnlineTracker,
        senders: Sequence[Sender],
        max_rows: int | None = None,
        drain_patience_s: float = 10.0,
        monitor: Publisher | None = None,
        say: Callable[[str], None] = log.warning,
        keeps_time: bool = True,
        predictions: Sender | None = None,
    ) -> None:
        """Set up the stage.

        Parameters
        ----------
        receiver
            Message link with detections.
        tracker
            The tracker.
        senders
            Message links for tracks, the trajectory file's first.
        max_rows
            Rows that fit into a message; it must hold one frame's detections. Predicted rows beyond it are left out
            and counted (`rows_left_out`).
        drain_patience_s
            How long to wait, at the end, for a first consumer that has disconnected.
        monitor
            Publishes a copy of all tracks.
        say
            Receives warnings, each once: of rows left out, of displacements that links cannot resolve, and of what
            the tracks tell of errors and focus (`run_check`).
        keeps_time
            Whether frames come at the pace of a clock, so that the results have an age.
        predictions
            Message link for the tracker's predictions, while someone is connected to it. It is offered one message
            for each message of detections, without waiting; `max_rows` fit into it.
        """
        if not senders:
            raise LinkError("the tracker has no consumer for its tracks; give it at least one message link")
        self._receiver = receiver
        self._tracker = tracker
        self._main, self._side = senders[0], tuple(senders[1:])
        self._max_rows = max_rows
        self._drain_patience_s = drain_patience_s
        self._monitor = monitor
        self._say = say
        self._keeps_time = keeps_time
        self._predictions = predictions
        self._said: set[str] = set()
        self._check = RunCheck()
        self._alarms = 0
        self._reached_s = 0.0
        self._last: FrameInfo | None = None
        self._state = StageState.STARTING
        self._gauges: dict[str, float] = {}
        self._counts = dict.fromkeys(
            (
                "received", "sent", "dropped", "skipped", "missing_frames", "lost_in_camera",
                "repeated_frames", "rows", "rows_left_out",
            ),
            0,
        )  # fmt: skip

    @property
    def state(self) -> StageState:
        """State of the stage."""
        return self._state

    def step(self, timeout_s: float) -> bool:
        """Track one frame, or wait for one; after the end of the stream, wait until all tracks are delivered.

        Raises `PeerLostError` if the consumer of the tracks disconnects before it has them all.
        """
        if self._state in {StageState.DONE, StageState.FAILED}:
            return False
        try:
            if self._state is StageState.DRAINING:
                return self._drain(timeout_s)
            self._state = StageState.RUNNING
            delivery = self._receiver.receive(timeout_s)
            if delivery is None:
                return True
            message = delivery.message
            if isinstance(message, Detections):
                self._track(message)
            elif isinstance(message, StreamEnd):
                self._end(message)
            else:
                raise LinkError(
                    f"the tracker was sent {type(message).__name__} on {self._receiver.address}, not "
                    "detections; connect it to a detector"
                )
            delivery.done()
        except Exception:
            self._state = StageState.FAILED
            raise
        return True

    def _track(self, detections: Detections) -> None:
        began_ns = time.perf_counter_ns()
        info = detections.info
        if self._last is not None and info.frame <= self._last.frame:
            self._counts["repeated_frames"] += 1
            self._answer(Predictions.empty(info))
            return
        if self._last is not None and info.pixel_size_um != self._last.pixel_size_um:
            self._tracker.finish()  # positions are on another scale: no track continues across it
        self._count_gaps(info)
        given = as_kept(self._check.widened(detections), self._tracker.settings)
        tracks = self._fitting(self._tracker.step(given))
        self._tell(self._tracker.remark)
        for text in self._check.look(tracks) if self._tracker.axes == AXES else ():
            self._say(text)
            self._alarms += 1
        now_ns = time.perf_counter_ns()
        step_ms = (now_ns - began_ns) / 1e6
        tracks = self._with_age(tracks, now_ns)
        self._counts["received"] += 1
        if self._main.send(tracks):
            self._counts["sent"] += 1
            self._counts["rows"] += len(tracks)
        else:
            self._counts["dropped"] += 1
        for sender in self._side:
            self._counts["skipped"] += not _offered(sender, tracks)
        if self._monitor is not None:
            self._monitor.publish(tracks)
        self._predict()
        self._gauges = {
            "particles": float(len(detections)),
            "tracks": float(self._tracker.alive),
            "doubles": float(self._tracker.second_detections),
            "diffusion_um2_s": self._tracker.diffusion_um2_s,
            "step_ms": step_ms,
            "latency_ms": (time.perf_counter_ns() - info.monotonic_ns) / 1e6,
            **self._check.facts(),
            **({"check_alarms_of_tracks": float(self._alarms)} if self._alarms else {}),
        }

    def _predict(self) -> None:
        if self._predictions is None or self._predictions.peer not in WITH_PEER:
            return
        known = self._tracker.predictions()
        excess = len(known) - self._max_rows if self._max_rows is not None else 0
        if excess > 0:
            fewest_missed = np.argsort(known.missed, kind="stable")[: self._max_rows]
            known = Predictions(known.info, np.ascontiguousarray(known.table[:, np.sort(fewest_missed)]))
        self._answer(known)

    def _answer(self, known: Predictions) -> None:
        """Send what is known after a frame, if someone wants it and there is room: the detector can do without."""
        if self._predictions is None or self._predictions.peer not in WITH_PEER:
            return
        is_sent = _offered(self._predictions, known)
        name = "predictions" if is_sent else "predictions_skipped"
        self._counts[name] = self._counts.get(name, 0) + 1

    def _with_age(self, tracks: Tracks, now_ns: int) -> Tracks:
        if not self._keeps_time:
            return tracks
        age_ms = tracks.info.age_ms_at(now_ns)
        return replace(tracks, info=replace(tracks.info, age_ms=age_ms))

    def _fitting(self, tracks: Tracks) -> Tracks:
        fitting, left_out = without_excess(tracks, self._max_rows)
        if fitting is tracks:
            return tracks
        self._counts["rows_left_out"] += left_out
        self._tell(
            f"there are more than {self._max_rows} particles and predictions in a frame: predicted rows are left "
            "out of the file; raise detector.max_particles"
        )
        return fitting

    def _tell(self, text: str) -> None:
        """Report a text once."""
        if text and text not in self._said:
            self._said.add(text)
            self._say(text)

    def _count_gaps(self, info: FrameInfo) -> None:
        last = self._last
        self._last = info
        if last is None:
            self._counts["missing_frames"] += info.frame
            return
        frames = info.frame - last.frame
        self._counts["missing_frames"] += frames - 1
        self._counts["lost_in_camera"] += max(info.camera_frame - last.camera_frame - frames, 0)

    @property
    def _hints(self) -> tuple[Sender, ...]:
        return () if self._predictions is None else (self._predictions,)

    def _end(self, end: StreamEnd) -> None:
        self._tracker.finish()
        self._main.end(end.reason)
        for sender in (*self._side, *self._hints):
            try:
                sender.end(end.reason)
            except LinkError as error:
                log.warning("the end of the tracks could not be sent: %s", error)
        self._state = StageState.DRAINING
        self._reached_s = time.monotonic()

    def _drain(self, timeout_s: float) -> bool:
        if not self._main.flush(timeout_s):
            now_s = time.monotonic()
            if self._main.peer in {PeerState.CONNECTED, PeerState.STALLED}:
                self._reached_s = now_s
            if now_s - self._reached_s > self._drain_patience_s:
                raise PeerLostError(
                    f"the consumer of tracks on {self._main.address} has disconnected; {self._main.queued} "
                    "messages did not reach it"
                )
            return True
        for sender in self._side:
            try:
                sender.flush(SIDE_DRAIN_S)
            except LinkError as error:
                log.warning("the last tracks did not arrive: %s", error)
        self._state = StageState.DONE
        return False

    def counts(self) -> dict[str, int]:
        """Frames `received`, `sent`, `dropped`; gaps; and the tracker's own counts.

        `predictions` sent to the detector, and `predictions_skipped` for which there was no room, where there are
        any.
        """
        tracker = dict(self._tracker.counts)
        duplicates = tracker.pop("duplicates") + self._counts["repeated_frames"]
        own = {name: count for name, count in self._counts.items() if name != "repeated_frames"}
        return own | tracker | {"duplicates": duplicates}

    def gauges(self) -> dict[str, float]:
        """Values of the last frame, by name.

        `particles`, `tracks`, `doubles` (second detections), `step_ms`, and `latency_ms` from exposure to sending;
        `queue` of messages and `age_ms` since that frame's exposure, now; `diffusion_um2_s` as learnt so far (NaN
        before); `check_*` as `run_check` has them.
        """
        last = self._last
        age_ms = float("nan") if last is None else (time.perf_counter_ns() - last.monotonic_ns) / 1e6
        return self._gauges | {"queue": float(self._main.queued), "age_ms": age_ms}

    def close(self) -> None:
        """Close the message links. Idempotent."""
        self._receiver.close()
        for sender in (self._main, *self._side, *self._hints):
            sender.close()


def _offered(sender: Sender, message: Tracks | Predictions) -> bool:
    try:
        return sender.send(message, timeout_s=0.0)
    except LinkError:
        return False
