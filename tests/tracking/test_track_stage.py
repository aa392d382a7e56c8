import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pytest
from flows import channel_flow, info

from stream.errors import LinkError, PeerLostError
from stream.link import Policy
from stream.links import open_receiver, open_sender
from stream.messages import Detections, Frame, StageState, StreamEnd, Tracks
from stream.stage import Stage
from tracking.settings import TrackerSettings
from tracking.stage import TrackStage
from tracking.tracker import OnlineTracker


def link(stack: ExitStack, slots: int = 64, **more):
    address = f"inproc://{uuid.uuid4().hex}"
    sender = open_sender(address, run_id="run", source="test", slot_bytes=100_000, slots=slots, **more)
    stack.callback(sender.close)
    receiver = open_receiver(address)
    stack.callback(receiver.close)
    return sender, receiver


@contextmanager
def pipeline(consumers: int = 1, **more):
    """What feeds the stage, the stage, and the ends that receive its tracks."""
    with ExitStack() as stack:
        source, stage_end = link(stack)
        outputs = [link(stack, **(more if i else {})) for i in range(consumers)]
        stage = TrackStage(stage_end, OnlineTracker(TrackerSettings()), [sender for sender, _ in outputs])
        stack.callback(stage.close)
        yield source, stage, [receiver for _, receiver in outputs]


def particles(frame: int, count: int = 10, first: int = 0, **more) -> Detections:
    where = np.arange(first, first + count) * 20.0
    return Detections.from_columns(info(frame, **more), x_um=where, y_um=where)


def taken_at(monotonic_ns: int) -> Detections:
    found = particles(0)
    return replace(found, info=replace(found.info, monotonic_ns=monotonic_ns))


def receive_all(stage, receiver, limit_s: float = 240.0) -> list:
    """Step the stage to its end; returns all messages of the receiver."""
    messages = []
    deadline_s = time.monotonic() + limit_s
    while stage.step(0.01):
        assert time.monotonic() < deadline_s
        while (delivery := receiver.receive(0.0)) is not None:
            messages.append(delivery.message)
            delivery.done()
    return messages


def step_until(stage, condition, limit_s: float = 240.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s
        stage.step(0.01)


def test_every_frame_of_detections_becomes_one_of_tracks_and_the_end_is_passed_on():
    with pipeline() as (source, stage, (output,)):
        assert isinstance(stage, Stage)
        assert stage.state is StageState.STARTING
        for frame in range(5):
            source.send(particles(frame))
        source.end("enough")
        *tracks, end = receive_all(stage, output)
        assert [t.info.frame for t in tracks] == list(range(5))
        assert all(isinstance(t, Tracks) and len(t) == 10 for t in tracks)
        assert isinstance(end, StreamEnd)
        assert end.reason == "enough"
        assert stage.state is StageState.DONE
        counts = stage.counts()
        assert counts["received"] == counts["sent"] == 5
        assert counts["born"] == counts["ended"] == 10
        assert counts["rows"] == 50
        assert source.flush(240.0)
        assert not stage.step(0.01)


def test_its_gauges_say_what_goes_on_now():
    with pipeline() as (source, stage, _):
        source.send(particles(0))
        step_until(stage, lambda: stage.counts()["received"] == 1)
        gauges = stage.gauges()
        assert gauges["particles"] == gauges["tracks"] == 10
        assert gauges["step_ms"] > 0
        assert gauges["latency_ms"] > 0
        assert gauges["queue"] >= 0


def test_a_detector_that_repeats_itself_after_a_restart_changes_nothing():
    with pipeline() as (source, stage, (output,)):
        for frame in (0, 1, 2, 1, 2, 3):
            source.send(particles(frame))
        source.end()
        *tracks, _ = receive_all(stage, output)
        assert [t.info.frame for t in tracks] == [0, 1, 2, 3]
        assert stage.counts()["duplicates"] == 2
        assert stage.counts()["received"] == 4


def test_a_frame_lost_in_the_camera_and_a_frame_lost_on_the_way_are_told_apart():
    with pipeline() as (source, stage, (output,)):
        for frame, camera_frame in ((2, 2), (3, 3), (4, 6), (6, 8)):
            source.send(particles(frame, camera_frame=camera_frame))
        source.end()
        receive_all(stage, output)
        assert stage.counts()["missing_frames"] == 3
        assert stage.counts()["lost_in_camera"] == 2


def test_a_frame_is_acknowledged_only_after_its_tracks_were_taken():
    with pipeline() as (source, stage, (output,)):
        stage._main.close()
        source.send(particles(0))
        with pytest.raises(LinkError):
            step_until(stage, lambda: False)
        assert stage.state is StageState.FAILED
        assert source.account.acknowledged == 0
        assert not stage.step(0.0)
        assert output.receive(0.0) is None


def test_a_controller_that_takes_nothing_holds_up_neither_tracks_nor_end():
    with pipeline(2, slots=2, credits=1) as (source, stage, (output, _)):
        for frame in range(20):
            source.send(particles(frame))
        source.end()
        *tracks, _ = receive_all(stage, output)
        assert len(tracks) == 20
        assert stage.counts()["skipped"] >= 18


def test_a_lost_controller_costs_only_what_it_does_not_get():
    with pipeline(2, slots=2, credits=1) as (source, stage, (output, gone)):
        source.send(particles(0))
        step_until(stage, lambda: stage.counts()["received"] == 1)
        gone.close()
        for frame in range(1, 30):
            source.send(particles(frame))
        source.end()
        assert len(receive_all(stage, output)) == 31
        assert stage.counts()["sent"] == 30
        assert stage.counts()["skipped"] >= 27


def test_a_file_writer_that_never_comes_back_is_an_error_that_says_how_much_is_lost():
    with ExitStack() as stack:
        source, stage_end = link(stack)
        sender, receiver = link(stack)
        stage = TrackStage(stage_end, OnlineTracker(TrackerSettings()), [sender], drain_patience_s=0.3)
        stack.callback(stage.close)
        source.send(particles(0))
        step_until(stage, lambda: receiver.receive(0.01) is not None)
        receiver.close()
        source.send(particles(1))
        source.end()
        with pytest.raises(PeerLostError, match="3 messages did not reach it"):
            step_until(stage, lambda: False)
        assert stage.state is StageState.FAILED


def test_drops_by_the_policy_of_the_link_are_counted():
    with ExitStack() as stack:
        source, stage_end = link(stack)
        sender, _ = link(stack, slots=2, credits=1, policy=Policy.DROP_NEWEST)
        stage = TrackStage(stage_end, OnlineTracker(TrackerSettings()), [sender])
        stack.callback(stage.close)
        for frame in range(10):
            source.send(particles(frame))
        step_until(stage, lambda: stage.counts()["received"] == 10)
        assert stage.counts()["sent"] + stage.counts()["dropped"] == 10
        assert stage.counts()["dropped"] > 0


def test_predicted_rows_that_do_not_fit_into_a_message_are_left_out_and_counted():
    with ExitStack() as stack:
        source, stage_end = link(stack)
        sender, output = link(stack)
        stage = TrackStage(stage_end, OnlineTracker(TrackerSettings()), [sender], max_rows=12)
        stack.callback(stage.close)
        for frame in range(4):
            source.send(particles(frame))
        source.send(particles(4, first=7))
        source.end()
        *_, last, _ = receive_all(stage, output)
        assert len(last) == 12
        assert (last.detection >= 0).sum() == 10
        assert stage.counts()["rows_left_out"] == 5


def test_something_else_than_detections_is_refused_in_one_line():
    with pipeline() as (source, stage, _):
        source.send(Frame(info(0), np.zeros((4, 4), np.uint8)))
        with pytest.raises(LinkError, match="was sent Frame"):
            step_until(stage, lambda: False)


def test_without_a_consumer_there_is_no_tracking():
    with ExitStack() as stack:
        _, stage_end = link(stack)
        with pytest.raises(LinkError, match="no consumer"):
            TrackStage(stage_end, OnlineTracker(TrackerSettings()), [])


def test_no_track_goes_on_across_a_change_of_the_pixel_size():
    with pipeline() as (source, stage, (output,)):
        for frame in range(8):
            source.send(particles(frame, pixel_size_um=0.8 if frame < 5 else 0.4))
        source.end("enough")
        *tracks, _ = receive_all(stage, output)
        before, after = set(tracks[4].track.tolist()), set(tracks[5].track.tolist())
        assert not before & after
        assert stage.counts()["born"] == stage.counts()["ended"] == 20


def test_displacements_beyond_links_and_rows_left_out_are_said_once_and_counted() -> None:
    said: list[str] = []
    sequence = channel_flow(60, 2.0, 30, seed=0, plug=True, planar=True)
    most = max(len(found) for found in sequence.detections)
    with ExitStack() as stack:
        (source, stage_end), (sender, receiver) = link(stack), link(stack)
        tracker = OnlineTracker(TrackerSettings())
        stage = TrackStage(stage_end, tracker, [sender], max_rows=most, say=said.append)
        stack.callback(stage.close)
        messages = []
        for number, found in enumerate(sequence.detections, 1):
            source.send(found)
            step_until(stage, lambda number=number: stage.counts()["received"] == number)
            while (delivery := receiver.receive(0.0)) is not None:
                messages.append(delivery.message)
                delivery.done()
        counts = stage.counts()
    assert counts["unresolved"] > 0
    assert counts["rows_left_out"] > 0
    assert sorted("links can resolve" in text for text in said) == [False, True]
    assert [text for text in said if "raise detector.max_particles" in text]


@pytest.mark.parametrize("keeps_time", [True, False])
def test_tracks_know_how_old_they_are_unless_frames_come_without_a_clock(keeps_time):
    with ExitStack() as stack:
        source, stage_end = link(stack)
        output, receiver = link(stack)
        tracker = OnlineTracker(TrackerSettings())
        stage = TrackStage(stage_end, tracker, [output], keeps_time=keeps_time)
        stack.callback(stage.close)
        taken_ns = time.perf_counter_ns() - 10**8
        source.send(taken_at(taken_ns))
        source.end()
        (tracks, *_) = receive_all(stage, receiver)
        longest_ms = (time.perf_counter_ns() - taken_ns) / 1e6
        assert np.isnan(tracks.info.age_ms) != keeps_time
        assert not keeps_time or 100 <= tracks.info.age_ms <= longest_ms


def test_the_time_of_another_computer_gives_no_age():
    with pipeline() as (source, stage, (receiver,)):
        source.send(taken_at(time.perf_counter_ns() + 10**12))
        source.end()
        (tracks, *_) = receive_all(stage, receiver)
        assert np.isnan(tracks.info.age_ms)
