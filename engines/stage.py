"""Pipeline stage of the detector: frames in, detections out. Frames are acknowledged once their detections are."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from engines.admission import Admission
from engines.engine import DetectionError, Engine, announces, failed_frames
from engines.prediction_choice import PredictionChoice
from engines.stage_report import engine_counts, engine_gauges, prediction_counts, stated_errors
from engines.viewer_copies import ViewerCopies
from engines.watched_engine import FAILED
from stream.link import Delivery, Receiver, Sender
from stream.messages import Decisions, Detections, Frame, FrameInfo, StageState, StreamEnd, StreamStart
from stream.monitor import Publisher
from stream.waker import Waker

ACKNOWLEDGE_PERIOD_S = 0.002
RESULT_S = 0.05


@dataclass(frozen=True, slots=True)
class _EngineNeed:
    """Which engine a frame needs: for its pixel size, and in a replay the one it had in the run."""

    pixel_size_um: float
    opened: int = 0
    is_replaced: bool = False


@dataclass(slots=True)
class _Held:
    """A delivery that is not acknowledged yet, and the progress of its frame."""

    delivery: Delivery
    frame: Frame | None
    submitted_s: float
    decisions: Decisions = field(default_factory=Decisions)
    offered: bool = False
    refused: bool = False
    late: bool = False
    failed: bool = False


class DetectStage:
    """Takes frames from `receiver`, lets `engine` find the particles, offers them to `sender`.

    A frame is acknowledged upstream once the receiver of its detections has acknowledged those (or the link
    has declared them dropped): a stage that is killed and started again gets every other frame again.
    With an age limit (policy `live`) it asks for frames one by one, as fast as it can detect in them
    (`engines.admission`), and drops those that have grown old on their way, in a process that was stopped: they are
    acknowledged and counted in `dropped_late`. So are those in which an engine failed that goes on, in
    `failed_frames`.
    `monitor` is given all detections, and the images of at most `monitor_hz` frames a second, fewer of large ones.
    With a `waker`, which the receiver and the sender of the detections know, it waits for frames, results and
    acknowledgements at once, if the engine can announce its results; otherwise it looks for them every 2 ms.
    Where the frames' pixel size changes (another objective), `reopen` is asked for an engine for the new one, and
    raises where there can be none; its second argument says that a back end had failed in the run that is replayed.
    Who opened the receiver and the sender closes them, after the stage.
    `predictions` chooses what the engine is told of the tracker's particles; a frame may have to wait for that, and
    none is taken meanwhile. The stage closes it.
    Detections say what was decided about their frame by the clock (`stream.messages.Decisions`). With `follows` the
    frames of a replay are processed as theirs say, whatever the clock does; otherwise what a frame says is ignored.
    `opened` is the number of this detector's engine in the run.
    """

    def __init__(
        self,
        receiver: Receiver,
        engine: Engine,
        sender: Sender,
        *,
        monitor: Publisher | None = None,
        monitor_hz: float = 2.0,
        reopen: Callable[[float, bool], Engine] | None = None,
        age_limit_ms: float | None = None,
        waker: Waker | None = None,
        predictions: PredictionChoice | None = None,
        follows: bool = False,
        opened: int = 0,
    ) -> None:
        self._receiver = receiver
        self._follows = follows
        self._opened = opened
        self._of_engine: _EngineNeed | None = None
        self._engine = engine
        self._reopen = reopen
        self._waker = waker
        self._predictions = predictions
        self._next: Delivery | None = None
        self._predicted_frames = 0
        self._is_woken = waker is not None and announces(engine, waker.wake)
        self._admission = None
        if age_limit_ms is not None and math.isfinite(age_limit_ms):
            self._admission = Admission(int(engine.info.details.get("workers", 1)), 1e-3 * age_limit_ms)
        self._dropped_late = self._failed = 0
        self._past: Counter[str] = Counter()
        self._sender = sender
        self._viewers = ViewerCopies(monitor, monitor_hz)
        self._held: deque[_Held] = deque()
        self._end: StreamEnd | None = None
        self._ended = False
        account = sender.account
        self._settled_before = account.acknowledged + account.dropped
        self._settled = 0
        self._refused = 0
        self._state = StageState.STARTING
        self._received = 0
        self._sent = 0
        self._particles = 0
        self._last: Detections | None = None
        self._gauges = {"queue": 0.0, "particles": 0.0, "detect_ms": 0.0, "latency_ms": 0.0}

    @property
    def name(self) -> str:
        """`detect`."""
        return "detect"

    @property
    def state(self) -> StageState:
        """Current state of the stage."""
        return self._state

    def step(self, timeout_s: float) -> bool:
        """Take what has arrived, send detections on, acknowledge what is safe; False once all is done.

        Raises `DetectionError`, with the frame's number, for a frame that the engine cannot read, and the
        errors of the two links.
        """
        if self._state is StageState.DONE:
            return False
        if self._state is StageState.STARTING:
            self._state = StageState.RUNNING
        try:
            return self._step(timeout_s)
        except Exception:
            self._state = StageState.FAILED
            raise

    def _step(self, timeout_s: float) -> bool:
        if self._waker is not None:
            self._waker.clear()
        if self._is_woken and self._engine.pending:
            self._take_results(0.0)
        self._acknowledge()
        took = False
        timeout_s = min(timeout_s, self._ask())
        if self._end is None:
            wait_s = 0.0 if self._engine.pending else timeout_s
            if self._held:
                wait_s = min(wait_s, ACKNOWLEDGE_PERIOD_S)
            took = self._take_next(timeout_s if self._is_woken else wait_s)
        if self._engine.pending and (not self._is_woken or self._end is not None):
            # while frames keep coming, results are polled; otherwise it is worth waiting for them
            self._take_results(0.0 if took else min(timeout_s, ACKNOWLEDGE_PERIOD_S))
        if self._end is not None and not self._engine.pending:
            return self._drain(timeout_s)
        self._acknowledge()
        return True

    def _take_results(self, timeout_s: float) -> None:
        found = self._engine.results(timeout_s)
        for frame in failed_frames(self._engine):
            self._give_up(frame)
        for detections in found:
            self._offer(detections)

    def _give_up(self, frame: int) -> None:
        """Mark a frame in which the engine failed: there will be no detections."""
        held = next(h for h in self._held if h.frame is not None and h.frame.info.frame == frame)
        held.failed = True
        if self._admission is not None:
            self._admission.worked(time.perf_counter() - held.submitted_s)

    def _ask(self) -> float:
        """Ask for a frame if one is due; returns for how long nothing is to be asked for, s."""
        if self._admission is None or self._end is not None:
            return math.inf
        now_s = time.perf_counter()
        due_in_s = self._admission.due_in_s(now_s, self._engine.pending)
        if due_in_s > 0:
            return due_in_s
        self._receiver.want(1)
        self._admission.asked(now_s)
        return math.inf

    def _is_late(self, frame: Frame, now_s: float) -> bool:
        if self._admission is None:
            return False
        self._admission.came(now_s)
        return self._admission.is_late(1e-3 * frame.info.age_ms_at(round(1e9 * now_s)))

    def _take_next(self, timeout_s: float) -> bool:
        """Take the next message, or submit the frame that has waited for its prediction; False if there is none."""
        if self._next is not None and self._predictions is not None:
            frame = self._next.message
            assert isinstance(frame, Frame)
            if not self._is_due(frame):
                self._predictions.take(timeout_s)
            if not self._is_due(frame):
                return False
            waited, self._next = self._next, None
            self._take(waited)
            return True
        delivery = self._receiver.receive(timeout_s)
        if delivery is None:
            if self._predictions is not None:
                self._predictions.take(0.0)
            return False
        if isinstance(delivery.message, Frame) and not self._is_due(delivery.message):
            self._next = delivery
        else:
            self._take(delivery)
        return True

    def _is_due(self, frame: Frame) -> bool:
        """Whether a frame can be submitted: it waits for no prediction any more."""
        if self._predictions is None:
            return True
        given = frame.info.decisions if self._follows else None
        return self._predictions.is_due(given, all_consumed=not self._sender.queued)

    def _take(self, delivery: Delivery) -> None:
        message = delivery.message
        now_s = time.perf_counter()
        if isinstance(message, Frame):
            self._received += 1
            if self._is_late(message, now_s):
                self._held.append(_Held(delivery, message, now_s, late=True))
                return
            self._follow_engine(message.info)
            decisions = self._submit(message)
            self._held.append(_Held(delivery, message, now_s, decisions))
        elif isinstance(message, StreamEnd):
            self._end = message
            self._state = StageState.DRAINING
            self._held.append(_Held(delivery, None, now_s))
        elif isinstance(message, StreamStart):
            self._held.append(_Held(delivery, None, now_s))
        else:
            raise DetectionError(
                f"the detector was sent a {type(message).__name__}, not a frame; connect it to a source"
            )

    def _submit(self, frame: Frame) -> Decisions:
        """Give a frame to the engine; returns what was decided about it here."""
        if not self._follows and frame.info.decisions is not None:
            frame = replace(frame, info=replace(frame.info, decisions=None))
        given = frame.info.decisions
        decided = Decisions(opened=self._opened)
        if given is not None:
            decided = replace(decided, opened=given.opened, replaced=given.replaced)
        if self._predictions is None:
            self._engine.submit(frame)
            return decided
        predicted = self._predictions.choose(frame.info)
        self._predicted_frames += predicted is not None
        self._engine.submit(frame, predicted)
        return decided if predicted is None else replace(decided, predicted_from=predicted.info.frame)

    def _follow_engine(self, info: FrameInfo) -> None:
        """Open another engine where the pixel size changes, and in a replay where one was opened in the run."""
        before, now = self._of_engine, _EngineNeed(info.pixel_size_um)
        given = info.decisions if self._follows else None
        if given is not None:
            now = _EngineNeed(info.pixel_size_um, given.opened, given.replaced)
        self._of_engine = now
        if before is None:
            before = replace(now, is_replaced=False)  # which is the engine that is open
        if before != now and self._reopen is not None:
            self._open_another(now)

    def _open_another(self, need: _EngineNeed) -> None:
        """Finish the frames under way, then continue with another engine."""
        while self._engine.pending:
            self._take_results(RESULT_S)
        self._past += Counter(self._engine.counts())
        self._engine.close()
        assert self._reopen is not None
        self._engine = self._reopen(need.pixel_size_um, need.is_replaced)
        self._opened += 1
        self._is_woken = self._waker is not None and announces(self._engine, self._waker.wake)

    def _offer(self, detections: Detections) -> None:
        held = next(h for h in self._held if h.frame is not None and not (h.offered or h.late or h.failed))
        frame = held.frame
        if frame is None or frame.info.frame != detections.info.frame:
            raise DetectionError(
                f"the engine answered with frame {detections.info.frame} out of order; use another engine"
            )
        now_s = time.perf_counter()
        if self._admission is not None:
            took_s = 1e-3 * detections.info.detector_ms
            self._admission.worked(took_s if math.isfinite(took_s) else now_s - held.submitted_s)
        self._gauges["detect_ms"] = 1e3 * (now_s - held.submitted_s)
        self._gauges["latency_ms"] = frame.info.age_ms_at(round(1e9 * now_s))
        self._gauges["particles"] = float(len(detections))
        self._particles += len(detections)
        self._last = detections
        held.offered = True
        detections = _signed(detections, held.decisions)
        if self._sender.send(detections):
            self._sent += 1
            if self._predictions is not None:
                self._predictions.offered(detections.info.frame)
        else:
            held.refused = True
            self._refused += 1
        self._viewers.publish(frame, detections, now_s)  # after what the run itself needs

    def _acknowledge(self) -> None:
        """Give back, in order, the deliveries whose detections have been acknowledged or declared dropped."""
        account = self._sender.account
        safe = account.acknowledged + account.dropped - self._settled_before - self._refused
        while self._held:
            held = self._held[0]
            if held.late:
                self._dropped_late += 1
            elif held.failed:
                self._failed += 1
            elif held.frame is not None:
                if not held.offered or (not held.refused and self._settled >= safe):
                    break
                self._settled += not held.refused
            elif isinstance(held.delivery.message, StreamEnd) and self._state is not StageState.DONE:
                break
            self._held.popleft()
            held.delivery.done()
        self._gauges["queue"] = float(len(self._held))

    def _drain(self, timeout_s: float) -> bool:
        if not self._ended and self._end is not None:
            self._ended = True
            self._sender.end(self._end.reason)
        if self._sender.flush(timeout_s):
            self._state = StageState.DONE
        self._acknowledge()
        return self._state is not StageState.DONE

    def counts(self) -> dict[str, int]:
        """Totals: frames `received`, `sent` on and `dropped`, `particles`, and what the engine left out.

        `dropped_late` are frames that were too old when they came, where there were any.
        `failed_frames` are those in which the engine failed, where there were any.
        `repeated_images` are frames that the source delivered twice, where there were any.

        Where the model has an image to fit: particles whose fit was accepted, `refined`, and the others;
        `reduced` were not fitted, `not_compiled` of them because the fit was still being compiled.

        Where the engine uses the tracker's predictions: frames that had one (`predicted_frames`), particles that
        were `predicted` and corrected, those that were `searched`, and predicted ones that were not there
        (`ghosts`).
        """
        details = self._engine.info.details
        dropped = self._sender.account.dropped
        return {
            "received": self._received,
            "sent": self._sent,
            "particles": self._particles,
            "dropped": dropped,
            **({"dropped_late": self._dropped_late} if self._dropped_late else {}),
            **({FAILED: self._failed} if self._failed else {}),
            **engine_counts(self._engine.counts(), self._past, details),
            **(prediction_counts(self._predicted_frames, details) if self._predictions is not None else {}),
        }

    def gauges(self) -> dict[str, float]:
        """Of the last frame: `queue` (frames not acknowledged), `particles`, `detect_ms`, `latency_ms`.

        `sigma_*_um` are the medians of the standard errors stated in it, `depth_min_um` and `depth_max_um` the
        depths that the model covers; `check_*` what the self-check found, as `selfcheck.gauges` has it.
        `prediction_age` is that of the last prediction used, frames; `searched_part` the part of all pixels that
        the network has read since the start.
        """
        details = self._engine.info.details
        return self._gauges | stated_errors(self._last) | engine_gauges(details, self._predictions)

    def close(self) -> None:
        """Stop the engine, then forget the frames held, which will be sent again. Idempotent.

        The engine stops first because its workers may be reading a frame that lies in the receiver's memory.
        """
        self._engine.close()
        if self._predictions is not None:
            self._predictions.close()
        self._held.clear()
        self._next = None


def _signed(detections: Detections, own: Decisions) -> Detections:
    """The detections with what was decided about their frame by the engine and by the stage."""
    made = detections.info.decisions or Decisions()
    is_replaced = made.replaced or own.replaced
    made = replace(made, opened=own.opened, replaced=is_replaced, predicted_from=own.predicted_from)
    return replace(detections, info=replace(detections.info, decisions=made))
