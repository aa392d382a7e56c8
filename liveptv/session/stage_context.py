"""Surroundings of a running stage: its plan, its message links, the pipe to the supervisor, its reports."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from multiprocessing.connection import Connection
from typing import Any

from liveptv.session.compilation import COMPILING
from liveptv.session.cpu_use import CpuUse
from liveptv.session.events import plain
from liveptv.session.frame_account import FINAL
from liveptv.session.link_rules import PREDICTIONS_LOST_S, prediction_options
from liveptv.session.plan import (
    PREDICTIONS_ADDRESS,
    Abandon,
    Bound,
    ConsumerLost,
    ImageFormat,
    Peers,
    Recorded,
    StagePlan,
    UpstreamLost,
)
from liveptv.session.resilient_receiver import ResilientReceiver
from liveptv.session.safety_lane import ORPHANED, Lane
from stream.errors import LinkError, PeerLostError
from stream.link import LinkAccount, Receiver, Sender
from stream.links import open_receiver, open_sender
from stream.messages import StageState, Status
from stream.receiving import Wakes
from stream.stage import Stage
from stream.status import StatusSource

STATUS_PERIOD_S = 0.2
"""Time between two reports of a stage, s. Shorter costs processor time, longer makes the live numbers lag."""
ORPHAN_PATIENCE_S = 30.0
"""Once the session is gone, a neighbour that is silent for this time counts as lost, s.

Longer than a detector is restarted or a focus drive travels; a longer one only delays the end of the processes.
"""


class StageContext:
    """What all builders need: the plan, the pipe to the supervisor, the message links, and reporting."""

    def __init__(
        self,
        plan: StagePlan,
        pipe: Connection,
        status: StatusSource,
        stack: ExitStack,
        lane: Connection | None = None,
    ) -> None:
        self.plan = plan
        self.pipe = pipe
        self.stack = stack
        self.lane = Lane(lane)
        self.image_format: ImageFormat | None = None
        self.bound: dict[str, str] = {}
        self.begin: Callable[[], None] = lambda: None
        """What starts the stage's input, called once it is ready to take it: a camera does not wait."""
        self.give_up_recorder: Callable[[], None] = lambda: None
        """What is called when the session says that the recorder is lost."""
        self.is_abandoned = False
        self._senders: dict[str, Sender] = {}
        self._receiver: ResilientReceiver | None = None
        self._orphaned_s: float | None = None
        self._due_s = 0.0
        self._is_announced = False
        self._peers: Peers | None = None
        self._status = status
        self._cpu: CpuUse | None = None
        self._state = StageState.STARTING
        self._totals: dict[str, int] = {}
        self._gauges: dict[str, float] = {}

    def sender(
        self,
        consumer: str,
        slot_bytes: int,
        options: dict[str, Any],
        on_news: Callable[[], None] | None = None,
    ) -> Sender:
        """Open the message link to one consumer; after a restart, at the same address as before."""
        link = self.plan.experiment.link
        address = self.plan.addresses.get(consumer) or link.fresh_address()
        sender = open_sender(
            address,
            run_id=self.plan.run_id,
            source=f"liveptv/{self.plan.stage}",
            slot_bytes=slot_bytes,
            security=self.plan.keys.link(address, self.plan.stage),
            while_waiting=lambda: self.look_up(consumer),
            on_news=on_news,
            **options,
        )
        self.stack.callback(sender.close)
        self._senders[consumer] = sender
        self.bound[consumer] = sender.address
        return sender

    def prediction_sender(self, slot_bytes: int) -> Sender:
        """Open the message link for the tracker's predictions, which nothing depends on."""
        experiment = self.plan.experiment
        address = experiment.link.fresh_address()
        sender = open_sender(
            address,
            run_id=self.plan.run_id,
            source=f"liveptv/{self.plan.stage}",
            slot_bytes=slot_bytes,
            security=self.plan.keys.link(address, self.plan.stage),
            **prediction_options(experiment),
        )
        self.stack.callback(sender.close)
        self.bound[PREDICTIONS_ADDRESS] = sender.address
        return sender

    def prediction_receiver(self, *wakers: Wakes) -> Receiver:
        """Open the other end of that message link."""
        address = self.peers().addresses[PREDICTIONS_ADDRESS]
        return open_receiver(
            address,
            patience_s=self.plan.experiment.link.patience_s,
            lost_after_s=PREDICTIONS_LOST_S,
            security=self.plan.keys.link(address, "track"),
            wakers=wakers,
        )

    def announce(self) -> None:
        """Tell the supervisor the addresses of the outputs; what takes long can then be done before `peers`."""
        if not self._is_announced:
            self._is_announced = True
            self.pipe.send(Bound(dict(self.bound), self.image_format))

    def peers(self) -> Peers:
        """Tell the supervisor the addresses of the outputs, if not done yet, and wait for those of the inputs."""
        if self._peers is None:
            timeout_s = self.plan.experiment.session.start_timeout_s
            self.announce()
            waits_for_a_person = (
                self.plan.experiment.source is not None
            )  # who starts the sender of the frames
            if not self.pipe.poll(None if waits_for_a_person else timeout_s):
                raise LinkError(
                    f"{self.plan.stage} waited {timeout_s:g} s for the other stages to get ready; "
                    "raise session.start_timeout_s"
                )
            gone = f"the session is gone before {self.plan.stage} could start"
            try:
                answer = self.pipe.recv()
            except (EOFError, OSError) as error:
                raise LinkError(gone) from error
            if isinstance(answer, Abandon):
                raise LinkError(gone)
            self._peers = answer
        return self._peers

    def upstream(self, *wakers: Wakes) -> Receiver:
        """Open the message link from the stage before this one; `wakers` end a wait for messages."""
        peers, link = self.peers(), self.plan.experiment.link
        address = peers.addresses["upstream"]
        security = self.plan.keys.link(address, peers.upstream_stage)
        self._receiver = ResilientReceiver(
            lambda: open_receiver(
                address, patience_s=link.patience_s, lost_after_s=None, security=security, wakers=wakers
            ),
            run_id=self.plan.run_id,
            neighbour=peers.upstream_stage,
            report=self.say,
        )
        self.stack.callback(self._receiver.close)
        return self._receiver

    def say(self, text: str) -> None:
        """Send one line to the session's event log."""
        self.report(self._state, text=text)

    def measure_cpu(self) -> None:
        """From now on, report the processor time of this process, which has this stage only."""
        self._cpu = CpuUse()

    def look_up(self, consumer: str = "", stage: Stage | None = None) -> None:
        """Report, and take messages of the session, at most five times a second; also while a consumer has no room.

        Only the session decides who is lost, and it ends stages that wait for a lost one. Without a session, a
        `consumer` that takes nothing for a long time raises `PeerLostError`.
        """
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + STATUS_PERIOD_S
            if stage is not None:
                self.observe(stage)
            self.report(self._state if stage is None else stage.state)
            self._hear_session(now_s)
        if consumer and self._orphaned_s is not None and now_s - self._orphaned_s > ORPHAN_PATIENCE_S:
            raise PeerLostError(f"{ORPHANED}, and {consumer} accepts nothing")

    def _hear_session(self, now_s: float) -> None:
        if self._peers is None or self._orphaned_s is not None:
            return
        try:
            while self.pipe.poll():
                message = self.pipe.recv()
                if isinstance(message, UpstreamLost) and self._receiver is not None:
                    self._receiver.give_up(message.why)
                if isinstance(message, ConsumerLost):
                    self.give_up_recorder()
                self.is_abandoned = self.is_abandoned or isinstance(message, Abandon)
        except (EOFError, OSError):
            self._orphaned_s = now_s
            if self._receiver is not None:
                self._receiver.orphaned(ORPHAN_PATIENCE_S)

    def say_compiling(self) -> None:
        """Report that this stage compiles."""
        self._gauges = {COMPILING: 1.0}
        self.report(self._state)

    def record(self, kind: str, text: str, facts: dict[str, Any]) -> None:
        """Send an entry for the event log and the trajectory file; none is lost while the session runs."""
        with contextlib.suppress(BrokenPipeError, OSError):
            self.pipe.send(Recorded(kind, text, plain(facts)))

    def observe(self, stage: Stage) -> None:
        """Take the stage's counts and gauges, and the accounts of its message links, for the next report."""
        totals = dict(stage.counts())
        for name, sender in self._senders.items():
            totals |= _counted(f"to_{name}", sender.account)
        if self._receiver is not None:
            totals |= _counted("from", self._receiver.account)
        if stage.state is StageState.DRAINING:
            totals[FINAL] = 1
        self._totals = totals
        queues = {f"queue_{name}": float(sender.queued) for name, sender in self._senders.items()}
        cpu = self._cpu.gauges() if self._cpu is not None else {}
        self._gauges = {
            key: value for key, value in (stage.gauges() | queues | cpu).items() if math.isfinite(value)
        }

    def observe_last(self, stage: Stage | None) -> None:
        """Take the counts of a stage that has failed with an error, and mark them as final."""
        if stage is not None:
            with contextlib.suppress(
                Exception
            ):  # the counting itself may have failed; the last report stands then
                self.observe(stage)
                self._totals |= {FINAL: 1}

    def report(self, state: StageState, text: str = "") -> None:
        """Send a status with the counts last observed."""
        self._state = state
        self._status.send(
            Status(
                self.plan.run_id,
                self.plan.stage,
                state,
                counts=self._totals,
                gauges=self._gauges,
                text=text,
                monotonic_ns=time.perf_counter_ns(),
            )
        )


ACCOUNT_FIELDS = tuple(field.name for field in fields(LinkAccount))


def _counted(link: str, account: LinkAccount) -> dict[str, int]:
    """What an account counts, without what is 0."""
    counted = ((name, getattr(account, name)) for name in ACCOUNT_FIELDS)
    return {f"{link}.{name}": count for name, count in counted if count}
