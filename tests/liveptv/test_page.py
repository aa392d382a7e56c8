import contextlib
import itertools
import json
import re
import socket as sockets
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_runs import browser, messages_of, packets, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus

from liveptv.monitor import connection_limit as gate
from liveptv.monitor import server
from liveptv.monitor.process import Page
from liveptv.monitor.steering import RefusedCommandError, command_from
from stream.commands import CommandServer
from stream.errors import ConfigurationError
from stream.messages import CommandKind, CommandReply
from stream.monitor import MonitorPublisher
from stream.run_keys import RunKeys

PAGE = Path(server.__file__).with_name("page")


class Detector:
    """A detector that publishes 50 frames a second from a thread of its own."""

    def __init__(self):
        self.monitor = MonitorPublisher("tcp://127.0.0.1:0", run_id="r", source="liveptv/detect")
        self.frames = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self):
        while not self._stop.wait(0.02):
            frame, found, _ = messages_of(self.frames)
            self.monitor.publish(frame)
            self.monitor.publish(found)
            self.frames += 1

    def assert_goes_on(self):
        """It publishes while visitors hold what they hold; one that waited for them would not."""
        wanted, until_s = self.frames + 30, time.monotonic() + 120
        while self.frames < wanted:
            assert time.monotonic() < until_s
            time.sleep(0.01)

    def close(self):
        self._stop.set()
        self._thread.join()
        self.monitor.close()


@pytest.fixture
def detector():
    made = Detector()
    yield made
    made.close()


@pytest.fixture
def said():
    return []


@pytest.fixture
def page(detector, said):
    with serving(Page(detector.monitor.address, 0, said.append)) as made:
        yield made


def get(url, headers=None):
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def answered(url, limit_s=120):
    """The status of the page once it answers: for a moment after a flood it may refuse new connections."""
    until_s = time.monotonic() + limit_s
    while True:
        try:
            return get(url)[0]
        except OSError:
            assert time.monotonic() < until_s, "the page does not answer"
            time.sleep(gate.GRACE_S)


def packets_within(socket, seconds):
    received, until_s = 0, time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        while True:
            socket.recv(timeout=max(0.0, until_s - time.monotonic()))
            received += 1
    return received


def is_closed(socket):
    with contextlib.suppress(ConnectionClosed):
        for _ in range(50):
            socket.recv(timeout=120)
        return False
    return True


def test_a_browser_sees_one_image_after_the_other(page):
    with browser(page) as socket:
        pictures = (header["frame"] for header, _ in packets(socket) if "frame" in header)
        frames = list(itertools.islice(pictures, 5))
    assert frames == sorted(set(frames))
    assert len(frames) == 5


def test_a_browser_that_acknowledges_nothing_is_sent_no_more_than_its_credit(page):
    with browser(page) as socket:
        socket.recv(timeout=240)
        received = 1 + packets_within(socket, 1.5)
    assert received <= server.CREDITS + 1


def test_neither_ten_browsers_nor_silent_ones_slow_the_run(page, detector):
    with browser(page) as silent, browser(page):
        assert silent.recv(timeout=120)
        readers = [threading.Thread(target=read_for_a_while, args=(page,)) for _ in range(8)]
        for reader in readers:
            reader.start()
        detector.assert_goes_on()
        for reader in readers:
            reader.join()
        detector.assert_goes_on()


def read_for_a_while(page):
    with browser(page) as socket:
        for _ in zip(range(10), packets(socket), strict=False):
            pass


@pytest.mark.parametrize(("token", "why"), [("", "no token"), ("wrong", "wrong"), ("é", "wrong")])
def test_without_its_token_the_page_is_refused(page, said, token, why):
    address = page.url.partition("?")[0]
    code, text, _ = get(f"{address}?token={urllib.parse.quote(token)}")
    assert (code, why in text) == (403, True)
    with pytest.raises(InvalidStatus), browser(page, token=urllib.parse.quote(token)):
        pass
    assert "refused a connection" in said[0]


def test_another_site_cannot_use_the_page_through_a_viewers_browser(page):
    with pytest.raises(InvalidStatus), browser(page, origin="https://elsewhere.example"):
        pass
    address = page.url.partition("/?")[0]
    with browser(page, origin=address) as socket:
        assert socket.recv(timeout=120)


def test_a_foreign_name_that_leads_here_is_refused(page):
    code, text, _ = get(page.url, {"Host": "attacker.example"})
    assert code == 403
    assert "not this computer" in text


@pytest.mark.parametrize(
    "garbage", ["x" * 1_000_000, b"\x00" * 1_000_000, "{", "[]", '{"shown": "many"}', "[" * 3000, b"\xff\xfe"]
)
def test_garbage_ends_its_own_connection_and_nothing_else(page, garbage):
    with browser(page) as good, browser(page) as bad:
        bad.recv(timeout=120)
        bad.send(garbage)
        assert is_closed(bad)
        assert any("frame" in header for header, _ in packets(good))


@pytest.fixture
def room_for_connections():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if wanted < 2048:
        pytest.skip(f"this computer lets a process have only {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("words", [b"", b"GET /live HTTP/1.1\r\n"])
def test_of_a_thousand_connections_few_stay_open_and_no_viewer_is_disturbed(
    page, detector, said, room_for_connections, words
):
    place = page.url.removeprefix("http://").partition("/")[0].split(":")
    with browser(page) as socket, contextlib.ExitStack() as held:
        pictures = (header["frame"] for header, _ in packets(socket) if "frame" in header)
        before = next(pictures)
        for _ in range(1000):
            connection = sockets.create_connection((place[0], int(place[1])), timeout=120)
            held.callback(connection.close)
            with contextlib.suppress(OSError):
                connection.sendall(words)
        assert next(pictures) > before
        assert answered(page.url) == 200
        with browser(page) as late:
            assert late.recv(timeout=120)
        detector.assert_goes_on()
    assert len(page._server.server_state.connections) <= gate.MOST_CONNECTIONS
    assert any("200 connections are open already" in text for text in said)


def test_a_connection_that_asks_for_nothing_is_closed(page, said, monkeypatch):
    monkeypatch.setattr(gate, "FIRST_REQUEST_S", 0.2)
    place = page.url.removeprefix("http://").partition("/")[0].split(":")
    connection = sockets.create_connection((place[0], int(place[1])), timeout=120)
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""
    assert "no request within 0.2 s" in said[0]


def test_a_page_that_only_watches_answers_so_to_a_command(page):
    with browser(page) as socket:
        socket.send(json.dumps({"wish": {"kind": "set_flow", "value": 0.1}, "id": 7}))
        answer = next(header["answer"] for header, _ in packets(socket) if "answer" in header)
    assert (answer["to"], answer["accepted"]) == (7, False)
    assert "only watches" in answer["reason"]


def test_a_page_sends_only_commands_that_pages_may_send():
    assert command_from({"kind": "set_flow", "value": 0.02}).value == 0.02
    assert command_from({"kind": "stop"}).kind is CommandKind.STOP
    for request in ({"kind": "heartbeat"}, {"kind": "set_property", "value": 1}, {"kind": "explode"}, {},
                 {"kind": "set_flow"}, {"kind": "set_flow", "value": True}, {"kind": ["stop"]}):  # fmt: skip
        with pytest.raises(RefusedCommandError):
            command_from(request)


def test_the_page_contacts_no_other_host(page):
    _, _, headers = get(page.url)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "http" not in policy
    for path in PAGE.rglob("*"):
        if path.suffix not in {".html", ".css", ".js"}:
            continue
        text = re.sub(r"/\*!.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", text))
        assert not found, f"{path.name} names {found}"
        assert not re.search(r"eval\(|innerHTML|document\.write", text) or path.parent.name == "vendor"


def test_only_the_pages_own_files_are_served(page):
    address = page.url.partition("?")[0]
    assert get(f"{address}page.js")[0] == 200
    for name in ("../process.py", "%2e%2e/server.py", "vendor", "vendor/uPlot.LICENSE", "nothing.js"):
        assert get(address + name)[0] == 404


def test_a_port_that_is_taken_is_named(page, detector):
    port = int(re.search(r":(\d+)/", page.url)[1])
    with pytest.raises(ConfigurationError, match=f"port {port}"):
        Page(detector.monitor.address, port, print)


def place_of(page):
    host, _, port = page.url.removeprefix("http://").partition("/")[0].partition(":")
    return host, int(port)


@pytest.mark.parametrize(
    "request_of",
    [
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n",
        "PUT /page.js HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ],
)
def test_requests_whose_bodies_never_end_keep_no_viewer_out(page, request_of):
    host, port = place_of(page)
    with contextlib.ExitStack() as held:
        for _ in range(gate.MOST_CONNECTIONS + 50):
            connection = sockets.create_connection((host, port), timeout=120)
            held.callback(connection.close)
            with contextlib.suppress(OSError):
                connection.sendall(request_of.format(host=f"{host}:{port}").encode() + b"x" * 1000)
        assert answered(page.url) == 200
        with browser(page) as late:
            assert late.recv(timeout=120)
    assert len(page._server.server_state.connections) < 20


@pytest.mark.parametrize("text", ["[::1", "[bad", "[", "]", "[::1]]:80", "\x7f", "//"])
def test_a_malformed_host_or_origin_is_refused_not_stumbled_over(page, text):
    assert get(page.url, {"Host": text})[0] in {400, 403}
    assert get(page.url, {"Origin": text})[0] in {400, 403}
    assert get(page.url, {"Origin": f"http://{text}"})[0] in {400, 403}


REQUESTS_OF_ALL_KINDS = [
    {"kind": "mark", "value": "half \ud800"},
    {"kind": "mark", "value": float("nan")},
    {"kind": "set_flow", "value": float("nan")},
    {"kind": "set_flow", "value": 10**400},
    {"kind": "move_focus", "value": float("-inf")},
    {"kind": "set_exposure", "value": 1e308},
    {"kind": "control", "value": {"hold_flow": {"target_um_s": float("nan")}}},
    {"kind": "control", "value": {"\ud800": "\udfff" * 100}},
    {"kind": "mark", "value": {"a": ["\ud800", None, 1e400]}},
    {"kind": "mark", "value": "\x1b[2J" * 200},
    {"kind": "make_safe", "value": "\ud800"},
    {"kind": "\ud800"},
    {"kind": None},
]


def test_each_request_gets_an_answer_and_none_ends_the_steering(steered_page):
    page, taken = steered_page
    with browser(page) as socket:
        heard = packets(socket)
        for number, request in enumerate([*REQUESTS_OF_ALL_KINDS, {"kind": "make_safe"}]):
            socket.send(json.dumps({"wish": request, "id": number}))
            answer = next(header["answer"] for header, _ in heard if "answer" in header)
            assert answer["to"] == number
            assert answer["accepted"] or answer["reason"]
        assert answer["accepted"]
        for odd in ("\ud800", [1], {}, 1e300, 2**80):
            socket.send(json.dumps({"wish": {"kind": "trigger"}, "id": odd}))
            assert next(header["answer"] for header, _ in heard if "answer" in header)["to"] is None
    assert taken.count(CommandKind.MAKE_SAFE) == 2


@pytest.fixture
def steered_page(detector):
    """A page beside somebody who takes every command that gets to him."""
    keys = RunKeys.fresh()
    server, taken, stop = CommandServer("tcp://127.0.0.1:0", keys.curve), [], threading.Event()

    def serve():
        while not stop.wait(0.001):
            for request in server.poll():
                taken.append(request.command.kind)
                request.reply(CommandReply(request.command.command_id, True))

    thread = threading.Thread(target=serve)
    thread.start()
    with serving(Page(detector.monitor.address, 0, lambda _: None)) as made:
        made._listener.command_address, made._listener.steering = server.address, keys.commander.security()
        yield made, taken
    stop.set()
    thread.join()
    server.close()


PIECES = [
    b"GET / HTTP/1.1\r\n", b"POST /live HTTP/1.1\r\n", b"Host: [::1\r\n", b"Host: 127.0.0.1\r\n", b"\r\n", b"\x00",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Sec-WebSocket-Key: x\r\n", b"Sec-WebSocket-Version: 13\r\n",
    b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b"zz\r\n", b"GET /\xff HTTP/9.9\r\n",
    b"PRI * HTTP/2.0\r\n", b"GET /?token=%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"Origin: http://[bad\r\n",
    b"A" * 70_000,
]  # fmt: skip
REQUESTS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=8)


def test_no_bytes_end_the_page_or_reach_its_terminal(page, capfd):
    host, port = place_of(page)

    @settings(max_examples=150, deadline=None)
    @given(REQUESTS)
    def throw(pieces):
        with sockets.create_connection((host, port), timeout=120) as connection, contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(sockets.SHUT_WR)

    throw()
    assert get(page.url)[0] == 200
    with browser(page) as late:
        assert late.recv(timeout=120)
    assert "Traceback" not in capfd.readouterr().err
