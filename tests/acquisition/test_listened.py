"""A run takes frames from programs that know only the documented format, over real sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from acquisition.listened.listened import Listened, open_listened
from acquisition.source_settings import SourceSettings
from stream.errors import ConfigurationError, SourceError
from stream.messages import Frame
from stream.security import generate_keys

PATIENCE_S = 240.0


class Sender:
    """Another program: a plain socket of pyzmq."""

    def __init__(self, address: str, kind: int = zmq.PUSH, *, binds: bool = False) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.linger = 2000
        if binds:
            port = self.socket.bind_to_random_port("tcp://127.0.0.1")
            self.address = f"tcp://127.0.0.1:{port}"
        elif address:
            self.socket.connect(address)

    def send(self, number: int, size: int = 16, **fields: Any) -> None:
        pixels = np.full((size, 24), number % 256, np.uint8)
        self.raw(pixels.tobytes(), frame=number, shape=pixels.shape, **fields)

    def end(self, **fields: Any) -> None:
        self.raw(b"", shape=[0], **fields)

    def raw(self, payload: bytes, **fields: Any) -> None:
        header = {"htype": "array-1.0", "type": "uint8"} | fields
        self.socket.send_multipart([json.dumps(header).encode(), payload])

    def close(self) -> None:
        self.context.destroy(linger=2000)


class Opening:
    """Opens a source in a thread, because it waits for the first frame; knows what was said, and the address."""

    def __init__(self, **options: Any) -> None:
        self.said: list[str] = []
        settings = SourceSettings(**options.pop("settings", {"listen": "tcp://127.0.0.1:0"}))
        self._opened: list[Listened | BaseException] = []
        self.abandoned = threading.Event()

        def work() -> None:
            try:
                self._opened.append(
                    open_listened(
                        settings,
                        run_id="run",
                        say=self.said.append,
                        is_abandoned=self.abandoned.is_set,
                        **{"keeps_early": True, **options},
                    )
                )
            except BaseException as error:  # noqa: BLE001 - it is raised again by `opened`
                self._opened.append(error)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        until(lambda: bool(self.said))
        return self.said[0].split()[2].rstrip(":")

    def opened(self) -> Listened:
        until(lambda: bool(self._opened))
        found = self._opened[0]
        if isinstance(found, BaseException):
            raise found
        return found


def until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def read(source: Listened, count: int) -> list[Frame]:
    frames: list[Frame] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while len(frames) < count:
        assert time.monotonic() < deadline_s, f"only {len(frames)} frames, {source.counts()}"
        frame = source.read(0.05)
        if frame is not None:
            frames.append(frame)
    return frames


@contextmanager
def listening(**options: Any) -> Iterator[tuple[Listened, Sender, Opening]]:
    """A source with a sender that has sent frame 0, which was not read yet."""
    opening = Opening(**options)
    sender = Sender(opening.address)
    sender.send(0, info={"pixel_size_um": 0.5, "time_s": 100.0})
    source = opening.opened()
    try:
        source.start()
        yield source, sender, opening
    finally:
        sender.close()
        source.close()


def test_frames_of_the_minimal_format_arrive_with_their_pixels() -> None:
    with listening() as (source, sender, _):
        for number in range(1, 20):
            sender.send(number)
        frames = read(source, 20)
        assert (source.info.height, source.info.width, source.info.dtype) == (16, 24, "uint8")
        assert source.info.pixel_size_um == 0.5
        for number, frame in enumerate(frames):
            assert (frame.info.frame, frame.info.camera_frame) == (number, number)
            assert (frame.image == number).all()
        times = [frame.info.time_s for frame in frames]
        assert times == sorted(set(times))
        sender.end(frame=21)
        until(lambda: source.ended)
        assert source.counts()["lost_at_sender"] == 2


def test_pixel_size_and_rate_of_the_user_take_precedence() -> None:
    settings = {"listen": "tcp://127.0.0.1:0", "pixel_size_um": 0.25, "frame_rate_hz": 50}
    with listening(settings=settings) as (source, sender, _):
        sender.send(4)
        first, second = read(source, 2)
        assert (first.info.pixel_size_um, second.info.time_s) == (0.25, pytest.approx(0.08))


def test_without_any_information_what_is_assumed_is_said() -> None:
    opening = Opening(model_pixel_size_um=lambda: 0.7)
    sender = Sender(opening.address)
    sender.raw(bytes(6), shape=[2, 3])
    source = opening.opened()
    assert source.info.pixel_size_um == 0.7
    assert any("as in the model" in text for text in source.remarks)
    assert any("no numbers" in text for text in source.remarks)
    assert any("arrival" in text for text in source.remarks)
    sender.close()
    source.close()


@pytest.mark.parametrize(("kind", "socket"), [(zmq.PUB, "sub"), (zmq.PUSH, "pull")])
def test_a_program_that_binds_is_connected_to(kind: int, socket: str) -> None:
    sender = Sender("", kind, binds=True)
    opening = Opening(settings={"connect": sender.address, "socket": socket})
    stop = threading.Event()

    def go() -> None:
        for number in range(100_000):
            sender.send(number)
            if stop.wait(0.002):
                return

    thread = threading.Thread(target=go)
    thread.start()
    source = opening.opened()
    source.start()
    frames = read(source, 20)
    numbers = [frame.info.camera_frame for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 20))
    stop.set()
    thread.join()
    source.close()
    sender.close()


def test_a_sender_that_starts_again_goes_on_as_the_same_run() -> None:
    with listening() as (source, sender, opening):
        for number in range(1, 5):
            sender.send(number)
        read(source, 5)
        sender.close()
        again = Sender(opening.address)
        for number in range(3):
            again.send(number)
        frames = read(source, 3)
        again.close()
        assert [frame.info.camera_frame for frame in frames] == [5, 6, 7]
        assert [frame.info.frame for frame in frames] == [5, 6, 7]
        assert source.counts()["sender_restarts"] == 1
        assert any("began again" in text for text in opening.said)


def test_a_second_sender_is_refused_while_the_first_is_connected() -> None:
    with listening() as (source, sender, opening):
        read(source, 1)
        second = Sender(opening.address)
        for number in range(5):
            second.send(number)
        until(lambda: source.counts().get("second_sender", 0) == 5)
        sender.send(1)
        (frame,) = read(source, 1)
        assert frame.info.camera_frame == 1
        second.close()


def test_frames_before_the_start_are_not_of_a_live_run() -> None:
    opening = Opening(keeps_early=False)
    sender = Sender(opening.address)
    for number in range(10):
        sender.send(number)
    source = opening.opened()
    until(lambda: source.counts().get("before_start", 0) == 9)
    source.start()
    sender.send(10)
    (frame,) = read(source, 1)
    assert (frame.info.frame, frame.info.camera_frame, frame.info.time_s) == (0, 10, 0.0)
    counts = source.counts()
    assert (counts["before_start"], counts["lost_at_sender"]) == (10, 0)
    sender.close()
    source.close()


def test_a_silent_sender_ends_the_run_only_if_that_was_asked_for() -> None:
    with listening(settings={"listen": "tcp://127.0.0.1:0", "quiet_s": 0.3}) as (source, _, opening):
        read(source, 1)
        until(lambda: source.ended)
        assert any("quiet_s" in text for text in opening.said)
    with listening(seconds=0.3) as (source, _, opening):
        read(source, 1)
        until(lambda: source.ended)


def test_the_wait_for_the_first_frame_can_be_ended() -> None:
    opening = Opening()
    opening.abandoned.set()
    with pytest.raises(SourceError, match="before a frame came"):
        opening.opened()
    with pytest.raises(SourceError, match="no frame came"):
        Opening(settings={"listen": "tcp://127.0.0.1:0", "quiet_s": 0.2}).opened()


def test_a_socket_of_another_kind_is_named_instead_of_waiting_in_silence() -> None:
    opening = Opening()
    wrong = Sender(opening.address, zmq.PUB)
    until(lambda: any("source.listen" in text for text in opening.said))
    wrong.close()
    sender = Sender(opening.address)
    sender.send(0)
    opening.opened().close()
    sender.close()


def test_an_address_in_use_is_refused_in_words() -> None:
    holder = Sender("", zmq.PULL, binds=True)
    with pytest.raises(SourceError, match="another program has it"):
        Opening(settings={"listen": holder.address}).opened()
    holder.close()


def test_other_computers_need_keys(tmp_path: Path) -> None:
    settings = {"listen": "tcp://0.0.0.0:0"}
    with pytest.raises(ConfigurationError, match="keys"):
        Opening(settings=settings).opened()
    keys = generate_keys(tmp_path / "keys")
    opening = Opening(settings=settings, security=keys)
    address = opening.address.replace("0.0.0.0", "127.0.0.1")
    stranger = Sender(address)
    stranger.send(0)
    friend = Sender("")
    keys.apply_client(friend.socket)
    friend.socket.connect(address)
    friend.send(5)
    source = opening.opened()
    source.start()
    (frame,) = read(source, 1)
    assert frame.info.camera_frame == 5
    source.close()
    friend.close()
    stranger.context.destroy(linger=0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "exactly one"),
        ({"listen": "tcp://127.0.0.1:0", "watch": "."}, "exactly one"),
        ({"listen": "inproc://frames"}, "tcp address"),
        ({"connect": "tcp://127.0.0.1:0"}, "port"),
        ({"listen": "tcp://127.0.0.1:0", "socket": "pull"}, "source.connect"),
        ({"listen": "tcp://127.0.0.1:0", "missing_s": 3}, "source.watch"),
        ({"watch": ".", "name": "a"}, "source.pattern"),
        ({"listen": "127.0.0.1:5560"}, "not an address"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SourceSettings(**settings)
