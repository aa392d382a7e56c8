"""The monitor: it never waits for a viewer, and a viewer knows what it missed."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq
from wire_strategies import a_frame, same, some_detections

from stream import monitor
from stream.errors import ConfigurationError, LinkError
from stream.messages import Detections, Frame, FrameInfo, Message, StreamEnd, StreamStart
from stream.monitor import MonitorPublisher, MonitorSubscriber

ANYWHERE = "tcp://127.0.0.1:0"
EXAMPLE = Path(__file__).parents[2] / "examples" / "subscriber.py"


def publish_until(publisher: MonitorPublisher, message: Message, heard: Callable[[], object]) -> None:
    """A subscription takes a moment to reach the publisher."""
    deadline_s = time.monotonic() + 120
    while not heard():
        assert time.monotonic() < deadline_s
        publisher.publish(message)
        time.sleep(0.01)


def a_pair(*, latest: bool = False) -> tuple[MonitorPublisher, MonitorSubscriber]:
    """A publisher and a subscriber that has begun to receive and is up to date."""
    publisher = MonitorPublisher(ANYWHERE, run_id="run", source="test")
    subscriber = MonitorSubscriber(publisher.address, latest=latest)
    publish_until(publisher, a_frame(0), lambda: subscriber.receive(0.0))
    catch_up(publisher, subscriber)
    subscriber.gaps = 0
    return publisher, subscriber


def catch_up(publisher: MonitorPublisher, subscriber: MonitorSubscriber) -> None:
    """Receive what is on its way, to its end: that nothing comes for a while proves nothing on a slow machine."""
    deadline_s = time.monotonic() + 240
    for number in itertools.count(1000):
        assert time.monotonic() < deadline_s
        publisher.publish(a_frame(number))
        while (message := subscriber.receive(5.0)) is not None:
            if isinstance(message, Frame) and message.info.frame == number:
                return


def test_a_viewer_gets_images_and_tables_and_the_end() -> None:
    publisher, subscriber = a_pair()
    sent = [a_frame(7), some_detections(7), Detections.empty(a_frame(8).info)]
    for message in sent:
        publisher.publish(message)
        received = subscriber.receive(240.0)
        assert received is not None
        assert same(message, received)
    published = publisher.published
    publisher.close()
    end = subscriber.receive(240.0)
    assert end == StreamEnd("run", "test", published, 0)
    assert (subscriber.gaps, subscriber.malformed) == (0, 0)
    subscriber.close()


def test_a_viewer_that_comes_late_is_told_which_run_it_sees() -> None:
    publisher, subscriber = a_pair()
    newcomer = MonitorSubscriber(publisher.address)
    got: list[Message] = []

    def heard() -> bool:
        message = newcomer.receive(0.0)
        if message is not None:
            got.append(message)
        return bool(got)

    publish_until(publisher, a_frame(1), heard)
    assert got[0] == StreamStart("run", "test")
    for end in (newcomer, subscriber, publisher):
        end.close()


def test_a_viewer_that_does_not_read_never_holds_up_the_publisher_and_counts_what_it_missed() -> None:
    publisher, subscriber = a_pair()
    large = Frame(FrameInfo("run", 0, 0, 0.0, 0, 0.0), np.zeros((1000, 1000), np.uint8))
    for _ in range(200):  # a publisher that waited for the viewer would never come to the end
        publisher.publish(large)
    got, newest = 0, 0
    for number in itertools.count(200):
        publisher.publish(a_frame(number))  # lost too, as long as it is full
        while newest < 200 and (message := subscriber.receive(0.01)) is not None:
            assert isinstance(message, Frame)
            got, newest = got + 1, message.info.frame
        if newest >= 200:
            break
    assert 1 < got < 201
    assert subscriber.gaps == newest + 1 - got
    subscriber.close()
    publisher.close()


def test_messages_to_a_viewer_that_has_just_left_do_not_hold_up_the_end() -> None:
    for _ in range(40):
        publisher = MonitorPublisher(ANYWHERE, run_id="run", source="test")
        viewers = [MonitorSubscriber(publisher.address) for _ in range(2)]
        for viewer in viewers:
            publish_until(publisher, a_frame(), lambda viewer=viewer: viewer.receive(0.0))  # type: ignore[misc]
        for viewer in viewers:
            viewer.close()
        publisher.publish(a_frame())
        publisher.close()


def test_a_viewer_of_the_latest_ends_with_the_newest_and_counts_what_it_skipped() -> None:
    publisher, subscriber = a_pair(latest=True)
    skipped = subscriber.skipped
    received = 0
    for number in range(1, 6):
        publisher.publish(a_frame(number))
    newest = None
    while not isinstance(newest, Frame) or newest.info.frame < 5:
        newest = subscriber.receive(240.0)
        assert newest is not None
        received += 1
    assert subscriber.skipped == skipped + 5 - received
    assert subscriber.gaps == 0
    subscriber.close()
    publisher.close()


def test_a_restarted_publisher_is_not_taken_for_a_gap() -> None:
    publisher, subscriber = a_pair()
    for _ in range(50):
        publisher.publish(a_frame(1))
        assert subscriber.receive(240.0) is not None
    address = publisher.address
    publisher.close()
    assert isinstance(subscriber.receive(240.0), StreamEnd)
    again = MonitorPublisher(address, run_id="run", source="test")
    publish_until(again, a_frame(0), lambda: subscriber.receive(0.0))
    assert subscriber.gaps == 0
    subscriber.close()
    again.close()


def test_the_kind_of_message_can_be_chosen_by_subscribing_to_a_prefix() -> None:
    publisher, subscriber = a_pair()
    context = zmq.Context()
    tables = context.socket(zmq.SUB)
    tables.subscribe(b'{"htype":"array-1.0","source":"test/detections"')
    tables.connect(publisher.address)
    deadline_s = time.monotonic() + 120
    while not tables.poll(10):
        assert time.monotonic() < deadline_s
        publisher.publish(a_frame())
        publisher.publish(some_detections())
    assert b'"kind":"detections"' in tables.recv_multipart()[0]
    tables.close(0)
    context.term()
    subscriber.close()
    publisher.close()


def test_nonsense_from_a_subscriber_does_not_reach_the_publisher() -> None:
    publisher, subscriber = a_pair()
    context = zmq.Context()
    vandal = context.socket(zmq.XSUB)
    vandal.connect(publisher.address)
    for number in range(1000):
        vandal.send_multipart([b"\x02garbage", b"%d" % number] if number % 2 else [b"\x00" * 99])
    for number in range(20):
        publisher.publish(a_frame(number))
        assert subscriber.receive(240.0) is not None
    vandal.close(0)
    context.term()
    subscriber.close()
    publisher.close()


STALLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from wire_strategies import a_frame
from stream.monitor import MonitorPublisher, MonitorSubscriber

publisher = MonitorPublisher("tcp://127.0.0.1:0", run_id="run", source="test")
viewer = MonitorSubscriber(publisher.address)
for _ in range(3):
    for _ in range(150):
        publisher.publish(a_frame())
        time.sleep(0.01)
    while viewer.receive(0.2) is not None:
        pass
publisher.publish(a_frame(7))
assert viewer.receive(240.0) is not None
"""


def test_a_viewer_that_was_frozen_while_much_was_published_reads_on() -> None:
    """With heartbeats libzmq 4.3.5 cuts it off, and aborts its process when it reads again."""
    program = [sys.executable, "-c", STALLED, str(Path(__file__).parent)]
    assert subprocess.run(program, check=False, timeout=400).returncode == 0


VANDAL = """
import os, sys, time, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.sndhwm = 0
socket.connect(sys.argv[1])
for number in range(int(sys.argv[2])):
    socket.subscribe(os.urandom(int(sys.argv[3])))
print("subscribed", flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize(
    ("count", "size", "cut"), [(3, 1_000_000, 0), (3, 2000, 0), (20_000, 200, 1), (20_000, 40, 1)]
)
def test_subscriptions_of_any_size_and_number_cost_little_and_nobody_else_is_lost(
    count: int, size: int, cut: int
) -> None:
    publisher, subscriber = a_pair()
    process = psutil.Process()
    before = process.memory_info().rss
    vandal = subprocess.Popen(
        [sys.executable, "-c", VANDAL, publisher.address, str(count), str(size)], stdout=subprocess.PIPE
    )
    assert vandal.stdout is not None
    vandal.stdout.readline()
    most = published = 0
    deadline_s = time.monotonic() + 240
    while published < 150 or publisher.renewed < cut:
        assert time.monotonic() < deadline_s
        publisher.publish(a_frame())
        published += 1
        most = max(most, process.memory_info().rss - before)
        time.sleep(0.01)
    vandal.kill()
    vandal.communicate()
    while subscriber.receive(0.0) is not None:
        pass
    publish_until(publisher, a_frame(1), lambda: subscriber.receive(0.0))
    assert most < 200 * 2**20
    subscriber.close()
    publisher.close()


def test_a_publisher_whose_port_was_taken_while_it_renewed_goes_on_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "RENEW_S", 0.0)
    publisher, subscriber = a_pair()
    thief = None

    def taken(endpoint_close: Callable[[int], None], linger_ms: int) -> None:
        nonlocal thief
        endpoint_close(linger_ms)
        thief = MonitorPublisher(publisher.address, run_id="thief", source="thief")

    assert publisher._endpoint is not None
    close = publisher._endpoint.close
    monkeypatch.setattr(publisher._endpoint, "close", lambda linger_ms: taken(close, linger_ms))
    publisher._renew()
    publisher.publish(a_frame(2))
    assert thief is not None
    thief.close()
    publish_until(publisher, a_frame(3), lambda: isinstance(subscriber.receive(0.0), Frame))
    subscriber.close()
    publisher.close()


def test_a_port_in_use_is_said_in_one_line() -> None:
    publisher = MonitorPublisher(ANYWHERE, run_id="run", source="test")
    with pytest.raises(LinkError, match="cannot be opened"):
        MonitorPublisher(publisher.address, run_id="run", source="test")
    publisher.close()


@pytest.mark.parametrize(
    "address", ["", "tcp://", "127.0.0.1:5", "shm://127.0.0.1:0", "tcp://127.0.0.1:99999"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError):
        MonitorPublisher(address, run_id="run", source="test")


def test_a_viewer_needs_a_port() -> None:
    with pytest.raises(ConfigurationError, match="port"):
        MonitorSubscriber(ANYWHERE)


def test_a_closed_publisher_publishes_no_more() -> None:
    publisher = MonitorPublisher(ANYWHERE, run_id="run", source="test")
    publisher.close()
    publisher.close()
    with pytest.raises(LinkError, match="closed"):
        publisher.publish(a_frame())


def test_the_example_subscriber_reads_a_run_without_our_code(tmp_path: Path) -> None:
    publisher = MonitorPublisher(ANYWHERE, run_id="run-7", source="test")
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), publisher.address], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    publish_until(publisher, a_frame(), lambda: len(lines) > 2)
    publisher.publish(some_detections(9, 5))
    publisher.close()
    assert process.wait(120) == 0
    reader.join()
    process.stdout.close()
    assert lines[0] == "run run-7\n"
    assert "frame 3: image (4, 6), mean 11.5\n" in lines
    assert lines[-2:] == ["frame 9: 5 detections\n", "end: done\n"]


def test_nothing_is_encoded_for_a_kind_that_nobody_listens_to(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[type[Message]] = []
    encode = monitor.encode

    def counting(message: Message, *rest: Any, **more: Any) -> Any:
        encoded.append(type(message))
        return encode(message, *rest, **more)

    monkeypatch.setattr(monitor, "encode", counting)
    publisher = MonitorPublisher(ANYWHERE, run_id="run", source="test")
    publisher.publish(a_frame(0))
    assert encoded == []
    subscriber = MonitorSubscriber(publisher.address, source="test/detections")
    publish_until(publisher, some_detections(1), lambda: subscriber.receive(0.0))
    encoded.clear()
    publisher.publish(a_frame(2))
    publisher.publish(some_detections(3))
    assert encoded == [Detections]
    assert publisher.published >= 4
    subscriber.close()
    publisher.close()


def test_a_viewer_that_rests_gets_nothing_and_then_goes_on_without_a_gap() -> None:
    publisher, subscriber = a_pair()
    subscriber.pause()
    deadline_s = time.monotonic() + 120
    while publisher._topics:
        assert time.monotonic() < deadline_s
        publisher.publish(a_frame(1))
    while subscriber.receive(0.1) is not None:
        pass
    publisher.publish(a_frame(2))
    subscriber.resume()
    heard: list[int] = []

    def hears() -> bool:
        message = subscriber.receive(0.0)
        heard.extend([message.info.frame] if isinstance(message, Frame) else [])
        return 3 in heard

    publish_until(publisher, a_frame(3), hears)
    assert 2 not in heard
    assert subscriber.gaps == 0
    subscriber.close()
    publisher.close()
