import time

import numpy as np
import pytest

from liveptv.session import snapshots
from liveptv.session.snapshots import SnapshotTaker
from stream.messages import Detections, Frame, FrameInfo
from stream.monitor import MonitorPublisher

DEADLINE_S = 120.0


@pytest.fixture
def publisher():
    publisher = MonitorPublisher("tcp://127.0.0.1:0", run_id="r", source="liveptv/detect")
    yield publisher
    publisher.close()


def publish(publisher, number):
    info = FrameInfo("r", number, number, number / 10, 0, 0.0)
    publisher.publish(Frame(info, np.zeros((4, 4), np.uint8)))
    publisher.publish(Detections.empty(info))


def until(condition, act):
    deadline_s = time.monotonic() + DEADLINE_S
    number = 0
    while not condition():
        assert time.monotonic() < deadline_s
        act(number)
        number += 1
        time.sleep(0.005)


def test_the_image_and_the_detections_of_one_frame_are_kept_and_nothing_is_asked_for_until_later(
    publisher, monkeypatch
):
    taker = SnapshotTaker(publisher.address)

    def go_on(number):
        publish(publisher, number)
        taker.poll()

    until(lambda: taker.best, go_on)
    first = taker.best
    assert first.frame.info == first.detections.info
    until(lambda: not publisher._topics, go_on)
    assert taker.best is first
    monkeypatch.setattr(snapshots.time, "monotonic", later(snapshots.PERIOD_S))
    until(lambda: taker.best is not first, lambda number: go_on(1000 + number))
    taker.close()


def later(seconds, clock=time.monotonic):
    return lambda: clock() + seconds
