"""The supervisor of a run: starts the stages, watches them, applies the policy when one is lost, adds it all up.

A stage is lost when its process dies, when it reports a failure, or when it has been silent for
`session.hang_s` (it is killed then). The policy:

- `detect` is started again, up to `session.restart_detector` times; nothing is lost, since a frame is
  acknowledged only after its detections have been.
- `control` is lost: the run goes on without feedback and says so; the hardware is made safe if there was any.
- `acquire`, `track` or `write` is lost: the run ends; what was under way is drained as far as it can be, and the
  trajectory file is finished (mended first, if its writer was the one lost).
- anything lost before the first frame was taken ends the run at once.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from liveptv.config import Experiment
from liveptv.session.events import EventLog
from liveptv.session.front import Front
from liveptv.session.plan import Peers, Picture, Recorded, StagePlan
from liveptv.session.processes import start_worker
from liveptv.session.snapshots import SnapshotTaker
from liveptv.session.views import Progress, SessionResult, StageView, lost_frames
from stream.commands import CommandClient
from stream.messages import Command, CommandKind, StageState, Status
from stream.status import StatusSink

POLL_S = 0.05
GRACE_S = 5.0
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
        self._sink = StatusSink("tcp://127.0.0.1:0")
        self._bound: dict[str, str] = {}
        self._commands: CommandClient | None = None
        self._snapshots: SnapshotTaker | None = None
        self._began_s = time.monotonic()
        self._running_since_s: float | None = None
        self._ended_s: float | None = None
        self._stop_reason = ""
        self._stop_sent = False
        self._deadline_s = math.inf
        self._failures: list[str] = []
        self.front = Front(self.run_id, experiment, events, self._wished_stop)

    def run(self) -> SessionResult:
        """Start every stage, wait for the end, and return what happened."""
        self._events.write("start", f"run {self.run_id}", settings=self.experiment.resolved())
        try:
            self._start_all()
            while not all(view.over for view in self.stages.values()):
                self._poll()
            self._take_status(0.0)
            self._introduce()
            return self._result()
        finally:
            for view in self.stages.values():
                view.worker.kill()
            if self._commands is not None:
                self._commands.close()
            if self._snapshots is not None:
                self._snapshots.close()
            self.front.close()
            self._sink.close()

    def request_stop(self, reason: str) -> None:
        """Ask acquisition to end the stream; everything behind it drains. A second request ends it at once."""
        if self._stop_reason:
            self._deadline_s = time.monotonic()
            return
        self._stop_reason = reason
        self._deadline_s = time.monotonic() + self.experiment.session.stop_timeout_s
        self._events.write("stop", reason)

    def _wished_stop(self, reason: str) -> None:
        if not self._stop_reason:
            self.request_stop(reason)

    def _start_all(self) -> None:
        control = ("control",) if self.experiment.can_be_controlled else ()
        self._start("acquire", ("detect",), None)
        self._start("detect", ("track",), "acquire")
        self._start("track", ("write", *control), "detect", waits_for_restart=self._can_restart())
        self._start("write", (), "track")
        for name in control:
            self._start(name, (), "track")

    def _can_restart(self) -> bool:
        session = self.experiment.session
        return session.restart_detector > 0 and session.mode == "processes"

    def _start(
        self, stage: str, consumers: tuple[str, ...], upstream: str | None, *, waits_for_restart: bool = False
    ) -> None:
        plan = StagePlan(
            stage, self.run_id, self.experiment, self._sink.address, consumers, waits_for_restart
        )
        self._begin(StageView(plan, start_worker(plan, self.experiment.session.mode), upstream))

    def _begin(self, view: StageView) -> None:
        stage = view.plan.stage
        self.stages[stage] = view
        self._events.write("process", f"{stage} started", stage=stage, pid=view.worker.pid)

    def _poll(self) -> None:
        self._take_status(POLL_S)
        self._introduce()
        self.front.poll()
        self._send_stop()
        for view in list(self.stages.values()):
            if not view.over:
                self._look_after(view)
        if self._snapshots is not None:
            self._snapshots.poll()
        if time.monotonic() > self._deadline_s:
            self._give_up()
        if self._on_update is not None:
            self._on_update(self.progress())

    def _take_status(self, timeout_s: float) -> None:
        while (status := self._sink.receive(timeout_s)) is not None:
            timeout_s = 0.0
            view = self.stages.get(status.stage)
            if view is not None and status.run_id == self.run_id:
                self._take(view, status)
                self.front.publish(status)

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
        if self._on_note is not None:
            self._on_note(text.splitlines()[0])

    def _keep(self, entry: Recorded) -> None:
        self._events.write(entry.kind, entry.text, **entry.facts)
        if entry.kind == "slice" and self._on_note is not None:
            self._on_note(entry.text)

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
        self.front.introduce(self._bound, self.picture)
        if self._commands is None and "acquire.commands" in self._bound:
            self._commands = CommandClient(self._bound["acquire.commands"])
            self._events.write("commands", self._bound["acquire.commands"])
        if self._snapshots is None and "detect.monitor" in self._bound:
            self._snapshots = SnapshotTaker(self._bound["detect.monitor"])
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

    def _send_stop(self) -> None:
        if not self._stop_reason or self._stop_sent:
            return
        if self._running_since_s is None:
            self._end_at_once()
        elif self._commands is not None:
            self._commands.send(Command(CommandKind.STOP, value=self._stop_reason, sender="session"))
            self._stop_sent = True

    def _look_after(self, view: StageView) -> None:
        stage = view.plan.stage
        if not view.worker.alive():
            self._take_status(0.0)
            if view.status is not None and view.status.state is StageState.DONE:
                self._over(view)
                return
            why = view.failure or f"{stage} ended without a word ({view.worker.describe_exit()})"
        elif view.ready and time.monotonic() - view.heard_s > self.experiment.session.hang_s:
            view.worker.kill()
            why = f"{stage} hung: no sign of life for {self.experiment.session.hang_s:g} s"
        else:
            return
        self._lost(view, why)

    def _over(self, view: StageView) -> None:
        view.over = True
        if view.plan.stage == "acquire":
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
        if self._running_since_s is None:
            self._end_at_once()
        elif stage == "control" and (self.experiment.is_controlled or view.gauge("controller_on") == 1.0):
            self._note("policy", "the run goes on without its controller, the hardware is made safe", stage)
            self._make_safe(why)
        elif stage == "control":
            self._note("policy", "the run goes on; no controller can be switched on any more", stage)
        else:
            self._note("policy", f"without {stage} the run ends; the trajectory file is finished", stage)
            if not self._stop_reason:
                self.request_stop(f"{stage} was lost")
            notice_s = GRACE_S + 2 * self.experiment.link.patience_s
            self._deadline_s = min(self._deadline_s, time.monotonic() + notice_s)

    def _make_safe(self, why: str) -> None:
        if self._commands is not None:
            reason = f"the controller was lost: {why}".splitlines()[0]
            self._commands.send(Command(CommandKind.MAKE_SAFE, reason, sender="session"))

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
            self._deadline_s = time.monotonic() + GRACE_S + 2 * self.experiment.link.patience_s

    def _kill(self, view: StageView) -> None:
        what = f"{view.plan.stage} did not end in time and was stopped"
        if not self._failures:
            self._failures.append(what)
        self._note("kill", what, view.plan.stage)
        view.worker.kill()
        self._over(view)

    def _end_at_once(self) -> None:
        """Nothing has been measured yet: there is nothing to drain."""
        self._stop_sent = True
        for view in self.stages.values():
            if not view.over:
                view.worker.kill()
                view.over = True

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
        )

    def _result(self) -> SessionResult:
        reason = self._stop_reason or "done"
        counts = {name: view.counts for name, view in self.stages.items()}
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
        )
