"""The pipeline of a run in one thread: the same stages, built by the same code, stepped in turn.

A recording that is processed beside many others needs no processes of its own: the cores are busy with the others.
The stages do exactly what they do in a run, so the results are the same (`liveptv replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing import Pipe
from typing import Any

from liveptv.config import Experiment
from liveptv.session.builders import BUILDERS
from liveptv.session.events import plain
from liveptv.session.plan import ImageFormat, Peers, StagePlan
from liveptv.session.stage_context import StageContext
from stream.direct_link import DirectLink
from stream.errors import LivePTVError
from stream.messages import Message, StageState
from stream.receiving import Wakes
from stream.run_keys import RunKeys
from stream.stage import Stage
from stream.status import StatusSource
from stream.waker import Waker

FRAMES = 8
"""Frames that are on their way at most: twice `engines.prediction_choice.LAG`, so that no worker waits for one.
More take memory only."""
WAIT_S = 0.05
"""Longest wait for a result of the detector, s; a result ends it. It only bounds what a missed one would cost."""
NOWHERE = "tcp://127.0.0.1:1"  # a status source needs an address; nothing is sent there
ORDER = {"acquire": ("detect",), "detect": ("track",), "track": ("write",), "write": ()}
"""The stages and who each sends to."""

Record = Callable[[str, str, dict[str, Any]], None]


class Links:
    """The links between the stages of one thread, each made when one of its ends asks for it."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._links: dict[tuple[str, str], DirectLink] = {}

    def between(self, source: str, consumer: str) -> DirectLink:
        """The link from one stage to another; that for frames has room for `FRAMES`."""
        key = (source, consumer)
        if key not in self._links:
            room = FRAMES if source == "acquire" else None
            self._links[key] = DirectLink(self._run_id, f"liveptv/{source}", room)
        return self._links[key]

    def hear(self, source: str, consumer: str, call: Callable[[Message], None]) -> None:
        """Have `call` called with each message on a link."""
        self.between(source, consumer).hear = call


class OneThreadContext(StageContext):
    """The surroundings of a stage that shares its thread with the others: `links` in place of sockets.

    `record` gets what the stage would send to the event log: a kind, a line, and facts.
    """

    def __init__(
        self, plan: StagePlan, links: Links, images: ImageFormat, record: Record, stack: ExitStack
    ) -> None:
        near, far = Pipe()
        status = StatusSource(NOWHERE, plan.keys.curve)
        stack.callback(status.close)
        stack.callback(near.close)
        stack.callback(far.close)
        super().__init__(plan, near, status, stack)
        self._links, self._images, self._record = links, images, record

    def sender(
        self,
        consumer: str,
        slot_bytes: int,
        options: dict[str, Any],
        on_news: Callable[[], None] | None = None,
    ) -> Any:
        """The link to a consumer; it needs neither slots nor news."""
        return self._links.between(self.plan.stage, consumer).sender

    def prediction_sender(self, slot_bytes: int) -> Any:
        """The link for predictions."""
        return self._links.between("track", "predictions").sender

    def prediction_receiver(self, *wakers: Wakes) -> Any:
        """Its other end."""
        return _woken(self._links.between("track", "predictions"), wakers)

    def upstream(self, *wakers: Wakes) -> Any:
        """The link from the stage before this one."""
        source = next(name for name, consumers in ORDER.items() if self.plan.stage in consumers)
        return _woken(self._links.between(source, self.plan.stage), wakers)

    def announce(self) -> None:
        """Nobody has to be told."""

    def peers(self) -> Peers:
        """What the images are like; there are no addresses."""
        return Peers({}, "", self._images)

    def say(self, text: str) -> None:
        """Take one line for the user."""
        self._record("note", f"{self.plan.stage}: {text}", {})

    def record(self, kind: str, text: str, facts: dict[str, Any]) -> None:
        """Take an entry for the event log."""
        self._record(kind, text, plain(facts))

    def report(self, state: StageState, text: str = "") -> None:
        """Nobody watches a single recording."""

    def look_up(self, consumer: str = "", stage: Stage | None = None) -> None:
        """There is no session to hear."""


def _woken(link: DirectLink, wakers: Sequence[Wakes]) -> Any:
    link.receiver.woken_by(waker for waker in wakers if isinstance(waker, Waker))
    return link.receiver


def build(
    stage: str,
    experiment: Experiment,
    run_id: str,
    links: Links,
    images: ImageFormat,
    record: Record,
    stack: ExitStack,
) -> Stage:
    """Build one stage as a run does; it is closed with `stack`."""
    plan = StagePlan(stage, run_id, experiment, NOWHERE, RunKeys.fresh(), ORDER[stage])
    built = BUILDERS[stage](OneThreadContext(plan, links, images, record, stack))
    stack.callback(built.close)
    return built


def step_all(stages: dict[str, Stage], links: Links, sink: DirectLink | None = None) -> None:
    """Step the stages until all are done; what arrives in `sink`, where there is one, is acknowledged unread.

    Raises what a stage raises; if it is the acquisition, what was read before has been processed then.
    """
    behind = dict(stages)
    if sink is not None:
        sink.drains = True
    first = behind.pop("acquire", None)
    failure: LivePTVError | None = None
    if first is not None:
        links.between("acquire", "detect").turn = lambda wait_s: _turns(behind, links, wait_s)
    while behind or first is not None:
        if first is not None:
            try:
                first = first if first.step(0.0) else None
            except LivePTVError as error:
                first, failure = None, error
        _turns(
            behind,
            links,
            WAIT_S if links.between("acquire", "detect").queued >= FRAMES or first is None else 0.0,
        )
    if failure is not None:
        raise failure


def _turns(running: dict[str, Stage], links: Links, wait_s: float) -> None:
    """One turn of each stage, and another one, which waits for the detector, if nothing has moved."""
    if not _turn(running, links, 0.0) and wait_s > 0:
        _turn(running, links, wait_s)


def _turn(running: dict[str, Stage], links: Links, wait_s: float) -> bool:
    """One turn of each stage; whether a message moved or a stage ended. Only the detector may wait."""
    before = {name: _work_left(name, links) for name in running}
    moved = False
    for name, stage in list(running.items()):
        if name != "detect":
            goes_on = True
            while goes_on and _inbox(name, links).unread:
                moved, goes_on = True, stage.step(0.0)
            if goes_on and stage.state is StageState.DRAINING:
                goes_on = stage.step(0.0)
        else:
            goes_on = stage.step(wait_s)
        if not goes_on:
            del running[name]
            moved = True
    return moved or any(_work_left(name, links) != before[name] for name in running)


def _inbox(name: str, links: Links) -> DirectLink:
    source = next(source for source, consumers in ORDER.items() if name in consumers)
    return links.between(source, name)


def _work_left(name: str, links: Links) -> tuple[int, int]:
    """What a stage has sent, and what of it is consumed."""
    consumers = ORDER[name]
    link = links.between(name, consumers[0]) if consumers else None
    return (0, 0) if link is None else (link.offered, link.consumed)
