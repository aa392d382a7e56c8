"""The supervisor of a run: starts the stages, watches them, applies the policy when one is lost, adds it all up.

A stage is lost when its process dies, when it reports a failure, or when it has been silent for
`session.hang_s` (it is killed then); the links between the stages judge nothing. However a run ends, the
hardware is made safe first, by a lane of its own (`session.lane`, `session.hardware`). The policy:

- `detect` is started again, up to `session.restart_detector` times; nothing is lost, since a frame is
  acknowledged only after its detections have been.
- `control` is lost: the run goes on without feedback and says so; the hardware is made safe if there was any.
- `acquire`, `track` or `write` is lost: the run ends; what was under way is drained as far as it can be, and the
  trajectory file is finished (mended first, if its writer was the one lost).
- anything lost before the first frame was taken ends the run at once.
"""

from __future__ import annotations

import contextlib
import math
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from liveptv.config import Experiment
from liveptv.session.announcement import Announcement
from liveptv.session.events import EventLog
from liveptv.session.hardware import Hardware, unsafe
from liveptv.session.plan import Peers, Picture, Recorded, StagePlan, UpstreamLost
from liveptv.session.processes import start_worker
from liveptv.session.result_age import AgeWatch
from liveptv.session.run_status import Progress, SessionResult, StageView, lost_frames
from liveptv.session.snapshots import SnapshotTaker
from stream.errors import LivePTVError
from stream.messages import StageState, Status
from stream.run_keys import RunKeys
from stream.status import StatusSink

POLL_S = 0.05
GRACE_S = 5.0
FROZEN_S = 5.0  # a busy machine, or a laptop that wakes up, freezes a process for less
LEAVE_S = 25.0  # a stage that is done lets go of its devices, of which one may hang or travel
SAME_S = 12.0  # a focus that travels is read back for so long
SILENT_S = 1.0  # a stage reports five times a second; on a busy machine it may miss a few
DRAIN_S = (
    20.0  # after a failure of the session itself the stages may take so long to deliver what is under way
)
COMPILES_AFTER_S = 8.0


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
        self.picture: Picture | None = None
        self._events = events
        self._on_update = on_update
        self._on_note = on_note
        self._keys = RunKeys.fresh(experiment.session.keys)
        self._sink = StatusSink("tcp://127.0.0.1:0", self._keys.curve)
        self._bound: dict[str, str] = {}
        self._hardware = Hardware(experiment, self._note_safety)
        self._age = AgeWatch(experiment)
        self._commands_known = False
        self._snapshots: SnapshotTaker | None = None
        self._began_s = time.monotonic()
        self._running_since_s: float | None = None
        self._ended_s: float | None = None
        self._stop_reason = ""
        self._told_s: dict[str, float] = {}
        self._deadline_s = math.inf
        self._failures: list[str] = []
        self.announcement = Announcement(
            self.run_id, experiment, events, self._viewer_stop, self._keys, self._make_safe
        )

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
        except Exception as error:  # noqa: BLE001 - whatever it is: the stages must not be left alone with the hardware
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
        """Leave nothing running: the hardware is made safe, the stages drain for a while, then they are ended."""
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
        with contextlib.suppress(Exception):  # what can be known is known; the log may be what failed
            if "acquire" in self.stages:
                self._hardware.acquisition_is_gone(was_a_process=self.stages["acquire"].worker.can_be_killed)
            self._hardware.settle()
        self._hardware.close()
        if self._snapshots is not None:
            self._snapshots.close()
        self.announcement.close()
        self._sink.close()

    def _listen(self) -> None:
        """Hear the other stages while one is waited for, so that they are not taken for silent."""
        with contextlib.suppress(Exception):  # what it is that fails has been said
            self._take_status(POLL_S)

    def request_stop(self, reason: str) -> None:
        """End the stream; everything behind it drains. A second request ends it at once.

        The hardware is made safe at once, by the acquisition's own lane, whatever else waits or hangs.
        """
        if self._stop_reason:
            self._deadline_s = time.monotonic()
            return
        self._stop_reason = reason
        self._deadline_s = time.monotonic() + self.experiment.session.stop_timeout_s
        self._hardware.make_safe(reason, ends=True)
        self._events.write("stop", reason)

    def _viewer_stop(self, reason: str) -> None:
        if not self._stop_reason:
            self.request_stop(reason)

    def _make_safe(self, why: str) -> None:
        self._hardware.make_safe(why, ends=False)

    def _start_all(self) -> None:
        control = ("control",) if self.experiment.can_be_controlled else ()
        self._start("acquire", ("detect",), None)
        self._start("detect", ("track",), "acquire")
        self._start("track", ("write", *control), "detect")
        self._start("write", (), "track")
        for name in control:
            self._start(name, (), "track")

    def _can_restart(self) -> bool:
        session = self.experiment.session
        return session.restart_detector > 0 and session.mode == "processes"

    def _start(self, stage: str, consumers: tuple[str, ...], upstream: str | None) -> None:
        plan = StagePlan(stage, self.run_id, self.experiment, self._sink.address, self._keys, consumers)
        self._begin(StageView(plan, start_worker(plan, self.experiment.session.mode), upstream))

    def _begin(self, view: StageView) -> None:
        stage = view.plan.stage
        self.stages[stage] = view
        if stage == "acquire":
            self._hardware.connect(view.worker.lane)
            if self._stop_reason:
                self._hardware.make_safe(self._stop_reason, ends=True)
        self._events.write("process", f"{stage} started", stage=stage, pid=view.worker.pid)

    def _poll(self) -> None:
        self._take_status(POLL_S)
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
        if time.monotonic() > self._deadline_s:
            self._give_up()
        self._watch_age()
        self._show()

    def _watch_age(self) -> None:
        track = self.stages["track"]
        latency_ms = math.nan if self._stop_reason else track.gauge("age_ms")
        note = self._age.note(time.monotonic(), latency_ms)
        if note:
            self._note("late", note, "track")

    def _show(self) -> None:
        """What shows the run must not end it: a terminal may be closed."""
        if self._on_update is None:
            return
        try:
            self._on_update(self.progress())
        except Exception as error:  # noqa: BLE001 - whatever shows the run
            self._on_update = None
            self._events.write("note", f"the run is no longer shown: {type(error).__name__}: {error}")

    def _take_status(self, timeout_s: float) -> None:
        while (status := self._sink.receive(timeout_s)) is not None:
            timeout_s = 0.0
            view = self.stages.get(status.stage)
            if view is not None and status.run_id == self.run_id:
                self._take(view, status)
                self.announcement.publish(status)

    def _take(self, view: StageView, status: Status) -> None:
        view.status, view.heard_s = status, time.monotonic()
        if status.state is StageState.FAILED:
            view.failure = status.text or "failed without a word"
        elif status.text:
            self._note("note", f"{status.stage}: {status.text}", status.stage)
        if not view.ready and status.state in {StageState.RUNNING, StageState.DRAINING, StageState.DONE}:
            view.ready = True
            self._events.write("ready", f"{status.stage} is ready", stage=status.stage)
            if status.stage == "acquire":
                self._running_since_s = time.monotonic()

    def _note(self, kind: str, text: str, stage: str) -> None:
        self._events.write(kind, text, stage=stage)
        self._tell_once(text.splitlines()[0], text.splitlines()[0].removeprefix(f"{stage}: "))

    def _note_safety(self, kind: str, text: str, facts: dict[str, Any]) -> None:
        self._events.write(kind, text, **facts)
        self._tell_once(text, text)

    def _tell_once(self, line: str, what: str) -> None:
        """A safe state is told by the acquisition's loop and by its lane: once is enough."""
        now_s = time.monotonic()
        is_safe = what.startswith("safe state")
        if not is_safe or now_s - self._told_s.get(what, -math.inf) > SAME_S:
            self._tell(line)
        if is_safe:
            self._told_s = {what: now_s}

    def _tell(self, line: str) -> None:
        if self._on_note is None:
            return
        try:
            self._on_note(line)
        except Exception as error:  # noqa: BLE001 - as for `_show`
            self._on_note = None
            self._events.write("note", f"nobody is told any more: {type(error).__name__}: {error}")

    def _keep(self, entry: Recorded) -> None:
        self._events.write(entry.kind, entry.text, **entry.facts)
        if entry.kind in {"slice", "recording"}:
            self._tell(entry.text)

    def _introduce(self) -> None:
        """Collect what stages have bound and tell each stage its inputs as soon as they are known."""
        for view in self.stages.values():
            for message in view.worker.messages():
                if isinstance(message, Recorded):
                    self._keep(message)
                    continue
                self._bound |= {f"{view.plan.stage}.{name}": at for name, at in message.addresses.items()}
                self.picture = message.picture or self.picture
                view.waits_for_peers = True
            if view.waits_for_peers and (peers := self._peers_of(view)) is not None:
                view.waits_for_peers = False
                view.worker.tell(peers)
        self.announcement.introduce(self._bound, self.picture)
        if not self._commands_known and "acquire.commands" in self._bound:
            self._commands_known = True
            self._events.write("commands", self._bound["acquire.commands"])
        if self._snapshots is None and "detect.monitor" in self._bound:
            door = self._keys.viewer_of_monitor(self.experiment.session.monitor)
            self._snapshots = SnapshotTaker(self._bound["detect.monitor"], door.security())
            self._events.write("monitor", self._bound["detect.monitor"])

    def _peers_of(self, view: StageView) -> Peers | None:
        if view.upstream is None:
            others_ready = all(other.ready for other in self.stages.values() if other is not view)
            return Peers({}) if others_ready else None
        upstream = self._bound.get(f"{view.upstream}.{view.plan.stage}")
        commands = self._bound.get("acquire.commands")
        if upstream is None or self.picture is None or commands is None:
            return None
        return Peers({"upstream": upstream, "commands": commands}, view.upstream, self.picture)

    def _look_after(self, view: StageView) -> None:
        stage, session = view.plan.stage, self.experiment.session
        longest_s = self._longest_silence_s(view)
        now_s = time.monotonic()
        if stage == "acquire" and view.ready:
            self._hardware.stand_by(now_s - view.heard_s > max(SILENT_S, longest_s / 3))
        if not view.worker.alive():
            self._take_status(0.0)
            if view.status is not None and view.status.state is StageState.DONE:
                self._over(view)
                return
            why = view.failure or f"{stage} ended without a word ({view.worker.describe_exit()})"
        elif view.status is not None and view.status.state is StageState.DONE:
            if now_s - view.heard_s > LEAVE_S:
                self._secure_and_kill(view)
                self._over(view)
            return
        elif view.ready and now_s - view.heard_s > longest_s:
            self._secure_and_kill(view)
            why = f"{stage} hung: no sign of life for {longest_s:g} s"
        elif view.restarts and not view.ready and now_s - view.began_s > session.recover_s:
            self._secure_and_kill(view)
            why = f"{stage} was not back within {session.recover_s:g} s (session.recover_s)"
        else:
            return
        self._lost(view, why)

    def _longest_silence_s(self, view: StageView) -> float:
        """An acquisition that is frozen cannot make its hardware safe: no longer than its watchdog would wait."""
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
        """Kill a stage; the acquisition is given a moment before to make the hardware safe."""
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
                self._deadline_s, time.monotonic() + self.experiment.session.stop_timeout_s
            )

    def _lost(self, view: StageView, why: str) -> None:
        stage = view.plan.stage
        if self._running_since_s is None and stage != "detect":
            self._events.write("lost", why, stage=stage)  # it is said once, as the error of the run
        else:
            self._note("lost", why, stage)
        if stage == "detect" and not view.failure and self._restart(view):
            return
        self._failures.append(why.splitlines()[0])
        self._over(view)
        for other in self.stages.values():
            if other.upstream == stage:
                other.worker.tell(UpstreamLost(why.splitlines()[0]))
        if self._running_since_s is None:
            self._end_at_once()
        elif stage == "control" and (self.experiment.is_controlled or view.gauge("controller_on") == 1.0):
            self._note("policy", "the run goes on without its controller, the hardware is made safe", stage)
            self._hardware.make_safe(f"the controller was lost: {why}".splitlines()[0], ends=False)
        elif stage == "control":
            self._note("policy", "the run goes on; no controller can be switched on any more", stage)
        else:
            self._note("policy", f"without {stage} the run ends; the trajectory file is finished", stage)
            if not self._stop_reason:
                self.request_stop(f"{stage} was lost")
            self._deadline_s = min(self._deadline_s, time.monotonic() + GRACE_S)

    def _restart(self, view: StageView) -> bool:
        limit = self.experiment.session.restart_detector
        if not self._can_restart() or view.restarts >= limit or self._stop_reason or not view.ready:
            return False
        addresses = {name: self._bound[f"detect.{name}"] for name in (*view.plan.consumers, "monitor")}
        plan = replace(view.plan, addresses=addresses)
        self._note(
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
        """Time to drain is over: end what still runs, but leave the file's writer time to notice and finish."""
        self._deadline_s = math.inf
        running = [view for view in self.stages.values() if not view.over]
        writer = self.stages["write"]
        spared = writer in running and len(running) > 1 and writer.ready
        for view in running:
            if not (spared and view is writer):
                self._kill(view)
        if spared:
            writer.worker.tell(UpstreamLost("the run was ended"))
            self._deadline_s = time.monotonic() + GRACE_S

    def _kill(self, view: StageView) -> None:
        what = f"{view.plan.stage} did not end in time and was stopped"
        if not self._failures:
            self._failures.append(what)
        self._note("kill", what, view.plan.stage)
        self._secure_and_kill(view)
        self._over(view)

    def _end_at_once(self) -> None:
        """Nothing has been measured yet: there is nothing to drain, but a pump may run already."""
        for view in self.stages.values():
            if not view.over:
                self._secure_and_kill(view)
                self._over(view)

    def _starting(self) -> str:
        waiting = [name for name, view in self.stages.items() if not view.ready and name != "acquire"]
        slow = "detect" in waiting and time.monotonic() - self._began_s > COMPILES_AFTER_S
        why = " (compiling for this processor, once: about a minute)" if slow else ""
        return f"starting {', '.join(waiting) or 'camera'}{why}"

    def progress(self) -> Progress:
        """The run as it is now."""
        views, counts = self.stages, {name: view.counts for name, view in self.stages.items()}
        in_source = None if self.picture is None else self.picture.frames
        expected = [count for count in (self.experiment.run.frames, in_source) if count is not None]
        since_s = self._running_since_s
        return Progress(
            stage=self._starting() if self._running_since_s is None else "running",
            frames=counts.get("write", {}).get("sent", 0),
            frames_expected=min(expected, default=None),
            frames_per_s=views["acquire"].gauge("frames_per_s"),
            queue=views["acquire"].gauge("queue_detect"),
            lost=sum(lost_frames(counts).values()),
            particles=views["detect"].gauge("particles"),
            tracks=views["track"].gauge("tracks"),
            latency_ms=views["track"].gauge("latency_ms"),
            running_s=0.0 if since_s is None else time.monotonic() - since_s,
            stopping=self._stop_reason,
            late=self._age.late,
        )

    def _result(self) -> SessionResult:
        reason = self._stop_reason or "done"
        counts = {name: view.counts for name, view in self.stages.items()}
        known = self._hardware.known or ()
        if (warning := unsafe(known)) and not any("safe state" in failure for failure in self._failures):
            self._failures.append(warning)
        with contextlib.suppress(Exception):  # a log that cannot be written is no reason to lose the result
            self._events.write("end", reason, counts=counts, failures=self._failures)
        began_s = self._running_since_s
        return SessionResult(
            run_id=self.run_id,
            started=self._running_since_s is not None,
            reason=reason,
            failures=tuple(self._failures),
            counts=counts,
            picture=self.picture,
            snapshot=self._snapshots.best if self._snapshots is not None else None,
            duration_s=0.0 if began_s is None else (self._ended_s or time.monotonic()) - began_s,
            safety=known,
        )
