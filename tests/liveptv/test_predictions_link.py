"""The way back from the tracker to the detector: which prediction each frame gets, and what happens without one."""

from __future__ import annotations

import random
import time
import uuid
from collections import deque
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from engines.engine import EngineInfo
from engines.prediction_choice import LAG, MEET_S, MOST_AGE, UNANSWERED_S, PredictionChoice, usable
from engines.stage import DetectStage
from stream.link import Policy, Receiver, Sender
from stream.links import open_receiver, open_sender
from stream.messages import Decisions, Detections, Frame, FrameInfo, Predictions, StageState
from tracking.settings import TrackerSettings
from tracking.stage import TrackStage
from tracking.tracker import OnlineTracker

FRAME_S = 0.05
IMAGE = np.zeros((4, 4), np.uint8)
TOO_LONG = 1_000_000
"""Steps after which a test gives up: nothing here waits for a clock, only for the threads of the links."""


def frame_of(number: int, *, camera_frame: int | None = None, pixel_size_um: float = 1.0) -> Frame:
    camera = number if camera_frame is None else camera_frame
    info = FrameInfo("run", number, camera, camera * FRAME_S, 0, 0.0, pixel_size_um=pixel_size_um)
    return Frame(info, IMAGE)


class Moving:
    """An engine that sees ten particles move, and remembers which prediction each frame was given.

    It finishes a frame when it is asked for results the `patience`-th time.
    """

    info = EngineInfo("moving", "none", "cpu", details={"prediction": {"predicted": 7, "searched": 3}})

    def __init__(self, patience: int = 1) -> None:
        self.given: dict[int, Predictions | None] = {}
        self.work: deque[Frame] = deque()
        self.patience = self.asked = patience
        self.most_pending = 0

    @property
    def pending(self) -> int:
        return len(self.work)

    def warmup(self, height: int, width: int, dtype: np.dtype, depth: int = 1) -> None: ...

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        self.given[frame.info.frame] = predicted
        self.work.append(frame)
        self.most_pending = max(self.most_pending, self.pending)

    def results(self, timeout_s: float) -> list[Detections]:
        self.asked -= 1
        if self.asked > 0 or not self.work:
            return []
        self.asked = self.patience
        info = self.work.popleft().info
        n = np.arange(10.0)
        return [
            Detections.from_columns(
                info, x_um=20 * n + info.camera_frame, y_um=30 * (n % 3), z_um=n,
                sigma_x_um=0.1, sigma_y_um=0.1, sigma_z_um=0.5, brightness=50.0,
            )
        ]  # fmt: skip

    def counts(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...

    def ages(self) -> dict[int, int | None]:
        return {n: None if p is None else n - p.info.frame for n, p in self.given.items()}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Chain:
    """A detector and a tracker in one thread: frames in at one end, tracks out at the other."""

    def __init__(
        self, stack: ExitStack, *, waits: bool = True, patience: int = 1, follows: bool = False
    ) -> None:
        self.stack, self.waits, self.clock, self.follows = stack, waits, Clock(), follows
        self.said: list[str] = []
        self.frames, self.frames_out = self.link(Policy.BLOCK)
        self.found, self.found_out = self.link(Policy.BLOCK)
        self.tracks, self.tracks_out = self.link(Policy.BLOCK, slots=2000)
        self.predictions, receiver = self.link(Policy.DROP_OLDEST, slots=32)
        receiver.close()
        self.engine = Moving(patience)
        self.detect = self.detector(self.engine)
        self.track = TrackStage(
            self.found_out, OnlineTracker(TrackerSettings()), [self.tracks], predictions=self.predictions
        )

    def link(self, policy: Policy, slots: int = 64) -> tuple[Sender, Receiver]:
        address = f"inproc://{uuid.uuid4().hex}"
        sender = open_sender(
            address, run_id="run", source="test", slot_bytes=50_000, slots=slots, policy=policy
        )
        self.stack.callback(sender.close)
        receiver = open_receiver(address)
        self.stack.callback(receiver.close)
        return sender, receiver

    def detector(self, engine: Moving) -> DetectStage:
        self.choice = PredictionChoice(
            lambda: open_receiver(self.predictions.address),
            waits=self.waits,
            say=self.said.append,
            follows=self.follows,
            clock=self.clock,
        )
        self.stack.callback(self.choice.close)
        return DetectStage(self.frames_out, engine, self.found, predictions=self.choice, follows=self.follows)

    def meet(self) -> None:
        """Let the link for predictions come up."""
        for _ in steps():
            self.choice.take(0.001)
            if self.choice.is_met:
                return
        raise AssertionError("the link did not come up")

    def run(self, frames: list[Frame], order: random.Random | None = None) -> list[int]:
        """Send all frames and step both stages to their end; returns the frames that were tracked."""
        waiting, tracked, ended = deque(frames), [], False
        for _ in steps():
            if waiting and self.frames.queued < 60:
                self.frames.send(waiting.popleft())
            elif not waiting and not ended:
                self.frames.end()
                ended = True
            one, other = self.detect, self.track
            if order is None or order.random() < 0.5:
                one.step(0.0)
            if order is None or order.random() < 0.5:
                other.step(0.0)
            while (delivery := self.tracks_out.receive(0.0)) is not None:
                if hasattr(delivery.message, "info"):
                    tracked.append(delivery.message.info.frame)
                delivery.done()
            if one.state is other.state is StageState.DONE:
                return tracked
        raise AssertionError(f"the chain stands still after frame {tracked[-1:]}")


@pytest.fixture
def stack():
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize("patience", [1, 7])
def test_where_frames_wait_each_gets_the_prediction_of_a_fixed_number_of_frames_before(stack, patience):
    chain = Chain(stack, patience=patience)
    assert chain.run([frame_of(n) for n in range(40)]) == list(range(40))
    ages = chain.engine.ages()
    confirmed = 2 + LAG  # the tracker needs some frames before it is sure of a track
    assert all(age is None for n, age in ages.items() if n < LAG)
    assert all(age == LAG for n, age in ages.items() if n > confirmed)
    assert len(chain.engine.given[39]) == 10
    assert chain.engine.most_pending <= LAG
    assert chain.said == []


def test_what_a_frame_is_given_does_not_depend_on_who_is_faster(stack):
    given = []
    for seed in range(4):
        chain = Chain(stack, patience=1 + 3 * seed)
        chain.run([frame_of(n) for n in range(30)], random.Random(seed))
        given.append(chain.engine.given)
    for other in given[1:]:
        for number, predicted in given[0].items():
            again = other[number]
            assert (predicted is None) == (again is None)
            if predicted is not None and again is not None:
                np.testing.assert_array_equal(predicted.table, again.table)
                assert predicted.info == again.info


@pytest.mark.parametrize("patience", [1, 5])
def test_in_a_replay_each_frame_waits_for_the_prediction_that_it_had_in_the_run(stack, patience):
    had = [-1, -1, -1, *(max(-1, n - random.Random(n).choice([1, 3, 8])) for n in range(3, 40))]
    had = [max(had[: n + 1]) for n in range(40)]  # a newer one is never followed by an older one
    had[25] = -1
    chain = Chain(stack, patience=patience, follows=True)
    frames = [frame_of(n) for n in range(40)]
    frames = [
        Frame(replace(one.info, decisions=Decisions(predicted_from=had[n])), one.image)
        for n, one in enumerate(frames)
    ]
    assert chain.run(frames) == list(range(40))
    given = {n: -1 if p is None else p.info.frame for n, p in chain.engine.given.items()}
    begun = next(n for n in range(40) if given[n] >= 0)  # the tracker knows of no track before
    assert begun < 8
    assert {n: given[n] for n in range(begun, 40)} == {n: had[n] for n in range(begun, 40)}
    assert chain.said == []


def test_counts_say_how_many_frames_and_particles_were_predicted(stack):
    chain = Chain(stack)
    chain.run([frame_of(n) for n in range(20)])
    counts = chain.detect.counts()
    assert counts["predicted_frames"] == sum(p is not None for p in chain.engine.given.values()) > 10
    assert (counts["predicted"], counts["searched"]) == (7, 3)
    assert chain.detect.gauges()["prediction_age"] == LAG
    assert chain.track.counts()["predictions"] == 20


def test_after_a_long_loss_of_frames_no_old_prediction_is_used(stack):
    chain = Chain(stack)
    numbers = [*range(20), *range(20, 40)]
    frames = [frame_of(n, camera_frame=n if n < 20 else n + 50) for n in numbers]
    chain.run(frames)
    ages = chain.engine.ages()
    assert [n for n in range(20, 40) if ages[n] is None][:LAG] == list(range(20, 20 + LAG))
    assert ages[39] == LAG


def test_predictions_made_with_another_objective_are_not_used(stack):
    chain = Chain(stack)
    frames = [frame_of(n, pixel_size_um=1.0 if n < 15 else 0.5) for n in range(30)]
    chain.run(frames)
    given = chain.engine.given
    assert all(given[n] is None for n in range(15, 15 + LAG))
    assert given[29] is not None
    for number, predicted in given.items():
        assert predicted is None or predicted.info.pixel_size_um == frames[number].info.pixel_size_um


def test_a_camera_gets_the_newest_prediction_and_waits_for_none(stack):
    chain = Chain(stack, waits=False)
    chain.meet()
    for number in range(10):
        chain.frames.send(frame_of(number))
        settle(chain)
    for number in (10, 11, 12):  # the tracker stands still
        chain.frames.send(frame_of(number))
        until(detected(chain, number))
    assert [chain.engine.ages()[n] for n in range(8, 13)] == [1, 1, 1, 2, 3]


def settle(chain: Chain) -> None:
    """Step until all that was sent is tracked and its prediction has arrived."""

    def is_settled() -> bool:
        chain.detect.step(0.0)
        chain.track.step(0.0)
        return not (chain.frames.queued or chain.found.queued or chain.predictions.queued)

    until(is_settled)


def detected(chain: Chain, number: int):
    """Whether a frame has been submitted; steps the detector alone."""
    return lambda: chain.detect.step(0.0) and number in chain.engine.given


def steps():
    """So many steps, with a moment for the threads of the links now and then."""
    for number in range(TOO_LONG):
        if number % 100 == 99:
            time.sleep(0.001)
        yield number


def until(is_so) -> None:
    for _ in steps():
        if is_so():
            return
    raise AssertionError("it never happened")


def test_a_camera_uses_no_prediction_that_is_too_old(stack):
    chain = Chain(stack, waits=False)
    chain.meet()
    for number in range(8):
        chain.frames.send(frame_of(number))
        settle(chain)
    for number in (7 + MOST_AGE, 8 + MOST_AGE):
        chain.frames.send(frame_of(number))
        until(detected(chain, number))
    assert [chain.engine.ages()[7 + MOST_AGE + more] for more in (0, 1)] == [MOST_AGE, None]


def test_a_tracker_that_is_gone_leaves_the_detector_without_predictions_and_that_is_said_once(stack):
    chain = Chain(stack)
    chain.meet()
    for number in range(12):
        chain.frames.send(frame_of(number))
    settle(chain)
    chain.predictions.close()
    for number in range(12, 30):
        chain.frames.send(frame_of(number))
    until(lambda: chain.detect.step(0.0) and chain.said)
    assert 29 not in chain.engine.given
    chain.clock.now_s += 1.01 * MEET_S
    until(lambda: (chain.detect.step(0.0), chain.track.step(0.0)) and 29 in chain.engine.given)
    assert chain.engine.given[29] is None
    assert len(chain.said) == 1
    assert "without the tracker's predictions" in chain.said[0]


def test_a_prediction_that_never_comes_holds_no_frame_back_for_ever(stack):
    chain = Chain(stack)
    chain.meet()
    chain.predictions.send = lambda _message, timeout_s=None: False  # lost on its way
    for number in range(12):
        chain.frames.send(frame_of(number))

    def turn() -> bool:
        chain.clock.now_s += UNANSWERED_S / 1000
        chain.detect.step(0.0)
        chain.track.step(0.0)
        return 11 in chain.engine.given

    until(turn)
    assert all(predicted is None for predicted in chain.engine.given.values())
    assert len(chain.said) == 1
    assert chain.track.counts()["predictions_skipped"] > 0


def test_a_detector_that_is_started_again_gets_predictions_again(stack):
    chain = Chain(stack, patience=3)
    chain.meet()
    for number in range(20):
        chain.frames.send(frame_of(number))
    until(lambda: (chain.detect.step(0.0), chain.track.step(0.0)) and 12 in chain.engine.given)
    address = chain.frames.address
    chain.detect.close()
    chain.frames_out.close()
    chain.frames_out = open_receiver(address)
    stack.callback(chain.frames_out.close)
    chain.engine = Moving()
    chain.detect = chain.detector(chain.engine)
    tracked = chain.run([frame_of(number) for number in range(20, 40)])
    assert tracked[-1] == 39
    first = min(chain.engine.given)
    assert 0 < first < 13
    assert all(chain.engine.given[n] is None for n in range(first, first + LAG))
    assert chain.engine.ages()[39] == LAG


def test_a_detector_that_uses_no_predictions_costs_the_tracker_nothing(stack):
    chain = Chain(stack)
    chain.choice.close()
    chain.detect = DetectStage(chain.frames_out, chain.engine, chain.found)
    chain.run([frame_of(n) for n in range(10)])
    assert "predictions" not in chain.track.counts()
    assert all(predicted is None for predicted in chain.engine.given.values())


def test_rows_that_are_not_numbers_are_left_out():
    info = FrameInfo("run", 3, 3, 0.0, 0, 0.0)
    table = np.ones((len(Predictions.COLUMNS), 5))
    table[Predictions.COLUMNS.index("x_um"), 1] = np.nan
    table[Predictions.COLUMNS.index("pp_z"), 2] = -1.0
    table[Predictions.COLUMNS.index("brightness"), 3] = np.nan
    table[Predictions.COLUMNS.index("kind"), 3] = np.nan
    table[0] = np.arange(5)
    np.testing.assert_array_equal(usable(Predictions(info, table)).track, [0, 3, 4])
