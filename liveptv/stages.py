"""Each stage as the session starts it: built from the experiment, stepped until done, reporting as it goes.

A stage process first binds what it sends (`Bound`), then learns whom to listen to (`Peers`), then runs.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from liveptv.config import Experiment
from liveptv.upstream import ResilientReceiver
from stream.errors import LinkError, LivePTVError
from stream.link import Receiver, Sender
from stream.links import open_receiver, open_sender
from stream.messages import Detections, StageState, Status, Tracks
from stream.monitor import MonitorPublisher
from stream.stage import Stage
from stream.status import StatusSource

STATUS_PERIOD_S = 0.2
STEP_S = 0.05
FLOAT_BYTES = 8


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage process is told at birth."""

    stage: str
    run_id: str
    experiment: Experiment
    model: Path | None
    status_address: str
    consumers: tuple[str, ...] = ()
    recover_s: float = 0.0
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Picture:
    """What the source's images look like, so that everything behind it can be compiled and sized in advance."""

    height: int
    width: int
    depth: int
    dtype: str
    pixel_size_um: float

    @property
    def nbytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * self.depth * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Bound:
    """A stage's first words: where its outputs can be had, by the name of who wants them."""

    addresses: dict[str, str]
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class Peers:
    """The session's answer: where the stage's inputs are, by name (`upstream`, `commands`)."""

    addresses: dict[str, str]
    neighbour: str = ""
    picture: Picture | None = None


class StageContext:
    """What the builders share: the plan, the pipe to the session, the links, and how to report."""

    def __init__(self, plan: StagePlan, pipe: Connection, status: StatusSource, stack: ExitStack) -> None:
        self.plan = plan
        self.pipe = pipe
        self.stack = stack
        self.senders: dict[str, Sender] = {}
        self.receiver: Receiver | None = None
        self.bound: dict[str, str] = {}
        self.picture: Picture | None = None
        self._peers: Peers | None = None
        self._status = status
        self._totals: dict[str, int] = {}
        self._gauges: dict[str, float] = {}

    def sender(self, consumer: str, slot_bytes: int) -> Sender:
        """Open the link to one consumer, at the address it had before where this is a restart."""
        link = self.plan.experiment.link
        address = self.plan.addresses.get(consumer) or link.fresh_address(f"{self.plan.run_id}.{consumer}")
        sender = open_sender(
            address,
            run_id=self.plan.run_id,
            source=f"liveptv/{self.plan.stage}",
            slot_bytes=slot_bytes,
            slots=link.slots,
            policy=link.policy,
            patience_s=link.patience_s,
        )
        self.stack.callback(sender.close)
        self.senders[consumer] = sender
        self.bound[consumer] = sender.address
        return sender

    def peers(self) -> Peers:
        """Tell the session what is bound and wait for the addresses of the inputs."""
        if self._peers is None:
            self.pipe.send(Bound(self.bound, self.picture))
            if not self.pipe.poll(self.plan.experiment.session.start_timeout_s):
                raise LinkError(
                    f"{self.plan.stage} waited {self.plan.experiment.session.start_timeout_s:g} s for the other "
                    "stages to get ready; raise session.start_timeout_s"
                )
            self._peers = self.pipe.recv()
        return self._peers

    def upstream(self) -> Receiver:
        """Open the link to the stage before this one."""
        address = self.peers().addresses["upstream"]
        link = self.plan.experiment.link
        self.receiver = ResilientReceiver(
            lambda: open_receiver(address, patience_s=link.patience_s),
            run_id=self.plan.run_id,
            neighbour=self.peers().neighbour,
            recover_s=self.plan.recover_s,
            report=self.say,
        )
        self.stack.callback(self.receiver.close)
        return self.receiver

    def say(self, text: str) -> None:
        """Send one line to the session's event log."""
        self.report(StageState.RUNNING, text=text)

    def observe(self, stage: Stage) -> None:
        """Take the stage's counts and gauges, and the accounts of its links, for the next report."""
        totals = dict(stage.counts())
        for name, sender in self.senders.items():
            totals |= {f"to_{name}.{key}": value for key, value in asdict(sender.account).items() if value}
        if self.receiver is not None:
            totals |= {f"from.{key}": value for key, value in asdict(self.receiver.account).items() if value}
        self._totals = totals
        self._gauges = stage.gauges() | {
            f"queue_{name}": float(sender.queued) for name, sender in self.senders.items()
        }

    def report(self, state: StageState, text: str = "") -> None:
        """Send a status with the counts last observed."""
        self._status.send(
            Status(
                self.plan.run_id,
                self.plan.stage,
                state,
                counts=self._totals,
                gauges={key: value for key, value in self._gauges.items() if value == value},
                text=text,
                monotonic_ns=time.perf_counter_ns(),
            )
        )


def run_stage(plan: StagePlan, pipe: Connection) -> None:
    """Build and run one stage until it is done; the body of a stage's process or thread.

    Raises `SystemExit(1)` after a failure, which has then been reported to the session.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = StatusSource(plan.status_address)
    failed = False
    with ExitStack() as stack:
        stack.callback(pipe.close)
        context = StageContext(plan, pipe, status, stack)
        try:
            context.report(StageState.STARTING)
            stage = BUILDERS[plan.stage](context)
            stack.callback(stage.close)
            _step_until_done(stage, context)
            context.observe(stage)
        except LivePTVError as error:
            failed = True
            context.report(StageState.FAILED, text=str(error))
        except Exception as error:  # noqa: BLE001 - the last line of a process: it must be told, not printed
            failed = True
            context.report(StageState.FAILED, text=f"{error!r}\n{traceback.format_exc()}")
        else:
            context.report(StageState.DONE)
    status.close()
    if failed and in_main_thread:
        raise SystemExit(1)


def _step_until_done(stage: Stage, context: StageContext) -> None:
    due_s = 0.0
    orphan = False
    while stage.step(STEP_S):
        now_s = time.monotonic()
        if now_s < due_s:
            continue
        due_s = now_s + STATUS_PERIOD_S
        context.observe(stage)
        context.report(stage.state)
        if not orphan and context.plan.stage == "acquire" and _session_gone(context.pipe):
            orphan = True
            stage.request_stop("the session that started this run is gone")  # type: ignore[attr-defined]


def _session_gone(pipe: Connection) -> bool:
    try:
        return pipe.poll() and not pipe.recv()
    except (EOFError, OSError):
        return True


def table_bytes(kind: type[Detections] | type[Tracks], rows: int) -> int:
    """Bytes of a table message with `rows` rows."""
    return len(kind.COLUMNS) * rows * FLOAT_BYTES


def build_acquire(context: StageContext) -> Stage:
    """Camera or recording -> frames, executing commands in between."""
    from liveptv.sources import open_source

    plan = context.plan
    opened = open_source(plan.experiment, plan.run_id)
    context.stack.callback(opened.source.close)
    info = opened.source.info
    context.picture = Picture(info.height, info.width, info.depth, str(info.dtype), info.pixel_size_um)
    from acquisition.stage import AcquireStage
    from stream.commands import CommandServer

    senders = [context.sender(consumer, context.picture.nbytes) for consumer in plan.consumers]
    commands = CommandServer("tcp://127.0.0.1:0")
    context.stack.callback(commands.close)
    context.bound["commands"] = commands.address
    context.peers()
    opened.source.start()
    return AcquireStage(
        opened.source,
        senders,
        commands=commands,
        executor=opened.executor,
        frames=plan.experiment.run.frames,
        seconds=plan.experiment.run.seconds,
    )


def build_detect(context: StageContext) -> Stage:
    """Frames -> detections."""
    from engines.factory import open_engine
    from engines.stage import DetectStage

    plan = context.plan
    rows = plan.experiment.detector.max_particles
    (consumer,) = plan.consumers
    sender = context.sender(consumer, table_bytes(Detections, rows))
    monitor = MonitorPublisher(
        plan.addresses.get("monitor", "tcp://127.0.0.1:0"), run_id=plan.run_id, source="liveptv/detect"
    )
    context.stack.callback(monitor.close)
    context.bound["monitor"] = monitor.address
    picture = context.peers().picture
    if picture is None:
        raise LinkError("the detector was not told what the images look like")
    engine = open_engine(plan.experiment.detector, model=plan.model, pixel_size_um=picture.pixel_size_um)
    context.stack.callback(engine.close)
    engine.warmup(picture.height, picture.width, np.dtype(picture.dtype))
    return DetectStage(
        context.upstream(), engine, sender, monitor=monitor, monitor_hz=plan.experiment.session.monitor_hz
    )


def build_track(context: StageContext) -> Stage:
    """Detections -> tracks, to the file and to the controller."""
    from tracking.stage import TrackStage
    from tracking.tracker import OnlineTracker

    plan = context.plan
    rows = 2 * plan.experiment.detector.max_particles
    senders = [context.sender(consumer, table_bytes(Tracks, rows)) for consumer in plan.consumers]
    tracker = OnlineTracker(plan.experiment.tracker)
    tracker.warmup()
    return TrackStage(context.upstream(), tracker, senders)


def build_write(context: StageContext) -> Stage:
    """Tracks -> trajectory file."""
    from liveptv.provenance import file_attributes
    from tracking.trajectory_file import TrajectoryWriter
    from tracking.write_stage import WriteStage

    plan = context.plan
    receiver = context.upstream()
    run = plan.experiment.run
    writer = TrajectoryWriter(
        run.output,
        run_id=plan.run_id,
        attributes=file_attributes(plan.experiment, plan.model),
        overwrite=run.overwrite,
    )
    context.stack.callback(writer.close)
    return WriteStage(receiver, writer)


def build_control(context: StageContext) -> Stage:
    """Tracks -> commands to the microscope."""
    from stream.commands import CommandClient
    from tracking.control_stage import ControlStage
    from tracking.controllers import load_controller

    plan = context.plan
    if plan.experiment.controller is None:
        raise LinkError("a control stage was started without a [controller] section")
    client = CommandClient(context.peers().addresses["commands"])
    context.stack.callback(client.close)
    return ControlStage(context.upstream(), load_controller(plan.experiment.controller), client)


BUILDERS: dict[str, Callable[[StageContext], Stage]] = {
    "acquire": build_acquire,
    "detect": build_detect,
    "track": build_track,
    "write": build_write,
    "control": build_control,
}

