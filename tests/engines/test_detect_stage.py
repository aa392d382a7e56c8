from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astigmatic import frame

from engines.engine import DetectionError, Engine, EngineInfo
from engines.factory import check_pixel_size, open_engine, pixel_size_of
from engines.settings import DetectorSettings
from engines.stage import DetectStage
from stream.errors import ConfigurationError
from stream.link import LinkAccount, PeerState
from stream.links import open_receiver, open_sender
from stream.messages import (
    Decisions,
    Detections,
    Frame,
    Message,
    Predictions,
    StageState,
    StreamEnd,
    StreamStart,
)

_names = itertools.count()
IMAGE = np.zeros((8, 8), np.uint8)


class Upstream:
    """A receiver whose sender has a ring of `credits` slots: nothing more comes until something is done."""

    def __init__(self, messages: list[Message], credits: int = 4) -> None:  # noqa: A002
        self.messages, self.credits = messages, credits
        self.address, self.peer, self.ended = "inproc://up", PeerState.CONNECTED, False
        self.taken = 0
        self.wanted: int | None = None
        self.done: list[int] = []

    @property
    def account(self) -> LinkAccount:
        return LinkAccount(received=self.taken, consumed=len(self.done))

    def receive(self, timeout_s: float) -> UpstreamDelivery | None:
        if self.taken == len(self.messages) or self.taken - len(self.done) >= self.credits:
            time.sleep(min(timeout_s, 0.001))
            return None
        if self.wanted is not None and isinstance(self.messages[self.taken], Frame):
            if not self.wanted:
                time.sleep(min(timeout_s, 0.001))
                return None
            self.wanted -= 1
        self.taken += 1
        return UpstreamDelivery(self, self.taken - 1)

    def want(self, more: int) -> None:
        self.wanted = more

    def close(self) -> LinkAccount:
        return self.account


class UpstreamDelivery:
    def __init__(self, upstream: Upstream, sequence: int) -> None:
        self.upstream, self.sequence = upstream, sequence

    @property
    def message(self) -> Message:
        return self.upstream.messages[self.sequence]

    def done(self) -> None:
        self.upstream.done.append(self.sequence)


class Downstream:
    """A sender whose receiver acknowledges when the test says so."""

    def __init__(self, *, refuse: Callable[[int], bool] = lambda _: False) -> None:
        self.address, self.peer = "inproc://down", PeerState.CONNECTED
        self.sent: list[Message] = []
        self.acknowledged = self.dropped = 0
        self.reason = ""
        self.refuse = refuse

    @property
    def account(self) -> LinkAccount:
        return LinkAccount(
            offered=len(self.sent) + self.dropped, acknowledged=self.acknowledged, dropped=self.dropped
        )

    @property
    def queued(self) -> int:
        return len(self.sent) - self.acknowledged

    def send(self, message: Message, timeout_s: float | None = None) -> bool:
        assert isinstance(message, Detections)
        if self.refuse(message.info.frame):
            self.dropped += 1
            return False
        self.sent.append(message)
        return True

    def end(self, reason: str = "done") -> None:
        self.reason = reason

    def flush(self, timeout_s: float) -> bool:
        return self.queued == 0

    def close(self) -> LinkAccount:
        return self.account


class Echo:
    """An engine that finds as many particles as the frame's number says, `lag` frames late."""

    info = EngineInfo("echo", "none", "cpu")

    def __init__(self, lag: int = 0) -> None:
        self.lag = lag
        self.waiting: deque[Frame] = deque()
        self.final = False

    @property
    def pending(self) -> int:
        return len(self.waiting)

    def warmup(self, height: int, width: int, dtype: np.dtype, depth: int = 1) -> None:
        pass

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        if frame.image.ndim != 2:
            raise DetectionError(f"frame {frame.info.frame} is a volume")
        self.waiting.append(frame)

    def results(self, timeout_s: float) -> list[Detections]:
        keep = 0 if self.final or timeout_s > 0 else self.lag
        found = []
        while len(self.waiting) > keep:
            info = self.waiting.popleft().info
            found.append(Detections.from_columns(info, x_um=np.zeros(info.frame)))
        return found

    def counts(self) -> dict[str, int]:
        return {"doubtful": 3}

    def close(self) -> None:
        pass


class Failing(Echo):
    """One that goes on after the frames in which it fails."""

    def __init__(self, fails: set[int], lag: int = 0) -> None:
        super().__init__(lag)
        self.fails, self.told = fails, list[int]()

    def results(self, timeout_s: float) -> list[Detections]:
        found = super().results(timeout_s)
        self.told += [d.info.frame for d in found if d.info.frame in self.fails]
        return [d for d in found if d.info.frame not in self.fails]

    def failed(self) -> list[int]:
        told, self.told = self.told, []
        return told

    def counts(self) -> dict[str, int]:
        return {"failed_frames": 99}


def frames(count: int) -> list[Message]:
    return [
        StreamStart("run", "test"),
        *(frame(number, IMAGE) for number in range(count)),
        StreamEnd("run", "test", count, 0, "stopped by the user"),
    ]


def step_until(stage: DetectStage, condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        stage.step(0.001)
    raise AssertionError("the stage did not get there")


def test_a_frame_is_acknowledged_only_after_its_detections_are() -> None:
    up, down = Upstream(frames(3), credits=10), Downstream()
    stage = DetectStage(up, Echo(), down)
    step_until(stage, lambda: len(down.sent) == 3)
    for _ in range(5):
        stage.step(0.001)
    assert up.done == [0]
    down.acknowledged = 2
    stage.step(0.001)
    assert up.done == [0, 1, 2]
    down.acknowledged = 3
    step_until(stage, lambda: stage.state is StageState.DONE)
    assert up.done == [0, 1, 2, 3, 4]
    assert down.reason == "stopped by the user"
    assert not stage.step(0.001)


@pytest.mark.parametrize("lag", [0, 1, 5])
@pytest.mark.parametrize("credits_", [1, 2, 8])
def test_a_ring_smaller_than_what_the_engine_holds_does_not_stop_the_stage(credits_: int, lag: int) -> None:
    up, down = Upstream(frames(30), credits=credits_), Downstream()
    stage = DetectStage(up, Echo(lag), down)

    def done() -> bool:
        down.acknowledged = len(down.sent)
        return stage.state is StageState.DONE

    step_until(stage, done)
    assert [m.info.frame for m in down.sent if isinstance(m, Detections)] == list(range(30))
    assert up.done == list(range(32))
    assert stage.counts() == {
        "received": 30,
        "sent": 30,
        "particles": sum(range(30)),
        "dropped": 0,
        "left_out_doubtful": 3,
    }


def test_a_frame_whose_detections_were_dropped_by_declaration_is_acknowledged_too() -> None:
    up, down = Upstream(frames(6), credits=10), Downstream(refuse=lambda number: number % 2 == 1)
    stage = DetectStage(up, Echo(), down)
    step_until(stage, lambda: stage.counts()["sent"] == 3 and stage.counts()["dropped"] == 3)
    stage.step(0.001)
    assert up.done == [0]
    down.acknowledged = 1
    stage.step(0.001)
    assert up.done == [0, 1, 2]
    down.acknowledged = 3
    step_until(stage, lambda: stage.state is StageState.DONE)
    assert len(up.done) == 8


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("credits_", [1, 4])
@pytest.mark.parametrize("fails", [{0}, {9}, {3, 4, 5}, set(range(10))])
def test_a_frame_in_which_the_detector_failed_is_acknowledged_in_its_turn_and_counted(
    fails: set[int], credits_: int, lag: int
) -> None:
    up, down = Upstream(frames(10), credits=credits_), Downstream()
    stage = DetectStage(up, Failing(fails, lag), down)

    def done() -> bool:
        down.acknowledged = len(down.sent)
        return stage.state is StageState.DONE

    step_until(stage, done)
    assert [m.info.frame for m in down.sent if isinstance(m, Detections)] == [
        n for n in range(10) if n not in fails
    ]
    assert up.done == list(range(12))
    assert stage.counts()["failed_frames"] == len(fails)
    assert stage.counts()["received"] == 10


def test_a_frame_in_which_the_detector_failed_waits_for_those_ahead_of_it() -> None:
    up, down = Upstream(frames(3), credits=10), Downstream()
    stage = DetectStage(up, Failing({1}), down)
    step_until(stage, lambda: len(down.sent) == 2)
    stage.step(0.001)
    assert up.done == [0]
    down.acknowledged = 1
    stage.step(0.001)
    assert up.done == [0, 1, 2]
    assert stage.counts()["failed_frames"] == 1


def test_a_frame_that_cannot_be_read_fails_the_stage_with_its_number() -> None:
    volume = frame(4, np.zeros((2, 8, 8), np.uint8))
    stage = DetectStage(Upstream([volume]), Echo(), Downstream())
    with pytest.raises(DetectionError, match="frame 4"):
        step_until(stage, lambda: False)
    assert stage.state is StageState.FAILED


def test_detections_are_no_input_of_a_detector() -> None:
    wrong = Detections.empty(frame(0, IMAGE).info)
    stage = DetectStage(Upstream([wrong]), Echo(), Downstream())
    with pytest.raises(DetectionError, match="was sent a Detections"):
        step_until(stage, lambda: False)


def test_monitors_get_every_detection_but_few_pictures() -> None:
    class Monitor:
        def __init__(self) -> None:
            self.published: list[Message] = []

        def publish(self, message: Message) -> None:
            self.published.append(message)

    monitor, down = Monitor(), Downstream()
    stage = DetectStage(Upstream(frames(50), credits=60), Echo(), down, monitor=monitor, monitor_hz=0.01)
    step_until(stage, lambda: len(down.sent) == 50)
    assert sum(isinstance(m, Detections) for m in monitor.published) == 50
    assert sum(isinstance(m, Frame) for m in monitor.published) == 1


def test_a_restarted_stage_gets_again_what_was_not_safe() -> None:
    messages = frames(5)
    up, down = Upstream(messages, credits=10), Downstream()
    killed = DetectStage(up, Echo(), down)
    step_until(killed, lambda: len(down.sent) == 5)
    down.acknowledged = 2
    killed.step(0.001)
    killed.close()
    again, rest = Upstream(messages[len(up.done) :], credits=10), Downstream()
    stage = DetectStage(again, Echo(), rest)

    def done() -> bool:
        rest.acknowledged = len(rest.sent)
        return stage.state is StageState.DONE

    step_until(stage, done)
    assert [m.info.frame for m in rest.sent if isinstance(m, Detections)] == [2, 3, 4]


def test_frames_pass_from_link_to_link_through_the_real_engine() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:64, :64]
    spot = 60 * np.exp(-((rows - 30) ** 2 + (columns - 20) ** 2) / 8)
    pictures = [np.rint(spot + rng.normal(100, 1, (64, 64))).astype(np.uint8) for _ in range(12)]
    with ExitStack() as stack:
        source = stack.enter_context(
            closing(
                open_sender(
                    f"inproc://detect-in-{next(_names)}", run_id="run", source="s", slot_bytes=4096, slots=4
                )
            )
        )
        out = stack.enter_context(
            closing(
                open_sender(
                    f"inproc://detect-out-{next(_names)}", run_id="run", source="d", slot_bytes=65536, slots=4
                )
            )
        )
        up = stack.enter_context(closing(open_receiver(source.address)))
        end = stack.enter_context(closing(open_receiver(out.address)))
        engine = stack.enter_context(
            closing(open_engine(DetectorSettings(workers=2), model=None, pixel_size_um=0.5))
        )
        found: list[Detections] = []

        def offer() -> None:
            for number, picture in enumerate(pictures):
                source.send(frame(number, picture))
            source.end()

        def consume() -> None:
            while not end.ended:
                delivery = end.receive(0.1)
                if delivery is not None:
                    if isinstance(delivery.message, Detections):
                        found.append(delivery.message)
                    delivery.done()

        threads = [threading.Thread(target=offer), threading.Thread(target=consume)]
        for thread in threads:
            thread.start()
        stage = DetectStage(up, engine, out)
        assert isinstance(engine, Engine)
        while stage.step(0.05):
            pass
        for thread in threads:
            thread.join()
        assert source.flush(240)
        assert source.account.acknowledged >= 12
        assert source.account.unacknowledged == 0
        assert up.ended
    assert [d.info.frame for d in found] == list(range(12))
    assert all(len(d) == 1 for d in found)
    assert np.mean([d.x_um[0] for d in found]) == pytest.approx(10, abs=0.02)
    assert stage.gauges()["detect_ms"] > 0


class Fitting(Echo):
    """An engine with a model of depths -60 to 60 um whose fit took nine of ten detections."""

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            "echo", "", "", details={"z_um": [-60.0, 60.0], "refine": {"refined": 9, "not_refined": 1}}
        )

    def results(self, timeout_s: float) -> list[Detections]:
        sigma_um = np.array([0.1, 0.2, 9.0])
        return [
            Detections.from_columns(found.info, x_um=np.zeros(3), sigma_x_um=sigma_um)
            for found in super().results(timeout_s)
        ]


def test_the_stage_tells_how_well_the_detections_fit_their_model() -> None:
    down = Downstream()
    stage = DetectStage(Upstream(frames(1), credits=10), Fitting(), down)
    step_until(stage, lambda: len(down.sent) == 1)
    counts, gauges = stage.counts(), stage.gauges()
    assert (counts["refined"], counts["not_refined"]) == (9, 1)
    assert (gauges["depth_min_um"], gauges["depth_max_um"], gauges["sigma_x_um"]) == (-60.0, 60.0, 0.2)
    assert "sigma_z_um" not in gauges


def frames_of_two_objectives() -> list[Message]:
    made = frames(10)
    return [
        Frame(replace(m.info, pixel_size_um=0.4), m.image)
        if isinstance(m, Frame) and m.info.frame >= 6
        else m
        for m in made
    ]


def test_another_objective_gets_an_engine_for_its_pixel_size_once_the_former_is_done() -> None:
    up, down = Upstream(frames_of_two_objectives(), credits=20), Downstream()
    engines, sizes = [Echo(lag=3), Echo(lag=3)], []

    def reopen(pixel_size_um: float, _is_replaced: bool) -> Engine:
        assert engines[0].pending == 0
        sizes.append(pixel_size_um)
        return engines[1]

    stage = DetectStage(up, engines[0], down, reopen=reopen)

    def done() -> bool:
        down.acknowledged = len(down.sent)
        return stage.state is StageState.DONE

    step_until(stage, done)
    assert sizes == [0.4]
    assert [m.info.frame for m in down.sent if isinstance(m, Detections)] == list(range(10))
    assert stage.counts()["left_out_doubtful"] == 6  # of both engines


def test_a_model_that_was_made_for_another_objective_ends_the_run_with_a_line() -> None:
    def reopen(_pixel_size_um: float, _is_replaced: bool) -> Engine:
        raise ConfigurationError("the pixel size is now 0.4 um, but model.onnx was made for 0.8 um")

    stage = DetectStage(Upstream(frames_of_two_objectives(), credits=20), Echo(), Downstream(), reopen=reopen)
    with pytest.raises(ConfigurationError, match=r"pixel size is now 0\.4 um"):
        step_until(stage, lambda: stage.state is StageState.DONE)
    assert stage.state is StageState.FAILED


def test_a_shipped_model_is_not_used_for_an_objective_that_it_was_not_made_for() -> None:
    model = Path(__file__).resolve().parents[2] / "liveptv" / "models" / "simulated.onnx"
    made_for_um = pixel_size_of(model)
    assert made_for_um is not None
    check_pixel_size(model, made_for_um)
    check_pixel_size(None, made_for_um / 2)
    with pytest.raises(ConfigurationError, match="go back to that objective"):
        check_pixel_size(model, made_for_um / 2)


def old(number: int, age_s: float) -> Frame:
    """A frame that was taken `age_s` ago."""
    made = frame(number, IMAGE)
    taken_ns = time.perf_counter_ns() - round(1e9 * age_s)
    return replace(made, info=replace(made.info, monotonic_ns=taken_ns))


def test_in_a_live_run_frames_that_have_grown_old_are_dropped_counted_and_acknowledged() -> None:
    messages = [old(0, 0.0), old(1, 30.0), old(2, 60.0), old(3, 0.0), StreamEnd("run", "test", 4, 0)]
    up, down = Upstream(messages, credits=10), Downstream()
    stage = DetectStage(up, Echo(), down, age_limit_ms=10_000.0)

    def done() -> bool:
        down.acknowledged = len(down.sent)
        return stage.state is StageState.DONE

    step_until(stage, done)
    assert [m.info.frame for m in down.sent if isinstance(m, Detections)] == [0, 3]
    assert up.done == [0, 1, 2, 3, 4]
    counts = stage.counts()
    assert (counts["received"], counts["sent"], counts["dropped_late"]) == (4, 2, 2)


def test_an_old_frame_is_not_acknowledged_before_the_detections_of_those_ahead_of_it() -> None:
    up, down = Upstream([old(0, 0.0), old(1, 30.0)], credits=10), Downstream()
    stage = DetectStage(up, Echo(), down, age_limit_ms=10_000.0)
    step_until(stage, lambda: stage.counts()["received"] == 2)
    for _ in range(5):
        stage.step(0.001)
    assert up.done == []
    assert "dropped_late" not in stage.counts()
    down.acknowledged = 1
    step_until(stage, lambda: up.done == [0, 1])
    assert stage.counts()["dropped_late"] == 1


def test_a_live_detector_asks_for_one_frame_at_a_time_and_for_no_more_than_it_works_on() -> None:
    class Slow(Echo):
        def results(self, timeout_s: float) -> list[Detections]:
            return super().results(0.0) if self.final else []

    engine = Slow()
    up, down = Upstream(frames(20), credits=100), Downstream()
    stage = DetectStage(up, engine, down, age_limit_ms=1e6)
    for _ in range(50):
        stage.step(0.0)
    assert stage.counts()["received"] == 2, "one at work, one that waits"
    engine.final = True

    def done() -> bool:
        down.acknowledged = len(down.sent)
        return stage.state is StageState.DONE

    step_until(stage, done)
    assert stage.counts()["sent"] == 20


def test_without_an_age_limit_every_frame_is_detected_however_old() -> None:
    up, down = Upstream([old(0, 100.0), old(1, 50.0)], credits=10), Downstream()
    stage = DetectStage(up, Echo(), down)
    step_until(stage, lambda: len(down.sent) == 2)
    assert up.wanted is None


def test_detections_say_which_engine_has_made_them_and_what_a_frame_says_itself_is_ignored() -> None:
    down = Downstream()
    said = Decisions(opened=9, replaced=True, predicted_from=1, learnt_from=0)
    given = [replace_info(message, decisions=said) for message in frames(4)]
    stage = DetectStage(Upstream(given, credits=10), Echo(), down, opened=65536)
    step_until(stage, lambda: len(down.sent) >= 4)
    made = [found.info.decisions for found in down.sent if isinstance(found, Detections)]
    assert made == [Decisions(opened=65536)] * 4


def test_a_replay_opens_an_engine_anew_where_the_run_did_and_another_back_end_where_one_had_failed() -> None:
    down, opened = Downstream(), []
    engines = [Echo(), Echo(), Echo()]

    def reopen(pixel_size_um: float, is_replaced: bool) -> Engine:
        opened.append((pixel_size_um, is_replaced))
        return engines[len(opened)]

    had = [Decisions(), Decisions(), Decisions(opened=65536), Decisions(opened=65536, replaced=True)]
    given = frames(4)
    given[1:5] = [replace_info(message, decisions=one) for message, one in zip(given[1:5], had, strict=True)]
    stage = DetectStage(Upstream(given, credits=10), engines[0], down, reopen=reopen, follows=True)
    step_until(stage, lambda: len(down.sent) >= 4)
    pixel_um = given[1].info.pixel_size_um
    assert opened == [(pixel_um, False), (pixel_um, True)]
    assert [found.info.decisions for found in down.sent if isinstance(found, Detections)] == had


def replace_info(message: Message, **values: object) -> Message:
    """The message with other values in its `FrameInfo`, if it is a frame."""
    if not isinstance(message, Frame):
        return message
    return Frame(replace(message.info, **values), message.image)
