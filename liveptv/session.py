"""The supervisor of a run: starts the stages, watches them, applies the policy when one dies, adds it all up.

Policy when a stage is lost (killed, crashed, hung):

- `detect` is started again, up to `session.restart_detector` times; nothing is lost, since a frame is
  acknowledged only after its detections have been.
- `control` is lost: the run goes on without feedback and says so.
- `acquire`, `track` or `write` is lost: the run ends; what was under way is drained as far as it can be, and the
  trajectory file is finished (recovered first, if its writer was the one lost).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from liveptv.config import Experiment
from liveptv.events import EventLog
from liveptv.processes import Worker, start_worker
from liveptv.snapshots import Snapshot, SnapshotTaker
from liveptv.stages import Bound, Peers, Picture, StagePlan
from stream.commands import CommandClient
from stream.errors import LinkError, LivePTVError
from stream.messages import Command, CommandKind, StageState, Status
from stream.status import StatusSink

POLL_S = 0.05
GRACE_S = 5.0


@dataclass(slots=True)
class StageView:
    """What the session knows of one stage."""

    plan: StagePlan
    worker: Worker
    upstream: str | None
    status: Status | None = None
    ready: bool = False
    finished: bool = False
    failure: str = ""
    restarts: int = 0
    past_counts: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Totals over all lives of the stage."""
        current = self.status.counts if self.status else {}
        return {key: self.past_counts.get(key, 0) + current.get(key, 0) for key in {*self.past_counts, *current}}

    def gauge(self, name: str) -> float:
        """A momentary value, NaN where unknown."""
        return self.status.gauges.get(name, float("nan")) if self.status else float("nan")


@dataclass(frozen=True, slots=True)
class SessionResult:
    """How a run ended."""

    run_id: str
    reason: str
    failures: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    snapshot: Snapshot | None
    duration_s: float

    @property
    def ok(self) -> bool:
        """Whether every stage came to its regular end."""
        return not self.failures


def run_id() -> str:
    """A name for a run that sorts by time and is unique."""
    return time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]


class Session:
    """One run. `run` blocks until it is over; `request_stop` (from a signal or a callback) ends it early."""

    def __init__(
        self,
        experiment: Experiment,
        *,
        model: Path | None,
        events: EventLog,
        on_update: Callable[[Session], None] | None = None,
    ) -> None:
        self.experiment = experiment
        self.run_id = run_id()
        self.stages: dict[str, StageView] = {}
        self.began_s = time.monotonic()
        self.running_since_s: float | None = None
        self._model = model
        self._events = events
        self._on_update = on_update
        self._sink = StatusSink("tcp://127.0.0.1:0")
        self._bound: dict[str, str] = {}
        self._picture: Picture | None = None
        self._commands: CommandClient | None = None
        self._snapshots: SnapshotTaker | None = None
        self._stop_reason = ""
        self._stop_sent = False
        self._stop_deadline_s = float("inf")
        self._failures: list[str] = []
        self._picture_wanted: list[StageView] = []

    def run(self) -> SessionResult:
        """Start every stage, wait for the end, and return what happened; raises only if nothing could start."""
        self._events.write("start", f"run {self.run_id}", settings=self.experiment.resolved())
        try:
            self._start_all()
            while not all(view.finished for view in self.stages.values()):
                self._poll()
            self._poll_status()
            return self._result()
        finally:
            for view in self.stages.values():
                view.worker.kill()
            if self._commands is not None:
                self._commands.close()
            if self._snapshots is not None:
                self._snapshots.close()
            self._sink.close()

    def request_stop(self, reason: str) -> None:
        """Ask acquisition to end the stream; everything behind it drains. A second request ends it at once."""
        if self._stop_reason:
            self._stop_deadline_s = time.monotonic()
            return
        self._stop_reason = reason
        self._stop_deadline_s = time.monotonic() + self.experiment.session.stop_timeout_s
        self._events.write("stop", reason)

    @property
    def stopping(self) -> str:
        """Why the run is being stopped, empty while it is not."""
        return self._stop_reason

    def _plan(self, stage: str, consumers: tuple[str, ...], recover_s: float = 0.0) -> StagePlan:
        return StagePlan(
            stage=stage,
            run_id=self.run_id,
            experiment=self.experiment,
            model=self._model,
            status_address=self._sink.address,
            consumers=consumers,
            recover_s=recover_s,
        )

    def _start_all(self) -> None:
        session = self.experiment.session
        recover_s = session.recover_s if session.restart_detector and session.mode == "processes" else 0.0
        control = ("control",) if self.experiment.controller is not None else ()
        plans = [
            (self._plan("acquire", ("detect",)), None),
            (self._plan("detect", ("track",)), "acquire"),
            (self._plan("track", ("write", *control), recover_s), "detect"),
            (self._plan("write", ()), "track"),
            *((self._plan(name, ()), "track") for name in control),
        ]
        for plan, upstream in plans:
            self._start(plan, upstream)

    def _start(self, plan: StagePlan, upstream: str | None) -> StageView:
        worker = start_worker(plan, self.experiment.session.mode)
        view = StageView(plan, worker, upstream)
        self.stages[plan.stage] = view
        return view

    def _poll(self) -> None:
        self._poll_status()
        self._introduce()
        self._send_stop()
        for view in list(self.stages.values()):
            if not view.finished and not view.worker.alive():
                self._poll_status()
                self._left(view)
        if self._snapshots is not None:
            self._snapshots.poll()
        if time.monotonic() > self._stop_deadline_s:
            self._give_up()
        if self._on_update is not None:
            self._on_update(self)

    def _poll_status(self) -> None:
        timeout_s = POLL_S
        while (status := self._sink.receive(timeout_s)) is not None:
            timeout_s = 0.0
            view = self.stages.get(status.stage)
            if view is None or status.run_id != self.run_id:
                continue
            view.status = status
            if status.state is StageState.FAILED:
                view.failure = status.text or "failed without a word"
            elif status.text:
                self._events.write("note", status.text, stage=status.stage)
            if status.state is StageState.RUNNING and not view.ready:
                view.ready = True
                self._events.write("ready", f"{status.stage} is ready", stage=status.stage)
                if status.stage == "acquire":
                    self.running_since_s = time.monotonic()

    def _introduce(self) -> None:
        """Collect what stages have bound and tell each stage its inputs as soon as they are known."""
        for view in self.stages.values():
            for message in view.worker.messages():
                if isinstance(message, Bound):
                    self._bound |= {f"{view.plan.stage}.{name}": at for name, at in message.addresses.items()}
                    self._picture = message.picture or self._picture
                    view.worker.waiting = True
            if view.worker.waiting and (peers := self._peers_of(view)) is not None:
                view.worker.waiting = False
                view.worker.tell(peers)
        if self._commands is None and "acquire.commands" in self._bound:
            self._commands = CommandClient(self._bound["acquire.commands"])
        if self._snapshots is None and "detect.monitor" in self._bound:
            self._snapshots = SnapshotTaker(self._bound["detect.monitor"])

    def _peers_of(self, view: StageView) -> Peers | None:
        if view.upstream is None:
            others_ready = all(other.ready for other in self.stages.values() if other is not view)
            return Peers({}) if others_ready else None
        upstream = self._bound.get(f"{view.upstream}.{view.plan.stage}")
        commands = self._bound.get("acquire.commands")
        if upstream is None or self._picture is None or commands is None:
            return None
        return Peers({"upstream": upstream, "commands": commands}, view.upstream, self._picture)

    def _send_stop(self) -> None:
        if self._stop_reason and not self._stop_sent and self._commands is not None:
            self._commands.send(Command(CommandKind.STOP, sender="session"))
            self._stop_sent = True

    def _left(self, view: StageView) -> None:
        """A stage's process or thread is over: regularly, or not."""
        state = view.status.state if view.status else StageState.STARTING
        if state is StageState.DONE:
            view.finished = True
            return
        stage = view.plan.stage
        why = view.failure or f"{stage} ended without a word ({view.worker.describe_exit()})"
        self._events.write("lost", why, stage=stage)
        if stage == "detect" and not view.failure and self._restart(view, why):
            return
        view.finished = True
        self._failures.append(f"{stage}: {why}")
        if stage == "control":
            self._events.write("policy", "the run goes on without the controller")
            return
        self._events.write("policy", f"without {stage} the run ends; everything behind it is drained")
        self.request_stop(f"{stage} was lost")
        self._stop_deadline_s = min(self._stop_deadline_s, time.monotonic() + GRACE_S + self._patience_s())
        if not any(other.ready for other in self.stages.values() if other.plan.stage == "acquire"):
            self._give_up()

    def _patience_s(self) -> float:
        return 2 * self.experiment.link.patience_s

    def _restart(self, view: StageView, why: str) -> bool:
        if view.restarts >= self.experiment.session.restart_detector or self._stop_reason or not view.ready:
            return False
        addresses = {
            name: self._bound[f"detect.{name}"] for name in (*view.plan.consumers, "monitor")
        }
        plan = StagePlan(**{**_fields(view.plan), "addresses": addresses})
        restarts, past = view.restarts + 1, view.counts
        self._events.write("policy", f"detect is started again, {restarts}. time: {why}")
        fresh = self._start(plan, view.upstream)
        fresh.restarts, fresh.past_counts = restarts, past
        return True

    def _give_up(self) -> None:
        """Time to drain is over: end what still runs, upstream first, and let the rest notice."""
        self._stop_deadline_s = float("inf")
        for view in self.stages.values():
            if view.finished or view.plan.stage == "write":
                continue
            self._failures.append(f"{view.plan.stage}: did not end in time and was stopped")
            self._events.write("kill", f"{view.plan.stage} did not end in time and was stopped")
            view.worker.kill()
            view.finished = True
        self._stop_deadline_s = time.monotonic() + GRACE_S + self._patience_s()
        write = self.stages.get("write")
        if write is not None and not write.finished and all(
            view.finished for name, view in self.stages.items() if name != "write"
        ) and not write.ready:
            write.worker.kill()
            write.finished = True

    def _result(self) -> SessionResult:
        reason = self._stop_reason or "done"
        counts = {name: view.counts for name, view in self.stages.items()}
        self._events.write("end", reason, counts=counts, failures=self._failures)
        return SessionResult(
            run_id=self.run_id,
            reason=reason,
            failures=tuple(self._failures),
            counts=counts,
            snapshot=self._snapshots.best if self._snapshots is not None else None,
            duration_s=time.monotonic() - (self.running_since_s or self.began_s),
        )


def _fields(plan: StagePlan) -> dict[str, object]:
    return {name: getattr(plan, name) for name in StagePlan.__slots__}
