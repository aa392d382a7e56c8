"""The session's front: whatever comes from outside gets an answer, and only who holds the run's secrets gets in."""

import contextlib
import json
import math
import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_runs import card_of
from rich.console import Console
from small_run import small_experiment

from liveptv.cli.console import LiveLine, PlainConsole
from liveptv.cli.main import run_command_line
from liveptv.files import RunFiles
from liveptv.session.announcement import Announcement
from liveptv.session.events import EventLog, plain, read_events
from liveptv.session.run_card import cards_folder, read_card, write_card
from liveptv.workflows.run import run_experiment
from stream.commands import CommandClient, CommandServer
from stream.errors import ConfigurationError, LivePTVError, SourceError
from stream.links import open_receiver, open_sender
from stream.messages import Command, CommandKind, CommandReply, StageState, Status
from stream.monitor import MonitorPublisher, MonitorSubscriber
from stream.run_keys import Pass, RunKeys
from stream.security import Password, generate_keys, load_keys, new_keys
from stream.status import StatusSink, StatusSource
from stream.wire import encode
from tracking.trajectories.file import TrajectoryFile

RUN = "20260101-000000-abcdef"
ANYWHERE = "tcp://127.0.0.1:0"


@pytest.fixture(autouse=True)
def _own_cards(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVEPTV_RUNS", str(tmp_path / "runs"))


class World:
    """A front with a microscope that answers at length behind it, and the event log of both."""

    def __init__(self, tmp_path, **sections):
        self.keys = RunKeys.fresh()
        self.stops = []
        self.events = EventLog(tmp_path / "events.jsonl")
        self.announcement = Announcement(
            RUN, small_experiment(tmp_path, **sections), self.events, self.stops.append, self.keys
        )
        self.acquire = CommandServer(ANYWHERE, self.keys.curve)
        self.announcement.introduce({"acquire.commands": self.acquire.address}, None)
        self.client = CommandClient(
            self.announcement.card.commands, self.announcement.card.steering.security()
        )

    def answer_to(self, parts, until_s=20.0):
        """Send a message as it is, and let everybody work until there is an answer."""
        socket, due_s = self.client._endpoint.socket, time.monotonic() + until_s
        socket.send_multipart(parts)
        while not socket.poll(0):
            assert time.monotonic() < due_s
            self.work()
        return socket.recv_multipart()

    def work(self):
        self.announcement.poll()
        for request in self.acquire.poll():
            reason = f"refused: {request.command.value!r} " + "because " * 20_000
            request.reply(CommandReply(request.command.command_id, False, reason=reason))

    def close(self):
        self.client.close()
        self.announcement.close()
        self.acquire.close()
        self.events.close()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("mode", ["off", "events"])
def test_a_request_for_an_event_goes_to_the_recorder_or_is_refused_with_the_reason(tmp_path, mode):
    made = World(tmp_path, record={"mode": mode})
    recorder = CommandServer(ANYWHERE, made.keys.curve)
    try:
        if mode == "events":
            made.announcement.introduce({"record.requests": recorder.address}, None)
        command = Command(CommandKind.RECORD, 20.0, property="a bubble", sender="a program")
        made.client.send(command)
        until_s, replies = time.monotonic() + 240, []
        while not replies:
            assert time.monotonic() < until_s
            made.work()
            for request in recorder.poll():
                assert request.command == command
                request.reply(CommandReply(command.command_id, True, 41))
            replies = made.client.replies()
        (reply,) = replies
        (line,) = [event["text"] for event in read_events(made.events.path) if event["kind"] == "wish"]
        if mode == "off":
            assert not reply.accepted
            assert "set record.mode" in reply.reason
        else:
            assert reply.first_frame == 41
            assert line == "a program: record and 20 s after it (a bubble): kept from frame 41 on"
            made.announcement.record_lost()
            made.client.send(replace(command, command_id="another"))
            while not (replies := made.client.replies()):
                assert time.monotonic() < until_s
                made.work()
            assert "recorder of this run was lost" in replies[0].reason
    finally:
        recorder.close()
        made.close()


ODD = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.sampled_from(
        ["\x1b[2J" * 100, "\x00" * 4096, "\N{BOMB}" * 5000, "x" * 60_000, "a\u2028b\x85c", "{", "[" * 2000]
    ),
)
VALUES = st.one_of(st.none(), ODD, st.floats(allow_nan=False, allow_infinity=False))


def test_every_command_of_any_length_gets_an_answer_and_its_line_in_the_log(world):
    number = iter(range(10**6))

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(CommandKind), VALUES, ODD, ODD, ODD, st.floats())
    def ask(kind, value, device, name, sender, at_time_s):
        command = Command(
            kind, value, device, name, sender=sender, at_time_s=at_time_s, command_id=str(next(number))
        )
        try:
            parts = encode(command)
        except LivePTVError:
            return  # longer than a message can be
        assert command.command_id.encode() in world.answer_to(parts)[0]

    ask()
    world.answer_to(encode(Command(CommandKind.MARK, "\x1b[2J" * 1000)))
    events = read_events(world.events.path)
    assert any(event["kind"] == "mark" for event in events)
    assert all("\x1b" not in event["text"] for event in events)
    for change in (
        {"sender": "s" * 10_000},
        {"device": "d" * 10_000},
        {"value": "v" * 30_000},
        {"at_time_s": 1e300},
    ):
        odd = replace(Command(CommandKind.STOP, "enough"), **change)
        assert b'"accepted":true' in world.answer_to(encode(odd))[0]
    assert len(world.stops) >= 4
    assert all(len(reason) < 1000 for reason in world.stops)


@pytest.mark.parametrize("length", [40_000, 65_000])
def test_a_reason_to_stop_of_any_length_stops(world, length):
    command = Command(CommandKind.STOP, "")
    header = encode(command)[0].replace(b'"value":""', b'"value":"%s"' % (b"x" * length))
    assert b'"accepted":true' in world.answer_to([header, b""])[0]
    assert len(world.stops) == 1


def test_a_fault_of_our_own_is_answered_and_noted_and_ends_nothing(world):
    def fails(reason):
        raise RuntimeError("a bug")

    world.announcement._on_stop = fails
    world.answer_to(encode(Command(CommandKind.STOP)))
    world.answer_to(encode(Command(CommandKind.MARK, "later")))
    assert any("a bug" in event["text"] for event in read_events(world.events.path))


# --- who gets in


def strangers(own):
    """What somebody without the secrets may try: nothing, other keys, a guess, keys of his own for the server."""
    return [None, new_keys(), Password("guess"), replace(new_keys(), server_public=own.curve.server_public)]


def test_nobody_without_the_secrets_of_a_run_commands_reports_or_listens():
    keys = RunKeys.fresh()
    server, sink = CommandServer(ANYWHERE, keys.curve), StatusSink(ANYWHERE, keys.curve)
    monitor = MonitorPublisher(ANYWHERE, run_id="r", source="t", security=keys.password)
    shm = open_sender(
        "shm://127.0.0.1:0",
        run_id="r",
        source="t",
        slot_bytes=64,
        security=keys.link("shm://127.0.0.1:0", "detect"),
    )
    tcp = open_sender(
        ANYWHERE, run_id="r", source="t", slot_bytes=64, security=keys.link(ANYWHERE, "acquire")
    )
    status = Status("r", "acquire", StageState.DONE)
    with ExitStack() as stack:
        ends = []
        for security in strangers(keys):
            ends += [CommandClient(server.address, security), StatusSource(sink.address, security)]
            stack.callback(ends[-1].close)
            stack.callback(ends[-2].close)
            ends[-2].send(Command(CommandKind.STOP))
            ends[-1].send(status)
            viewer = MonitorSubscriber(monitor.address, security=security)
            receivers = [open_receiver(link.address, security=security) for link in (shm, tcp)]
            for end in (viewer, *receivers):
                stack.callback(end.close)
        for _ in range(30):
            monitor.publish(status)
            assert server.poll() == []
            assert viewer.receive(0.01) is None
            assert all(receiver.receive(0.01) is None for receiver in receivers)
        assert sink.receive(0.1) is None
        friend = CommandClient(server.address, keys.commander.security())
        report = StatusSource(sink.address, keys.curve)
        friend.send(Command(CommandKind.STOP))
        report.send(status)
        until_s = time.monotonic() + 120
        while not (taken := server.poll()):
            assert time.monotonic() < until_s
        assert len(taken) == 1
        assert sink.receive(240.0) == status
        friend.close()
        report.close()
    for end in (server, sink, monitor, shm, tcp):
        end.close()


def listening_ports():
    found = psutil.Process().net_connections(kind="tcp")
    return {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}


def test_a_stranger_at_every_socket_of_a_run_changes_nothing(tmp_path):
    """Orders, forged reports and heartbeats, hellos of a false consumer, subscriptions and noise."""
    sent = []

    @contextmanager
    def beside(card):
        before = listening_ports() - ports_before
        stop = threading.Event()

        def attack():
            while not read_card(card).complete:
                time.sleep(0.05)
            context = zmq.Context()
            sockets = []
            for port in listening_ports() - ports_before | before:
                for kind in (zmq.DEALER, zmq.PUSH, zmq.REQ, zmq.SUB, zmq.ROUTER):
                    socket = context.socket(kind)
                    socket.linger = 0
                    if kind == zmq.SUB:
                        socket.subscribe(b"")
                    socket.connect(f"tcp://127.0.0.1:{port}")
                    sockets.append((kind, socket))
            orders = [
                encode(Command(CommandKind.STOP, "x")),
                encode(Command(CommandKind.SET_FLOW, 0.06)),
                encode(Command(CommandKind.HEARTBEAT)),
                encode(Status(card.stem, "acquire", StageState.FAILED, text="forged")),
                [b'{"htype":"liveptv.link-1.0","kind":"hello","receiver":"me","connection":1}'],
                [b"\x00" * 70_000, b"noise"],
            ]
            while not stop.wait(0.05):
                for kind, socket in sockets:
                    for order in orders:
                        if kind in (zmq.DEALER, zmq.PUSH):
                            with contextlib.suppress(zmq.Again):  # nobody takes it: it waits in this socket
                                socket.send_multipart(order, zmq.NOBLOCK)
                            sent.append(order)
                    assert not (kind in (zmq.SUB, zmq.DEALER) and socket.poll(0, zmq.POLLIN))
            for _, socket in sockets:
                socket.close(0)
            context.term()

        thread = threading.Thread(target=guarded(attack))
        thread.start()
        yield
        stop.set()
        thread.join(240)

    faults = []

    def guarded(work):
        def run():
            try:
                work()
            except Exception as error:  # noqa: BLE001 - told in the test's own thread
                faults.append(error)

        return run

    ports_before = listening_ports()
    limits = {"max_flow_ul_s": 0.06}
    experiment = small_experiment(tmp_path, frames=300, limits=limits, session={"mode": "threads"})
    files = RunFiles.beside(experiment.run.output)
    outcome = run_experiment(
        experiment, files, on_update=lambda _: None, on_note=lambda _: None, beside=beside
    )
    assert not faults
    assert sent
    assert outcome.result.ok
    assert outcome.frames == 300
    with TrajectoryFile(files.tracks) as file:
        assert len(set(file.frames["flow_ul_s"].tolist())) == 1
    assert not any("forged" in event["text"] for event in read_events(files.events))


@pytest.mark.skipif(os.name != "posix", reason="on Windows the user's profile is closed to others")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_card_of_a_run_is_read_by_its_user_only(tmp_path, umask, monkeypatch):
    before = os.umask(umask)
    try:
        path = tmp_path / "new" / "runs" / "a.json"
        card = card_of(steering=Pass(secret="s"))
        write_card(path, card)
        write_card(path, card)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert read_card(path) == card
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SourceError, match="another user"):
        read_card(path)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights on Windows")
def test_a_link_laid_where_the_card_goes_is_replaced_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "a.json").symlink_to(victim)
    write_card(tmp_path / "a.json", card_of())
    assert victim.read_text() == "mine"
    assert not (tmp_path / "a.json").is_symlink()


def test_the_secrets_of_a_run_are_in_no_log_and_no_repr(world):
    secrets = [
        world.keys.password.secret,
        world.keys.curve.client_secret.decode(),
        world.keys.curve.server_secret.decode(),
    ]
    text = (
        world.events.path.read_text() + repr(world.keys) + repr(world.keys.password) + repr(world.keys.curve)
    )
    assert not any(secret in text for secret in secrets)
    assert secrets[1] in (cards_folder() / f"{RUN}.json").read_text()
    assert secrets[2] not in (cards_folder() / f"{RUN}.json").read_text()


def test_a_monitor_with_keys_lets_in_their_holders_and_the_viewers_of_its_own_user(tmp_path):
    folder = tmp_path / "keys"
    guests = generate_keys(folder)
    keys = RunKeys.fresh(folder)
    publisher = MonitorPublisher(
        ANYWHERE, run_id="r", source="t", security=keys.monitor("tcp://0.0.0.0:5555")
    )
    doors = {
        "guest": replace(guests, server_secret=b""),
        "own": keys.viewer_of_monitor("tcp://0.0.0.0:5555").security(),
        "stranger": replace(new_keys(), server_public=guests.server_public),
        "nothing": None,
    }
    got = {}
    for name, door in doors.items():
        viewer = MonitorSubscriber(publisher.address, security=door)
        until_s = time.monotonic() + (120 if name in {"guest", "own"} else 1)
        while name not in got and time.monotonic() < until_s:
            publisher.publish(Status("r", "t", StageState.RUNNING))
            if viewer.receive(0.02) is not None:
                got[name] = True
        viewer.close()
    publisher.close()
    assert set(got) == {"guest", "own"}


def test_an_address_of_another_machine_is_refused_without_keys_and_says_how_to_make_them(tmp_path):
    with pytest.raises(ConfigurationError, match=r"liveptv keys make.*session.keys"):
        small_experiment(tmp_path, session={"monitor": "tcp://0.0.0.0:5555"})
    with pytest.raises(ConfigurationError, match="liveptv keys make"):
        RunKeys.fresh(tmp_path / "nowhere")
    generate_keys(tmp_path / "keys")
    (tmp_path / "keys" / "server.key_secret").unlink()
    with pytest.raises(ConfigurationError, match="key_secret is missing"):
        RunKeys.fresh(tmp_path / "keys")


def test_keys_are_made_from_the_command_line_and_what_misses_is_said_in_one_line(tmp_path, capsys):
    folder = tmp_path / "keys"
    assert run_command_line(["keys", "make", str(folder)]) == 0
    assert "session" in capsys.readouterr().out
    assert load_keys(folder).server_secret
    assert run_command_line(["keys"]) == 2
    shown = capsys.readouterr()
    assert "make" in shown.out  # the help
    assert not shown.err
    for arguments, status, why in (
        (["keys", "make", str(folder)], 1, "already contains keys"),
        (["monitor", "--keys", str(folder)], 1, "no run is active"),
        (["monitor", "20260101-a", "--keys", str(folder)], 2, "needs the address of a monitor"),
        (["monitor", "tcp://127.0.0.1:9", "--text", "--keys", str(tmp_path)], 2, "no server.key"),
        (["monitor", "tcp://10.1.2.3:9", "--text"], 2, "liveptv keys make"),
    ):
        assert run_command_line(arguments) == status, arguments
        assert why in " ".join(capsys.readouterr().err.split())


# --- the event log, and what is shown of it


def test_events_of_many_writers_are_whole_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    logs = [EventLog(path) for _ in range(3)]
    text = "x" * 20_000

    def write(log, number):
        for index in range(100):
            log.write("note", f"{number} {index} {text}", facts=[text])

    threads = [threading.Thread(target=write, args=(log, n)) for n, log in enumerate((*logs, *logs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    assert len(read_events(path)) == 600
    assert len(path.read_bytes().splitlines()) == 600


class Foreign:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "odd",
    ["half \ud800", "\x1b]0;title\x07", "a\x85b\u2028c", Foreign(), {1: {2: math.nan}}, 10**400, b"\xff",
     {"\ud800": 1}, Path("a"), [[[[]]]], (1, 2), complex(1, 2)],
)  # fmt: skip
def test_an_event_of_any_content_is_one_line_and_the_next_one_too(tmp_path, odd):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.write("note", str(odd) if isinstance(odd, str) else "text", facts=odd, settings={"deep": [odd]})
        log.write("note", "next")
    events = read_events(tmp_path / "events.jsonl")
    assert [event["kind"] for event in events] == ["note", "note"]
    assert not {"\x1b", "\x07", "\x85", "\u2028"} & set(events[0]["text"])
    json.dumps(plain(odd))


def test_a_full_disk_loses_events_says_so_and_ends_nothing(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    real, room = os.write, [10**6]

    def write(file, data):
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        data = data[: room[0]]
        room[0] -= len(data)
        return real(file, data)

    monkeypatch.setattr("liveptv.session.events.os.write", write)
    with EventLog(path) as log:
        log.write("note", "first")
        room[0] = 20
        log.write("note", "torn")
        log.write("note", "lost")
        room[0] = 10**6
        log.write("note", "back")
    assert [event["text"] for event in read_events(path)] == [
        "first",
        "2 events before this could not be written",
        "back",
    ]


def test_no_text_acts_on_the_terminal(capsys):
    text = "\x1b[2J\x1b]0;owned\x07 \x9b31m stop \u202e gone [bold]not bold[/]"
    for console in (
        PlainConsole(highlight=False),
        PlainConsole(highlight=False, force_terminal=True, width=200),
    ):
        with console.capture() as capture:
            console.print(text.replace("[", r"\["), soft_wrap=True)
        shown = capture.get()
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
        assert "stop" in shown
    assert issubclass(PlainConsole, Console)
    assert isinstance(LiveLine(), LiveLine)


def test_a_status_of_a_stage_reaches_the_log_without_its_escape_sequences(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.write("note", "the camera says \x1b[31mhot\x1b[0m", sender="\x1b[2J")
    assert read_events(tmp_path / "events.jsonl")[0]["text"] == "the camera says ?[31mhot?[0m"
    assert msgspec.json.decode((tmp_path / "events.jsonl").read_bytes())["kind"] == "note"
