"""The supervisor of a run: starts the pipeline stages, watches them, and decides what happens when one is lost.

A stage is lost when its process dies, when it reports a failure, or when it has been silent for `session.hang_s`
(then it is killed): see `stage_liveness`. A session that stands still itself takes no stage for silent
(`attended_time`). The message links between the stages decide nothing. However a run ends, the hardware is made
safe first, through a pipe of its own (`session.safety_lane`, `session.hardware`).
The policy:

- `detect` is lost: it is started again, up to `session.restart_detector` times. No frame is lost, because a frame
  is acknowledged only after its detections have been; in a live run those that grew old meanwhile are dropped.
- `control` is lost: the run continues without feedback and says so. If a controller was on, the hardware is made
  safe.
- `acquire`, `track` or `write` is lost: the run ends. What is under way is drained as far as possible and the
  trajectory file is finished (repaired first, if its writer was lost).
- `record` is lost: the run continues without recording images and says so; with `record.when_full = "stop"` it
  ends.
- any stage is lost before the first frame: the run ends at once.
"""

from __future__ import annotations

import contextlib
import math
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import replace

from liveptv.config import Experiment
from liveptv.session.announcement import Announcement
from liveptv.session.attended_time import AttendedTime
from liveptv.session.events import EventLog
from liveptv.session.hardware import Hardware, unsafe
from liveptv.session.introductions import Introductions
from liveptv.session.notices import Notices
from liveptv.session.plan import RECORD, ConsumerLost, ImageFormat, Recorded, StagePlan, UpstreamLost
from liveptv.session.prediction_account import prediction_in_words
from liveptv.session.processes import start_worker
from liveptv.session.recalibrator import Recalibrator, watch_of
from liveptv.session.record_triggers import RecordTriggers
from liveptv.session.result_age import AgeWatch
from liveptv.session.run_status import Progress, SessionResult, StageView, progress_of
from liveptv.session.self_check import checks_of
from liveptv.session.snapshots import SnapshotTaker
from liveptv.session.stage_liveness import judge
from stream.errors import LivePTVError
from stream.messages import StageState, Status
from stream.run_keys import RunKeys
from stream.status import StatusSink

POLL_S = 0.05  # s between two looks at the stages, unless one reports something else than that it runs
GRACE_S = 5.0
"""Time for the rest of the pipeline to drain once a stage is lost or the time to drain is over, s.

A stage ends at once when it is told that its neighbour is lost; what takes time is a slow disk. Shorter may cut off
the last rows (the file is then repaired), longer delays the end of a failed run.
"""
FROZEN_S = 5.0
"""Shortest silence after which the acquisition is called frozen while its watchdog is on, s.

A loaded computer, or a laptop that wakes up, freezes a process for less. Shorter may end good runs; with a longer
one a pump runs on for longer without its watchdog.
"""
SILENT_S = 1.0
"""Silence of the acquisition after which a process that could make the hardware safe is started in advance, s.

A stage reports five times a second, so five reports are missing. Shorter starts that process for nothing on a busy
computer; longer delays the safe state after a crash by as much.
"""
DRAIN_S = 20.0
"""Longest time for the stages to deliver what is under way after the session itself has failed, s.

A full ring of 64 frames and a detector of 4 frames/s need 16 s; a slower one loses frames, which are accounted for.
`session.stop_timeout_s` limits it further.
"""


def new_run_id() -> str:
    """A name for a run that sorts by time and is unique."""
    return time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]


class Session:
    """One run. `run` blocks until it is over; `request_stop` (from a signal or a callback) ends it early."""

    def __init__(
        self,
        experiment: Experiment,
        *,
        events: EventLog,
        on_update: Callable[[Progress], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        """`on_update` is called some 20 times a second, `on_note` with each line a user should see."""
        self.experiment = experiment
        self.run_id = new_run_id()
        self.stages: dict[str, StageView] = {}
        self._events = events
        self._notices = Notices(events, on_update, on_note)
        self._introductions = Introductions(self._recorded)
        self._keys = RunKeys.fresh(experiment.session.keys)
        self._sink = StatusSink("tcp://127.0.0.1:0", self._keys.curve)
        self._hardware = Hardware(experiment, self._notices.safety)
        self._age = AgeWatch(experiment)
        self._commands_known = False
        self._snapshots: SnapshotTaker | None = None
        self._recalibrator: Recalibrator | None = None
        self._time = AttendedTime()
        self._began_s = time.monotonic()
        self._running_since_s: float | None = None
        self._ended_s: float | None = None
        self._stop_reason = ""
        self._deadline_s = math.inf
        self._failures: list[str] = []
        self.announcement = Announcement(
            self.run_id, experiment, events, self._viewer_stop, self._keys, self._make_safe
        )
        self._triggers = RecordTriggers(experiment.record.on, self.announcement.ask_recorder)

    @property
    def image_format(self) -> ImageFormat | None:
        """What the camera images look like; None until the source is open."""
        return self._introductions.image_format

    def run(self) -> SessionResult:
        """Start every stage, wait for the end, and return what happened.

        A failure of the session itself ends the run like the loss of a stage: the hardware is made safe, the
        stages deliver what is under way, and what failed is in the result.
        """
        try:
            self._events.write("start", f"run {self.run_id}", settings=self.experiment.resolved())
            self._start_all()
            while not all(view.over for view in self.stages.values()) or not self._hardware.is_settled:
                self._poll()
            self._take_status(0.0)
            self._introduce()
        except Exception as error:  # noqa: BLE001 - whatever it is, the stages must not be left alone with the hardware
            self._fail(error)
        finally:
            self._let_go()
        return self._result()

    def _fail(self, error: Exception) -> None:
        is_ours = isinstance(error, LivePTVError)
        what = f"{error}" if is_ours else f"{type(error).__name__}: {error}"
        why = f"the session failed: {what}".splitlines()[0]
        self._failures.append(why)
        self._stop_reason = self._stop_reason or why
        self._hardware.make_safe(why, ends=True)
        with contextlib.suppress(Exception):  # the event log may be what failed
            self._events.write("failure", why, traceback="" if is_ours else traceback.format_exc())

    def _let_go(self) -> None:
        """Leave nothing running: make the hardware safe, let the stages drain for a while, then kill them."""
        left = [view for view in self.stages.values() if not view.over]
        if left:
            self._hardware.make_safe(self._stop_reason or "the session ends", ends=True)
            self._hardware.wait(self._listen)
            for view in left:
                view.worker.hang_up()
            until_s = time.monotonic() + min(DRAIN_S, self.experiment.session.stop_timeout_s)
            while any(view.worker.alive() for view in left) and time.monotonic() < until_s:
                self._listen()
        for view in self.stages.values():
            view.worker.kill()
        with contextlib.suppress(Exception):  # the log may be what failed
            if "acquire" in self.stages:
                self._hardware.acquisition_is_gone(was_a_process=self.stages["acquire"].worker.can_be_killed)
            self._hardware.settle()
        self._hardware.close()
        if self._recalibrator is not None:
            self._recalibrator.close()
        if self._snapshots is not None:
            self._snapshots.close()
        self.announcement.close()
        self._sink.close()

    def _listen(self) -> None:
        """Take the other stages' statuses while waiting for one, so that they do not count as silent."""
        with contextlib.suppress(Exception):  # a failure here has been reported before
            self._take_status(POLL_S)

    def request_stop(self, reason: str) -> None:
        """End the run; what is under way drains. A second request does not wait for that.

        The hardware is made safe at once through the safety lane, whatever else waits or hangs.
        """
        if self._stop_reason:
            self._deadline_s = self._time.now_s()
            return
        self._stop_reason = reason
        self._deadline_s = self._time.now_s() + self.experiment.session.stop_timeout_s
        self._hardware.make_safe(reason, ends=True)
        self._events.write("stop", reason)

    def _viewer_stop(self, reason: str) -> None:
        if not self._stop_reason:
            self.request_stop(reason)

    def _make_safe(self, why: str) -> None:
        self._hardware.make_safe(why, ends=False)

    def _start_all(self) -> None:
        control = ("control",) if self.experiment.needs_control_stage else ()
        record = () if self.experiment.record.mode == "off" else (RECORD,)
        self._start("acquire", ("detect", *record), None)
        self._start("detect", ("track",), "acquire")
        self._start("track", ("write", *control), "detect")
        self._start("write", (), "track")
        for name in control:
            self._start(name, (), "track")
        for name in record:
            self._start(name, (), "acquire")

    def _can_restart(self) -> bool:
        session = self.experiment.session
        return session.restart_detector > 0 and session.mode == "processes"

    def _start(self, stage: str, consumers: tuple[str, ...], upstream: str | None) -> None:
        plan = StagePlan(stage, self.run_id, self.experiment, self._sink.address, self._keys, consumers)
        self._begin(StageView(plan, start_worker(plan, self.experiment.session.mode), upstream))

    def _begin(self, view: StageView) -> None:
        stage, view.began_s = view.plan.stage, self._time.now_s()
        self.stages[stage] = view
        if stage == "acquire":
            self._hardware.connect(view.worker.lane)
            if self._stop_reason:
                self._hardware.make_safe(self._stop_reason, ends=True)
        self._events.write("process", f"{stage} started", stage=stage, pid=view.worker.pid)

    def _poll(self) -> None:
        until_s = time.monotonic() + POLL_S
        while self._take_status(until_s - time.monotonic()) and time.monotonic() < until_s:
            pass  # nothing but statuses of running stages: the rest needs no look at each of them
        self._introduce()
        self.announcement.poll()
        self._hardware.poll()
        if self._stop_reason and self._running_since_s is None:
            self._end_at_once()
        for view in list(self.stages.values()):
            if not view.over:
                self._look_after(view)
        if self._snapshots is not None:
            self._snapshots.poll()
        if self._recalibrator is not None:
            self._recalibrator.poll()
        if self._time.now_s() > self._deadline_s:
            self._give_up()
        self._watch_age()
        self._look_for_events()
        self._notices.show(self.progress)

    def _recorded(self, entry: Recorded) -> None:
        """Take a record of a stage."""
        self._notices.record(entry)
        self._triggers.recorded(entry)

    def _look_for_events(self) -> None:
        """Ask the recorder for an event where what the stages report gives reason to."""
        if self._running_since_s is None or self._stop_reason or RECORD not in self.stages:
            return
        views = self.stages.values()
        counts = {name: view.counts for name, view in self.stages.items()}
        gauges = [view.status.gauges for view in views if view.status is not None]
        self._triggers.look(time.monotonic(), counts, gauges)

    def _watch_age(self) -> None:
        track = self.stages["track"]
        latency_ms = math.nan if self._stop_reason else track.gauge("age_ms")
        paused = self.stages["acquire"].gauge("paused") == 1.0
        note = self._age.note(time.monotonic(), latency_ms, paused=paused)
        if note:
            self._notices.note("late", note, "track")

    def _take_status(self, timeout_s: float) -> bool:
        """Take what has been reported, waiting for the first; whether there was any, all of stages that run on."""
        found, routine = False, True
        while (status := self._sink.receive(max(timeout_s, 0.0))) is not None:
            timeout_s, found = 0.0, True
            view = self.stages.get(status.stage)
            if view is not None and status.run_id == self.run_id:
                routine = routine and view.ready and status.state is StageState.RUNNING
                self._take(view, status)
                self.announcement.publish(status)
        return found and routine

    def _introduce(self) -> None:
        """Let the stages find each other, viewers the run, and the event log the addresses."""
        known = self.image_format
        self._introductions.poll(self.stages)
        if known is None and self.image_format is not None:
            self._age.know(self.image_format)
        bound = self._introductions.bound
        self.announcement.introduce(bound, self.image_format)
        if not self._commands_known and "acquire.commands" in bound:
            self._commands_known = True
            self._events.write("commands", bound["acquire.commands"])
        if self._snapshots is None and "detect.monitor" in bound:
            door = self._keys.viewer_of_monitor(self.experiment.session.monitor)
            self._snapshots = SnapshotTaker(bound["detect.monitor"], door.security())
            self._events.write("monitor", bound["detect.monitor"])
        if self._recalibrator is None:
            self._watch_calibration(bound)

    def _watch_calibration(self, bound: dict[str, str]) -> None:
        """Start the process that proposes recalibrations, if it is asked for."""
        watch = watch_of(self.experiment, self.run_id, self._keys, bound)
        if watch is not None and not self._stop_reason:
            self._recalibrator = Recalibrator(watch, self._notices.record)
            self._events.write(
                "process", "recalibrate started", stage="recalibrate", pid=self._recalibrator.pid
            )

    def _take(self, view: StageView, status: Status) -> None:
        view.status, view.heard_s = status, self._time.now_s()
        if status.state is StageState.FAILED:
            view.failure = status.text or "failed without reporting why"
        elif status.text:
            self._notices.note("note", f"{status.stage}: {status.text}", status.stage)
        if not view.ready and status.state in {StageState.RUNNING, StageState.DRAINING, StageState.DONE}:
            view.ready = True
            self._events.write("ready", f"{status.stage} is ready", stage=status.stage)
            if status.stage == "acquire":
                self._running_since_s = time.monotonic()

    def _look_after(self, view: StageView) -> None:
        stage, longest_s = view.plan.stage, self._longest_silence_s(view)
        now_s = self._time.now_s()
        if stage == "acquire" and view.ready:
            self._hardware.stand_by(now_s - view.heard_s > max(SILENT_S, longest_s / 3))
        is_alive = view.worker.alive()
        if not is_alive:
            self._take_status(0.0)
        recover_s = self.experiment.session.recover_s
        verdict = judge(view, now_s, is_alive=is_alive, longest_s=longest_s, recover_s=recover_s)
        if verdict.kill:
            self._secure_and_kill(view)
        if verdict.over:
            self._over(view)
        elif verdict.why:
            self._lost(view, verdict.why)

    def _longest_silence_s(self, view: StageView) -> float:
        """How long a stage may be silent, s.

        A frozen acquisition cannot make its hardware safe: with a controller on, it gets no longer than its
        watchdog.
        """
        session, is_watched = self.experiment.session, self._hardware.has_safe_state and self._steers
        if view.plan.stage == "acquire" and is_watched:
            return min(session.hang_s, max(self.experiment.limits.watchdog_s, FROZEN_S))
        return session.hang_s

    @property
    def _steers(self) -> bool:
        control = self.stages.get("control")
        is_on = control is not None and control.gauge("controller_on") == 1.0
        return self.experiment.is_controlled or is_on

    def _secure_and_kill(self, view: StageView) -> None:
        """Kill a stage; the acquisition first gets a moment to make the hardware safe."""
        if view.plan.stage == "acquire":
            self._hardware.make_safe(self._stop_reason or "the acquisition is ended", ends=True)
            self._hardware.wait(self._listen)
        view.worker.kill()

    def _over(self, view: StageView) -> None:
        view.over = True
        if view.plan.stage == "acquire":
            self._hardware.acquisition_is_gone(was_a_process=view.worker.can_be_killed)
            self._ended_s = time.monotonic()
            self._deadline_s = min(
                self._deadline_s, self._time.now_s() + self.experiment.session.stop_timeout_s
            )

    def _lost(self, view: StageView, why: str) -> None:
        stage = view.plan.stage
        if self._running_since_s is None and stage != "detect":
            self._events.write("lost", why, stage=stage)  # reported once, as the error of the run
        else:
            self._notices.note("lost", why, stage)
        if stage == "detect" and not view.failure and self._restart(view):
            return
        self._failures.append(why.splitlines()[0])
        self._over(view)
        for other in self.stages.values():
            if other.upstream == stage:
                other.worker.tell(UpstreamLost(why.splitlines()[0]))
        if stage == RECORD:
            self.announcement.record_lost()
        if stage == RECORD and "acquire" in self.stages:
            self.stages["acquire"].worker.tell(ConsumerLost(RECORD))
        if self._running_since_s is None:
            self._end_at_once()
        elif stage == RECORD and self.experiment.record.when_full == "go_on":
            self._notices.note(
                "policy",
                "the run continues without its recorder: images from here on are not kept, which is declared",
                stage,
            )
        elif stage == "control" and (self.experiment.is_controlled or view.gauge("controller_on") == 1.0):
            self._notices.note(
                "policy", "the run continues without its controller; the hardware is made safe", stage
            )
            self._hardware.make_safe(f"the controller was lost: {why}".splitlines()[0], ends=False)
        elif stage == "control":
            self._notices.note(
                "policy", "the run continues; no controller can be switched on any more", stage
            )
        else:
            self._notices.note(
                "policy",
                f"the run cannot continue without {stage}: it ends, and the trajectory file is finished",
                stage,
            )
            if not self._stop_reason:
                self.request_stop(f"{stage} was lost")
            self._deadline_s = min(self._deadline_s, self._time.now_s() + GRACE_S)

    def _restart(self, view: StageView) -> bool:
        limit = self.experiment.session.restart_detector
        if not self._can_restart() or view.restarts >= limit or self._stop_reason or not view.ready:
            return False
        addresses = {
            name: self._introductions.bound[f"detect.{name}"] for name in (*view.plan.consumers, "monitor")
        }
        plan = replace(view.plan, addresses=addresses, restarts=view.restarts + 1)
        self._notices.note(
            "policy", f"detect is started again ({view.restarts + 1} of at most {limit} times)", "detect"
        )
        view.worker.kill()
        self._begin(
            StageView(
                plan,
                start_worker(plan, self.experiment.session.mode),
                view.upstream,
                restarts=view.restarts + 1,
                past_counts=view.counts,
            )
        )
        return True

    def _give_up(self) -> None:
        """The time to drain is over: kill what still runs, but let the writer finish the file."""
        self._deadline_s = math.inf
        running = [view for view in self.stages.values() if not view.over]
        writer = self.stages["write"]
        spared = writer in running and len(running) > 1 and writer.ready
        for view in running:
            if not (spared and view is writer):
                self._kill(view)
        if spared:
            writer.worker.tell(UpstreamLost("the run was ended"))
            self._deadline_s = self._time.now_s() + GRACE_S

    def _kill(self, view: StageView) -> None:
        what = f"{view.plan.stage} did not end in time and was killed"
        if not self._failures:
            self._failures.append(what)
        self._notices.note("kill", what, view.plan.stage)
        self._secure_and_kill(view)
        self._over(view)

    def _end_at_once(self) -> None:
        """Kill all stages: nothing was measured, so nothing drains; the hardware is still made safe first."""
        for view in self.stages.values():
            if not view.over:
                self._secure_and_kill(view)
                self._over(view)

    def progress(self) -> Progress:
        """The run as it is now."""
        now_s, since_s = time.monotonic(), self._running_since_s
        return progress_of(
            self.stages,
            frames_asked_for=self.experiment.run.frames,
            image_format=self.image_format,
            starting_s=now_s - self._began_s,
            running_s=None if since_s is None else now_s - since_s,
            stopping=self._stop_reason,
            late=self._age.late,
        )

    def _result(self) -> SessionResult:
        reason = self._stop_reason or "done"
        counts = {name: dict(sorted(view.counts.items())) for name, view in self.stages.items()}
        known = self._hardware.known or ()
        if (warning := unsafe(known)) and not any("safe state" in failure for failure in self._failures):
            self._failures.append(warning)
        with contextlib.suppress(Exception):  # a log that cannot be written is no reason to lose the result
            if detect := self.stages.get("detect"):
                predicted = prediction_in_words(detect.counts, detect.gauge("searched_part"))
                if predicted:
                    self._events.write("prediction", predicted)
            self._events.write("end", reason, counts=counts, failures=self._failures)
        began_s = self._running_since_s
        return SessionResult(
            run_id=self.run_id,
            started=self._running_since_s is not None,
            reason=reason,
            failures=tuple(self._failures),
            counts=counts,
            image_format=self.image_format,
            snapshot=self._snapshots.best if self._snapshots is not None else None,
            duration_s=0.0 if began_s is None else (self._ended_s or time.monotonic()) - began_s,
            safety=known,
            checks=checks_of(view.status.gauges for view in self.stages.values() if view.status),
            recalibration={} if self._recalibrator is None else self._recalibrator.facts,
        )
